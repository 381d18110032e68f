import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { accessOf, includesRole, routeAccess } from '../../src/http/roles.ts';
import { adminRoles } from '../../src/identity/admin-token.ts';
import { type Harness, startHarness } from './harness.ts';

let harness: Harness;
beforeAll(async () => {
  harness = await startHarness();
});
afterAll(() => harness.close());

const guarded = [...routeAccess]
  .filter(([, access]) => access !== 'public')
  .map(([route, access]) => {
    const [method = '', pattern = ''] = route.split(' ');
    const path = pattern
      .replace(':namespace', 'shop')
      .replace(':name', 'web')
      .replace(':id', 'web')
      .replace(':kind', 'serial')
      .replace(':value', '40ab');
    return { route, method, pattern, path, access };
  });
const above = guarded.filter(({ access }) => access !== 'viewer');

describe.each(guarded)('$route', ({ method, pattern, path }) => {
  const refusals = [
    ['no token', null, {}, 401, 'unauthenticated', 'anonymous'],
    ['an expired token', 'expired', {}, 401, 'unauthenticated', 'token'],
    ['another scheme', null, { authorization: 'Basic YTpi' }, 401, 'unauthenticated', 'anonymous'],
    ['a foreign host', 'admin', { host: 'evil.example' }, 421, 'host_not_allowed', 'anonymous'],
    ['a foreign origin', 'admin', { origin: 'https://evil.example' }, 403, 'origin_not_allowed', 'anonymous'],
  ] as const;
  test.each(refusals)('refuses %s, and records it', async (_, role, headers, status, code, actor) => {
    harness.clock.move(61_000);
    const answer = await harness.overTls({ method, path, headers }, role);
    expect([answer.status, answer.json.code]).toEqual([status, code]);
    expect(answer.headers['content-type']).toContain('application/problem+json');
    expect(answer.headers['www-authenticate']).toBe(status === 401 ? 'Bearer' : undefined);
    const event = (await harness.events('admin')).at(-1);
    expect(event).toMatchObject({ action: 'refused', method, route: pattern, code, actor: { kind: actor } });
    expect(JSON.stringify(event)).not.toContain(path === pattern ? 'ctk_' : path);
  });
});

test.each(above)('$route refuses a viewer, and records who it was', async ({ method, pattern, path }) => {
  harness.clock.move(61_000);
  const answer = await harness.overTls({ method, path }, 'viewer');
  expect([answer.status, answer.json.code]).toEqual([403, 'forbidden']);
  expect((await harness.events('admin')).at(-1)).toMatchObject({
    action: 'refused',
    route: pattern,
    actor: { kind: 'token', role: 'viewer', tokenId: harness.tokens.viewer.slice(4, 20) },
  });
});

test.each([
  ['no dashes', 'Bearer ctk'],
  ['a short secret', 'Bearer ctk_0123456789abcdef_00'],
  ['an unknown token', `Bearer ctk_0123456789abcdef_${'0'.repeat(64)}`],
  ['two spaces', `Bearer  ctk_0123456789abcdef_${'0'.repeat(64)}`],
  ['a NUL-like id', `Bearer ctk_${'__proto__'.padEnd(16, '0')}_${'0'.repeat(64)}`],
])('refuses %s as a token', async (_, authorization) => {
  const answer = await harness.overTls({ path: '/v1/status', headers: { authorization } }, null);
  expect([answer.status, answer.json.code]).toEqual([401, 'unauthenticated']);
});

test('refuses the right secret under another id', async () => {
  const secret = harness.tokens.admin.split('_')[2];
  const authorization = `Bearer ctk_0123456789abcdef_${secret}`;
  const answer = await harness.overTls({ path: '/v1/status', headers: { authorization } }, null);
  expect(answer.status).toBe(401);
  expect(answer.text).not.toContain(secret);
});

test('refuses two authorization headers', async () => {
  const line = `authorization: Bearer ${harness.tokens.admin}\r\n`;
  const answer = await harness.rawTls(
    `GET /v1/status HTTP/1.1\r\nhost: localhost\r\n${line}${line}connection: close\r\n\r\n`,
  );
  expect(answer).toMatch(/^HTTP\/1\.1 401 /);
});

test.each([
  ['none', 'GET /v1/status HTTP/1.1\r\n'],
  ['none in HTTP/1.0', 'GET /v1/status HTTP/1.0\r\n'],
  ['two', 'GET /v1/status HTTP/1.1\r\nhost: localhost\r\nhost: evil.example\r\n'],
  ['a user name', 'GET /v1/status HTTP/1.1\r\nhost: localhost@evil.example\r\n'],
  ['an empty port', 'GET /v1/status HTTP/1.1\r\nhost: localhost:\r\n'],
  ['a suffix', 'GET /v1/status HTTP/1.1\r\nhost: localhost.evil.example\r\n'],
])('refuses %s as the Host', async (_, head) => {
  const answer = await harness.rawTls(
    `${head}authorization: Bearer ${harness.tokens.admin}\r\nconnection: close\r\n\r\n`,
  );
  expect(answer).toMatch(/^HTTP\/1\.1 (421|400) /);
});

test.each([['localhost'], ['LOCALHOST:7443'], ['127.0.0.1:7443']])('accepts the Host %s', async (host) => {
  expect((await harness.overTls({ path: '/v1/status', headers: { host } })).status).toBe(200);
});

test('accepts its own origin', async () => {
  const headers = { host: 'localhost:7443', origin: 'https://localhost:7443' };
  expect((await harness.overTls({ path: '/v1/status', headers })).status).toBe(200);
});

test.each([
  ['a foreign host', { host: 'evil.example' }, 421],
  ['any origin', { origin: 'https://localhost' }, 403],
  ['no browser', {}, 200],
])('the Unix socket answers %s', async (_, headers, status) => {
  expect((await harness.overUnix({ path: '/v1/status', headers })).status).toBe(status);
});

test.each([
  ['/healthz', 200],
  ['/readyz', 200],
  ['/v1/nothing', 401],
  ['/metrics', 401],
  ['/v1/entries/..%2f..%2fhealthz', 401],
  ['/%ff', 404],
])('without a token %s answers %i', async (path, status) => {
  expect((await harness.overTls({ path }, null)).status).toBe(status);
});

test('an unknown route is 404 to a viewer', async () => {
  expect((await harness.overTls({ path: '/v1/nothing' }, 'viewer')).json.code).toBe('route_not_found');
});

test('every route has a role, and every role a route', () => {
  const routes = harness.tlsApp.printRoutes({ commonPrefix: false }).matchAll(/(\/\S*) \(([A-Z, ]+)\)/g);
  const found = [...routes].flatMap(([, path, methods]) =>
    methods?.split(', ').map((method) => `${method} ${path}`),
  );
  expect(found.length).toBe(routeAccess.size);
  for (const route of routeAccess.keys()) {
    const [method = '', url = ''] = route.split(' ');
    expect(harness.tlsApp.hasRoute({ method, url }), route).toBe(true);
  }
});

test('a route without a role cannot be added', () => {
  expect(() => accessOf('GET', '/v1/forgotten')).toThrowError(expect.objectContaining({ code: 'internal' }));
});

test('roles include the ones before them', () => {
  const table = adminRoles.map((role) => adminRoles.map((least) => includesRole(role, least)));
  expect(table).toEqual([
    [true, false, false],
    [true, true, false],
    [true, true, true],
  ]);
});
