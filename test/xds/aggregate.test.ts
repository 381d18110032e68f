import { describe, expect, test } from 'vitest';
import {
  type AggregateEffect,
  type AggregateEvent,
  givenOf,
  nextAggregate,
  openAggregate,
} from '../../src/xds/aggregate.ts';
import { worldForm } from '../../src/xds/form.ts';
import type { StreamRequest } from '../../src/xds/stream.ts';
import { findIn, show, type } from './stream-events.ts';

type Event = AggregateEvent<StreamRequest>;

const other = 'type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig';
const clusters = 'type.googleapis.com/envoy.config.cluster.v3.Cluster';

const asks = (typeUrl: string, names: readonly string[], nonce = '', rejection?: string): Event => ({
  kind: 'request',
  typeUrl,
  request: { names, nonce, rejection },
});
const has = (typeUrl: string, content: Readonly<Record<string, number>>): Event => ({
  kind: 'resources',
  typeUrl,
  find: findIn(new Map(Object.entries(content))),
});
const overdue = (typeUrl: string): Event => ({ kind: 'overdue', typeUrl });
const shutdown: Event = { kind: 'shutdown' };

type Row = [name: string, events: readonly Event[], effects: readonly string[]];

describe('a stream of many kinds', () => {
  const rows: readonly Row[] = [
    [
      'a kind is followed from its first request on',
      [asks(type, ['a']), asks(type, ['a', 'b']), has(type, { a: 1 })],
      ['opened S', 'S withheld b', 'S send n-1 a@1'],
    ],
    ['a change of a kind nobody asked for is nothing', [has(type, { a: 1 }), overdue(type)], []],
    [
      'each kind has its own names and nonces',
      [
        asks(type, ['a']),
        has(type, { a: 1 }),
        asks(other, ['x']),
        has(other, { x: 1 }),
        asks(other, ['x'], 'n.1-1'),
      ],
      ['opened S', 'S send n-1 a@1', 'opened O', 'O send n.1-1 x@1', 'O acknowledged n.1-1'],
    ],
    [
      'the nonce of another kind is a stale one',
      [
        asks(type, ['a']),
        has(type, { a: 1 }),
        asks(other, ['x']),
        has(other, { x: 1 }),
        asks(other, ['x'], 'n-1'),
      ],
      ['opened S', 'S send n-1 a@1', 'opened O', 'O send n.1-1 x@1'],
    ],
    [
      'a kind that waits for its ACK does not hold up another',
      [asks(type, ['a']), has(type, { a: 1 }), has(type, { a: 2 }), asks(other, ['x']), has(other, { x: 1 })],
      ['opened S', 'S send n-1 a@1', 'opened O', 'O send n.1-1 x@1'],
    ],
    [
      'a refused one neither',
      [
        asks(type, ['a']),
        has(type, { a: 1 }),
        asks(type, ['a'], 'n-1', 'bad'),
        asks(other, ['x']),
        has(other, { x: 1 }),
      ],
      ['opened S', 'S send n-1 a@1', 'S rejected n-1 bad', 'opened O', 'O send n.1-1 x@1'],
    ],
    ['a kind that is not served is told once', [asks(clusters, []), asks(clusters, ['c'])], ['ignored C']],
    [
      'and the stream goes on',
      [asks(clusters, []), asks(type, ['a']), has(type, { a: 1 })],
      ['ignored C', 'opened S', 'S send n-1 a@1'],
    ],
    ['a request has to name its kind', [asks('', ['a'])], ['fail message_invalid']],
    [
      'one that fails ends all of them',
      [
        asks(type, ['a']),
        has(type, { a: 1 }),
        has(type, { a: 2 }),
        overdue(type),
        asks(other, ['x']),
        shutdown,
      ],
      ['opened S', 'S send n-1 a@1', 'fail stream_stalled'],
    ],
    [
      'too many names in the first request',
      [asks(type, Array<string>(257).fill('a'))],
      ['fail resource_names_exceeded'],
    ],
    [
      'the end is the end of all',
      [asks(type, ['a']), shutdown, has(type, { a: 1 }), shutdown],
      ['opened S', 'end'],
    ],
  ];
  test.each(rows)('%s', (_, events, effects) => {
    expect(run(events, true)).toEqual(effects);
  });

  test('what a client invents is not kept without end', () => {
    const events = Array.from({ length: 1_000 }, (_, i) => asks(`type-${i}`, []));
    expect(run(events, true)).toHaveLength(16);
    expect(run([asks('x'.repeat(257), []), asks(type, ['a'])], true)).toEqual(['opened S']);
  });
});

describe('a stream of one kind', () => {
  const rows: readonly Row[] = [
    [
      'an empty type_url means the one',
      [asks('', ['a']), has(type, { a: 1 })],
      ['opened S', 'S send n-1 a@1'],
    ],
    ['another is refused', [asks(clusters, ['a'])], ['fail message_invalid']],
    ['so is one that is nearly the same', [asks(`${type}s`, ['a'])], ['fail message_invalid']],
    [
      'later as well',
      [asks(type, ['a']), has(type, { a: 1 }), asks(clusters, ['a'], 'n-1'), asks(type, ['a'], 'n-1')],
      ['opened S', 'S send n-1 a@1', 'fail message_invalid'],
    ],
  ];
  test.each(rows)('%s', (_, events, effects) => {
    expect(run(events, false)).toEqual(effects);
  });
});

test('what was given is told for each kind', () => {
  const rules = { typeUrls: [type, other], isAggregated: true, nonceOf };
  let state = openAggregate<ReturnType<typeof worldForm.protocol.open>>();
  for (const event of [asks(type, ['a']), has(type, { a: 1 })]) {
    [state] = nextAggregate(worldForm.protocol, rules, state, event);
  }
  expect(givenOf(worldForm.protocol, state, type).map(({ name }) => name)).toEqual(['a']);
  expect(givenOf(worldForm.protocol, state, other)).toEqual([]);
});

function nonceOf(kind: number, response: number): string {
  return `n${kind === 0 ? '' : `.${kind}`}-${response}`;
}

function run(events: readonly Event[], isAggregated: boolean): readonly string[] {
  const typeUrls = isAggregated ? [type, other] : [type];
  const rules = { typeUrls, isAggregated, nonceOf };
  let state = openAggregate<ReturnType<typeof worldForm.protocol.open>>();
  const told: string[] = [];
  for (const event of events) {
    const [after, effects] = nextAggregate(worldForm.protocol, rules, state, event);
    state = after;
    told.push(...effects.map(name));
  }
  return told;
}

/** The effect, with S for secrets, O for the other kind and C for clusters. */
function name(effect: AggregateEffect): string {
  if (effect.kind === 'fail') return `fail ${effect.code}`;
  if (effect.kind === 'end') return 'end';
  const letter = { [type]: 'S', [other]: 'O' }[effect.typeUrl] ?? (effect.typeUrl === clusters ? 'C' : '?');
  if (effect.kind === 'opened' || effect.kind === 'ignored') return `${effect.kind} ${letter}`;
  return `${letter} ${show(effect)}`;
}
