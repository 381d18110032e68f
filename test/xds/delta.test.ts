import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  type DeltaRequest,
  type DeltaState,
  givenByDelta,
  nextDelta,
  openDelta,
} from '../../src/xds/delta.ts';
import { type FindResource, maxNameBytes, maxNames, type StreamEvent } from '../../src/xds/resource.ts';
import { has, resource, says, show } from './stream-events.ts';

type Event = StreamEvent<DeltaRequest>;

const ack = (nonce: string): Event => says({ nonce });
const nack = (nonce: string, rejection = 'bad'): Event => says({ nonce, rejection });

describe('every arrow of the protocol', () => {
  type Row = [name: string, events: readonly Event[], effects: readonly string[]];
  const rows: readonly Row[] = [
    // First request.
    [
      'a subscription is answered when there is something',
      [has({ a: 1 }), says({ sub: ['a'] })],
      ['send n-1 a@1'],
    ],
    [
      'or as soon as there is',
      [says({ sub: ['a'] }), has({}), has({ a: 1 })],
      ['withheld a', 'send n-1 a@1'],
    ],
    ['without credentials nothing is known, so nothing is withheld', [says({ sub: ['a'] })], []],
    [
      'a nonce of another stream is answered all the same',
      [has({ a: 1 }), says({ sub: ['a'], nonce: 'old-7' })],
      ['send n-1 a@1'],
    ],
    [
      'an error on the first request is no rejection',
      [has({ a: 1 }), says({ sub: ['a'], rejection: 'x' })],
      ['send n-1 a@1'],
    ],
    [
      'a name that is said twice is asked for once',
      [has({ a: 1 }), says({ sub: ['a', 'a'] })],
      ['send n-1 a@1'],
    ],
    ['no names: nothing, for SDS has no wildcard', [has({ a: 1 }), says({})], []],
    ['nor does * stand for anything', [has({ a: 1 }), says({ sub: ['*'] })], ['withheld *']],
    ['an odd name is a name like any other', [has({}), says({ sub: ['__proto__'] })], ['withheld __proto__']],
    // Reconnect.
    [
      'what the client has is not sent again, and counts as acknowledged',
      [has({ a: 1, b: 1 }), says({ sub: ['a', 'b'], has: { a: 1, b: 1 } })],
      ['known a@1 b@1'],
    ],
    [
      'also when the resources are there later than the request',
      [says({ sub: ['a'], has: { a: 1 } }), has({ a: 1 })],
      ['known a@1'],
    ],
    [
      'only what has changed is sent',
      [has({ a: 2, b: 1 }), says({ sub: ['a', 'b'], has: { a: 1, b: 1 } })],
      ['known b@1', 'send n-1 a@2'],
    ],
    [
      'a version of something that is not asked for means nothing',
      [has({ a: 1 }), says({ sub: [], has: { a: 1 } }), has({ a: 2 })],
      [],
    ],
    [
      'what the client has and may not have any longer is removed',
      [has({ b: 1 }), says({ sub: ['a', 'b'], has: { a: 1, b: 1 } }), ack('n-1')],
      ['known b@1', 'withheld a', 'send n-1 -a', 'acknowledged n-1'],
    ],
    [
      'versions count in the first request alone',
      [has({ a: 1 }), says({ sub: [] }), says({ sub: ['a'], has: { a: 1 } })],
      ['send n-1 a@1'],
    ],
    [
      'what the client has is pushed when it changes',
      [has({ a: 1 }), says({ sub: ['a'], has: { a: 1 } }), has({ a: 2 }), ack('n-1')],
      ['known a@1', 'send n-1 a@2', 'acknowledged n-1'],
    ],
    // Partial availability.
    [
      'a name that is not available is no removal: Envoy would open the listener without a certificate',
      [has({ a: 1 }), says({ sub: ['a', 'b'] })],
      ['withheld b', 'send n-1 a@1'],
    ],
    [
      'and comes alone when it is there',
      [has({ a: 1 }), says({ sub: ['a', 'b'] }), ack('n-1'), has({ a: 1, b: 1 })],
      ['withheld b', 'send n-1 a@1', 'acknowledged n-1', 'send n-2 b@1'],
    ],
    ['a withheld name is told once', [has({}), says({ sub: ['a'] }), has({}), has({ z: 1 })], ['withheld a']],
    // ACK.
    [
      'an ACK is not answered',
      [has({ a: 1 }), says({ sub: ['a'] }), ack('n-1')],
      ['send n-1 a@1', 'acknowledged n-1'],
    ],
    [
      'a second ACK of the same nonce counts nothing',
      [has({ a: 1 }), says({ sub: ['a'] }), ack('n-1'), ack('n-1'), nack('n-1')],
      ['send n-1 a@1', 'acknowledged n-1'],
    ],
    [
      'a stale nonce acknowledges nothing',
      [has({ a: 1 }), says({ sub: ['a'] }), ack('n-0'), nack('bogus')],
      ['send n-1 a@1'],
    ],
    [
      'but what it subscribes to holds',
      [has({ a: 1, b: 1 }), says({ sub: ['a'] }), ack('n-1'), says({ sub: ['b'], nonce: 'n-0' })],
      ['send n-1 a@1', 'acknowledged n-1', 'send n-2 b@1'],
    ],
    [
      'and what it unsubscribes from',
      [has({ a: 1 }), says({ sub: ['a'] }), ack('n-1'), says({ unsub: ['a'], nonce: 'n-0' }), has({ a: 2 })],
      ['send n-1 a@1', 'acknowledged n-1'],
    ],
    // Changes.
    [
      'a change is pushed after the ACK, alone',
      [has({ a: 1, b: 1 }), says({ sub: ['a', 'b'] }), ack('n-1'), has({ a: 2, b: 1 })],
      ['send n-1 a@1 b@1', 'acknowledged n-1', 'send n-2 a@2'],
    ],
    [
      'changes in flight fold into the newest',
      [has({ a: 1 }), says({ sub: ['a'] }), has({ a: 2 }), has({ a: 3 }), ack('n-1')],
      ['send n-1 a@1', 'acknowledged n-1', 'send n-2 a@3'],
    ],
    [
      'a change that comes back before the ACK is none',
      [has({ a: 1 }), says({ sub: ['a'] }), has({ a: 2 }), has({ a: 1 }), ack('n-1')],
      ['send n-1 a@1', 'acknowledged n-1'],
    ],
    [
      'content nobody asked for is not pushed',
      [has({ a: 1 }), says({ sub: ['a'] }), ack('n-1'), has({ a: 1, b: 9 })],
      ['send n-1 a@1', 'acknowledged n-1'],
    ],
    // Withdrawal.
    [
      'withdrawal is told, once',
      [has({ a: 1, b: 1 }), says({ sub: ['a', 'b'] }), ack('n-1'), has({ b: 1 }), ack('n-2'), has({ b: 1 })],
      ['send n-1 a@1 b@1', 'acknowledged n-1', 'withheld a', 'send n-2 -a', 'acknowledged n-2'],
    ],
    [
      'what was taken away and is there again is sent again, with the same content',
      [has({ a: 1 }), says({ sub: ['a'] }), ack('n-1'), has({}), ack('n-2'), has({ a: 1 })],
      ['send n-1 a@1', 'acknowledged n-1', 'withheld a', 'send n-2 -a', 'acknowledged n-2', 'send n-3 a@1'],
    ],
    [
      'withdrawal in flight is told after the ACK',
      [has({ a: 1 }), says({ sub: ['a'] }), has({}), ack('n-1')],
      ['send n-1 a@1', 'withheld a', 'acknowledged n-1', 'send n-2 -a'],
    ],
    [
      'a withdrawn resource that was refused was never there',
      [has({ a: 1 }), says({ sub: ['a'] }), has({}), nack('n-1')],
      ['send n-1 a@1', 'withheld a', 'rejected n-1 bad'],
    ],
    [
      'a removal that is refused is not told again',
      [has({ a: 1 }), says({ sub: ['a'] }), ack('n-1'), has({}), nack('n-2'), has({})],
      ['send n-1 a@1', 'acknowledged n-1', 'withheld a', 'send n-2 -a', 'rejected n-2 bad'],
    ],
    // NACK.
    [
      'a NACK is not answered with the same content',
      [has({ a: 1 }), says({ sub: ['a'] }), nack('n-1'), nack('n-1'), has({ a: 1 })],
      ['send n-1 a@1', 'rejected n-1 bad'],
    ],
    [
      'nor is a subscription after it',
      [has({ a: 1 }), says({ sub: ['a'] }), nack('n-1'), says({ sub: ['a'] })],
      ['send n-1 a@1', 'rejected n-1 bad'],
    ],
    [
      'but who gives the name up begins anew',
      [has({ a: 1 }), says({ sub: ['a'] }), nack('n-1'), says({ unsub: ['a'] }), says({ sub: ['a'] })],
      ['send n-1 a@1', 'rejected n-1 bad', 'send n-2 a@1'],
    ],
    [
      'new content is pushed after a NACK',
      [has({ a: 1 }), says({ sub: ['a'] }), nack('n-1'), has({ a: 2 })],
      ['send n-1 a@1', 'rejected n-1 bad', 'send n-2 a@2'],
    ],
    [
      'an empty error message is a NACK too',
      [has({ a: 1 }), says({ sub: ['a'] }), nack('n-1', '')],
      ['send n-1 a@1', 'rejected n-1 '],
    ],
    [
      'a refused one does not hold up the others',
      [
        has({ a: 1, b: 1 }),
        says({ sub: ['a'] }),
        nack('n-1'),
        says({ sub: ['b'] }),
        ack('n-2'),
        has({ a: 1, b: 2 }),
      ],
      ['send n-1 a@1', 'rejected n-1 bad', 'send n-2 b@1', 'acknowledged n-2', 'send n-3 b@2'],
    ],
    [
      'what is refused together is offered once more, each alone',
      [
        has({ a: 1, b: 1 }),
        says({ sub: ['a', 'b'] }),
        nack('n-1'),
        nack('n-2'),
        ack('n-3'),
        has({ a: 1, b: 1 }),
      ],
      [
        'send n-1 a@1 b@1',
        'rejected n-1 bad',
        'send n-2 a@1',
        'rejected n-2 bad',
        'send n-3 b@1',
        'acknowledged n-3',
      ],
    ],
    [
      'what has changed meanwhile goes first, and is under no suspicion',
      [has({ a: 1, b: 1 }), says({ sub: ['a', 'b'] }), has({ a: 1, b: 2 }), nack('n-1'), ack('n-2')],
      ['send n-1 a@1 b@1', 'rejected n-1 bad', 'send n-2 b@2', 'acknowledged n-2', 'send n-3 a@1'],
    ],
    // Names.
    [
      'a name that the client has is sent again when it asks again',
      [has({ a: 1 }), says({ sub: ['a'] }), ack('n-1'), says({ sub: ['a'] })],
      ['send n-1 a@1', 'acknowledged n-1', 'send n-2 a@1'],
    ],
    [
      'also when it asks while the first is on its way',
      [has({ a: 1 }), says({ sub: ['a'] }), says({ sub: ['a'] }), ack('n-1'), ack('n-2')],
      ['send n-1 a@1', 'acknowledged n-1', 'send n-2 a@1', 'acknowledged n-2'],
    ],
    [
      'an ACK may ask for more',
      [has({ a: 1, b: 1 }), says({ sub: ['a'] }), says({ nonce: 'n-1', sub: ['b'] })],
      ['send n-1 a@1', 'acknowledged n-1', 'send n-2 b@1'],
    ],
    [
      'a name in both lists is not asked for',
      [has({ a: 1 }), says({ sub: ['a'], unsub: ['a'] }), has({ a: 2 })],
      [],
    ],
    [
      'giving up what was never asked for is nothing',
      [has({ a: 1 }), says({ sub: ['a'], unsub: ['x'] })],
      ['send n-1 a@1'],
    ],
    [
      'a name that was given up is not removed when it is withdrawn',
      [has({ a: 1 }), says({ sub: ['a'] }), ack('n-1'), says({ unsub: ['a'] }), has({})],
      ['send n-1 a@1', 'acknowledged n-1'],
    ],
    // Limits and the end.
    ['256 names are allowed', [says({ sub: names(maxNames) })], []],
    ['257 are not', [says({ sub: names(maxNames + 1) })], ['fail resource_names_exceeded']],
    [
      'nor are 257 in two requests',
      [says({ sub: names(maxNames) }), says({ sub: ['one-more'] })],
      ['fail resource_names_exceeded'],
    ],
    ['257 to give up are not', [says({ unsub: names(maxNames + 1) })], ['fail resource_names_exceeded']],
    ['a name of 2,048 bytes is allowed', [says({ sub: ['x'.repeat(maxNameBytes)] })], []],
    ['2,049 are not', [says({ sub: ['x'.repeat(maxNameBytes + 1)] })], ['fail resource_names_exceeded']],
    [
      'nor are more than 64 KiB of names in two requests',
      [says({ sub: names(32, maxNameBytes) }), says({ sub: ['y'] })],
      ['fail resource_names_exceeded'],
    ],
    ['nor to give up', [says({ unsub: ['é'.repeat(1_025)] })], ['fail resource_names_exceeded']],
    [
      'an unanswered response does no harm',
      [has({ a: 1 }), says({ sub: ['a'] }), { kind: 'overdue' }],
      ['send n-1 a@1'],
    ],
    [
      'until a newer one waits',
      [has({ a: 1 }), says({ sub: ['a'] }), has({ a: 2 }), { kind: 'overdue' }],
      ['send n-1 a@1', 'fail stream_stalled'],
    ],
    [
      'or a removal',
      [has({ a: 1 }), says({ sub: ['a', 'b'], has: { a: 1, b: 1 } }), has({}), { kind: 'overdue' }],
      ['known a@1', 'withheld b', 'send n-1 -b', 'withheld a', 'fail stream_stalled'],
    ],
    [
      'an answered response is never overdue',
      [has({ a: 1 }), says({ sub: ['a'] }), nack('n-1'), { kind: 'overdue' }],
      ['send n-1 a@1', 'rejected n-1 bad'],
    ],
  ];
  test.each(rows)('%s', (_, events, effects) => {
    expect(run(events).effects).toEqual(effects);
  });

  test('a resource under another name than was asked for is our fault, and is not sent', () => {
    const find: FindResource = () => resource('b', '1');
    const [open] = nextDelta(
      openDelta((count) => `n-${count}`),
      says({ sub: ['a'] }),
    );
    expect(() => nextDelta(open, { kind: 'resources', find })).toThrow(
      expect.objectContaining({ code: 'internal' }),
    );
  });

  test.each<[string, readonly Event[], readonly string[]]>([
    ['nothing before the first answer', [says({ sub: ['a'] })], []],
    ['what is on its way', [has({ a: 1 }), says({ sub: ['a'] })], ['a@1']],
    ['what it has from before', [has({ a: 1 }), says({ sub: ['a'], has: { a: 1 } })], ['a@1']],
    [
      'the last good and the newer on its way',
      [has({ a: 1 }), says({ sub: ['a'] }), ack('n-1'), has({ a: 2 })],
      ['a@1', 'a@2'],
    ],
    [
      'the last good after a NACK',
      [has({ a: 1 }), says({ sub: ['a'] }), ack('n-1'), has({ a: 2 }), nack('n-2')],
      ['a@1'],
    ],
    ['nothing that was given up', [has({ a: 1 }), says({ sub: ['a'] }), says({ unsub: ['a'] })], []],
  ])('a client was given: %s', (_, events, given) => {
    const found = givenByDelta(run(events).state).map(({ name, version }) => `${name}@${version}`);
    expect(found).toEqual(given);
  });
});

