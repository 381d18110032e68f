import { join } from 'node:path';
import { parse, stringify } from 'yaml';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { readAsEnvoy } from '../../src/ext-authz/response.ts';
import { checkBytes } from '../ext-authz/check-input.ts';
import { type HttpApp, startHttpApp } from '../harness/apps.ts';
import { type Authority, startAuthority } from '../harness/authority.ts';
import { eventually } from '../harness/eventually.ts';
import { ask } from '../harness/http.ts';
import { entry, idOf, policy, type Sidecar, startSidecar } from '../harness/mesh.ts';
import { sendCheck } from '../harness/check-client.ts';
import { createScope } from '../harness/scope.ts';
import { fetchKeyPair } from '../harness/sds-client.ts';
import { signWithStolenKey } from '../harness/stolen-key.ts';
import { freePorts, makeTempDir } from '../harness/temp.ts';
import { forgeKeyPair, shakeHands } from '../harness/tls-client.ts';

const scope = createScope();
afterAll(() => scope.close());

let authority: Authority;
let web: Sidecar;
let orders: Sidecar;
let app: HttpApp;
let toOrders: number;
let [inbound, plain] = [0, 0];
let directory: string;

const mayRead = (methods: readonly string[]): string =>
  policy('shop', 'orders', {
    selector: { matchLabels: { app: 'orders' } },
    rules: [
      {
        from: [{ source: { principals: ['mesh.test/ns/shop/sa/web'] } }],
        to: [{ operation: { methods, paths: ['/orders/*'] } }],
      },
    ],
  });

beforeAll(async () => {
  directory = makeTempDir(scope);
  authority = await startAuthority(scope, {
    directory,
    env: { COUNTERSIGN_ALLOWED_CALLS_WINDOW_SECONDS: '1' },
  });
  [inbound, plain, toOrders] = (await freePorts(3)) as [number, number, number];
  app = await startHttpApp(scope, 'orders');
  orders = startSidecar(scope, {
    authority,
    directory,
    service: 'shop/orders',
    ways: { inbound: `127.0.0.1:${inbound}`, app: `127.0.0.1:${app.port}` },
    rewrite: (bootstrap) => withPlainListener(bootstrap, plain),
  });
  web = startSidecar(scope, {
    authority,
    directory,
    service: 'shop/web',
    ways: { outbound: [`127.0.0.1:${toOrders}=${orders.id}@127.0.0.1:${inbound}`] },
  });
  await authority.apply(
    [
      entry(web.id, web.binary),
      entry(orders.id, orders.binary, {}, { app: 'orders' }),
      mayRead(['GET']),
    ].join(''),
  );
  await Promise.all([web.live(), orders.live()]);
});

describe('a process that asks for decisions in the place of a proxy', () => {
  test('is nobody without an entry, and a forger when it speaks for another', async () => {
    const bytes = checkBytes({ principal: web.id, destination: orders.id, path: '/orders/1' });
    const reasons = async () =>
      (await authority.audit('type=decision&verdict=deny'))
        .filter(({ caller }) => (caller as { pid: number }).pid === process.pid)
        .map(({ reason }) => reason);
    expect(readAsEnvoy(await sendCheck(authority.workloadSocket, bytes))).toBe('deny');
    await eventually('the denial in the log', async () => (await reasons()).includes('caller_unknown'));
    await authority.apply(entry(idOf(authority, 'shop/tester'), process.execPath));
    expect(readAsEnvoy(await sendCheck(authority.workloadSocket, bytes))).toBe('deny');
    await eventually('the forgery in the log', async () => (await reasons()).includes('destination_forged'));
  });
});

