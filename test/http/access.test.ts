import { readFileSync } from 'node:fs';
import { Agent } from 'node:https';
import { connect, type ConnectionOptions } from 'node:tls';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { parseAuditQuery } from '../../src/audit/question.ts';
import { accessOf, routeAccess } from '../../src/http/roles.ts';
import { adminRoles, permissions, rolePermissions } from '../../src/identity/access.ts';
import { makeTestAuthority } from '../ca/test-authority.ts';
import { type ClientCertificate, clientCertificate, configuredAdmin, type TokenName } from './callers.ts';
import { type Answer, type Ask, type Harness, startHarness } from './harness.ts';

let harness: Harness;
const shown = new Map<string, ClientCertificate>();
beforeAll(async () => {
  harness = await startHarness();
  const { clients, clock } = harness;
  const now = clock.now();
  const foreign = await makeTestAuthority(now, {}, 'example.org');
  const elsewhere = await makeTestAuthority(now, {}, 'elsewhere.org');
  const make = (id: string, by = clients.current) => clientCertificate(by, id, now, 86_400);
  const banned = await make('spiffe://example.org/ns/ops/sa/gone');
  shown.set('admin', await make(configuredAdmin));
  shown.set('stranger', await make('spiffe://example.org/ns/shop/sa/web'));
  shown.set('node', await make('spiffe://example.org/countersign/node/web-1'));
  shown.set('foreign', await make(configuredAdmin, foreign));
  shown.set('elsewhere', await make('spiffe://elsewhere.org/ns/ops/sa/admin', elsewhere));
  shown.set('banned', banned);
  shown.set('short', await clientCertificate(clients.current, configuredAdmin, now, 60));
  await harness.overUnix({
    method: 'POST',
    path: '/v1/bans',
    body: { kind: 'key', value: banned.spkiSha256, reason: 'stolen' },
  });
  // Only "short" runs out.
  clock.move(120_000);
});
afterAll(() => harness.close());

const guarded = [...routeAccess]
  .filter(([, access]) => access !== 'public')
  .map(([route, access]) => {
    const [method = '', pattern = ''] = route.split(' ');
    const path = pattern
      .replace(':namespace', 'shop')
      .replace(':number', '1')
      .replace(':name', 'none')
      .replace(':id', 'none')
      .replace(':kind', 'serial')
      .replace(':value', '40ff');
    return { route, method, pattern, path, access };
  });
/** What docs/access.md says: the roles of each permission, and the permission of each route. */
const documented = readAccessDocument();

const withToken = (name: TokenName | null) => (ask: Ask) => harness.overTls(ask, name);
const withCertificate = (name: string) => (ask: Ask) => harness.overMtls(ask, shown.get(name) ?? {});
const withHeader = (headers: Record<string, string>) => (ask: Ask) =>
  harness.overTls({ ...ask, headers: { ...ask.headers, ...headers } }, 'admin');

// Every kind of caller that no route serves, and what each is told.
const strangers: readonly [string, (ask: Ask) => Promise<Answer>, number, string, string][] = [
  ['nobody', withToken(null), 401, 'unauthenticated', 'anonymous'],
  ['an expired token', withToken('expired'), 401, 'unauthenticated', 'token'],
  ['another scheme', withHeader({ authorization: 'Basic YTpi' }), 401, 'unauthenticated', 'anonymous'],
  [
    'a JWT where no issuer is configured',
    withHeader({ authorization: 'Bearer eyJh.eyJh.c2ln' }),
    401,
    'unauthenticated',
    'anonymous',
  ],
  ['a foreign host', withHeader({ host: 'evil.example' }), 421, 'host_not_allowed', 'anonymous'],
  [
    'a foreign origin',
    withHeader({ origin: 'https://evil.example' }),
    403,
    'origin_not_allowed',
    'anonymous',
  ],
  ['a workload without a grant', withCertificate('stranger'), 403, 'forbidden', 'svid'],
  ['a node', withCertificate('node'), 403, 'forbidden', 'svid'],
  ['a certificate of a foreign CA', withCertificate('foreign'), 401, 'unauthenticated', 'anonymous'],
  [
    'a certificate of another trust domain',
    withCertificate('elsewhere'),
    401,
    'unauthenticated',
    'anonymous',
  ],
  ['an expired certificate', withCertificate('short'), 401, 'unauthenticated', 'anonymous'],
  ['a banned key', withCertificate('banned'), 403, 'identity_banned', 'svid'],
  ['a foreign certificate and a good token', both('foreign'), 401, 'unauthenticated', 'anonymous'],
  ['a good certificate and a good token', both('admin'), 401, 'unauthenticated', 'svid'],
];

