import { connect } from 'node:net';
import { afterAll, beforeAll, expect, test } from 'vitest';
import type { StatusReport } from '../../src/http/status-report.ts';
import { type HttpApp, startEchoApp, startHttpApp } from '../harness/apps.ts';
import { type Authority, startAuthority } from '../harness/authority.ts';
import { eventually } from '../harness/eventually.ts';
import { ask } from '../harness/http.ts';
import { startLoad } from '../harness/load.ts';
import { entry, policy, type Sidecar, startSidecar } from '../harness/mesh.ts';
import { createScope } from '../harness/scope.ts';
import { freePorts, makeTempDir } from '../harness/temp.ts';

// Two sidecars and an authority, all real: the proxy of `orders` decides by itself, and asks about what it cannot decide.
const scope = createScope();
afterAll(() => scope.close());

let authority: Authority;
let web: Sidecar;
let orders: Sidecar;
let toOrders: number;
let app: HttpApp;
/** Of the TCP port, and of the way to it. */
let [tcp, toTcp] = [0, 0];

/** An ALLOW policy of `orders` for calls by `web`. */
const rules = (
  name: string,
  paths: readonly string[],
  more: Readonly<Record<string, unknown>> = {},
): string =>
  policy('shop', name, {
    selector: { matchLabels: { app: 'orders' } },
    rules: [
      {
        from: [{ source: { principals: ['mesh.test/ns/shop/sa/web'] } }],
        to: [{ operation: { methods: ['GET'], paths } }],
        ...more,
      },
    ],
  });
// Headers in several lines are judged by the agent alone.
const asked = rules('asked', ['/asked/*'], {
  when: [{ key: 'request.headers[x-team]', values: ['blue'] }],
});

beforeAll(async () => {
  const directory = makeTempDir(scope);
  authority = await startAuthority(scope, { directory });
  const [inbound = 0, ...more] = await freePorts(4);
  [toOrders = 0, tcp = 0, toTcp = 0] = more;
  const echo = await startEchoApp(scope);
  app = await startHttpApp(scope, 'orders');
  orders = startSidecar(scope, {
    authority,
    directory,
    service: 'shop/orders',
    ways: {
      inbound: `127.0.0.1:${inbound}`,
      app: `127.0.0.1:${app.port}`,
      inboundTcp: [`127.0.0.1:${tcp}=127.0.0.1:${echo.port}`],
      decide: 'in-proxy',
    },
  });
  web = startSidecar(scope, {
    authority,
    directory,
    service: 'shop/web',
    ways: {
      outbound: [`127.0.0.1:${toOrders}=${orders.id}@127.0.0.1:${inbound}`],
      outboundTcp: [`127.0.0.1:${toTcp}=${orders.id}@127.0.0.1:${tcp}`],
    },
  });
  await authority.apply(
    [
      entry(web.id, web.binary),
      entry(orders.id, orders.binary, {}, { app: 'orders' }),
      rules('plain', ['/orders/*']),
      asked,
    ].join(''),
  );
  await Promise.all([web.live(), orders.live()]);
  await eventually('the policy to be in force', async () => {
    return (await proxies()).filter(({ state }) => state === 'current').length === 2;
  });
}, 90_000);

test('the proxy decides what is certain, and asks about the rest', async () => {
  const blue = { 'x-team': 'blue' };
  const calls = [
    { path: '/orders/1', status: 200, checks: 0 },
    { path: '/admin', status: 403, checks: 0 },
    { path: '/orders/1', method: 'DELETE', status: 403, checks: 0 },
    { path: '/asked/1', headers: blue, status: 200, checks: 1 },
    { path: '/asked/1', headers: { 'x-team': 'red' }, status: 403, checks: 1 },
    { path: '/orders/1;a=b', status: 403, checks: 1 },
  ];
  for (const { status, checks, ...call } of calls) {
    const before = await checksMade();
    const answer = await ask({ to: toOrders, ...call });
    expect([call, answer.status, (await checksMade()) - before]).toEqual([call, status, checks]);
  }
  const line = await eventually('the denial in the access log', () =>
    orders.accessLog().find(({ path, method }) => path === '/admin' && method === 'GET'),
  );
  expect(line).toMatchObject({
    policy_leaf: 'deny:no_allow_rule',
    status_details: 'rbac_access_denied_matched_policy[deny:no_allow_rule]',
  });
});

test('what only the mesh may say of a call does not come from a caller, whoever decides', async () => {
  const headers = { 'x-countersign-decision': 'forged', 'x-kept': 'yes' };
  for (const path of ['/orders/1', '/asked/1']) {
    const { status } = await ask({ to: toOrders, path, headers: { ...headers, 'x-team': 'blue' } });
    expect([path, status]).toEqual([path, 200]);
    const seen = app.seen.at(-1)?.headers;
    expect([seen?.['x-kept'], seen?.['x-countersign-decision']]).not.toContain('forged');
    expect(seen?.['x-kept']).toBe('yes');
  }
});

