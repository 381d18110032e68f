import { afterAll, beforeAll, expect, test } from 'vitest';
import type { TokenName } from './callers.ts';
import { type Harness, startHarness } from './harness.ts';

let harness: Harness;
const policy = (namespaces: string) => `apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: { name: all, namespace: pay }
spec: { rules: [{ from: [{ source: { namespaces: [${namespaces}] } }] }] }
`;
const invariant = `apiVersion: countersign.dev/v1
kind: PolicyInvariant
metadata: { name: no-dev }
spec: { never: { from: { namespaces: [dev] }, to: { namespaces: [pay] } } }
`;
const named = (file: string, text: string) => [{ file, text }];

beforeAll(async () => {
  harness = await startHarness();
  const entry = { id: 'db', spiffeId: 'spiffe://example.org/ns/pay/sa/db', selectors: ['unix:uid:1'] };
  await harness.overTls({ method: 'POST', path: '/v1/entries', body: entry });
  for (const namespaces of ['shop, dev', 'shop']) {
    const body = { files: named('p.yaml', policy(namespaces)) };
    await harness.overTls({ method: 'POST', path: '/v1/apply', body });
  }
});
afterAll(() => harness.close());

const ask = (path: string, body: object, who: TokenName = 'admin') =>
  harness.overTls({ method: 'POST', path: `/v1/policy-${path}`, body }, who);
const invariants = named('i.yaml', invariant);

test.each<[string, object, object]>([
  [
    'those in force',
    { files: invariants },
    { revision: 2, invariants: [{ name: 'no-dev', result: 'proven' }] },
  ],
  ['a revision', { revision: 1, files: invariants }, { revision: 1, invariants: [{ result: 'violated' }] }],
  [
    'a candidate',
    { files: [...invariants, ...named('c.yaml', policy("'*'"))] },
    {
      invariants: [
        {
          result: 'violated',
          violations: [{ witness: { destination: 'spiffe://example.org/ns/pay/sa/db' } }],
        },
      ],
    },
  ],
  ['rules alone', {}, { invariants: [], findings: [], policies: 1, destinations: 1, unproven: [] }],
  ['invariants alone', { files: invariants, examine: false }, { findings: [] }],
])('a proof of %s', async (_, body, expected) => {
  const { status, json } = await ask('proofs', body);
  expect(status).toBe(200);
  expect(json).toMatchObject(expected);
});

test.each<[string, object, object, number, number]>([
  ['two revisions', { revision: 1 }, { revision: 2 }, 0, 1],
  ['the other way round', { revision: 2 }, { revision: 1 }, 1, 0],
  ['a revision and itself', { revision: 2 }, { revision: 'active' }, 0, 0],
  ['a candidate', { revision: 'active' }, { files: named('c.yaml', policy('web')) }, 1, 1],
])('a comparison of %s', async (_, from, to, allowed, denied) => {
  const { status, json } = await ask('comparisons', { from, to }, 'viewer');
  expect(status).toBe(200);
  expect([json.newlyAllowed, json.newlyDenied]).toEqual([
    Array.from({ length: allowed }, () => expect.anything()),
    Array.from({ length: denied }, () => expect.anything()),
  ]);
});

const sides = { from: { revision: 1 }, to: { revision: 2 } };
test.each<[string, object, TokenName, number, string]>([
  ['proofs', {}, 'shopViewer', 403, 'forbidden'],
  ['comparisons', sides, 'shopViewer', 403, 'forbidden'],
  ['proofs', { revision: 99 }, 'admin', 404, 'policy_revision_not_found'],
  ['proofs', { revision: 0 }, 'admin', 400, 'body_invalid'],
  ['proofs', { revision: 'latest' }, 'admin', 400, 'body_invalid'],
  ['proofs', { files: [] }, 'admin', 400, 'body_invalid'],
  [
    'proofs',
    { files: named('i.yaml', invariant.replace('PolicyInvariant', 'PolicyInvarient')) },
    'admin',
    400,
    'document_kind_unknown',
  ],
  [
    'proofs',
    { files: named('i.yaml', `${invariant}---\n${invariant}`) },
    'admin',
    400,
    'document_field_value',
  ],
  [
    'proofs',
    { files: named('i.yaml', invariant.replace('never', 'sometimes')) },
    'admin',
    400,
    'document_field_unknown',
  ],
  ['proofs', { files: named('p.yaml', policy('"a*b"')) }, 'admin', 400, 'policy_invalid'],
  ['comparisons', { from: { revision: 1 } }, 'admin', 400, 'body_invalid'],
  ['comparisons', { ...sides, to: { revision: 1, files: invariants } }, 'admin', 400, 'body_invalid'],
  ['comparisons', { ...sides, to: { revision: 99 } }, 'admin', 404, 'policy_revision_not_found'],
  ['comparisons', { ...sides, to: { files: named('p.yaml', 'a: [') } }, 'admin', 400, 'document_syntax'],
])('policy-%s of %j by %s is refused with %d %s', async (path, body, who, status, code) => {
  const answer = await ask(path, body, who);
  expect([answer.status, answer.json.code]).toEqual([status, code]);
});
