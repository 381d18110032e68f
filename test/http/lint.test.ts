import { afterAll, beforeAll, expect, test } from 'vitest';
import { type Harness, startHarness } from './harness.ts';
import type { TokenName } from './callers.ts';

let harness: Harness;
const text = (namespace: string) => `apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: { name: odd, namespace: ${namespace} }
spec:
  rules:
    - from: [{ source: { principals: [example.org/ns/shop/sa/gone] } }]
      to: [{ operation: { notMethods: [GET] } }]
`;

beforeAll(async () => {
  harness = await startHarness();
  const entry = { id: 'web', spiffeId: 'spiffe://example.org/ns/shop/sa/web', selectors: ['unix:uid:1'] };
  await harness.overTls({ method: 'POST', path: '/v1/entries', body: entry });
  const files = ['shop', 'pay'].map((namespace) => ({ file: `${namespace}.yaml`, text: text(namespace) }));
  await harness.overTls({ method: 'POST', path: '/v1/apply', body: { files } });
});
afterAll(() => harness.close());

type Row = { readonly policy: string; readonly code: string };
const ask = async (query: string, who: TokenName) =>
  harness.overTls({ path: `/v1/policy-lint${query}` }, who);
const found = async (query: string, who: TokenName): Promise<string[]> =>
  ((await ask(query, who)).json.findings as Row[]).map(({ policy, code }) => `${policy} ${code}`);

test('policies in force are compared with the entries', async () => {
  expect(await found('', 'viewer')).toEqual([
    'pay/odd allow_not_methods',
    'pay/odd selects_nothing',
    'pay/odd principal_unknown',
    'shop/odd allow_not_methods',
    'shop/odd principal_unknown',
  ]);
  expect((await ask('?limit=1', 'viewer')).json).toMatchObject({ omitted: 4, warnings: 5, inventory: true });
  expect(await found('?notes=true', 'viewer')).toContain('shop/odd istio_tcp');
});

test('who may not see everything gets its own policies, and no word of others', async () => {
  expect(await found('', 'shopViewer')).toEqual(['shop/odd allow_not_methods']);
  expect((await ask('', 'shopViewer')).json).toMatchObject({ inventory: false, policies: 1 });
});

test.each([['?limit=0'], ['?limit=x'], ['?notes=yes'], ['?colour=red']])('%s is refused', async (query) => {
  expect((await ask(query, 'viewer')).json.code).toBe('query_invalid');
});