describe('a policy', () => {
  test('lets a call pass that it allows, and the log answers for it', async () => {
    expect(await ask({ to: toOrders, path: '/orders/1?token=secret' })).toMatchObject({ status: 200 });
    for (const at of [2, 3]) expect((await ask({ to: toOrders, path: `/orders/${at}` })).status).toBe(200);
    const counted = await eventually('three calls in the log', async () => {
      const calls = await authority.audit('type=allowed_calls&verdict=allow');

      return calls.reduce((sum, { count }) => sum + Number(count), 0) >= 3 && calls;
    });
    const [certificate] = await web.certificates();
    for (const calls of counted) {
      expect(calls).toMatchObject({
        reason: 'allow_rule',
        rule: 'shop/orders rule[0]',
        method: 'GET',
        pathPattern: '/orders/*',
        source: web.id,
        destination: orders.id,
        sourceSerial: certificate?.serial,
      });
    }
    expect(JSON.stringify(counted)).not.toContain('secret');
    expect(await authority.audit('type=decision&verdict=allow')).toEqual([]);
  });

  test.each([
    ['another method', { path: '/orders/1', method: 'DELETE' }, 'no_allow_rule'],
    ['another path', { path: '/admin' }, 'no_allow_rule'],
    ['a path parameter', { path: '/orders/1;a=b' }, 'request_ambiguous'],
  ])('denies %s with its reason and a decision that can be looked up', async (_, call, reason) => {
    const before = app.seen.length;
    const answer = await ask({ to: toOrders, ...call });
    const id = answer.headers['x-countersign-decision'];
    expect(answer.status).toBe(403);
    expect(answer.body).toBe(`denied by policy: ${reason}; decision ${String(id)}\n`);
    expect(app.seen.length).toBe(before);
    const decision = await eventually('the decision in the log', async () =>
      (await authority.audit('type=decision&verdict=deny')).find(({ decisionId }) => decisionId === id),
    );
    expect(decision).toMatchObject({ reason, source: web.id, destination: orders.id });
    const logged = await eventually('the decision in the access log', () =>
      orders.accessLog().find(({ decision_id: logged }) => logged === id),
    );
    expect(logged).toMatchObject({ status: 403, status_details: 'ext_authz_denied', peer: web.id });
  });

  test.each([
    ['an escaped slash', '/orders%2f1', 400],
    ['a way up', '/orders/../admin', 403],
    ['an escaped way up', '/orders/%2e%2e/admin', 403],
    ['two slashes', '//admin', 403],
  ])('is not got around by %s', async (_, path, status) => {
    const before = app.seen.length;
    expect((await ask({ to: toOrders, path })).status).toBe(status);
    expect(app.seen.length).toBe(before);
  });

  test.each([
    ['an upgrade to another protocol', { connection: 'upgrade', upgrade: 'websocket' }, 403],
    ['a header with an underscore', { x_role: 'admin' }, 400],
  ])('is not got around by %s', async (_, headers, status) => {
    const before = app.seen.length;
    expect((await ask({ to: toOrders, path: '/orders/1', headers })).status).toBe(status);
    expect(app.seen.length).toBe(before);
  });

  test.each([
    ['/orders//1', '/orders/1'],
    ['/orders/a/../2', '/orders/2'],
    ['/orders/a//../admin', '/orders/a/admin'],
    ['/admin/..\\orders/3', '/orders/3'],
    ['/orders/%2e/4', '/orders/4'],
    ['/%6frders/5?a=/../b', '/orders/5?a=/../b'],
  ])('judges %s as the application receives it', async (path, received) => {
    expect((await ask({ to: toOrders, path })).status).toBe(200);
    expect(app.seen.at(-1)?.path).toBe(received);
  });

  test('that is edited takes effect on the next calls of a live connection', async () => {
    const post = () => ask({ to: toOrders, path: '/orders/1', method: 'POST' });
    expect((await post()).status).toBe(403);
    await authority.apply(mayRead(['GET', 'POST']));
    expect((await post()).status).toBe(200);
    await authority.apply(mayRead(['GET']));
    expect((await post()).status).toBe(403);
    await authority.deletePolicy('shop/orders');
    const answer = await ask({ to: toOrders, path: '/orders/1' });
    expect(answer).toMatchObject({ status: 403, body: expect.stringContaining('no_policy') });
  });

  test('that is bad is refused and changes nothing', async () => {
    await authority.apply(mayRead(['GET']));
    const bad = policy('shop', 'orders', { rules: [{ from: [{ source: { principal: ['*'] } }] }] });
    await expect(authority.apply(bad)).rejects.toThrow(/document_field_unknown/);
    expect((await ask({ to: toOrders, path: '/orders/1' })).status).toBe(200);
    expect((await ask({ to: toOrders, path: '/admin' })).status).toBe(403);
  });
});

