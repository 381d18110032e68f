import fc from 'fast-check';
import { expect, test } from 'vitest';
import type { RegistrationEntry } from '../../src/identity/entry.ts';
import { parseEntry } from '../../src/identity/entry-parse.ts';
import { indexEntries } from '../../src/identity/registry.ts';
import { parseSelector } from '../../src/identity/selector.ts';
import { TrustDomain } from '../../src/spiffe/id.ts';

const now = new Date('2026-01-01T00:00:00Z');
const defaults = { trustDomain: TrustDomain.parse('mesh.test'), ttlSeconds: 3_600 };

function entry(id: string, selectors: readonly string[], expiresAt: string | null = null): RegistrationEntry {
  return parseEntry({ id, spiffeId: `spiffe://mesh.test/${id}`, selectors, expiresAt }, defaults, 1);
}

const entries = [
  entry('a-user', ['unix:user:web']),
  entry('b-uid', ['unix:uid:1000']),
  entry('c-both', ['unix:uid:1000', 'unix:path:/bin/envoy']),
  entry('d-both', ['unix:uid:1000', 'unix:gid:1000']),
  entry('e-expired', ['unix:uid:1000'], '2025-12-31T23:59:59Z'),
  entry('f-expires-now', ['unix:uid:1000'], '2026-01-01T00:00:00Z'),
  entry('g-expires-soon', ['unix:uid:1001'], '2026-01-01T00:00:01Z'),
];

test.each([
  { why: 'nothing attested', attested: [], matched: [] },
  { why: 'nothing known', attested: ['unix:uid:2'], matched: [] },
  { why: 'half of the selectors', attested: ['unix:path:/bin/envoy'], matched: [] },
  { why: 'one selector', attested: ['unix:uid:1000'], matched: ['b-uid'] },
  {
    why: 'more selectors first, then the id that sorts first',
    attested: ['unix:uid:1000', 'unix:gid:1000', 'unix:path:/bin/envoy', 'unix:user:web'],
    matched: ['c-both', 'd-both', 'a-user', 'b-uid'],
  },
  { why: 'expires one second later', attested: ['unix:uid:1001'], matched: ['g-expires-soon'] },
  { why: 'another kind with the same value', attested: ['unix:gid:1001'], matched: [] },
])('match: $why', ({ attested, matched }) => {
  for (const order of [entries, [...entries].reverse()]) {
    const found = indexEntries(order).match(attested.map(parseSelector), now);
    expect(found.map(({ id }) => id)).toEqual(matched);
  }
});

test('the next expiry is the earliest among the matching entries', () => {
  const registry = indexEntries([
    entry('late', ['unix:uid:1'], '2026-01-03T00:00:00Z'),
    entry('early', ['unix:uid:1'], '2026-01-02T00:00:00Z'),
    entry('other', ['unix:uid:2'], '2026-01-01T12:00:00Z'),
    entry('never', ['unix:uid:1']),
  ]);
  expect(registry.nextExpiry([parseSelector('unix:uid:1')], now)).toEqual(new Date('2026-01-02T00:00:00Z'));
  expect(registry.nextExpiry([parseSelector('unix:uid:3')], now)).toBeNull();
});

test('the index finds what a search through all entries finds', () => {
  const selectors = [
    'unix:uid:1',
    'unix:uid:2',
    'unix:gid:1',
    'unix:user:web',
    'unix:path:/bin/a',
    'unix:path:/bin/b',
  ];
  fc.assert(
    fc.property(
      fc.array(fc.subarray(selectors, { minLength: 1 }), { maxLength: 20 }),
      fc.subarray(selectors),
      (wanted, attested) => {
        const all = wanted.map((texts, index) => entry(`e${index}`, texts));
        const found = indexEntries(all).match(attested.map(parseSelector), now);
        const expected = all.filter((one) => one.selectors.every(({ text }) => attested.includes(text)));
        expect(new Set(found)).toEqual(new Set(expected));
        expect(found).toHaveLength(expected.length);
      },
    ),
  );
});
