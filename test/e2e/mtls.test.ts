import { X509Certificate } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type HttpApp, startHttpApp } from '../harness/apps.ts';
import { type Authority, startAuthority } from '../harness/authority.ts';
import { eventually } from '../harness/eventually.ts';
import { ask } from '../harness/http.ts';
import { entry, idOf, policy, type Sidecar, startSidecar } from '../harness/mesh.ts';
import { createScope } from '../harness/scope.ts';
import { fetchKeyPair, type KeyPair } from '../harness/sds-client.ts';
import { freePorts, makeTempDir } from '../harness/temp.ts';
import { forgeKeyPair, shakeHands } from '../harness/tls-client.ts';

const scope = createScope();
afterAll(() => scope.close());

let authority: Authority;
let web: Sidecar;
let orders: Sidecar;
let app: HttpApp;
let inbound: number;
let toOrders: number;
let toImpostor: number;
let brief: KeyPair;

beforeAll(async () => {
  const directory = makeTempDir(scope);
  authority = await startAuthority(scope, { directory });
  [inbound, toOrders, toImpostor] = (await freePorts(3)) as [number, number, number];
  app = await startHttpApp(scope, 'orders');
  const at = (port: number) => `127.0.0.1:${port}`;
  orders = startSidecar(scope, {
    authority,
    directory,
    service: 'shop/orders',
    ways: { inbound: at(inbound), app: at(app.port) },
  });
  web = startSidecar(scope, {
    authority,
    directory,
    service: 'shop/web',
    ways: {
      outbound: [
        `${at(toOrders)}=${orders.id}@${at(inbound)}`,
        // Wants the ledger and finds orders at its address.
        `${at(toImpostor)}=${idOf(authority, 'pay/ledger')}@${at(inbound)}`,
      ],
    },
  });
  // This process, for the certificate of a client of ours that goes on to expire.
  const tester = entry(idOf(authority, 'shop/tester'), process.execPath, { ttlSeconds: 20 });
  await authority.apply(
    [
      entry(web.id, web.binary),
      entry(orders.id, orders.binary),
      tester,
      policy('shop', 'all', { rules: [{}] }),
    ].join(''),
  );
  await Promise.all([web.live(), orders.live()]);
  // Last of all: it has to live until its test.
  brief = await fetchKeyPair(authority.workloadSocket);
});

describe('two sidecars', () => {
  test('speak mTLS, each with the certificate the authority gave it', async () => {
    const answer = await ask({ to: toOrders, path: '/orders/1' });
    expect(answer).toMatchObject({ status: 200, body: 'orders\n' });
    for (const { sidecar, authorityOfName } of [
      { sidecar: web, authorityOfName: web.id },
      { sidecar: orders, authorityOfName: orders.id },
    ]) {
      const [certificate] = await sidecar.certificates();
      expect(certificate?.uris).toEqual([authorityOfName]);
      const issued = await authority.audit('type=issuance');
      expect(issued.map(({ serial }) => serial)).toContain(certificate?.serial);
    }
    expect(await orders.stat(/listener\..*\.ssl\.handshake$/)).toBeGreaterThan(0);
    expect(await orders.stat(/listener\..*\.ssl\.versions\.TLSv1\.3$/)).toBeGreaterThan(0);
  });

  test('the application hears from the proxy who calls, and never from the caller', async () => {
    const forged = 'By=spiffe://mesh.test/ns/shop/sa/orders;URI=spiffe://mesh.test/ns/admin/sa/root';
    const headers = {
      'x-forwarded-client-cert': forged,
      'x-countersign-decision': 'mine',
      'x-countersign-role': 'admin',
      // An application behind CGI, WSGI or PHP could not tell these from those above.
      'x.forwarded.client.cert': forged,
      'x.countersign.role': 'admin',
    };
    await ask({ to: toOrders, path: '/orders/2', headers });
    const seen = app.seen.find(({ path }) => path === '/orders/2');
    expect(seen?.headers['x-forwarded-client-cert']).toContain(`URI=${web.id}`);
    expect(seen?.headers['x-forwarded-client-cert']).not.toContain('admin');
    const names = Object.keys(seen?.headers ?? {});
    expect(names.filter((name) => /^x.(countersign|forwarded.client)/.test(name))).toEqual([
      'x-forwarded-client-cert',
    ]);
  });

  test('a peer with another SPIFFE ID than the one asked for is refused in the handshake', async () => {
    const before = await web.stat(/ssl\.fail_verify_san$/);
    const answer = await ask({ to: toImpostor, path: '/ledger/1' });
    expect(answer.status).toBe(503);
    expect(app.seen.map(({ path }) => path)).not.toContain('/ledger/1');
    await eventually('the refused handshake in the statistics', async () => {
      return (await web.stat(/ssl\.fail_verify_san$/)) > before;
    });
    const entryOf = await eventually('the access log', () =>
      web.accessLog().find(({ path, status }) => path === '/ledger/1' && status === 503),
    );
    expect(entryOf['upstream_failure']).toMatch(/SAN_match/);
  });
});

