import { pino } from 'pino';
import { describe, expect, test } from 'vitest';
import { createAgentShipping } from '../../src/agent-shipping.ts';
import type { AuditEvent, LossEvent, RefusalEvent } from '../../src/audit/event.ts';
import { MeshError } from '../../src/errors.ts';
import { statusOf } from '../../src/grpc/status.ts';
import { maxShippedEvents, readShipment, writeShipment } from '../../src/node/event-shipment.ts';
import { createEventShipper } from '../../src/node/event-shipper.ts';
import { createOwnIdentities } from '../../src/node/own-identities.ts';
import { SpiffeId } from '../../src/spiffe/id.ts';
import { EventBatch, type NodeClient } from '../../src/wire/node.ts';
import { allowedCalls, caller, connections, decision, noon, outcome, outcomes } from '../audit/events.ts';
import { manualClock, settle } from '../harness/manual-clock.ts';
import { attestedNode } from './node-certificates.ts';

const epoch = 'ab'.repeat(16);
const mine = 'spiffe://mesh.test/ns/a/sa/one';
const theirs = 'spiffe://mesh.test/ns/a/sa/two';
const shipper = { node: 'web-1', isOwn: (id: string) => id === mine, now: noon };

test('what a node ships is told under its name, whatever it says of its callers', () => {
  const broken = own({ breakGlass: 'it burns (INC-7)', sourceTbsSha256: '22'.repeat(32) });
  const counted = allowedCalls({ destination: mine, sourceTbsSha256: '22'.repeat(32) });
  const seen = [
    outcome({ destination: mine }),
    outcomes({ destination: mine }),
    connections({ destination: mine }),
  ];
  const lost: LossEvent = { ...loss(), what: 'access_log' };
  const events = [own(), broken, counted, ...seen, refusal(), loss(), lost];
  const { node, events: read } = readShipment(shipper, travelled(events));
  expect(node).toBe('web-1');
  expect(read).toEqual([
    { ...loss(), cause: 'node web-1: queue_full' },
    { ...lost, cause: 'node web-1: queue_full' },
    { ...own(), caller: { ...caller, node: 'web-1' } },
    { ...broken, caller: { ...caller, node: 'web-1' } },
    { ...counted, caller: { ...caller, node: 'web-1' } },
    ...seen.map((event) => ({ ...event, caller: { ...caller, node: 'web-1' } })),
    { ...refusal(), caller: { ...caller, node: 'web-1' } },
  ]);
});

test('an agent of before says nothing of what was lost: those were decisions', () => {
  const batch = travelled([loss()]);
  batch.losses[0]!.what = '';
  expect(readShipment(shipper, batch).events).toMatchObject([{ type: 'loss', what: 'decision' }]);
});

test('that a node with a clock of the future lost something is on record, as of now', () => {
  const later = new Date(noon.getTime() + 2 * 86_400_000);
  const lost = { ...loss(), time: later, from: noon, to: later };
  const { events } = readShipment(shipper, travelled([lost]));
  expect(events).toEqual([{ ...loss(), cause: 'node web-1: queue_full' }]);
});

test.each(['caller_unknown', 'destination_forged', 'engine_failed'])(
  'what a stranger claimed to be is told as what it claimed: %s',
  (reason) => {
    const claim = own({ verdict: 'deny', reason, destination: theirs });
    expect(readShipment(shipper, travelled([claim])).events).toHaveLength(1);
  },
);

test.each(['', '__proto__', 'x'.repeat(2_000)])('words of a node for why are ours, or other: %j', (word) => {
  const batch = travelled([own(), loss()]);
  [batch.decisions[0]!.reason, batch.losses[0]!.cause] = [word, word];
  const { events } = readShipment(shipper, batch);
  expect(events).toMatchObject([{ cause: 'node web-1: other' }, { reason: 'other' }]);
});