describe.each(strangers)('%s is refused', (_, call, status, code, actor) => {
  test.each(guarded)('by $route, and that is recorded', async ({ method, pattern, path }) => {
    harness.clock.move(61_000);
    const answer = await call({ method, path });
    expect([answer.status, answer.json.code]).toEqual([status, code]);
    expect(answer.headers['content-type']).toContain('application/problem+json');
    expect(answer.headers['www-authenticate']).toBe(status === 401 ? 'Bearer' : undefined);
    const event = await lastAdminEvent();
    expect(event).toMatchObject({ action: 'refused', method, route: pattern, code, actor: { kind: actor } });
    expect(JSON.stringify(event)).not.toMatch(/ctk_|eyJ/);
  });
});

describe.each(guarded)('$route', ({ route, method, pattern, path, access }) => {
  test('takes the permission that the document says', () => {
    expect(documented.routes.get(route)).toBe(access);
  });

  test.each(adminRoles)('serves or refuses the role %s as the document says', async (role) => {
    // In all less than the day for which certificates hold.
    harness.clock.move(10_000);
    const answer = await harness.overTls({ method, path }, role);
    const may = documented.roles.get(String(documented.routes.get(route)))?.includes(role) ?? false;
    if (may) {
      expect([401, 403, 421, 500]).not.toContain(answer.status);
      return;
    }
    expect([answer.status, answer.json.code]).toEqual([403, 'forbidden']);
    expect(answer.json.detail).toBe(`this needs the permission ${access}`);
    expect(await lastAdminEvent()).toMatchObject({
      action: 'refused',
      route: pattern,
      actor: { kind: 'token', role, tokenId: harness.tokens[role].slice(4, 20) },
    });
  });

  test('serves an administrator by certificate', async () => {
    const answer = await harness.overMtls({ method, path }, shown.get('admin') ?? {});
    expect([401, 403, 421, 500]).not.toContain(answer.status);
  });

  test.each(['shopAuthor', 'shopOperator', 'shopViewer'] as const)(
    'refuses %s what concerns the whole mesh',
    async (name) => {
      const role = ({ shopAuthor: 'policy-author', shopOperator: 'operator', shopViewer: 'viewer' } as const)[
        name
      ];
      const reach = documented.reaches.get(access);
      const may = (documented.roles.get(access)?.includes(role) ?? false) && reach !== 'mesh';
      const answer = await harness.overTls({ method, path }, name);
      // The one path of the walk that names what is in no namespace: a ban of a serial.
      if (may && !path.startsWith('/v1/bans/')) expect([401, 403, 421, 500]).not.toContain(answer.status);
      else expect([answer.status, answer.json.code]).toEqual([403, 'forbidden']);
    },
  );
});

test('the document names every permission, with its roles, and every route', () => {
  expect([...documented.roles.keys()]).toEqual([...permissions]);
  for (const permission of permissions) {
    const roles = adminRoles.filter((role) => rolePermissions[role].has(permission));
    expect(documented.roles.get(permission), permission).toEqual(roles);
  }
  expect([...documented.routes]).toEqual([...routeAccess]);
});

