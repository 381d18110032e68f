import { execFileSync } from 'node:child_process';
import { X509Certificate } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { startHttpApp } from '../harness/apps.ts';
import { type Authority, startAuthority } from '../harness/authority.ts';
import { eventually } from '../harness/eventually.ts';
import { ask } from '../harness/http.ts';
import { entry, idOf, policy, type Sidecar, startSidecar } from '../harness/mesh.ts';
import { createScope } from '../harness/scope.ts';
import { fetchKeyPair, type KeyPair } from '../harness/sds-client.ts';
import { freePorts, makeTempDir } from '../harness/temp.ts';
import { shakeHands } from '../harness/tls-client.ts';

// Envoys whose validation context is a plain `trusted_ca`: the one kind that reads revocation lists.
const scope = createScope();
afterAll(() => scope.close());

let directory: string;
let authority: Authority;
let web: Sidecar;
let orders: Sidecar;
let inbound: number;
let toOrders: number;
let tester: KeyPair;
let testerId: string;
let friendId: string;

beforeAll(async () => {
  directory = makeTempDir(scope);
  authority = await startAuthority(scope, { directory });
  [inbound, toOrders] = (await freePorts(2)) as [number, number];
  const app = await startHttpApp(scope, 'orders');
  orders = startSidecar(scope, {
    authority,
    directory,
    service: 'shop/orders',
    ways: { inbound: `127.0.0.1:${inbound}`, app: `127.0.0.1:${app.port}` },
    plainTrustedCa: true,
  });
  web = startSidecar(scope, {
    authority,
    directory,
    service: 'shop/web',
    ways: {
      outbound: [`127.0.0.1:${toOrders}=${orders.id}@127.0.0.1:${inbound}`],
      maxConnectionDuration: '10s',
    },
    plainTrustedCa: true,
  });
  [testerId, friendId] = [idOf(authority, 'shop/tester'), idOf(authority, 'shop/friend')];
  await authority.apply(
    [
      entry(web.id, web.binary, { ttlSeconds: 20 }),
      entry(orders.id, orders.binary, { ttlSeconds: 20 }),
      entry(testerId, process.execPath, { ttlSeconds: 600 }),
      entry(friendId, process.execPath, { ttlSeconds: 20 }),
      policy('shop', 'all', { rules: [{}] }),
    ].join(''),
  );
  tester = await fetchKeyPair(authority.workloadSocket, testerId);
  await Promise.all([web.live(), orders.live()]);
}, 60_000);

const revoked = { accepted: false, alert: 'certificate revoked' };
const handshake = () => shakeHands(inbound, tester);
const calls = async () => (await ask({ to: toOrders, path: '/' })).status;
/** A handshake of somebody nobody has banned, with the certificate of now. */
const friend = async () => shakeHands(inbound, await fetchKeyPair(authority.workloadSocket, friendId));
const untilRevoked = () =>
  eventually('the handshake to be refused', async () => {
    const tried = await handshake();
    return tried.accepted ? undefined : tried;
  });
const untilAccepted = () => eventually('the handshake to pass', async () => (await handshake()).accepted);

test('TLS itself refuses a banned identity, and takes it again when the ban is lifted', async () => {
  expect(await handshake()).toMatchObject({ accepted: true });
  await authority.ban('spiffe-id', testerId);
  expect(await untilRevoked()).toEqual(revoked);
  // Everybody else goes on, with the lists of the CA that signs leaves and none of the root.
  expect([await calls(), (await friend()).accepted]).toEqual([200, true]);
  expect(await orders.stat(/ssl\.fail_verify_error$/)).toBeGreaterThan(0);
  await authority.unban('spiffe-id', testerId);
  await untilAccepted();
});

test('and one certificate, and all of a key', async () => {
  const certificate = new X509Certificate(tester.cert);
  const key = execFileSync('openssl', ['pkey', '-pubin', '-outform', 'der'], {
    input: certificate.publicKey.export({ type: 'spki', format: 'pem' }),
  });
  const sha256 = execFileSync('sha256sum', { input: key, encoding: 'utf8' }).slice(0, 64);
  for (const [kind, value] of [
    ['serial', certificate.serialNumber],
    ['key', sha256],
  ] as const) {
    await authority.ban(kind, value);
    expect([kind, await untilRevoked()]).toEqual([kind, revoked]);
    await authority.unban(kind, value);
    await untilAccepted();
  }
});

test('a restart leaves it refused, and the numbers of the lists grow on', async () => {
  await authority.ban('spiffe-id', testerId);
  await untilRevoked();
  const before = await numbers();
  await authority.kill();
  expect(await handshake()).toEqual(revoked);
  await authority.restart();
  const after = await numbers();
  expect(Math.min(...after)).toBeGreaterThan(Math.max(...before));
  expect(await handshake()).toEqual(revoked);
  expect([await calls(), (await friend()).accepted]).toEqual([200, true]);
}, 60_000);

test('an intermediate that is made while a list is out signs nothing before proxies have its own', async () => {
  const issuers = async () =>
    (await authority.audit(`type=issuance&since=${encodeURIComponent(rotatedAt.toISOString())}`)).map(
      ({ issuerKeyId }) => issuerKeyId,
    );
  // For as long as the longest leaf lives nothing is signed by the new one.
  await authority.deleteEntry('ns-shop-sa-tester');
  const rotatedAt = new Date();
  await ask({
    to: authority.adminSocket,
    path: '/v1/ca/rotate',
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: '{"scope":"intermediate"}',
  });
  const seen: unknown[] = [];
  await eventually(
    'a leaf of the new intermediate',
    async () => {
      seen.push([await calls(), (await friend()).accepted]);
      return new Set(await issuers()).size === 2;
    },
    { withinMs: 50_000, everyMs: 200 },
  );
  expect(Date.now() - rotatedAt.getTime()).toBeGreaterThan(19_000);
  for (let i = 0; i < 5; i++) seen.push([await calls(), (await friend()).accepted]);
  expect(seen.filter((one) => JSON.stringify(one) !== '[200,true]')).toEqual([]);
  expect(await handshake()).toEqual(revoked);
  expect(await numbers()).toHaveLength(2);
}, 90_000);

/** The numbers of all lists the API gives out, each verified by OpenSSL with its CA. */
async function numbers(): Promise<readonly number[]> {
  const { body } = await ask({ to: authority.adminSocket, path: '/v1/ca/crl' });
  const [lists, issuers] = [join(directory, 'crl.pem'), join(directory, 'ca.pem')];
  const issuer = new X509Certificate(tester.cert.slice(tester.cert.indexOf('-----BEGIN', 10)));
  writeFileSync(issuers, issuer.toString());
  return (
    body.match(/-----BEGIN X509 CRL-----[^-]+-----END X509 CRL-----\n/g)?.map((pem) => {
      writeFileSync(lists, pem);
      const text = execFileSync('openssl', ['crl', '-in', lists, '-noout', '-crlnumber', '-issuer'], {
        encoding: 'utf8',
      });
      expect(readFileSync(lists, 'utf8')).toBe(pem);
      return Number.parseInt(/crlNumber=(?:0x)?([0-9A-F]+)/i.exec(text)?.[1] ?? '', 16);
    }) ?? []
  );
}
