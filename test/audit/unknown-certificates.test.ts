import { describe, expect, test } from 'vitest';
import type { AlarmEvent } from '../../src/audit/access-event.ts';
import type { AuditEvent } from '../../src/audit/event.ts';
import { createUnknownCertificates, type SeenCertificate } from '../../src/audit/unknown-certificates.ts';
import { MeshError } from '../../src/errors.ts';
import { TrustDomain } from '../../src/spiffe/id.ts';
import { manualClock, settle } from '../harness/manual-clock.ts';
import { allowedCalls, caller, connections, decision, issuance, noon, outcome, outcomes } from './events.ts';

const trustDomain = TrustDomain.parse('example.org');
const web = 'spiffe://example.org/ns/shop/sa/web';
const used = { kind: 'mtls', source: web, sourceSerial: 'f0', claimedSource: '', claimedSerial: '' } as const;

const ours = '11'.repeat(32);
const theirs = '22'.repeat(32);

function start(options: { raised?: readonly SeenCertificate[] } = {}) {
  const clock = manualClock(noon);
  const asked: (readonly string[])[] = [];
  const alarms: AlarmEvent[] = [];
  const errors: unknown[] = [];
  let failure: Error | undefined;
  const unknown = createUnknownCertificates({
    trustDomain,
    findUnknown: async (seen) => {
      const serials = seen.map(({ serial }) => serial);
      asked.push(serials);
      if (failure !== undefined) throw failure;
      // Whoever begins with f was never given out, and all others with contents of ones.
      return {
        unknown: serials.filter((serial) => serial.startsWith('f')),
        copied: seen.filter(({ tbsSha256 }) => tbsSha256 !== '' && tbsSha256 !== ours),
      };
    },
    raise: (alarm) => alarms.push(alarm),
    onError: (error) => errors.push(error),
    clock,
    ...options,
  });
  const look = async (...events: readonly AuditEvent[]): Promise<void> => {
    unknown.look(events);
    await settle();
  };
  return { clock, asked, alarms, errors, unknown, look, fail: (error?: Error) => (failure = error) };
}

describe('a certificate of ours that the log has no issuance of', () => {
  test.each<[string, AuditEvent]>([
    ['a connection', connections(used)],
    ['a connection of two names', connections({ ...used, kind: 'foreign', source: '', claimedSource: web })],
    ['an outcome', outcome({ sourceSerial: 'f0' })],
    ['counted outcomes', outcomes({ sourceSerial: 'f0' })],
    ['counted calls', allowedCalls({ sourceSerial: 'f0' })],
    ['a denial', decision({ sourceSerial: 'f0' })],
  ])('is an alarm when %s tells of it, once', async (_, event) => {
    const { alarms, asked, look } = start();
    await look(event, event);
    await look(event);
    expect(asked).toEqual([['f0']]);
    expect(alarms).toMatchObject([
      {
        type: 'alarm',
        time: noon,
        kind: 'unknown_certificate',
        serial: 'f0',
        claimedSource: web,
        destination: 'spiffe://example.org/ns/pay/sa/ledger',
        seenIn: event.type,
        caller,
      },
    ]);
  });

  test('is none when it was raised before the start', async () => {
    const { alarms, look } = start({ raised: [{ serial: 'f0', tbsSha256: '' }] });
    await look(connections(used));
    expect(alarms).toEqual([]);
  });
});

