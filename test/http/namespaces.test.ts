import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { allowedCalls, decision } from '../audit/events.ts';
import { entry, grant, id, policy } from './documents.ts';
import { type TokenName } from './callers.ts';
import { type Harness, startHarness } from './harness.ts';

let harness: Harness;
beforeAll(async () => {
  harness = await startHarness();
  await apply(
    'admin',
    entry('web'),
    entry('ledger', 'bank'),
    policy('all', 'bank'),
    policy('all', 'istio-system'),
  );
  await apply('admin', policy('all', 'shop'));
});
afterAll(() => harness.close());

const ask = (by: TokenName, method: string, path: string, body?: unknown) =>
  harness.overTls({ method, path, ...(body === undefined ? {} : { body }) }, by);
async function apply(by: TokenName, ...texts: readonly string[]) {
  const files = texts.map((text, i) => ({ file: `${i}.yaml`, text }));
  return ask(by, 'POST', '/v1/apply', { files });
}
const ids = async (by: TokenName, path: string, key: string) =>
  (await ask(by, 'GET', path)).json.items.map((item: Record<string, unknown>) => item[key]);

describe('lists are cut to the namespaces of the caller', () => {
  test.each<[TokenName, string, string, readonly string[]]>([
    ['shopViewer', '/v1/entries', 'id', ['web']],
    ['shopAuthor', '/v1/entries', 'id', ['web']],
    ['viewer', '/v1/entries', 'id', ['ledger', 'web']],
    ['shopViewer', '/v1/policies', 'key', ['shop/all']],
    ['policy-author', '/v1/policies', 'key', ['bank/all', 'istio-system/all', 'shop/all']],
  ])('%s sees of %s', async (by, path, key, expected) => {
    expect(await ids(by, path, key)).toEqual(expected);
  });

  test('page by page, with a cursor that tells nothing', async () => {
    const page = await ask('shopViewer', 'GET', '/v1/entries?limit=1');
    expect([page.json.items.length, page.json.next]).toEqual([1, null]);
  });

  test('bans: those of the identities of the namespace', async () => {
    for (const value of [id('web'), id('ledger', 'bank'), 'spiffe://other.org/ns/shop/sa/web']) {
      await ask('operator', 'POST', '/v1/bans', { kind: 'spiffe-id', value, reason: 'x' });
    }
    await ask('operator', 'POST', '/v1/bans', { kind: 'serial', value: '40ab', reason: 'x' });
    expect(await ids('shopOperator', '/v1/bans', 'value')).toEqual([id('web')]);
    expect((await ids('operator', '/v1/bans', 'value')).length).toBe(4);
  });
});

