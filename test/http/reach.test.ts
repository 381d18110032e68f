import { afterAll, beforeAll, expect, test } from 'vitest';
import type { TokenName } from './callers.ts';
import { entry, id } from './documents.ts';
import { type Harness, startHarness } from './harness.ts';

let harness: Harness;
const policy = (namespace: string, spec: string) =>
  `apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: { name: p, namespace: ${namespace} }\nspec: ${spec}\n`;

beforeAll(async () => {
  harness = await startHarness();
  const web = id('web').replace('spiffe://', '');
  const texts = [
    ...[entry('web'), entry('job'), entry('ledger', 'bank')],
    policy(
      'bank',
      `{ rules: [{ from: [{ source: { principals: [${web}] } }], to: [{ operation: { methods: [GET] } }] }] }`,
    ),
    policy('shop', '{ rules: [{ from: [{ source: { namespaces: [bank] } }] }] }'),
  ];
  const files = texts.map((text, i) => ({ file: `${i}.yaml`, text }));
  expect((await ask('admin', 'apply', { files })).status).toBe(200);
});
afterAll(() => harness.close());

const ask = (by: TokenName, route: string, body: unknown) =>
  harness.overTls({ method: 'POST', path: `/v1/${route}`, body }, by);
const rows = async (by: TokenName, route: string, body: unknown) =>
  (await ask(by, `authz/${route}`, body)).json.items.map((item: Record<string, string>) => [
    item['caller'] ?? item['destination'],
    item['reach'],
  ]);

const [web, job, ledger] = [id('web'), id('job'), id('ledger', 'bank')];

test.each<[TokenName, string, object, [string, string][]]>([
  [
    'admin',
    'who-can',
    { destination: ledger },
    [
      [ledger, 'never'],
      [job, 'never'],
      [web, 'depends'],
    ],
  ],
  [
    'admin',
    'who-can',
    { destination: ledger, method: 'GET' },
    [
      [ledger, 'never'],
      [job, 'never'],
      [web, 'always'],
    ],
  ],
  [
    'admin',
    'who-can',
    { destination: ledger, method: 'PUT' },
    [
      [ledger, 'never'],
      [job, 'never'],
      [web, 'never'],
    ],
  ],
  [
    'admin',
    'can-reach',
    { source: ledger },
    [
      [ledger, 'never'],
      [job, 'always'],
      [web, 'always'],
    ],
  ],
  ['admin', 'can-reach', { source: ledger, limit: 1 }, [[ledger, 'never']]],
  // Callers of other namespaces are not shown, and neither are destinations.
  [
    'shopViewer',
    'who-can',
    { destination: web },
    [
      [job, 'never'],
      [web, 'never'],
    ],
  ],
  [
    'shopViewer',
    'can-reach',
    { source: ledger },
    [
      [job, 'always'],
      [web, 'always'],
    ],
  ],
])('%s asks %s %j', async (by, route, body, expected) => {
  expect(await rows(by, route, body)).toEqual(expected);
});

test.each<[TokenName, string, object, number, string]>([
  ['shopViewer', 'who-can', { destination: ledger }, 403, 'forbidden'],
  ['shopViewer', 'who-can', { destination: 'spiffe://other.org/ns/shop/sa/web' }, 403, 'forbidden'],
  ['admin', 'who-can', {}, 400, 'body_invalid'],
  ['admin', 'who-can', { destination: 'web' }, 400, 'spiffe_id_scheme'],
  ['admin', 'who-can', { destination: ledger, path: '/a//b' }, 400, 'body_invalid'],
  ['admin', 'who-can', { destination: ledger, path: 'a' }, 400, 'body_invalid'],
  ['admin', 'who-can', { destination: ledger, method: 'G T' }, 400, 'body_invalid'],
  ['admin', 'who-can', { destination: ledger, host: 'a@b' }, 400, 'body_invalid'],
  ['admin', 'who-can', { destination: ledger, port: 0 }, 400, 'body_invalid'],
  ['admin', 'who-can', { destination: ledger, limit: 1_001 }, 400, 'body_invalid'],
  ['admin', 'who-can', { destination: ledger, cursor: '?' }, 400, 'query_invalid'],
  ['admin', 'who-can', { destination: ledger, headers: {} }, 400, 'body_invalid'],
  ['admin', 'can-reach', { destination: ledger }, 400, 'body_invalid'],
])('%s asks %s %j in vain', async (by, route, body, status, code) => {
  const answer = await ask(by, `authz/${route}`, body);
  expect([answer.status, answer.json.code]).toEqual([status, code]);
});

test('a banned identity reaches nothing, and is reached by nobody', async () => {
  await ask('admin', 'bans', { kind: 'spiffe-id', value: web, reason: 'x' });
  const { json } = await ask('admin', 'authz/who-can', { destination: ledger, method: 'GET' });
  expect(json.items.at(-1)).toEqual({
    ...{ caller: web, reach: 'never', allow: [], unless: [], allowOmitted: 0, unlessOmitted: 0 },
    banned: true,
  });
  // The rule itself stands, for whoever is not banned.
  expect(json.anybody.reach).toBe('depends');
  expect(await rows('admin', 'can-reach', { source: ledger })).toEqual([
    [ledger, 'never'],
    [job, 'always'],
    [web, 'never'],
  ]);
});
