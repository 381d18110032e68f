import { describe, expect, test } from 'vitest';
import { type FindResource, maxNameBytes, maxNames, type StreamEvent } from '../../src/xds/resource.ts';
import { next, openStream, type StreamRequest, type StreamState } from '../../src/xds/stream.ts';
import { acks, asks, has, nacks, resource, show } from './stream-events.ts';

type Event = StreamEvent<StreamRequest>;

describe('every arrow of the protocol', () => {
  type Row = [name: string, events: readonly Event[], effects: readonly string[]];
  const rows: readonly Row[] = [
    // First request.
    ['the first request is answered when there is something', [has({ a: 1 }), asks(['a'])], ['send n-1 a@1']],
    ['or as soon as there is', [asks(['a']), has({}), has({ a: 1 })], ['withheld a', 'send n-1 a@1']],
    ['without credentials nothing is known, so nothing is withheld', [asks(['a'])], []],
    [
      'an old version and nonce of another stream are answered',
      [has({ a: 1 }), asks(['a'], 'old-7')],
      ['send n-1 a@1'],
    ],
    [
      'an error on the first request is no rejection',
      [has({ a: 1 }), asks(['a'], '', 'x')],
      ['send n-1 a@1'],
    ],
    [
      'names are asked for once however often they are said',
      [has({ a: 1 }), asks(['a', 'a'])],
      ['send n-1 a@1'],
    ],
    ['no names: nothing', [has({ a: 1 }), asks([])], []],
    // Partial availability.
    ['a response holds what there is', [has({ a: 1 }), asks(['a', 'b'])], ['withheld b', 'send n-1 a@1']],
    [
      'and the rest comes when it is there',
      [has({ a: 1 }), asks(['a', 'b']), acks('n-1', ['a', 'b']), has({ a: 1, b: 1 })],
      ['withheld b', 'send n-1 a@1', 'acknowledged n-1', 'send n-2 a@1 b@1'],
    ],
    ['nothing available: nothing sent', [has({}), asks(['a'])], ['withheld a']],
    ['a withheld name is told once', [has({}), asks(['a']), has({}), has({ z: 1 })], ['withheld a']],
    [
      'and again after it was available',
      [has({}), asks(['a']), has({ a: 1 }), has({})],
      ['withheld a', 'send n-1 a@1', 'withheld a'],
    ],
    ['an odd name is a name like any other', [has({}), asks(['__proto__'])], ['withheld __proto__']],
    // ACK.
    [
      'an ACK is not answered',
      [has({ a: 1 }), asks(['a']), acks('n-1', ['a'])],
      ['send n-1 a@1', 'acknowledged n-1'],
    ],
    [
      'a second ACK of the same nonce counts nothing',
      [has({ a: 1 }), asks(['a']), acks('n-1', ['a']), acks('n-1', ['a'])],
      ['send n-1 a@1', 'acknowledged n-1'],
    ],
    [
      'a NACK after the ACK counts nothing',
      [has({ a: 1 }), asks(['a']), acks('n-1', ['a']), nacks('n-1', ['a'])],
      ['send n-1 a@1', 'acknowledged n-1'],
    ],
    ['a stale nonce is ignored', [has({ a: 1 }), asks(['a']), acks('n-0', ['a'])], ['send n-1 a@1']],
    [
      'and so are its names',
      [has({ a: 1, b: 1 }), asks(['a']), acks('n-1', ['a']), acks('bogus', ['b']), has({ a: 2, b: 2 })],
      ['send n-1 a@1', 'acknowledged n-1', 'send n-2 a@2'],
    ],
    [
      'a nonce before any response is stale',
      [asks(['a']), acks('n-1', ['b']), has({ b: 1 })],
      ['withheld a'],
    ],
    // Changes.
    [
      'a change is pushed after the ACK',
      [has({ a: 1 }), asks(['a']), acks('n-1', ['a']), has({ a: 2 })],
      ['send n-1 a@1', 'acknowledged n-1', 'send n-2 a@2'],
    ],
    [
      'changes in flight fold into the newest',
      [has({ a: 1 }), asks(['a']), has({ a: 2 }), has({ a: 3 }), acks('n-1', ['a'])],
      ['send n-1 a@1', 'acknowledged n-1', 'send n-2 a@3'],
    ],
    [
      'a change that comes back before the ACK is none',
      [has({ a: 1 }), asks(['a']), has({ a: 2 }), has({ a: 1 }), acks('n-1', ['a'])],
      ['send n-1 a@1', 'acknowledged n-1'],
    ],
    [
      'equal content is not pushed again',
      [has({ a: 1 }), asks(['a']), acks('n-1', ['a']), has({ a: 1 })],
      ['send n-1 a@1', 'acknowledged n-1'],
    ],
    [
      'content nobody asked for is not pushed',
      [has({ a: 1 }), asks(['a']), acks('n-1', ['a']), has({ a: 1, b: 9 })],
      ['send n-1 a@1', 'acknowledged n-1'],
    ],
    [
      'withdrawal sends what is left',
      [has({ a: 1, b: 1 }), asks(['a', 'b']), acks('n-1', ['a', 'b']), has({ b: 1 })],
      ['send n-1 a@1 b@1', 'acknowledged n-1', 'withheld a', 'send n-2 b@1'],
    ],
    [
      'and never an empty response',
      [has({ a: 1 }), asks(['a']), acks('n-1', ['a']), has({})],
      ['send n-1 a@1', 'acknowledged n-1', 'withheld a'],
    ],
    // NACK.
    [
      'a NACK is not answered with the same content',
      [has({ a: 1 }), asks(['a']), nacks('n-1', ['a'])],
      ['send n-1 a@1', 'rejected n-1 bad'],
    ],
    [
      'nor is its repetition',
      [has({ a: 1 }), asks(['a']), nacks('n-1', ['a']), nacks('n-1', ['a']), has({ a: 1 })],
      ['send n-1 a@1', 'rejected n-1 bad'],
    ],
    [
      'an ACK after the NACK counts nothing',
      [has({ a: 1 }), asks(['a']), nacks('n-1', ['a']), acks('n-1', ['a'])],
      ['send n-1 a@1', 'rejected n-1 bad'],
    ],
    [
      'new content is pushed after a NACK',
      [has({ a: 1 }), asks(['a']), nacks('n-1', ['a']), has({ a: 2 })],
      ['send n-1 a@1', 'rejected n-1 bad', 'send n-2 a@2'],
    ],
    [
      'newer content that waited is pushed at the NACK',
      [has({ a: 1 }), asks(['a']), has({ a: 2 }), nacks('n-1', ['a'])],
      ['send n-1 a@1', 'rejected n-1 bad', 'send n-2 a@2'],
    ],
    [
      'an empty error message is a NACK too',
      [has({ a: 1 }), asks(['a']), nacks('n-1', ['a'], '')],
      ['send n-1 a@1', 'rejected n-1 '],
    ],
    [
      'another name with no content does not bring the refused content back',
      [has({ a: 1 }), asks(['a']), nacks('n-1', ['a', 'x'])],
      ['send n-1 a@1', 'rejected n-1 bad', 'withheld x'],
    ],
    // Names.
    [
      'changed names on the last nonce are answered',
      [has({ a: 1, b: 1 }), asks(['a']), acks('n-1', ['a', 'b'])],
      ['send n-1 a@1', 'acknowledged n-1', 'send n-2 a@1 b@1'],
    ],
    [
      'even when the content stays the same',
      [has({ a: 1 }), asks(['a']), acks('n-1', ['a', 'x'])],
      ['send n-1 a@1', 'acknowledged n-1', 'withheld x', 'send n-2 a@1'],
    ],
    [
      'names in another order are the same names',
      [has({ a: 1, b: 1 }), asks(['a', 'b']), acks('n-1', ['b', 'a'])],
      ['send n-1 a@1 b@1', 'acknowledged n-1'],
    ],
    [
      'an unsubscribed name is pushed no more',
      [has({ a: 1, b: 1 }), asks(['a', 'b']), acks('n-1', ['b']), acks('n-2', ['b']), has({ a: 2, b: 1 })],
      ['send n-1 a@1 b@1', 'acknowledged n-1', 'send n-2 b@1', 'acknowledged n-2'],
    ],
    [
      'emptied names are an unsubscription, not a wildcard',
      [has({ a: 1 }), asks(['a']), acks('n-1', []), has({ a: 2 })],
      ['send n-1 a@1', 'acknowledged n-1'],
    ],
    [
      'even when they were refused, because who gives up all names begins anew',
      [has({ a: 1 }), asks(['a']), nacks('n-1', []), acks('n-1', ['a'])],
      ['send n-1 a@1', 'rejected n-1 bad', 'send n-2 a@1'],
    ],
    [
      'and the same names again are answered',
      [has({ a: 1 }), asks(['a']), acks('n-1', []), acks('n-1', ['a'])],
      ['send n-1 a@1', 'acknowledged n-1', 'send n-2 a@1'],
    ],
    [
      'names may change before the first response',
      [has({}), asks(['a']), asks(['b']), has({ a: 1, b: 1 })],
      ['withheld a', 'withheld b', 'send n-1 b@1'],
    ],
    ['the first request twice is answered once', [has({ a: 1 }), asks(['a']), asks(['a'])], ['send n-1 a@1']],
    // Limits and the end.
    ['256 names are allowed', [asks(names(maxNames))], []],
    ['257 are not', [asks(names(maxNames + 1))], ['fail resource_names_exceeded']],
    ['a name of 2,048 bytes is allowed', [asks(['x'.repeat(maxNameBytes)])], []],
    ['2,049 are not', [asks(['x'.repeat(maxNameBytes + 1)])], ['fail resource_names_exceeded']],
    ['64 KiB of names are allowed', [asks(long(32))], []],
    ['more are not', [asks([...long(32), 'y'])], ['fail resource_names_exceeded']],
    ['bytes count, not characters', [asks(['é'.repeat(1_025)])], ['fail resource_names_exceeded']],
    [
      'an unanswered response does no harm',
      [has({ a: 1 }), asks(['a']), { kind: 'overdue' }],
      ['send n-1 a@1'],
    ],
    [
      'until a newer one waits',
      [has({ a: 1 }), asks(['a']), has({ a: 2 }), { kind: 'overdue' }],
      ['send n-1 a@1', 'fail stream_stalled'],
    ],
    [
      'an answered response is never overdue',
      [has({ a: 1 }), asks(['a']), nacks('n-1', ['a']), { kind: 'overdue' }],
      ['send n-1 a@1', 'rejected n-1 bad'],
    ],
  ];
  test.each(rows)('%s', (_, events, effects) => {
    expect(run(events).effects).toEqual(effects);
  });

  test('a resource under another name than was asked for is our fault, and is not sent', () => {
    const find: FindResource = () => resource('b', '1');
    const [open] = next(
      openStream((count) => `n-${count}`),
      asks(['a']),
    );
    expect(() => next(open, { kind: 'resources', find })).toThrow(
      expect.objectContaining({ code: 'internal' }),
    );
  });

  test('versions follow from the content: another process says the same', () => {
    const version = (events: readonly Event[]) => run(events).state.sent?.version;
    expect(version([has({ a: 1, b: 2 }), asks(['a', 'b'])])).toBe(
      version([asks(['b', 'a']), has({ b: 2, a: 1 })]),
    );
    expect(version([has({ a: 1 }), asks(['a'])])).not.toBe(version([has({ a: 2 }), asks(['a'])]));
  });
});

function run(events: readonly Event[]): { state: StreamState; effects: readonly string[] } {
  let state = openStream((count) => `n-${count}`);
  const effects: string[] = [];
  for (const event of events) {
    const [after, caused] = next(state, event);
    state = after;
    effects.push(...caused.map(show));
  }
  return { state, effects };
}

/** Names that are as long as they may be. */
function long(count: number): readonly string[] {
  return Array.from({ length: count }, (_, i) => `${i}`.padEnd(maxNameBytes, 'x'));
}

function names(count: number): readonly string[] {
  return Array.from({ length: count }, (_, i) => `name-${i}`);
}