type Change = (batch: EventBatch) => void;
describe('a hostile agent is refused', () => {
  test.each<[string, string, Change]>([
    ['a decision of another workload', 'identity_none', (b) => (b.decisions[0]!.destination = theirs)],
    ['a decision of no workload', 'identity_none', (b) => (b.decisions[0]!.destination = '')],
    [
      'a call that it let in to another, as if a stranger had claimed it',
      'identity_none',
      (b) =>
        Object.assign(b.decisions[0]!, {
          verdict: 'allow',
          reason: 'caller_unknown',
          destination: theirs,
        }),
    ],
    ['a verdict that is none', 'message_invalid', (b) => (b.decisions[0]!.verdict = 'perhaps')],
    ['a decision of nobody', 'message_invalid', (b) => (b.decisions[0]!.caller = undefined)],
    ['a negative revision', 'message_invalid', (b) => (b.decisions[0]!.revision = -1n)],
    ['calls to another workload', 'identity_none', (b) => (b.allowedCalls[0]!.destination = theirs)],
    [
      'calls of nobody it knows, as if a stranger had claimed them',
      'identity_none',
      (b) => Object.assign(b.allowedCalls[0]!, { reason: 'caller_unknown', destination: '' }),
    ],
    ['a decision of a rule of its own', 'message_invalid', (b) => (b.decisions[0]!.rule = 'any')],
    [
      'a decision of a rule without end',
      'message_invalid',
      (b) => (b.decisions[0]!.rule = `a/${'b'.repeat(254)} rule[0]`),
    ],
    ['a decision over another protocol', 'message_invalid', (b) => (b.decisions[0]!.protocol = 'udp')],
    ['a decision about no SPIFFE ID', 'message_invalid', (b) => (b.decisions[0]!.source = 'anybody')],
    ['a decision of no digest', 'message_invalid', (b) => (b.decisions[0]!.sourceTbsSha256 = '2'.repeat(63))],
    ['calls by a rule of their own', 'message_invalid', (b) => (b.allowedCalls[0]!.rule = 'a/b rule[01]')],
    ['an outcome by a rule of its own', 'message_invalid', (b) => (b.outcomes[0]!.call!.rule = '*')],
    ['outcomes of no SPIFFE ID', 'message_invalid', (b) => (b.outcomeCounts[0]!.call!.source = '*')],
    ['calls that never happened', 'message_invalid', (b) => (b.allowedCalls[0]!.count = 0n)],
    ['calls beyond counting', 'message_invalid', (b) => (b.allowedCalls[0]!.count = 2n ** 62n)],
    ['calls that ended before they began', 'message_invalid', (b) => (b.allowedCalls[0]!.fromMs += 9_001n)],
    ['calls of the end of time', 'message_invalid', (b) => (b.allowedCalls[0]!.toMs = 2n ** 60n)],
    ['calls of before all time', 'message_invalid', (b) => (b.allowedCalls[0]!.fromMs = -(2n ** 60n))],
    ['calls of next year', 'message_invalid', (b) => (b.allowedCalls[0]!.toMs += BigInt(366 * 86_400_000))],
    [
      'too many events, half decisions and half counts',
      'message_too_large',
      (b) => {
        b.decisions = Array.from({ length: maxShippedEvents / 2 }, () => b.decisions[0]!);
        b.allowedCalls = Array.from({ length: maxShippedEvents / 2 }, () => b.allowedCalls[0]!);
      },
    ],
    ['an outcome at another workload', 'identity_none', (b) => (b.outcomes[0]!.call!.destination = theirs)],
    ['an outcome of nothing', 'message_invalid', (b) => (b.outcomes[0]!.call = undefined)],
    ['an outcome that is none', 'message_invalid', (b) => (b.outcomes[0]!.call!.outcome = 'perhaps')],
    [
      'an outcome with a method of its own',
      'message_invalid',
      (b) => (b.outcomes[0]!.call!.method = 'get x'),
    ],
    ['an outcome with flags of its own', 'message_invalid', (b) => (b.outcomes[0]!.call!.flags = 'U\u001b')],
    ['an outcome over another protocol', 'message_invalid', (b) => (b.outcomes[0]!.call!.protocol = 'udp')],
    [
      'an outcome of a decision that cannot be',
      'message_invalid',
      (b) => (b.outcomes[0]!.decisionId = 'a b'),
    ],
    [
      'an outcome of next year',
      'message_invalid',
      (b) => (b.outcomes[0]!.timeMs += BigInt(366 * 86_400_000)),
    ],
    ['outcomes at another workload', 'identity_none', (b) => (b.outcomeCounts[0]!.call!.destination = '')],
    ['outcomes that never were', 'message_invalid', (b) => (b.outcomeCounts[0]!.count = 0n)],
    ['outcomes with a status of its own', 'message_invalid', (b) => (b.outcomeCounts[0]!.statusClass = '2')],
    ['outcomes that took less than no time', 'message_invalid', (b) => (b.outcomeCounts[0]!.longestMs = -1n)],
    ['connections to another workload', 'identity_none', (b) => (b.connections[0]!.destination = theirs)],
    ['connections of no kind', 'message_invalid', (b) => (b.connections[0]!.kind = 'quic')],
    ['a claim told as an identity', 'message_invalid', (b) => (b.connections[0]!.source = mine)],
    ['a claim told as a serial', 'message_invalid', (b) => (b.connections[0]!.sourceSerial = '01')],
    ['a failure of its own', 'message_invalid', (b) => (b.connections[0]!.failure = 'bad luck')],
    ['a serial of its own', 'message_invalid', (b) => (b.connections[0]!.claimedSerial = '0x1')],
    [
      'too many events, one of them a connection',
      'message_too_large',
      (b) => (b.connections = Array.from({ length: maxShippedEvents - 4 }, () => b.connections[0]!)),
    ],
    ['a refusal of an unknown door', 'message_invalid', (b) => (b.refusals[0]!.door = 'admin')],
    ['a refusal of no door', 'message_invalid', (b) => (b.refusals[0]!.door = '')],
    ['a refusal with an unknown code', 'message_invalid', (b) => (b.refusals[0]!.code = 'lost_interest')],
    ['a refusal with a name of an object', 'message_invalid', (b) => (b.refusals[0]!.code = '__proto__')],
    ['a refusal that never happened', 'message_invalid', (b) => (b.refusals[0]!.count = 0n)],
    ['a refusal beyond counting', 'message_invalid', (b) => (b.refusals[0]!.count = 2n ** 62n)],
    ['a refusal of nobody', 'message_invalid', (b) => (b.refusals[0]!.caller = undefined)],
    ['a selector that is none', 'message_invalid', (b) => (b.refusals[0]!.selectors = ['root'])],
    [
      'more selectors than a caller has',
      'message_too_large',
      (b) => (b.refusals[0]!.selectors = Array.from({ length: 257 }, (_, at) => `unix:uid:${at}`)),
    ],
    ['a loss of what is not shipped', 'message_invalid', (b) => (b.losses[0]!.what = 'issuance')],
    ['a negative loss', 'message_invalid', (b) => (b.losses[0]!.count = -1n)],
    ['an event of next year', 'message_invalid', (b) => (b.refusals[0]!.timeMs += BigInt(366 * 86_400_000))],
    ['a loss of the end of time', 'message_invalid', (b) => (b.losses[0]!.toMs = 2n ** 60n)],
    [
      'too many events, half decisions and half refusals',
      'message_too_large',
      (b) => {
        b.decisions = Array.from({ length: maxShippedEvents / 2 }, () => b.decisions[0]!);
        b.refusals = Array.from({ length: maxShippedEvents / 2 + 1 }, () => b.refusals[0]!);
      },
    ],
    [
      'too many losses',
      'message_too_large',
      (b) => (b.losses = Array.from({ length: 17 }, () => b.losses[0]!)),
    ],
    ['no epoch', 'message_invalid', (b) => (b.epoch = '')],
    ['the sequence 0', 'message_invalid', (b) => (b.sequence = 0n)],
  ])('%s', (_, code, change) => {
    const seen = [
      outcome({ destination: mine }),
      outcomes({ destination: mine }),
      connections({ destination: mine }),
    ];
    const batch = travelled([own(), allowedCalls({ destination: mine }), ...seen, refusal(), loss()]);
    expect(readShipment(shipper, batch).events).toHaveLength(7);
    change(batch);
    expect(() => readShipment(shipper, batch)).toThrow(expect.objectContaining({ code }));
  });
});