describe('a certificate with the serial of another', () => {
  const genuine = decision({ sourceSerial: '0a', sourceTbsSha256: ours });
  test.each<[string, AuditEvent]>([
    ['a decision', decision({ sourceSerial: '0a', sourceTbsSha256: theirs })],
    ['counted calls', allowedCalls({ sourceSerial: '0a', sourceTbsSha256: theirs })],
  ])('is an alarm when %s tells of it, once, also beside the other', async (_, event) => {
    const { alarms, look } = start();
    await look(genuine, connections({ ...used, sourceSerial: '0a' }), event, event);
    await look(event, genuine);
    expect(alarms).toMatchObject([{ serial: '0a', sourceTbsSha256: theirs, seenIn: event.type }]);
    await look(decision({ sourceSerial: '0a', sourceTbsSha256: '33'.repeat(32) }));
    expect(alarms).toHaveLength(2);
  });

  test('is told by its serial alone when the log has no issuance of that', async () => {
    const { alarms, look } = start();
    await look(decision({ sourceSerial: 'f0', sourceTbsSha256: theirs }), outcome({ sourceSerial: 'f0' }));
    await look(decision({ sourceSerial: 'f0', sourceTbsSha256: ours }));
    expect(alarms).toHaveLength(1);
    expect(alarms[0]).not.toHaveProperty('sourceTbsSha256');
  });

  test('is none when it was raised before the start', async () => {
    const { alarms, look } = start({ raised: [{ serial: '0a', tbsSha256: theirs }] });
    await look(decision({ sourceSerial: '0a', sourceTbsSha256: theirs }));
    expect(alarms).toEqual([]);
  });
});

test.each<[string, AuditEvent]>([
  ['nobody proved it', connections({ claimedSource: web, claimedSerial: 'f0' })],
  [
    'it is of another trust domain',
    connections({ ...used, kind: 'foreign', source: 'spiffe://example.org.evil/a' }),
  ],
  ['it has no serial', outcome({ sourceSerial: '' })],
  ['whoever asked was nobody', decision({ sourceSerial: 'f0', reason: 'caller_unknown' })],
  ['whoever asked was a forger', decision({ sourceSerial: 'f0', reason: 'destination_forged' })],
  ['it was just given out', issuance({ serial: 'f0' })],
])('a certificate is not looked up when %s', async (_, event) => {
  const { asked, look } = start();
  await look(event);
  expect(asked).toEqual([]);
});

test('a serial that the log knows is asked for once, many in one question', async () => {
  const { asked, alarms, look } = start();
  const events = Array.from({ length: 150 }, (_, at) => connections({ ...used, sourceSerial: `a${at}` }));
  await look(...events);
  await look(...events);
  expect(asked.map(({ length }) => length)).toEqual([100, 50]);
  expect(alarms).toEqual([]);
});

test('what could not be looked up is looked up later', async () => {
  const { clock, alarms, errors, look, fail } = start();
  fail(new MeshError('store_unavailable', 'the disk is full'));
  await look(connections(used));
  expect([errors.length, alarms.length]).toEqual([1, 0]);
  fail();
  await clock.advance(5_000);
  expect(alarms).toHaveLength(1);
});

test('somebody who makes up serials with a key of the CA fills neither the log nor memory, and is told of for ever', async () => {
  const { clock, alarms, look } = start();
  const forged = (first: number) =>
    Array.from({ length: 10_000 }, (_, at) =>
      connections({
        ...used,
        sourceSerial: `f${(first + at).toString(16)}`,
        destination: `${web}-${at % 50}`,
      }),
    );
  await look(...forged(0));
  expect(alarms).toHaveLength(60);
  await clock.advance(60_000);
  await look(...forged(10_000));
  expect(alarms).toHaveLength(120);
});

test('a proxy that makes up serials leaves room for the alarm of another', async () => {
  const { clock, alarms, look } = start();
  const made = Array.from({ length: 100 }, (_, at) => connections({ ...used, sourceSerial: `f${at}` }));
  await look(...made, connections({ ...used, sourceSerial: 'fee', destination: web }));
  expect(alarms.map(({ serial }) => serial)).toEqual(['f0', 'f1', 'f2', 'f3', 'f4', 'f5', 'fee']);
  await clock.advance(60_000);
  await look(...made.slice(-1));
  expect(alarms.at(-1)).toMatchObject({ serial: 'f99' });
});

test('nothing is looked up after the end', async () => {
  const { asked, unknown, look } = start();
  unknown.close();
  await look(connections(used));
  await unknown.settled();
  expect(asked).toEqual([]);
});