describe('a connection that is kept', () => {
  test('is judged at each request: a ban, the end of the certificate and of its CA are seen at once', async () => {
    const { clients, clock } = harness;
    const agent = new Agent({ keepAlive: true, maxSockets: 1 });
    const own = await clientCertificate(clients.current, configuredAdmin, clock.now(), 600);
    const ask = async () => {
      const { status, json } = await harness.overMtls({ path: '/v1/status' }, own, agent);
      return [status, json.code];
    };
    const ban = { kind: 'serial', value: own.serial, reason: 'lost' };
    try {
      expect(await ask()).toEqual([200, undefined]);
      await harness.overUnix({ method: 'POST', path: '/v1/bans', body: ban });
      expect(await ask()).toEqual([403, 'identity_banned']);
      await harness.overUnix({ method: 'DELETE', path: `/v1/bans/serial/${own.serial}` });
      expect(await ask()).toEqual([200, undefined]);
      const before = clients.current;
      clients.current = await makeTestAuthority(clock.now(), {}, 'example.org');
      expect(await ask()).toEqual([401, 'unauthenticated']);
      clients.current = before;
      expect(await ask()).toEqual([200, undefined]);
      clock.move(601_000);
      expect(await ask()).toEqual([401, 'unauthenticated']);
    } finally {
      agent.destroy();
    }
  });

  test('is no session to resume: whoever comes back without the certificate is nobody', async () => {
    const own = await clientCertificate(harness.clients.current, configuredAdmin, harness.clock.now(), 600);
    const port = Number(harness.tls.address.split(':').at(-1));
    const open = { host: '127.0.0.1', port, servername: 'localhost', ca: harness.caPem };
    const first = await speak({ ...open, ...own });
    expect(first).toMatchObject({ status: '200', reused: false });
    expect(first.session).toBeInstanceOf(Buffer);
    expect(await speak({ ...open, session: first.session })).toMatchObject({
      status: '401',
      reused: false,
    });
    expect(await speak({ ...open, ...own, session: first.session })).toMatchObject({
      status: '200',
      reused: false,
    });
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
  ['/%ff', 401],
  ['/v1/entries/%zz', 401],
  [`/v1/entries/${'a'.repeat(7_000)}`, 401],
])('without a token %s answers %i', async (path, status) => {
  expect((await harness.overTls({ path }, null)).status).toBe(status);
});

test.each(['/v1/nothing', '/%ff', '/v1/entries/%zz'])(
  '%s is 404 to whoever has some role, and recorded',
  async (path) => {
    harness.clock.move(61_000);
    expect((await harness.overTls({ path }, 'shopViewer')).json.code).toBe('route_not_found');
    expect(await lastAdminEvent()).toMatchObject({
      action: 'called',
      route: '(none)',
      code: 'route_not_found',
    });
  },
);

test('an unknown expectation is not answered before somebody is known', async () => {
  const head = 'GET /v1/status HTTP/1.1\r\nhost: localhost\r\nexpect: much\r\nconnection: close\r\n\r\n';
  expect(await harness.rawTls(head)).toMatch(/^HTTP\/1\.1 401 /);
});

test('every route has a permission, and every permission a route', () => {
  const routes = harness.tlsApp.printRoutes({ commonPrefix: false }).matchAll(/(\S+) \(([A-Z, ]+)\)/g);
  const found = [...routes].flatMap(([, path, methods]) =>
    methods?.split(', ').map((method) => `${method} ${path}`),
  );
  expect(found.length).toBe(routeAccess.size);
  for (const route of routeAccess.keys()) {
    const [method = '', url = ''] = route.split(' ');
    expect(harness.tlsApp.hasRoute({ method, url }), route).toBe(true);
  }
  const used = new Set<string>(routeAccess.values());
  expect(permissions.filter((permission) => !used.has(permission))).toEqual(
    [
      // Of documents, and of parts of the log.
      'policies:write',
      'audit:decisions',
      'audit:personal',
    ].filter((permission) => !used.has(permission)),
  );
});

test('a route without a permission cannot be added', () => {
  expect(() => accessOf('GET', '/v1/forgotten')).toThrowError(expect.objectContaining({ code: 'internal' }));
});

test('what makes somebody else of oneself is for admin alone', () => {
  for (const permission of ['tokens:write', 'grants:write', 'join-tokens:write', 'jwt:mint', 'ca:write']) {
    expect(documented.roles.get(permission)).toEqual(['admin']);
  }
  for (const permission of permissions.filter((name) => /:(write|mint|apply)$/.test(name))) {
    expect(documented.roles.get(permission), permission).not.toContain('auditor');
    expect(documented.roles.get(permission), permission).not.toContain('viewer');
  }
});

/** One request over a connection of its own, and the session that the server offered. */
async function speak(options: ConnectionOptions) {
  const socket = connect(options);
  let session: Buffer | undefined;
  let reused: boolean | undefined;
  socket.once('secureConnect', () => (reused = socket.isSessionReused()));
  socket.on('session', (offered) => (session = offered));
  socket.write('GET /v1/status HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n');
  const chunks: Buffer[] = [];
  for await (const chunk of socket) chunks.push(chunk as Buffer);
  const [, status] = /^HTTP\/1\.1 ([0-9]{3}) /.exec(Buffer.concat(chunks).toString('latin1')) ?? [];
  return { status, session, reused };
}

function both(name: string) {
  return (ask: Ask) => {
    const headers = { authorization: `Bearer ${harness.tokens.admin}` };
    return harness.overMtls({ ...ask, headers }, shown.get(name) ?? {});
  };
}

async function lastAdminEvent(): Promise<unknown> {
  const query = parseAuditQuery({ types: ['admin'], limit: 1 }, harness.clock.now());
  const { rows } = await harness.store.queryAudit(query);
  return JSON.parse(rows[0]?.leaf ?? 'null');
}

/** The tables of docs/access.md. */
function readAccessDocument(): {
  readonly roles: ReadonlyMap<string, readonly string[]>;
  readonly reaches: ReadonlyMap<string, string>;
  readonly routes: ReadonlyMap<string, string>;
} {
  const rows = readFileSync('docs/access.md', 'utf8')
    .split('\n')
    .filter((line) => line.startsWith('| `'))
    .map((line) => line.split('|').map((cell) => cell.trim().replaceAll('`', '')));
  const ofPermissions = rows.filter(([, name = '']) => /^[a-z-]+:[a-z]+$/.test(name));
  return {
    roles: new Map(
      ofPermissions.map(([, name = '', , ...cells]) => [
        name,
        adminRoles.filter((_, i) => cells[i] === 'yes'),
      ]),
    ),
    reaches: new Map(ofPermissions.map(([, name = '', reach = '']) => [name, reach])),
    routes: new Map(
      rows
        .filter(([, name = '']) => /^[A-Z]+ \//.test(name))
        .map(([, name = '', permission = '']) => [name, permission]),
    ),
  };
}