test('a workload that was taken from a node is its own for another day, and no longer', async () => {
  const clock = manualClock(noon);
  const node = attestedNode('web-1', [], noon);
  let ids = [mine];
  const view = () => ({
    mesh: { entries: new Map(ids.map((id) => [id, { spiffeId: SpiffeId.parseWorkload(id) }])) },
  });
  const isOwn = createOwnIdentities(view as never, clock);
  expect([isOwn(node)(mine), isOwn(node)(theirs)]).toEqual([true, false]);
  ids = [];
  await clock.advance(86_400_000);
  expect(isOwn(node)(mine)).toBe(true);
  expect(isOwn({ ...node, name: 'web-2' })(mine)).toBe(false);
  await clock.advance(1);
  expect(isOwn(node)(mine)).toBe(false);
});

describe('the shipper', () => {
  test('what the server refuses is found among the others, counted as lost, and takes nothing along', async () => {
    const { client, kept } = startServer();
    const shipping = createEventShipper({ client, epoch });
    const events = Array.from({ length: 40 }, (_, at) =>
      own({ decisionId: `d-${at}`, ...(at === 7 || at === 31 ? { destination: theirs } : {}) }),
    );
    await shipping.record([...events, { ...refusal(), code: 'no_code', count: 5 }]);
    await shipping.record([own({ decisionId: 'last' })]);
    const decisions = kept().filter(({ type }) => type === 'decision');
    expect(decisions).toHaveLength(39);
    expect(decisions.at(-1)).toMatchObject({ decisionId: 'last' });
    expect(losses(kept())).toEqual([
      ['decision', 1, 'node web-1: identity_none'],
      ['decision', 1, 'node web-1: identity_none'],
      ['refusal', 5, 'node web-1: message_invalid'],
    ]);
    expect(shipping.refused()).toBe(7);
    expect(shipping.inHand()).toBe(0);
  });

  test('a batch of which nothing counts costs a bounded number of questions', async () => {
    const { client, kept, questions } = startServer();
    const shipping = createEventShipper({ client, epoch });
    await shipping.record(Array.from({ length: 250 }, () => own({ destination: theirs })));
    expect(kept().every(({ type }) => type === 'loss')).toBe(true);
    expect(losses(kept()).reduce((sum, [, count]) => sum + count, 0)).toBe(250);
    expect(questions()).toBeLessThan(160);
  });

  test('a batch whose acknowledgement was lost is sent again as it is, and kept once', async () => {
    const { client, kept, loseNext } = startServer();
    const shipping = createEventShipper({ client, epoch });
    loseNext();
    await shipping.record([own({ decisionId: 'd-1' })]);
    expect([shipping.inHand(), kept().length]).toEqual([1, 1]);
    await shipping.record([own({ decisionId: 'd-2' })]);
    expect(kept().map((event) => (event.type === 'decision' ? event.decisionId : ''))).toEqual([
      'd-1',
      'd-2',
    ]);
  });

  test('the last batch before a silence goes by itself when the server is back', async () => {
    const { client, kept, loseNext } = startServer();
    const clock = manualClock();
    const shipping = createEventShipper({ client, epoch, clock });
    loseNext();
    await shipping.record([own()]);
    expect(shipping.inHand()).toBe(1);
    await clock.advance(2_000);
    expect([shipping.inHand(), kept().length]).toEqual([0, 1]);
    expect(clock.sleepers()).toBe(0);
  });

  test('an agent that ends does not wait for a server that says nothing', async () => {
    const { client, fallSilent } = startServer();
    const clock = manualClock();
    const lines: string[] = [];
    const log = pino({ level: 'warn' }, { write: (line) => void lines.push(line) });
    const shipping = createAgentShipping({ client, epoch, clock, log, allowedCallsWindowSeconds: 10 });
    fallSilent();
    shipping.recordQuietly([refusal()]);
    shipping.decisions.push(own());
    await settle();
    const closing = shipping.close();
    await clock.advance(20_000);
    await closing;
    expect(lines.filter((line) => line.includes('lost')).length).toBeGreaterThan(0);
  });

  test('decisions and refusals that come at once go one after the other', async () => {
    const { client, kept, mostAtOnce } = startServer();
    const shipping = createEventShipper({ client, epoch });
    await Promise.all([
      shipping.record([own()]),
      shipping.record([refusal()]),
      shipping.record([own()]),
      shipping.record([refusal()]),
    ]);
    expect(kept().map(({ type }) => type)).toEqual(['decision', 'refusal', 'decision', 'refusal']);
    expect(mostAtOnce()).toBe(1);
  });
});

