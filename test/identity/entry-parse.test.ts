import { expect, test } from 'vitest';
import type { ErrorCode } from '../../src/errors.ts';
import { MeshError } from '../../src/errors.ts';
import type { EntryInput } from '../../src/identity/entry.ts';
import { formatEntry, parseEntry } from '../../src/identity/entry-parse.ts';
import { TrustDomain } from '../../src/spiffe/id.ts';

const defaults = { trustDomain: TrustDomain.parse('mesh.test'), ttlSeconds: 3_600 };
const good: EntryInput = {
  id: 'web',
  spiffeId: 'spiffe://mesh.test/ns/shop/sa/web',
  selectors: ['unix:uid:1000'],
};

test.each<[string, Partial<EntryInput>, ErrorCode]>([
  ['an empty id', { id: '' }, 'entry_invalid'],
  ['an id with upper case', { id: 'Web' }, 'entry_invalid'],
  ['an id that is a path', { id: '../web' }, 'entry_invalid'],
  ['an id of 129 characters', { id: 'a'.repeat(129) }, 'entry_invalid'],
  ['an id with a newline', { id: 'web\n' }, 'entry_invalid'],
  ['a SPIFFE ID without path', { spiffeId: 'spiffe://mesh.test' }, 'spiffe_id_path_missing'],
  ['a SPIFFE ID with dots', { spiffeId: 'spiffe://mesh.test/ns/../sa' }, 'spiffe_id_segment_dot'],
  ['a foreign SPIFFE ID', { spiffeId: 'spiffe://other.test/web' }, 'spiffe_id_foreign_trust_domain'],
  ['an ID of the authority', { spiffeId: 'spiffe://mesh.test/countersign/server' }, 'entry_invalid'],
  ['no selectors', { selectors: [] }, 'entry_invalid'],
  ['17 selectors', { selectors: Array.from({ length: 17 }, (_, i) => `unix:uid:${i}`) }, 'entry_invalid'],
  ['a selector of no kind', { selectors: ['uid:1000'] }, 'selector_invalid'],
  ['a selector of a kind that nothing attests', { selectors: ['aws:role:shop'] }, 'selector_invalid'],
  ['a uid that is no number', { selectors: ['unix:uid:web'] }, 'selector_invalid'],
  ['a uid with a leading zero', { selectors: ['unix:uid:01'] }, 'selector_invalid'],
  ['a uid of 2^32', { selectors: ['unix:uid:4294967296'] }, 'selector_invalid'],
  ['a relative path', { selectors: ['unix:path:bin/envoy'] }, 'selector_invalid'],
  ['a path with a newline', { selectors: ['unix:path:/bin/en\nvoy'] }, 'selector_invalid'],
  ['a lifetime of 19 s', { ttlSeconds: 19 }, 'entry_invalid'],
  ['a lifetime of 86,401 s', { ttlSeconds: 86_401 }, 'entry_invalid'],
  ['a lifetime of 20.5 s', { ttlSeconds: 20.5 }, 'entry_invalid'],
  ['a lifetime of NaN', { ttlSeconds: Number.NaN }, 'entry_invalid'],
  ['a DNS name with upper case', { dnsNames: ['Web.test'] }, 'entry_invalid'],
  ['a DNS name with a wildcard', { dnsNames: ['*.test'] }, 'entry_invalid'],
  ['an empty DNS name', { dnsNames: [''] }, 'entry_invalid'],
  ['a DNS name with a NUL', { dnsNames: ['web\u0000.test'] }, 'entry_invalid'],
  ['17 DNS names', { dnsNames: Array.from({ length: 17 }, (_, i) => `w${i}.test`) }, 'entry_invalid'],
  ['a label key with a space', { labels: { 'a b': 'c' } }, 'entry_invalid'],
  [
    'a label key __proto__',
    { labels: JSON.parse('{"__proto__":"x"}') as Record<string, string> },
    'entry_invalid',
  ],
  ['a label value of 64 characters', { labels: { app: 'a'.repeat(64) } }, 'entry_invalid'],
  ['a namespace that contradicts the ID', { labels: { namespace: 'pay' } }, 'entry_label_conflict'],
  [
    'a service account that contradicts the ID',
    { labels: { serviceAccount: 'api' } },
    'entry_label_conflict',
  ],
  [
    'a namespace where the ID has none',
    { spiffeId: 'spiffe://mesh.test/web', labels: { namespace: 'shop' } },
    'entry_label_conflict',
  ],
  ['a DNS name that ends in a number', { dnsNames: ['web.123'] }, 'entry_invalid'],
  ['an IPv4 address for a DNS name', { dnsNames: ['10.0.0.1'] }, 'entry_invalid'],
  ['a hint of 1,025 bytes', { hint: 'a'.repeat(1_025) }, 'entry_invalid'],
  ['a hint with a NUL', { hint: 'a\u0000' }, 'entry_invalid'],
  ['an expiry that is no time', { expiresAt: 'tomorrow' }, 'entry_invalid'],
  ['an expiry in month 13', { expiresAt: '2026-13-01T00:00:00Z' }, 'entry_invalid'],
  ['an expiry without zone', { expiresAt: '2026-01-01T00:00:00' }, 'entry_invalid'],
])('refuses %s', (_, change, code) => {
  const parse = () => parseEntry({ ...good, ...change }, defaults, 1);
  expect(parse).toThrow(MeshError);
  expect(parse).toThrow(expect.objectContaining({ code, fix: expect.any(String) as string }) as Error);
});

test.each<[string, Partial<EntryInput>, Partial<EntryInput>]>([
  ['defaults', {}, { ttlSeconds: 3_600, dnsNames: [], labels: {}, hint: '', expiresAt: null }],
  ['the shortest lifetime', { ttlSeconds: 20 }, { ttlSeconds: 20 }],
  [
    'selectors sorted and without duplicates',
    { selectors: ['unix:uid:2', 'unix:gid:1', 'unix:uid:2'] },
    { selectors: ['unix:gid:1', 'unix:uid:2'] },
  ],
  [
    'labels that agree with the ID',
    { labels: { serviceAccount: 'web', namespace: 'shop' } },
    { labels: { namespace: 'shop', serviceAccount: 'web' } },
  ],
  [
    'an expiry with an offset',
    { expiresAt: '2027-01-01T01:00:00+01:00' },
    { expiresAt: '2027-01-01T00:00:00.000Z' },
  ],
])('accepts %s', (_, change, expected) => {
  const entry = parseEntry({ ...good, ...change }, defaults, 7);
  expect(formatEntry(entry)).toMatchObject(expected);
  expect(parseEntry(formatEntry(entry), defaults, 7)).toEqual(entry);
});
