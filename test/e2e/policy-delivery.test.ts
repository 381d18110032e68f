import { join } from 'node:path';
import type { sendUnaryData, ServerUnaryCall } from '@grpc/grpc-js';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { parsePolicy } from '../../src/authz/parse.ts';
import { compileSnapshot } from '../../src/authz/snapshot.ts';
import { renderEnvoyBootstrap } from '../../src/cli/envoy-bootstrap.ts';
import type { X509Svid } from '../../src/identity/credentials.ts';
import { TrustDomain } from '../../src/spiffe/id.ts';
import { encodePem } from '../../src/spiffe/pem.ts';
import { AuthorizationService, type CheckRequest, type CheckResponse } from '../../src/wire/authz.ts';
import { readDocuments } from '../../src/yaml.ts';
import { startHttpApp } from '../harness/apps.ts';
import { type Envoy, makeEnvoyBinary, startEnvoy } from '../harness/envoy.ts';
import { eventually } from '../harness/eventually.ts';
import { policy } from '../harness/mesh.ts';
import { createScope } from '../harness/scope.ts';
import type { KeyPair } from '../harness/sds-client.ts';
import { freePorts, makeTempDir } from '../harness/temp.ts';
import { shakeHands } from '../harness/tls-client.ts';
import { createAuthority, credentialsOf } from '../xds/certificates.ts';
import { createSource } from '../xds/harness.ts';
import { idOf, openPolicyDoor, type PolicyDoor, type PolicyWorld } from '../xds/policy-door.ts';

// Real Envoys that ask for their policy in each form, and a control plane of which the test says what it holds. Whoever
// asks it about a call is told yes, so that 200 may be the proxy's own word or that of who was asked: the count tells.
const forms = ['sds', 'delta-sds', 'ads', 'delta-ads'] as const;
const orders = 'ns/shop/sa/orders';
const ttlSeconds = 3;

const scope = createScope();
afterAll(() => scope.close());

const read = readDocuments({
  file: 'test',
  text: policy('shop', 'orders', {
    rules: ['web', 'admin'].map((name) => ({
      from: [{ source: { principals: [`mesh.test/ns/shop/sa/${name}`] } }],
      to: [{ operation: { methods: ['GET'], paths: ['/orders/*'] } }],
    })),
  }),
});
const snapshot = compileSnapshot({
  revision: 1,
  trustDomain: TrustDomain.parse('mesh.test'),
  rootNamespace: 'root',
  policies: read.map(parsePolicy),
  workloads: [],
});
/** How often a call to a port was asked about. */
const asked = new Map<number, number>();
let proxies: { readonly form: string; readonly envoy: Envoy; readonly port: number }[];
let door: PolicyDoor;
let openDoor: (world: Partial<PolicyWorld>) => Promise<PolicyDoor>;
/** By who shows it. */
let callers: Readonly<Record<'web' | 'webAndAdmin' | 'adminAndWeb', KeyPair>>;

beforeAll(async () => {
  const directory = makeTempDir(scope);
  const authority = await createAuthority('mesh.test');
  const [web, admin] = ['ns/shop/sa/web', 'ns/shop/sa/admin'].map(idOf) as [string, string];
  const own = await authority.issue(idOf(orders));
  callers = {
    web: keyPairOf(await authority.issue(web)),
    webAndAdmin: keyPairOf(await authority.issue(web, admin)),
    adminAndWeb: keyPairOf(await authority.issue(admin, web)),
  };
  const { watch } = createSource(() => credentialsOf(authority, [own]));
  openDoor = (world) =>
    openPolicyDoor(
      scope,
      { identities: [orders], ...world },
      { watch, directory, snapshot, services: [sayYes()] },
    );
  door = await openDoor({ silent: true });
  const app = await startHttpApp(scope, 'orders');
  const ports = await freePorts(forms.length);
  proxies = forms.map((form, i) => {
    const port = ports[i] ?? 0;
    const own = join(directory, form);
    const bootstrap = (files: { admin: string; accessLog: string }): string =>
      renderEnvoyBootstrap({
        ...files,
        workload: idOf(orders),
        socket: door.path,
        inbound: `127.0.0.1:${port}`,
        app: `127.0.0.1:${app.port}`,
        accessLogStream: 'off',
        decisionTimeout: '5s',
        decide: 'in-proxy',
        xds: form,
        nodeId: form,
      });
    return {
      form,
      port,
      envoy: startEnvoy(scope, { name: form, directory: own, binary: makeEnvoyBinary(own), bootstrap }),
    };
  });
  await Promise.all(proxies.map(({ envoy }) => envoy.live(60_000)));
}, 90_000);

test('before the first policy the port is open, and every call is asked about', async () => {
  await allTo('be asked', { status: 200, asks: true });
});

test('a policy that allows lets calls pass that nobody is asked about', async () => {
  door.set({ silent: false, leaves: { [orders]: 'allow:shop/orders[0]' } });
  await allTo('pass', { status: 200, asks: false });
  expect(
    door
      .standings()
      .map(({ nodeId, state }) => [nodeId, state])
      .sort(),
  ).toEqual([...forms].sort().map((form) => [form, 'current']));
});

test('a policy that denies is in force at once, and nobody is asked', async () => {
  door.set({ number: 2, leaves: { [orders]: 'deny:no_allow_rule' } });
  await allTo('be denied', { status: 403, asks: false });
});

