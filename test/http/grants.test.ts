import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { issuance } from '../audit/events.ts';
import { entry, grant, id } from './documents.ts';
import { clientCertificate, configuredAdmin, type TokenName } from './callers.ts';
import { type Harness, startHarness } from './harness.ts';

let harness: Harness;
beforeAll(async () => {
  harness = await startHarness();
  await apply('admin', entry('web'));
  const given = { time: harness.clock.now(), notAfter: new Date(harness.clock.now().getTime() + 3_600_000) };
  await harness.store.recordEvents([
    issuance({ ...given, serial: '41', spiffeId: configuredAdmin, spkiSha256: 'aa'.repeat(32) }),
    issuance({ ...given, serial: '42', spiffeId: id('till'), spkiSha256: 'bb'.repeat(32) }),
  ]);
});
afterAll(() => harness.close());

const ask = (by: TokenName, method: string, path: string, body?: unknown) =>
  harness.overTls({ method, path, ...(body === undefined ? {} : { body }) }, by);
const apply = (by: TokenName, text: string) =>
  ask(by, 'POST', '/v1/apply', { files: [{ file: '0.yaml', text }] });
const ban = (kind: string, value: string) => ({ kind, value, reason: 'x' });
const alias = (name: string, node: string) =>
  `apiVersion: countersign.dev/v1\nkind: NodeAlias\nmetadata: { name: ${name} }\nspec: { selectors: ["join_token:${node}"] }\n`;
const bound = (spiffeId: string) =>
  entry('bound', 'shop', ', nodes: ["alias:edge"]').replace(id('bound'), spiffeId);
const posing = { id: 'posing', spiffeId: id('posing'), selectors: ['unix:uid:1000'] };

describe('the entry of an administrator', () => {
  const owner = configuredAdmin;
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

  test.each<[TokenName, string, string, number]>([
    ['operator', 'serial', '41', 403],
    ['operator', 'key', 'aa'.repeat(32), 403],
    ['admin', 'serial', '41', 200],
    ['admin', 'key', 'aa'.repeat(32), 200],
    ['operator', 'serial', '42', 200],
  ])('has its certificates banned for good: %s lifts %s %s', async (by, kind, value, status) => {
    await ask('operator', 'POST', '/v1/bans', ban(kind, value));
    expect((await ask(by, 'DELETE', `/v1/bans/${kind}/${value}`)).status).toBe(status);
  });

  test.each<[string, TokenName, string, number]>([
    ['makes an alias', 'operator', alias('edge', 'web-1'), 200],
    ['ties an administrator to it', 'admin', bound(owner), 200],
    ['says which nodes are meant', 'operator', alias('edge', 'web-2'), 403],
    ['says it with another alias', 'operator', `${alias('rim', 'a')}---\n${alias('edge', 'web-2')}`, 403],
    ['says it of another alias', 'operator', alias('rim', 'web-2'), 200],
    ['says which nodes are meant', 'admin', alias('edge', 'web-2'), 200],
  ])('%s: %s', async (_, by, text, status) => {
    expect((await apply(by, text)).status).toBe(status);
  });

  test.each<[TokenName, string, string, object, number]>([
    ['operator', 'POST', '/v1/entries', { ...posing, dnsNames: ['localhost'] }, 403],
    ['operator', 'PATCH', '/v1/entries/web', { dnsNames: ['web', 'localhost'] }, 403],
    ['operator', 'POST', '/v1/entries', { ...posing, dnsNames: ['db.localhost'] }, 201],
    ['admin', 'PATCH', '/v1/entries/posing', { dnsNames: ['localhost'] }, 200],
    ['operator', 'PATCH', '/v1/entries/posing', { selectors: ['unix:uid:0'] }, 403],
    ['operator', 'PATCH', '/v1/entries/posing', { dnsNames: [] }, 200],
  ])('nor is the name of the server: %s %s %s %j', async (by, method, path, sent, status) => {
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
