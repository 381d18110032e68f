import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { entry, grant, id } from './documents.ts';
import { clientCertificate, type TokenName } from './callers.ts';
import { type Harness, startHarness } from './harness.ts';

let harness: Harness;
beforeAll(async () => {
  harness = await startHarness();
  await apply('admin', entry('web'));
});
afterAll(() => harness.close());

const ask = (by: TokenName, method: string, path: string, body?: unknown) =>
  harness.overTls({ method, path, ...(body === undefined ? {} : { body }) }, by);
const apply = (by: TokenName, text: string) =>
  ask(by, 'POST', '/v1/apply', { files: [{ file: '0.yaml', text }] });
const ban = (kind: string, value: string) => ({ kind, value, reason: 'x' });

describe('the entry of an administrator', () => {
  const owner = 'spiffe://example.org/ns/ops/sa/admin';
  const wish = { id: 'boss', spiffeId: owner, selectors: ['unix:uid:0'] };

  test.each<[TokenName, string, string, unknown, number]>([
    ['operator', 'POST', '/v1/entries', wish, 403],
    ['admin', 'POST', '/v1/entries', wish, 201],
    ['operator', 'PATCH', '/v1/entries/boss', { selectors: ['unix:uid:1000'] }, 403],
    ['operator', 'DELETE', '/v1/entries/boss', undefined, 403],
    ['operator', 'PATCH', '/v1/entries/web', { spiffeId: owner }, 403],
    ['operator', 'POST', '/v1/bans', ban('spiffe-id', owner), 201],
    ['operator', 'DELETE', `/v1/bans/spiffe-id/${encodeURIComponent(owner)}`, undefined, 403],
    ['admin', 'DELETE', `/v1/bans/spiffe-id/${encodeURIComponent(owner)}`, undefined, 200],
  ])('%s: %s %s', async (by, method, path, sent, status) => {
    expect((await ask(by, method, path, sent)).status).toBe(status);
  });

  test('is one as soon as a grant names its SPIFFE ID', async () => {
    expect((await ask('operator', 'PATCH', '/v1/entries/web', { ttlSeconds: 60 })).status).toBe(200);
    await apply('admin', grant('web', 'viewer', `spiffeId: "${id('web')}"`));
    expect((await ask('operator', 'PATCH', '/v1/entries/web', { ttlSeconds: 61 })).status).toBe(403);
    await ask('admin', 'DELETE', '/v1/admin/grants/web');
    expect((await ask('operator', 'PATCH', '/v1/entries/web', { ttlSeconds: 61 })).status).toBe(200);
  });
});