test('whatever is said, a client that acknowledges all ends with all it may have', () => {
  const name = fc.constantFrom('a', 'b', 'c', '__proto__');
  const names = fc.uniqueArray(name, { maxLength: 4 });
  const content = fc.dictionary(name, fc.integer({ min: 1, max: 3 }), { noNullPrototype: false });
  const move = fc.oneof(
    content.map(has),
    fc
      .record({ sub: names, unsub: names, has: content, nonce: fc.constantFrom('', 'n-1', 'n-2', 'n-9') })
      .map(says),
    fc.constantFrom('n-1', 'n-2', 'n-3', 'n-4').map((nonce) => nack(nonce)),
  );
  fc.assert(
    fc.property(fc.array(move, { maxLength: 30 }), content, (moves, last) => {
      let state = openDelta((count) => `n-${count}`);
      const effects: string[] = [];
      const step = (event: Event): void => {
        const [after, caused] = nextDelta(state, event);
        state = after;
        effects.push(...caused.map(show));
      };
      for (const event of moves) step(event);
      // One that was refused stays refused: everything is new in the end.
      step(has(Object.fromEntries(Object.entries(last).map(([key, version]) => [key, version + 10]))));
      step(says({ sub: [] }));
      for (let i = 0; state.awaiting && i < 5; i++) step(ack(state.sent?.nonce ?? ''));
      expect(state.awaiting).toBe(false);
      for (const [key, { held }] of state.names) {
        expect([key, held?.version]).toEqual([
          key,
          Object.hasOwn(last, key) ? String((last[key] ?? 0) + 10) : undefined,
        ]);
      }
      const sent = effects.filter((effect) => effect.startsWith('send '));
      expect(new Set(sent.map((effect) => effect.split(' ')[1])).size).toBe(sent.length);
    }),
    { numRuns: 2_000 },
  );
});

function run(events: readonly Event[]): { state: DeltaState; effects: readonly string[] } {
  let state = openDelta((count) => `n-${count}`);
  const effects: string[] = [];
  for (const event of events) {
    const [after, caused] = nextDelta(state, event);
    state = after;
    effects.push(...caused.map(show));
  }
  return { state, effects };
}

test('a request that says nothing, in five bytes, costs no look at any name', () => {
  let looks = 0;
  let [state] = nextDelta(openDelta(String), { kind: 'resources', find: () => void (looks += 1) });
  [state] = nextDelta(state, says({ sub: ['a'] }));
  const before = looks;
  for (const event of [says({}), nack('stale')]) expect(nextDelta(state, event)).toEqual([state, []]);
  expect(looks).toBe(before);
});

function names(count: number, length = 0): readonly string[] {
  return Array.from({ length: count }, (_, i) => `name-${i}`.padEnd(length, 'x'));
}