describe('what the proxy saw', () => {
  const seen = async (type: string, expected: object): Promise<Record<string, unknown>> =>
    eventually(`${type} ${JSON.stringify(expected)} in the log`, async () =>
      (await authority.audit(`type=${type}`)).find((event) =>
        Object.entries(expected).every(([name, value]) => event[name] === value),
      ),
    );

  test('of an allowed call is counted with others', async () => {
    expect((await ask({ to: toOrders, path: '/orders/7' })).status).toBe(200);
    const event = await seen('outcomes', { source: web.id, outcome: 'ok', statusClass: '2xx' });
    expect(event).toMatchObject({ destination: orders.id, rule: 'shop/orders rule[0]', method: 'GET' });
  });

  test('of a denied call is joined to its decision', async () => {
    const { headers } = await ask({ to: toOrders, path: '/admin' });
    const event = await seen('outcome', { decisionId: headers['x-countersign-decision'] });
    expect(event).toMatchObject({ outcome: 'denied', status: 403, source: web.id, flags: 'UAEX' });
  });

  test('of a stranger with a name of ours is a claim, and no identity', async () => {
    expect(await shakeHands(inbound, await forgeKeyPair(web.id))).toMatchObject({ accepted: false });
    const event = await seen('connections', { kind: 'tls_failed', claimedSource: web.id });
    expect(event).toMatchObject({
      failure: 'unknown_issuer',
      claimedSerial: '01',
      source: '',
      sourceSerial: '',
    });
    expect(await authority.audit(`type=connections&source=${web.id}`)).toEqual([]);
  });

  test('without TLS is told as such', async () => {
    expect((await ask({ to: plain, path: '/orders/1', headers: { connection: 'close' } })).status).toBe(403);
    const event = await seen('connections', { kind: 'plaintext' });
    expect(event).toMatchObject({ source: '', claimedSource: '', destination: orders.id, port: plain });
  });

  test('of a certificate that somebody made with the key of the CA is an alarm', async () => {
    await authority.apply(entry(idOf(authority, 'shop/tester'), process.execPath));
    const own = await fetchKeyPair(authority.workloadSocket);
    const forged = await signWithStolenKey(join(directory, 'data'), own.cert, web.id);
    // Nothing about it is wrong but that nobody gave it out.
    for (const pair of [own, forged]) {
      const answer = await shakeHands(inbound, pair, '/orders/1');
      expect(answer.accepted).toBe(true);
    }
    const alarm = await seen('alarm', { serial: forged.serial });
    expect(alarm).toMatchObject({
      kind: 'unknown_certificate',
      claimedSource: web.id,
      destination: orders.id,
    });
    await seen('connections', { kind: 'mtls', source: web.id, sourceSerial: forged.serial });
    expect(await authority.audit('type=alarm')).toHaveLength(1);
    const { body } = await ask({ to: authority.adminSocket, path: '/readyz' });
    expect(body).toContain('certificates that the audit log has no issuance of');
    expect(authority.child().output()).toContain(
      'a certificate was used that the audit log has no issuance of',
    );
  });
});

/** An inbound listener once more, without TLS: the product makes none. */
function withPlainListener(bootstrap: string, port: number): string {
  const made = parse(bootstrap) as { static_resources: { listeners: Record<string, never>[] } };
  const [first] = made.static_resources.listeners;
  const copy = JSON.parse(JSON.stringify(first)) as {
    name: string;
    address: { socket_address: { port_value: number } };
    filter_chains: { transport_socket?: object }[];
  };
  copy.name = 'plain';
  copy.address.socket_address.port_value = port;
  delete copy.filter_chains[0]?.transport_socket;
  made.static_resources.listeners.push(copy as never);
  return stringify(made, { aliasDuplicateObjects: false });
}