test('a broken policy is refused and told, the one before it stays, and the next good one is taken', async () => {
  door.set({ number: 3, broken: true, leaves: { [orders]: 'allow:broken' } });
  await eventually('all to refuse', () => door.standings().every(({ state }) => state === 'rejected'));
  for (const standing of door.standings()) {
    expect(standing).toMatchObject({
      policyRevision: 2,
      rejection: expect.stringContaining('ActionValidationError.Name'),
    });
  }
  await allTo('be denied still', { status: 403, asks: false });
  for (const { envoy } of proxies) expect(await envoy.stat(/^extension_config.*config_fail$/)).toBe(1);
  // Once by each of them, and not again and again.
  expect(door.told.filter((what) => what.startsWith('rejected'))).toHaveLength(forms.length);
  door.set({ number: 4, broken: false, leaves: { [orders]: 'ask:claims' } });
  await allTo('be asked', { status: 200, asks: true });
});

test('an identity that is banned or gone is denied every call', async () => {
  door.set({ number: 5, leaves: { [orders]: 'allow:shop/orders[0]' } });
  await allTo('pass', { status: 200, asks: false });
  door.set({ bans: [{ kind: 'spiffe-id', value: idOf(orders), reason: 'test' }] });
  await allTo('be denied', { status: 403, asks: false });
  door.set({ bans: [], identities: [] });
  await allTo('be denied', { status: 403, asks: false });
  door.set({ identities: [orders] });
  await allTo('pass', { status: 200, asks: false });
});

test('a certificate with two names is denied, whichever stands first', async () => {
  door.set({ number: 6, leaves: { [orders]: 'compiled' } });
  const inForce = () =>
    door.standings().every(({ state, leaves }) => state === 'current' && (leaves?.deny ?? 0) > 1);
  await eventually('the compiled policy to be in use', inForce);
  await allTo('pass', { status: 200, asks: false });
  for (const who of ['webAndAdmin', 'adminAndWeb'] as const) {
    const found = await Promise.all(proxies.map((proxy) => call(proxy, who)));
    expect(found).toEqual(forms.map(() => ({ status: 403, asks: false })));
  }
});

test('without the agent a permission ends with its time; with beats it lasts, and it comes back', async () => {
  door.set({ number: 7, usableForSeconds: ttlSeconds, leaves: { [orders]: 'allow:short[0]' } });
  await allTo('pass', { status: 200, asks: false });
  await eventually('it to be in use', () => door.standings().every(({ state }) => state === 'current'));
  const reloads = await reloadsOf();
  // Longer than the time to live.
  const until = Date.now() + ttlSeconds * 1_000 + 1_500;
  while (Date.now() < until) {
    const found = await Promise.all(proxies.map((proxy) => call(proxy)));
    expect(found).toEqual(forms.map(() => ({ status: 200, asks: false })));
  }
  expect(await reloadsOf()).toEqual(reloads);
  await door.close();
  // Whom to ask is gone as well.
  await allTo('be refused', { status: 503, asks: false });
  door = await openDoor({ number: 7, leaves: { [orders]: 'allow:again[0]' } });
  await allTo('pass', { status: 200, asks: false });
});

function keyPairOf({ privateKey, certificates }: X509Svid): KeyPair {
  return {
    key: encodePem('PRIVATE KEY', privateKey),
    cert: certificates.map((der) => encodePem('CERTIFICATE', der)).join(''),
  };
}

/** How often each has taken a policy into use. */
function reloadsOf(): Promise<number[]> {
  return Promise.all(proxies.map(({ envoy }) => envoy.stat(/^extension_config.*config_reload$/)));
}

/** Waits until a call to each of them ends so. */
async function allTo(what: string, expected: Awaited<ReturnType<typeof call>>): Promise<void> {
  const one = (proxy: (typeof proxies)[number]): Promise<boolean> =>
    eventually(`calls by ${proxy.form} to ${what}`, async () => {
      const found = await call(proxy);
      if (found.status === expected.status && found.asks === expected.asks) return true;
      throw new Error(JSON.stringify(found));
    });
  await Promise.all(proxies.map(one));
}

async function call(
  { port }: { readonly port: number },
  who: keyof typeof callers = 'web',
): Promise<{ status: number; asks: boolean }> {
  const before = asked.get(port);
  const shaken = await shakeHands(port, callers[who], '/orders/1');
  if (!shaken.accepted) throw new Error(shaken.alert);
  return {
    status: Number(/^HTTP\/1.1 ([0-9]{3})/.exec(shaken.answer)?.[1]),
    asks: asked.get(port) !== before,
  };
}

/** Answers every question with yes. */
function sayYes() {
  const check = (
    { request }: ServerUnaryCall<CheckRequest, CheckResponse>,
    done: sendUnaryData<CheckResponse>,
  ): void => {
    const at = request.attributes?.destination?.address?.address;
    const port = at?.$case === 'socketAddress' ? at.socketAddress.portSpecifier : undefined;
    if (port?.$case === 'portValue') asked.set(port.portValue, (asked.get(port.portValue) ?? 0) + 1);
    const okResponse = {
      headers: [],
      dynamicMetadata: undefined,
      headersToRemove: [],
      responseHeadersToAdd: [],
      queryParametersToSet: [],
      queryParametersToRemove: [],
    };
    done(null, {
      status: { code: 0, message: '', details: [] },
      httpResponse: { $case: 'okResponse', okResponse },
      dynamicMetadata: undefined,
    });
  };
  return { definition: AuthorizationService, implementation: { check } };
}
