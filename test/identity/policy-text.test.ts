import { createHash, randomBytes } from 'node:crypto';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { encodeEvent } from '../../src/audit/canonical.ts';
import { compileStoredMesh } from '../../src/identity/current-mesh.ts';
import { changeOf, planApply } from '../../src/identity/plan.ts';
import { logText } from '../../src/identity/policy-text.ts';
import { TrustDomain } from '../../src/spiffe/id.ts';
import { noon } from '../audit/events.ts';

const about = { time: noon, policy: 'shop/orders', revision: 3, sha256: 'ab'.repeat(32) };

test.each<[string, string, number]>([
  ['nothing', '', 0],
  ['a few lines', 'a: 1\nb: 2\n', 0],
  ['as much as fits', 'x'.repeat(40_960), 0],
  ['one more', 'x'.repeat(40_961), 2],
  ['as many line breaks, which take two bytes each', '\n'.repeat(20_480), 0],
  ['one more line break', '\n'.repeat(20_481), 2],
  ['a mebibyte', 'é'.repeat(524_288), 26],
])('%s is told whole', (_, source, count) => {
  const { document, documentParts, parts } = logText(source, about);
  expect([parts.length, documentParts ?? 0]).toEqual([count, count]);
  expect(document + parts.map(({ text }) => text).join('')).toBe(source);
});

test('the parts of any text are that text, and none is cut on its way into the log', () => {
  const piece = fc
    .tuple(
      fc.constantFrom('a', '\n', '"', '\u0001', 'é', '€', '😀', '\u2028'),
      fc.integer({ min: 1, max: 30_000 }),
    )
    .map(([unit, count]) => unit.repeat(count));
  fc.assert(
    fc.property(fc.array(piece, { maxLength: 6 }), (pieces) => {
      const source = pieces.join('');
      const { document, parts } = logText(source, about);
      const told = parts.map((part) => {
        const { leaf } = encodeEvent(part, randomBytes);
        return (JSON.parse(Buffer.from(leaf).toString()) as { text: string }).text;
      });
      expect(document + told.join('') === source).toBe(true);
      expect(parts.every(({ part, parts: all }, at) => part === at + 1 && all === parts.length)).toBe(true);
    }),
    { numRuns: 60 },
  );
});

test('a long policy is recorded in parts, right before the change, and what it was before is known by its digest', () => {
  const trustDomain = TrustDomain.parse('example.org');
  const settings = { trustDomain, rootNamespace: 'istio-system', ttlSeconds: 3_600 };
  const empty = { revision: 0, entries: new Map(), policies: new Map(), bans: new Map() };
  const current = compileStoredMesh(empty, settings);
  const source = (from: number) =>
    `{ source: { principals: [${Array.from({ length: 450 }, (_, at) => `"example.org/ns/shop/sa/workload-of-some-length-${from + at}"`).join(', ')}] } }`;
  const text = `apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: { name: long, namespace: shop }
spec:
  rules:
    - from: [${source(0)}, ${source(450)}]
`;
  const plan = planApply(current, [{ file: 'p.yaml', text }], settings);
  const { events } = changeOf(plan, current, { kind: 'system' }, noon);
  const change = events.at(-1);
  const parts = events.slice(0, -1);
  expect(parts.length).toBeGreaterThan(1);
  expect(change).toMatchObject({ type: 'policy_change', document: '', documentParts: parts.length });
  const whole = parts.map((part) => (part.type === 'policy_text' ? part.text : '')).join('');
  const sha256 = createHash('sha256').update(whole).digest('hex');
  expect(change).toMatchObject({ afterSha256: sha256, beforeSha256: '' });
  expect(parts).toEqual(
    parts.map(() => expect.objectContaining({ sha256, policy: 'shop/long', revision: 1 })),
  );
  expect(whole).toContain('workload-of-some-length-899');
});
