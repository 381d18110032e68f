import fc from 'fast-check';
import { expect, test } from 'vitest';
import { SpiffeId } from '../../src/spiffe/id.ts';
import { inspectId } from '../../src/spiffe/inspect-id.ts';
import { startCpuWatch } from '../harness/cpu-watch.ts';

test.each<[string, string[]]>([
  ['spiffe://example.org/ns/shop/sa/web', []],
  ['spiffe://example.org', []],
  ['spiffe://1.2.3.4/a', []],
  ['', ['spiffe-id-2-scheme']],
  ['example.org/a', ['spiffe-id-2-scheme']],
  ['https://example.org/a', ['spiffe-id-2-scheme']],
  ['SPIFFE://example.org/a', ['spiffe-id-2-scheme']],
  [' spiffe://example.org/a', ['spiffe-id-2-scheme']],
  ['spiffe:/example.org/a', ['spiffe-id-2-scheme']],
  ['spiffe://', ['spiffe-id-2-trust-domain-present']],
  ['spiffe:///a', ['spiffe-id-2-trust-domain-present']],
  ['spiffe://:80/a', ['spiffe-id-2.1-no-port', 'spiffe-id-2-trust-domain-present']],
  ['spiffe://Example.org/a', ['spiffe-id-2.1-trust-domain-char']],
  ['spiffe://ex%61mple.org/a', ['spiffe-id-2.1-trust-domain-char']],
  ['spiffe://exämple.org/a', ['spiffe-id-2.1-trust-domain-char']],
  ['spiffe://example.org:80/a', ['spiffe-id-2.1-no-port']],
  ['spiffe://me@example.org/a', ['spiffe-id-2.1-no-userinfo']],
  ['spiffe://me:you@example.org/a', ['spiffe-id-2.1-no-userinfo']],
  ['spiffe://example.org/a?b', ['spiffe-id-2-no-query']],
  ['spiffe://example.org/a#b', ['spiffe-id-2-no-fragment']],
  ['spiffe://example.org?b#c', ['spiffe-id-2-no-query', 'spiffe-id-2-no-fragment']],
  ['spiffe://example.org/', ['spiffe-id-2.2-no-trailing-slash']],
  ['spiffe://example.org//', ['spiffe-id-2.2-no-trailing-slash', 'spiffe-id-2.2-no-empty-segment']],
  ['spiffe://example.org//a', ['spiffe-id-2.2-no-empty-segment']],
  ['spiffe://example.org/./a/..', ['spiffe-id-2.2-no-dot-segment']],
  ['spiffe://example.org/a b', ['spiffe-id-2.2-path-char']],
  ['spiffe://example.org/a\n', ['spiffe-id-2.2-path-char']],
  ['spiffe://example.org/%61', ['spiffe-id-2.2-path-char']],
  [`spiffe://example.org/${'a'.repeat(2_048)}`, ['spiffe-id-2.3-length']],
  [`spiffe://${'a'.repeat(256)}/a`, ['spiffe-id-2.3-trust-domain-length']],
])('%j breaks %j', (text, rules) => {
  const { facts, broken } = inspectId(text);
  expect(broken.map(({ rule }) => rule)).toEqual(rules);
  expect(facts.kind === 'invalid').toBe(rules.length > 0);
});

test('a proper ID is taken apart', () => {
  expect(inspectId('spiffe://example.org/a/b').facts).toEqual({
    id: 'spiffe://example.org/a/b',
    kind: 'workload',
    trustDomain: 'example.org',
    path: '/a/b',
  });
  expect(inspectId('spiffe://example.org').facts.kind).toBe('trust domain');
});

test('nothing is broken exactly when the parser takes it', () => {
  const piece = fc.constantFrom(
    'spiffe',
    ':',
    '/',
    '//',
    '.',
    '..',
    'a',
    'Z',
    '@',
    '?',
    '#',
    '%',
    '\n',
    'ä',
    '_',
  );
  const near = fc.array(piece, { maxLength: 12 }).map((pieces) => `spiffe://${pieces.join('')}`);
  fc.assert(
    fc.property(fc.oneof(near, fc.string({ unit: 'binary' })), (text) => {
      let parses = true;
      try {
        SpiffeId.parse(text);
      } catch {
        parses = false;
      }
      expect(inspectId(text).broken.length === 0).toBe(parses);
    }),
    { numRuns: 2_000 },
  );
});

test.each(['a', '/', '//', ':', '@', '://', '?', '\u0000', '😀'])('a MiB of %j is judged at once', (unit) => {
  const text = `spiffe://a/${unit.repeat(1_048_576 / unit.length)}`;
  const usedMs = startCpuWatch();
  expect(inspectId(text).facts.kind).toBe('invalid');
  inspectId(text.slice(11));
  expect(usedMs()).toBeLessThan(500);
});