describe('grants', () => {
  const deployer = 'spiffe://example.org/ns/ci/sa/deployer';

  test('count from the next request on, and no longer once they are deleted', async () => {
    const own = await clientCertificate(harness.clients.current, deployer, harness.clock.now());
    const status = async (path: string) => (await harness.overMtls({ path }, own)).status;
    expect(await status('/v1/entries')).toBe(403);
    const wish = { name: 'ci', subject: { spiffeId: deployer }, role: 'operator', namespaces: ['shop'] };
    const made = await ask('admin', 'POST', '/v1/admin/grants', wish);
    expect([made.status, made.json]).toEqual([201, { ...wish, revision: expect.any(Number) }]);
    expect([await status('/v1/entries'), await status('/v1/status')]).toEqual([200, 403]);
    expect((await ask('auditor', 'GET', '/v1/admin/grants')).json.items).toEqual([made.json]);
    expect((await ask('auditor', 'GET', '/v1/admin/grants/ci')).json).toEqual(made.json);
    const again = await ask('admin', 'POST', '/v1/admin/grants', { ...wish, role: 'viewer' });
    expect([again.status, again.json.code]).toEqual([409, 'grant_exists']);
    const put = { method: 'PATCH', path: '/v1/entries/web', body: { ttlSeconds: 90 } };
    expect((await harness.overMtls(put, own)).status).toBe(200);
    expect((await harness.events('entry_change')).at(-1)?.['actor']).toEqual({
      kind: 'svid',
      spiffeId: deployer,
      serial: own.serial,
      role: 'operator',
    });
    expect((await ask('admin', 'DELETE', '/v1/admin/grants/ci')).status).toBe(204);
    expect(await status('/v1/entries')).toBe(403);
    expect((await ask('admin', 'DELETE', '/v1/admin/grants/ci')).json.code).toBe('grant_not_found');
    const changes = (await harness.events('grant_change')).filter(({ grant: name }) => name === 'ci');
    expect(changes.map(({ action, before, after }) => [action, before === null, after === null])).toEqual([
      ['created', true, false],
      ['deleted', false, true],
    ]);
  });

  test.each<[string, object, string]>([
    ['a node', { subject: { spiffeId: 'spiffe://example.org/countersign/node/a' } }, 'grant_invalid'],
    [
      'another trust domain',
      { subject: { spiffeId: 'spiffe://other.org/a' } },
      'spiffe_id_foreign_trust_domain',
    ],
    ['nobody', { subject: {} }, 'grant_invalid'],
    ['two at once', { subject: { spiffeId: deployer, oidcGroup: 'a' } }, 'grant_invalid'],
    [
      'a SPIFFE ID of an issuer',
      { subject: { spiffeId: deployer, oidcIssuer: 'https://a.example' } },
      'grant_invalid',
    ],
    ['a group without an issuer', { subject: { oidcGroup: 'a' } }, 'grant_invalid'],
    [
      'an issuer without TLS',
      { subject: { oidcGroup: 'a', oidcIssuer: 'http://a.example' } },
      'grant_invalid',
    ],
    [
      'a hidden character',
      { subject: { oidcSubject: 'a\u202eb', oidcIssuer: 'https://a.example' } },
      'grant_invalid',
    ],
    ['an unknown role', { role: 'root' }, 'body_invalid'],
    ['a confined admin', { role: 'admin', namespaces: ['shop'] }, 'grant_invalid'],
    ['a confined auditor', { role: 'auditor', namespaces: ['shop'] }, 'grant_invalid'],
    ['no namespace at all', { namespaces: [] }, 'grant_invalid'],
    ['a namespace in upper case', { namespaces: ['Shop'] }, 'grant_invalid'],
    ['a wildcard', { namespaces: ['*'] }, 'grant_invalid'],
    ['namespaces, and all', { namespaces: ['shop'], allNamespaces: true }, 'grant_invalid'],
    ['a policy-author of nothing said', { role: 'policy-author' }, 'grant_invalid'],
    ['a name with a slash', { name: 'a/b' }, 'grant_invalid'],
  ])('cannot be for %s', async (_, change, code) => {
    const wish = { name: 'a', subject: { spiffeId: deployer }, role: 'operator', ...change };
    const answer = await ask('admin', 'POST', '/v1/admin/grants', wish);
    expect([answer.status, answer.json.code]).toEqual([400, code]);
  });

  test('survive a restart, as documents do', async () => {
    const text = grant(
      'login',
      'policy-author',
      'oidcIssuer: https://login.example.org/, oidcGroup: "shop \\"odd\\""',
      ', namespaces: [shop, bank]',
    );
    expect((await apply('admin', text)).json.changes).toEqual([
      { kind: 'grant', key: 'login', action: 'created' },
    ]);
    expect((await apply('admin', text)).json.changes[0].action).toBe('unchanged');
    const { grants } = await harness.store.loadMesh();
    expect(grants?.get('login')).toEqual(harness.ports.administration.current().grants?.get('login'));
    expect(grants?.get('login')).toMatchObject({
      role: 'policy-author',
      namespaces: ['bank', 'shop'],
      subject: { kind: 'oidc-group', issuer: 'https://login.example.org/', value: 'shop "odd"' },
    });
  });
});