describe('what is elsewhere is not there, and what the caller names is refused', () => {
  test.each<[TokenName, string, string, unknown, number, string]>([
    ['shopViewer', 'GET', '/v1/entries/web', undefined, 200, ''],
    ['shopViewer', 'GET', '/v1/entries/ledger', undefined, 404, 'entry_not_found'],
    ['shopOperator', 'PATCH', '/v1/entries/ledger', { ttlSeconds: 60 }, 404, 'entry_not_found'],
    ['shopOperator', 'DELETE', '/v1/entries/ledger', undefined, 404, 'entry_not_found'],
    ['shopOperator', 'PATCH', '/v1/entries/web', { spiffeId: id('web', 'bank') }, 403, 'forbidden'],
    ['shopOperator', 'POST', '/v1/entries', body('new', 'bank'), 403, 'forbidden'],
    ['shopOperator', 'POST', '/v1/entries', body('ledger'), 409, 'entry_exists'],
    ['shopOperator', 'POST', '/v1/entries', { ...body('new'), dnsNames: ['new.bank'] }, 403, 'forbidden'],
    ['shopOperator', 'POST', '/v1/entries', { ...body('new'), dnsNames: ['localhost'] }, 403, 'forbidden'],
    ['shopOperator', 'POST', '/v1/entries', { ...body('new'), dnsNames: ['a.shop.evil'] }, 403, 'forbidden'],
    [
      'shopOperator',
      'POST',
      '/v1/entries',
      { ...body('flat'), spiffeId: 'spiffe://example.org/flat' },
      403,
      'forbidden',
    ],
    ['shopOperator', 'POST', '/v1/entries', { ...body('new'), dnsNames: ['new.shop.svc'] }, 201, ''],
    ['shopAuthor', 'POST', '/v1/entries', body('other'), 403, 'forbidden'],
    ['shopAuthor', 'GET', '/v1/policies/bank/all', undefined, 403, 'forbidden'],
    ['shopAuthor', 'GET', '/v1/policies/bank/none', undefined, 403, 'forbidden'],
    ['shopAuthor', 'GET', '/v1/policies/shop/none', undefined, 404, 'policy_not_found'],
    ['shopAuthor', 'DELETE', '/v1/policies/bank/all', undefined, 403, 'forbidden'],
    ['shopAuthor', 'DELETE', '/v1/policies/istio-system/all', undefined, 403, 'forbidden'],
    ['shopAuthor', 'DELETE', '/v1/policies/shop%2fall/all', undefined, 403, 'forbidden'],
    ['shopOperator', 'DELETE', '/v1/policies/shop/all', undefined, 403, 'forbidden'],
    ['shopOperator', 'POST', '/v1/bans', ban('spiffe-id', id('ledger', 'bank')), 403, 'forbidden'],
    ['shopOperator', 'POST', '/v1/bans', ban('serial', '40cd'), 403, 'forbidden'],
    [
      'shopOperator',
      'POST',
      '/v1/bans',
      ban('spiffe-id', 'spiffe://other.org/ns/shop/sa/x'),
      403,
      'forbidden',
    ],
    ['shopOperator', 'POST', '/v1/bans', ban('spiffe-id', id('new')), 201, ''],
    ['shopOperator', 'DELETE', '/v1/bans/serial/40ab', undefined, 403, 'forbidden'],
    ['shopOperator', 'DELETE', '/v1/bans/serial/40ff', undefined, 403, 'forbidden'],
    ['shopAuthor', 'POST', '/v1/authz/check', call('shop'), 200, ''],
    ['shopAuthor', 'POST', '/v1/authz/check', call('bank'), 403, 'forbidden'],
    [
      'shopAuthor',
      'POST',
      '/v1/authz/check',
      { ...call('shop'), destination: 'spiffe://other.org/ns/shop/sa/x' },
      403,
      'forbidden',
    ],
  ])('%s: %s %s', async (by, method, path, sent, status, code) => {
    const answer = await ask(by, method, path, sent);
    expect([answer.status, answer.json?.code ?? '']).toEqual([status, code]);
    if (status === 404) expect(answer.json.detail).not.toContain('bank');
  });

  test('a missing entry and one of another namespace answer in the same words', async () => {
    const words = async (path: string) =>
      (await ask('shopOperator', 'DELETE', path)).text.replaceAll(/ledger|absent/g, '');
    expect(await words('/v1/entries/ledger')).toBe(await words('/v1/entries/absent'));
  });
});

test.each<[TokenName, string]>([
  ['shopViewer', 'the caller or the destination is banned'],
  ['policy-author', 'the caller or the destination is banned'],
  ['viewer', 'the caller is banned: x'],
])('authz/check tells %s of the ban of a caller elsewhere: %s', async (by, why) => {
  await ask('operator', 'POST', '/v1/bans', ban('spiffe-id', id('ledger', 'bank')));
  const sent = { ...call('shop'), source: id('ledger', 'bank'), destination: id('till') };
  const { json } = await ask(by, 'POST', '/v1/authz/check', sent);
  expect([json.verdict, json.reason, json.why]).toEqual(['deny', 'banned', why]);
});

describe('apply', () => {
  const revision = () => harness.ports.administration.current().revision;
  test.each<[string, TokenName, readonly string[], object | null]>([
    ['its own policy', 'shopAuthor', [policy('own', 'shop')], null],
    [
      'policies, the second elsewhere',
      'shopAuthor',
      [policy('own2', 'shop'), policy('x', 'bank')],
      { permission: 'policies:write', file: '1.yaml', line: 1 },
    ],
    [
      'a policy of the root namespace',
      'shopAuthor',
      [policy('x', 'istio-system')],
      { permission: 'policies:write', file: '0.yaml', line: 1 },
    ],
    [
      'an unchanged policy of elsewhere',
      'shopAuthor',
      [policy('all', 'bank')],
      { permission: 'policies:write', file: '0.yaml', line: 1 },
    ],
    [
      'an entry, as an author',
      'shopAuthor',
      [`${policy('own3', 'shop')}---\n${entry('web')}`],
      { permission: 'entries:write', file: '0.yaml', line: 6 },
    ],
    [
      'a policy, as an operator',
      'operator',
      [entry('web'), policy('x', 'shop')],
      { permission: 'policies:write', file: '1.yaml', line: 1 },
    ],
    [
      'an entry of elsewhere',
      'shopOperator',
      [entry('web', 'bank')],
      { permission: 'entries:write', file: '0.yaml', line: 1 },
    ],
    [
      'a grant, as an operator',
      'operator',
      [grant('me', 'admin', `spiffeId: "${id('web')}"`)],
      { permission: 'grants:write', file: '0.yaml', line: 1 },
    ],
    [
      'a node alias, as a confined operator',
      'shopOperator',
      [alias],
      { permission: 'nodes:write', file: '0.yaml', line: 1 },
    ],
    [
      'another DNS name',
      'shopOperator',
      [entry('web', 'shop', ', dnsNames: ["web.bank"]')],
      { permission: 'entries:write', file: '0.yaml', line: 1 },
    ],
  ])('%s', async (_, by, texts, refusal) => {
    const before = revision();
    const answer = await apply(by, ...texts);
    if (refusal === null) {
      expect([answer.status, revision()]).toEqual([200, before + 1]);
      return;
    }
    const { permission, ...place } = refusal as { permission: string; file: string; line: number };
    expect([answer.status, answer.json.code]).toEqual([403, 'forbidden']);
    expect(answer.json.detail).toContain(permission);
    expect(answer.json.place).toMatchObject(place);
    expect(revision()).toBe(before);
  });

  test('an id of another namespace is taken, and nothing is said of it', async () => {
    const answer = await apply('shopOperator', entry('ledger'));
    expect([answer.status, answer.json.code]).toEqual([409, 'entry_exists']);
    expect(answer.text).not.toContain('bank');
  });
});

