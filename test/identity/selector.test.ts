import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { MeshError } from '../../src/errors.ts';
import { indexEntries } from '../../src/identity/registry.ts';
import { parseEntry } from '../../src/identity/entry-parse.ts';
import { parseSelector, type SelectorKind, selectorKinds } from '../../src/identity/selector.ts';
import { TrustDomain } from '../../src/spiffe/id.ts';

const hex = 'ab'.repeat(32);
const uid = '2c48913c-b29f-11e7-9350-020968147796';

/** What each kind takes, and what it does not. */
const values: Record<SelectorKind, { readonly good: readonly string[]; readonly bad: readonly string[] }> = {
  'unix:uid': { good: ['0', '4294967295'], bad: ['4294967296', '-1', '01', 'root', '1 '] },
  'unix:gid': { good: ['0'], bad: ['x'] },
  'unix:user': { good: ['web', 'web user'], bad: ['a\u202eb', 'a\u200bb'] },
  'unix:path': { good: ['/usr/bin/envoy', '/a b'], bad: ['bin/envoy', '/a\u202eb', '/a\u0000'] },
  'unix:sha256': { good: [hex], bad: [hex.toUpperCase(), hex.slice(1), `${hex}0`, `sha256:${hex}`] },
  'unix:ancestor-path': { good: ['/usr/bin/launcher'], bad: ['launcher'] },
  'systemd:unit': {
    good: ['nginx.service', 'getty@tty1.service', 'a\\x2db.service', 'user@1000.service'],
    bad: ['nginx', 'nginx.socket', 'a/b.service', 'getty@.service', '.service', `${'a'.repeat(248)}.service`],
  },
  'k8s:ns': { good: ['shop', 'a'], bad: ['Shop', 'a.b', '-a', 'a-', 'a'.repeat(64), '../a'] },
  'k8s:sa': { good: ['web', 'web.v1'], bad: ['Web', 'web/v1', 'a'.repeat(254)] },
  'k8s:pod-name': { good: ['web-0'], bad: ['web_0', 'web:0'] },
  'k8s:pod-uid': { good: [uid, '1'.repeat(32)], bad: [uid.replaceAll('-', '_'), uid.toUpperCase(), '1'] },
  'k8s:pod-label': {
    good: ['app:web', 'app:', 'app.kubernetes.io/name:web', 'a:B_c.d-e'],
    bad: ['app', ':web', 'app:a b', 'a:b:c', 'a/b/c:d', '/a:b', `a:${'b'.repeat(64)}`],
  },
  'k8s:container-name': { good: ['envoy'], bad: ['Envoy', 'a.b'] },
  'k8s:container-image': { good: [`sha256:${hex}`], bad: [hex, 'web:1.2', `web@sha256:${hex}`] },
  'k8s:node-name': { good: ['node-1', 'ip-10-0-0-1.test'], bad: ['Node', 'a/b'] },
  'docker:label': { good: ['a:b', 'com.example:b:c', 'a:'], bad: ['a', ':b', 'a:\u202e'] },
  'docker:image-id': { good: [`sha256:${hex}`], bad: [hex, 'sha512:1'] },
  'docker:image': { good: ['nginx', 'registry.test:5000/shop/web:1.2'], bad: ['a\nb'] },
};

const rows = selectorKinds.flatMap((kind) => [
  ...values[kind].good.map((value) => [kind, value, true] as const),
  ...['', 'a'.repeat(1_025), ...values[kind].bad].map((value) => [kind, value, false] as const),
]);

test.each(rows)('%s with %j: %s', (kind, value, isGood) => {
  const text = `${kind}:${value}`;
  if (isGood) {
    expect(parseSelector(text)).toEqual({ kind, value, text });
  } else {
    expect(() => parseSelector(text)).toThrow(
      expect.objectContaining({ code: 'selector_invalid', fix: expect.any(String) as string }) as Error,
    );
  }
});

test.each([
  '',
  ':',
  'unix',
  'unix:',
  'unix:uid',
  'UNIX:uid:1',
  'unix:sha512:1',
  'k8s:1',
  'aws:arn:1',
  '__proto__:x',
])('refuses %j', (text) => {
  expect(() => parseSelector(text)).toThrow(expect.objectContaining({ code: 'selector_invalid' }) as Error);
});

test('whatever is parsed is written back as it was', () => {
  const kind = fc.constantFrom(...selectorKinds);
  fc.assert(
    fc.property(
      fc.oneof(
        kind.chain((known) => fc.string().map((value) => `${known}:${value}`)),
        fc.string(),
      ),
      (text) => {
        try {
          expect(parseSelector(text).text).toBe(text);
        } catch (error) {
          expect(error).toBeInstanceOf(MeshError);
        }
      },
    ),
    { numRuns: 3_000 },
  );
});

describe('an entry with one selector of each kind', () => {
  test.each(selectorKinds)('%s is found', (kind) => {
    const text = `${kind}:${values[kind].good[0]}`;
    const entry = parseEntry(
      { id: 'web', spiffeId: 'spiffe://mesh.test/web', selectors: [text] },
      { trustDomain: TrustDomain.parse('mesh.test'), ttlSeconds: 60 },
      1,
    );
    const registry = indexEntries([entry]);
    expect(registry.match([parseSelector(text)], new Date(0))).toEqual([entry]);
    expect(registry.kinds).toEqual(new Set([kind]));
  });
});
