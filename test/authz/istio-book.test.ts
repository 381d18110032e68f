// What is kept of policies between calls and between snapshots: never an old rule, and never without bound.
import { expect, test } from 'vitest';
import { IstioBook } from '../../src/authz/istio-snapshot.ts';
import { judgeCall } from '../../src/authz/judge.ts';
import type { Policy } from '../../src/authz/policy.ts';
import { compileSnapshot, type Snapshot } from '../../src/authz/snapshot.ts';
import { finish } from '../../src/authz/steps.ts';
import { SpiffeId } from '../../src/spiffe/id.ts';
import { ledger, meshOf, noon, policyText, readPolicies, web } from './mesh.ts';

const mesh = { trustDomains: ['example.org'], rootNamespace: 'r', pathNormalization: 'NONE' } as const;
const [a, b, c, d] = ['a', 'b', 'c', 'd'].map((name) =>
  SpiffeId.parse(`spiffe://example.org/ns/pay/sa/${name}`),
) as [SpiffeId, SpiffeId, SpiffeId, SpiffeId];

/** A book, and the destinations whose policies were looked for, in order. */
function bookOf(previous?: IstioBook, maxRemembered?: number) {
  const learned: SpiffeId[] = [];
  const book = new IstioBook(
    mesh,
    function* (destination) {
      learned.push(destination);
      yield;
      return [[]];
    },
    previous,
    maxRemembered,
  );
  return { book, learned };
}

test('what applies to a destination is looked for once, when it is asked for or beforehand', () => {
  const { book, learned } = bookOf();
  for (let i = 0; i < 3; i++) book.rulesFor(a);
  expect(learned).toEqual([a]);
  finish(book.ready(b));
  expect(learned).toEqual([a, b]);
  finish(book.ready(b));
  finish(book.ready(a));
  book.rulesFor(b);
  expect(learned).toEqual([a, b]);
});

test('destinations that callers make up do not fill the memory', () => {
  const { book, learned } = bookOf(undefined, 3);
  for (const one of [a, b, c, a, b, c]) book.rulesFor(one);
  expect(learned).toEqual([a, b, c]);
  // The fourth takes the place of all.
  for (const one of [d, d, a, b, a]) book.rulesFor(one);
  expect(learned).toEqual([a, b, c, d, a, b]);
});

test('what was asked about before an edit is ready after it, and what nobody asks about is forgotten', () => {
  const first = bookOf();
  first.book.rulesFor(a);
  first.book.rulesFor(b);
  let { book } = first;
  const prepared: number[] = [];
  for (let edits = 1; edits <= 40; edits++) {
    const next = bookOf(book);
    finish(next.book.prepare(book));
    if (next.learned.includes(b)) prepared.push(edits);
    // One is called all the time: nothing is left to do for it.
    next.book.rulesFor(a);
    expect(next.learned.filter((one) => one === a)).toEqual([a]);
    // The other is called once more, after twenty edits.
    if (edits === 20) next.book.rulesFor(b);
    ({ book } = next);
  }
  const upTo = (from: number, count: number) => Array.from({ length: count }, (_, i) => from + i);
  expect(prepared).toEqual([...upTo(1, 16), ...upTo(21, 16)]);
});

test('what a call asked for while it was prepared is not looked for again', () => {
  const before = bookOf();
  before.book.rulesFor(a);
  const after = bookOf(before.book);
  after.book.rulesFor(a);
  finish(after.book.prepare(before.book));
  expect(after.learned).toEqual([a]);
});

const open = (name: string) => readPolicies(policyText('rules: [{}]', name))[0]!;
const denies = (name: string, method: string) =>
  readPolicies(
    policyText(`action: DENY\nrules: [{ to: [{ operation: { methods: [${method}] } }] }]`, name),
  )[0]!;
const kept = [open('p0'), denies('p2', 'TRACE')] as const;

test.each<[string, readonly Policy[], readonly Policy[], string]>([
  ['the only policy', [denies('p1', 'PUT')], [denies('p1', 'GET')], 'deny_rule'],
  ['one of three', [...kept, denies('p1', 'PUT')], [...kept, denies('p1', 'GET')], 'deny_rule'],
  ['one of three, back', [...kept, denies('p1', 'GET')], [...kept, denies('p1', 'PUT')], 'allow_rule'],
  ['one that is gone', [...kept, denies('p1', 'GET')], kept, 'allow_rule'],
  ['one that is new', kept, [...kept, denies('p1', 'GET')], 'deny_rule'],
  ['none', [...kept, denies('p1', 'GET')], [...kept, denies('p1', 'GET')], 'deny_rule'],
])('an edit counts, whatever is kept of what was before: %s', (_, before, after, reason) => {
  const workloads = [{ id: ledger, labels: {} }];
  const earlier = compileSnapshot({ ...meshOf(before, workloads), mode: 'istio' });
  const ask = (snapshot: Snapshot) =>
    judgeCall(
      snapshot,
      {
        ...{ protocol: 'http', source: web, destination: ledger, method: 'GET', path: '/' },
        ...{ authority: 'ledger.pay', port: 8080 },
      },
      noon,
    ).decision.reason;
  ask(earlier);
  const later = compileSnapshot({ ...meshOf(after, workloads), mode: 'istio', previous: earlier });
  finish(later.prepare(earlier));
  expect(ask(later)).toBe(reason);
});