function own(change: Parameters<typeof decision>[0] = {}) {
  return decision({ destination: mine, ...change });
}

function refusal(): RefusalEvent {
  return {
    type: 'refusal',
    time: noon,
    door: 'sds',
    code: 'identity_none',
    message: 'no entry matches',
    resource: 'default',
    selectors: ['unix:uid:1000'],
    caller,
    count: 2,
  };
}

function loss(): LossEvent {
  return { type: 'loss', time: noon, what: 'refusal', count: 3, from: noon, to: noon, cause: 'queue_full' };
}

function losses(events: readonly AuditEvent[]): readonly (readonly [string, number, string])[] {
  return events.flatMap((event) =>
    event.type === 'loss' ? [[event.what, event.count, event.cause] as const] : [],
  );
}

/** As it comes out of the other end. */
function travelled(events: readonly AuditEvent[]): EventBatch {
  const bytes = EventBatch.encode(writeShipment({ epoch, sequence: 1, events })).finish();
  return EventBatch.decode(bytes);
}

/** The receiving end without a network: it reads what is shipped, and keeps each number once. */
function startServer() {
  const kept: AuditEvent[] = [];
  let highest = 0;
  let questions = 0;
  let [atOnce, most] = [0, 0];
  let isNextLost = false;
  let isSilent = false;
  const client = {
    shipEvents: () => {
      const listeners = new Map<string, (value: unknown) => void>();
      const tell = (event: string, value?: unknown) => setImmediate(() => listeners.get(event)?.(value));
      return {
        on: (event: string, listener: (value: unknown) => void) => listeners.set(event, listener),
        end: () => undefined,
        cancel: () => tell('error', new Error('cancelled')),
        write: (batch: EventBatch) => {
          if (isSilent) return;
          questions += 1;
          atOnce += 1;
          most = Math.max(most, atOnce);
          setImmediate(() => {
            atOnce -= 1;
            try {
              const shipment = readShipment(shipper, EventBatch.decode(EventBatch.encode(batch).finish()));
              if (shipment.sequence > highest) kept.push(...shipment.events);
              highest = Math.max(highest, shipment.sequence);
              if (isNextLost) {
                isNextLost = false;
                return tell('error', new Error('cut'));
              }
              return tell('data', { epoch: batch.epoch, sequence: batch.sequence });
            } catch (error) {
              return tell('error', asStatus(error));
            }
          });
        },
      };
    },
  };
  return {
    client: () => client as unknown as NodeClient,
    kept: () => kept,
    questions: () => questions,
    mostAtOnce: () => most,
    loseNext: () => {
      isNextLost = true;
    },
    fallSilent: () => {
      isSilent = true;
    },
  };
}

/** As grpc-js tells of it. */
function asStatus(error: unknown): Error {
  if (!(error instanceof MeshError)) return error as Error;
  return Object.assign(new Error(error.message), {
    code: statusOf(error.kind),
    metadata: { get: () => [error.code] },
    details: error.message,
  });
}