describe('a token', () => {
  test('of a policy-author has namespaces, or says that it is for all', async () => {
    const make = (body: object) => ask('admin', 'POST', '/v1/tokens', { role: 'policy-author', ...body });
    expect((await make({})).json.code).toBe('grant_invalid');
    expect((await make({ namespaces: ['shop'] })).json.grants).toEqual([
      { role: 'policy-author', namespaces: ['shop'] },
    ]);
    expect((await make({ allNamespaces: true })).json.grants[0].namespaces).toBeNull();
  });
});

describe('the log', () => {
  test.each<[TokenName, number, boolean]>([
    ['viewer', 403, false],
    ['operator', 200, false],
    ['auditor', 200, true],
  ])('%s asks for decisions: %i; personal values: %s', async (by, status, personal) => {
    for (const type of ['decision', 'allowed_calls', 'admin,allowed_calls'])
      expect((await ask(by, 'GET', `/v1/audit?type=${type}`)).status).toBe(status);
    const { json } = await ask(by, 'GET', '/v1/audit?type=admin');
    expect(json.items[0].personal.sourceAddress !== undefined).toBe(personal);
  });

  test('a viewer who asks for everything is given all but decisions', async () => {
    await harness.store.recordEvents([
      decision({ time: harness.clock.now() }),
      allowedCalls({ time: harness.clock.now() }),
    ]);
    const types = async (by: TokenName) => {
      const { json } = await ask(by, 'GET', '/v1/audit?limit=1000');
      return new Set(json.items.map(({ event }: { event: { type: string } }) => event.type));
    };
    for (const type of ['decision', 'allowed_calls']) {
      expect((await types('viewer')).has(type)).toBe(false);
      expect((await types('auditor')).has(type)).toBe(true);
    }
  });
});

describe('calls are recorded', () => {
  const of = async (route: string) =>
    (await harness.events('admin')).filter(
      (event) => event['route'] === route && event['action'] !== 'refused',
    );

  test('a read that is repeated: at once, and counted each hour', async () => {
    for (let i = 0; i < 5; i++) await ask('auditor', 'GET', '/v1/nodes');
    expect(await of('/v1/nodes')).toHaveLength(1);
    harness.clock.move(3_600_000);
    await ask('auditor', 'GET', '/v1/nodes');
    const [first, counted, next] = await of('/v1/nodes');
    expect(first).toMatchObject({ action: 'called', code: '', detail: '', actor: { role: 'auditor' } });
    expect(counted).toMatchObject({ detail: '4 more within an hour' });
    expect(next).toMatchObject({ detail: '' });
  });

  test('a change that failed, with its code', async () => {
    await ask('admin', 'DELETE', '/v1/policies/shop/none');
    expect((await of('/v1/policies/:namespace/:name')).at(-1)).toMatchObject({
      action: 'called',
      method: 'DELETE',
      code: 'policy_not_found',
      actor: { role: 'admin' },
    });
  });

  test('a refusal of a namespace, with what was lacking', async () => {
    harness.clock.move(61_000);
    await ask('shopAuthor', 'DELETE', '/v1/policies/bank/all');
    expect((await harness.events('admin')).at(-1)).toMatchObject({
      action: 'refused',
      code: 'forbidden',
      actor: { kind: 'token', role: 'policy-author' },
      detail: expect.stringContaining('policies:write') as string,
    });
  });
});

const alias =
  'apiVersion: countersign.dev/v1\nkind: NodeAlias\nmetadata: { name: edge }\nspec: { selectors: ["join_token:web-1"] }\n';

function body(name: string, namespace = 'shop') {
  return { id: name, spiffeId: id(name, namespace), selectors: ['unix:uid:1000'] };
}

function ban(kind: string, value: string) {
  return { kind, value, reason: 'x' };
}

function call(namespace: string) {
  return { source: null, destination: id('web', namespace), method: 'GET', path: '/' };
}