describe('a sidecar refuses in the handshake', () => {
  test('a client without a certificate', async () => {
    const handshake = await countFailure('fail_verify_no_cert', () => shakeHands(inbound, null));
    expect(handshake).toEqual({ accepted: false, alert: 'certificate required' });
  });

  test('a certificate from another CA, with the name of one of ours', async () => {
    const forged = await forgeKeyPair(web.id);
    const handshake = await countFailure('fail_verify_error', () => shakeHands(inbound, forged));
    expect(handshake).toEqual({
      accepted: false,
      alert: expect.stringMatching(/unknown ca|48|certificate unknown|46/),
    });
  });

  test('a certificate from another CA, with a name of another trust domain', async () => {
    const forged = await forgeKeyPair('spiffe://mesh.test.evil/ns/shop/sa/web');
    const handshake = await countFailure('fail_verify_error', () => shakeHands(inbound, forged));
    expect(handshake.accepted).toBe(false);
  });

  test('a certificate of ours from the moment it has expired, and not before', async () => {
    const leftMs = () => Date.parse(new X509Certificate(brief.cert).validTo) - Date.now();
    // On a busy machine it may have grown too old meanwhile; the one of now has at least half of its life left.
    if (leftMs() < 8_000) brief = await fetchKeyPair(authority.workloadSocket);
    expect(await shakeHands(inbound, brief, '/brief')).toMatchObject({
      accepted: true,
      answer: expect.stringMatching(/^HTTP\/1.1 200/),
    });
    await new Promise((resolve) => setTimeout(resolve, Math.max(0, leftMs())));
    const handshake = await eventually(
      'the certificate to expire',
      async () => {
        const tried = await shakeHands(inbound, brief);
        return tried.accepted ? undefined : tried;
      },
      { everyMs: 500 },
    );
    expect(handshake.alert).toMatch(/certificate (expired|unknown)/);
  });

  test('and the listener says why', async () => {
    const reasons = await eventually('the failed handshakes in the access log', () => {
      const found = orders
        .accessLog()
        .flatMap(({ tls_failure: reason }) => (typeof reason === 'string' ? [reason] : []));
      return found.some((reason) => reason.includes('expired')) ? found : undefined;
    });
    expect(reasons.join('\n')).toMatch(/unable_to_get_local_issuer_certificate/);
    expect(reasons.join('\n')).toMatch(/no_trust_bundle_store/);
    expect(reasons.join('\n')).toMatch(/PEER_DID_NOT_RETURN_A_CERTIFICATE/);
    expect(reasons.join('\n')).toMatch(/certificate_has_expired/);
  });
});

async function countFailure<T>(stat: string, act: () => Promise<T>): Promise<T> {
  const pattern = new RegExp(`^listener\\..*\\.ssl\\.${stat}$`);
  const before = await orders.stat(pattern);
  const result = await act();
  await eventually(`${stat} to count it`, async () => (await orders.stat(pattern)) > before);
  return result;
}