test('a status says which revision is in force at which proxy', async () => {
  const { policyRevision } = await status();
  const names = ['policy', 'tcp-policy'].map((kind) => `countersign.${kind}/${orders.id}`);
  const found = await proxies();
  expect(found.map(({ name }) => name).sort()).toEqual(names);
  for (const proxy of found) {
    expect(proxy).toMatchObject({
      nodeId: 'sidecar/ns/shop/sa/orders',
      state: 'current',
      policyRevision: policyRevision?.number,
      lacks: '',
    });
  }
  const { body } = await ask({ to: authority.adminSocket, path: '/metrics' });
  expect(body).toContain('countersign_policy_proxies{state="current"} 2');
  expect(body).toMatch(/countersign_policy_ack_seconds_count [1-9]/);
});

test('a change is in force without a failed call', async () => {
  const load = startLoad(scope, toOrders, 100, '/orders/1');
  for (const isMore of [true, false, true]) {
    await authority.apply(rules('plain', isMore ? ['/orders/*', '/more/*'] : ['/orders/*']));
    const status = isMore ? 200 : 403;
    await eventually(`/more to be answered ${status}`, async () => {
      return (await ask({ to: toOrders, path: '/more/1' })).status === status;
    });
  }
  await load.stop();
  expect([load.passed() > 0, load.failed()]).toEqual([true, new Map()]);
});

test('connections are decided by the same rules, and asked about by none of those it allows', async () => {
  expect(await say(toTcp, 'hello')).toBe('');
  const checks = () => orders.stat(/ext_authz\.countersign_tcp\.(ok|denied|error)$/);
  expect(await checks()).toBe(0);
  await authority.apply(
    policy('shop', 'tcp', {
      selector: { matchLabels: { app: 'orders' } },
      rules: [
        {
          from: [{ source: { principals: ['mesh.test/ns/shop/sa/web'] } }],
          to: [{ operation: { ports: [String(tcp)] } }],
        },
      ],
    }),
  );
  await eventually('a connection to pass', async () => (await say(toTcp, 'hello')) === 'hello');
  expect(await checks()).toBe(0);
  await authority.ban('spiffe-id', web.id);
  await eventually('the ban to count', async () => (await say(toTcp, 'hello')) === '');
  await authority.unban('spiffe-id', web.id);
  await eventually('the end of it', async () => (await say(toTcp, 'hello')) === 'hello');
});

test('a grant that ends is asked about, and is over when it ends', async () => {
  const expiresAt = new Date(Date.now() + 4_000).toISOString();
  await authority.apply(
    policy('shop', 'grant', {
      selector: { matchLabels: { app: 'orders' } },
      expiresAt,
      rules: [{ to: [{ operation: { paths: ['/grant'] } }] }],
    }),
  );
  await eventually(
    'the grant to count',
    async () => (await ask({ to: toOrders, path: '/grant' })).status === 200,
  );
  const over = async () => (await ask({ to: toOrders, path: '/grant' })).status === 403;
  await eventually('the grant to be over', over);
  expect(Date.now()).toBeGreaterThanOrEqual(Date.parse(expiresAt));
});

test('a banned caller is denied what the proxy allowed it, and the denial is recorded', async () => {
  expect((await ask({ to: toOrders, path: '/orders/1' })).status).toBe(200);
  await authority.ban('spiffe-id', web.id);
  await eventually(
    'the ban to count',
    async () => (await ask({ to: toOrders, path: '/orders/1' })).status === 403,
  );
  await eventually('the denial in the log', async () =>
    (await authority.audit('type=decision&verdict=deny')).some(({ reason }) => reason === 'banned'),
  );
  await authority.unban('spiffe-id', web.id);
  await eventually(
    'the end of it',
    async () => (await ask({ to: toOrders, path: '/orders/1' })).status === 200,
  );
});

test('without the authority what is certain goes on, and what it has to be asked about fails', async () => {
  await authority.kill();
  expect((await ask({ to: toOrders, path: '/orders/1' })).status).toBe(200);
  expect((await ask({ to: toOrders, path: '/admin' })).status).toBe(403);
  const answer = await ask({ to: toOrders, path: '/asked/1', headers: { 'x-team': 'blue' } });
  expect(answer.status).toBe(503);
  await authority.restart();
  await eventually(
    'it to be back',
    async () => (await ask({ to: toOrders, path: '/asked/1', headers: { 'x-team': 'blue' } })).status === 200,
  );
});

/** What the echo application answers, or nothing when the connection is closed first. */
function say(port: number, text: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = connect(port, '127.0.0.1', () => socket.write(text));
    let heard = '';
    socket.setTimeout(10_000, () => socket.destroy(new Error('no answer within 10 s')));
    socket.on('data', (chunk: Buffer) => {
      heard += chunk.toString('utf8');
      if (heard.length >= text.length) socket.destroy();
    });
    socket.on('error', reject);
    socket.on('close', () => resolve(heard));
  });
}

async function status(): Promise<StatusReport> {
  const { body } = await ask({ to: authority.adminSocket, path: '/v1/status' });
  return JSON.parse(body) as StatusReport;
}

async function proxies(): Promise<StatusReport['proxies']> {
  return (await status()).proxies;
}

/** How often the agent was asked. */
function checksMade(): Promise<number> {
  return orders.stat(/^http\.inbound\.ext_authz\.countersign\.(ok|denied|error)$/);
}
