import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { connect, createServer, type TLSSocket } from 'node:tls';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { bundlePem } from '../../src/spiffe/bundle.ts';
import { SpiffeId } from '../../src/spiffe/id.ts';
import { encodePem } from '../../src/spiffe/pem.ts';
import { peerCertificateIds } from '../../src/spiffe/svid.ts';
import { isHere } from '../harness/real-part.ts';
import { makeKey, makeTestAuthority, type TestAuthority } from './test-authority.ts';

// OpenSSL judges by the machine's clock, so these certificates are of today.
const now = new Date();
const configs = [{}, { authorityKey: 'ecdsa-p384' }];
const kinds = ['ec-prime256v1', 'ec-secp384r1', 'rsa-2048'];
let authorities: TestAuthority[];
let dir: string;
beforeAll(async () => {
  dir = mkdtempSync(join(tmpdir(), 'countersign-ca-'));
  authorities = await Promise.all(configs.map((config) => makeTestAuthority(now, config)));
});
afterAll(() => rmSync(dir, { recursive: true, force: true }));

async function issue(ca: TestAuthority, path: string, kind = 'ec-prime256v1') {
  const key = makeKey(kind);
  const id = SpiffeId.parse(`${ca.trustDomain.id}${path}`);
  const request = { id, publicKey: key.spki, dnsNames: ['web.shop.svc'], ttlSeconds: 600 };
  const svid = await ca.authority.sign(ca.authority.prepare(request, now));
  const pem = svid.certificates.map((der) => encodePem('CERTIFICATE', der));
  return { ...svid, id, key: encodePem('PRIVATE KEY', key.pkcs8), leafPem: pem[0]!, chainPem: pem.join('') };
}

describe.skipIf(!isHere('openssl', 'version'))('openssl', () => {
  test.each(configs.flatMap((_, ca) => kinds.map((kind): [number, string] => [ca, kind])))(
    'verifies the chain, strictly: authority %i, leaf key %s',
    async (index, kind) => {
      const ca = authorities[index]!;
      const { leafPem } = await issue(ca, '/ns/shop/sa/web', kind);
      const file = (name: string, text: string) => {
        writeFileSync(join(dir, name), text);
        return join(dir, name);
      };
      const leaf = file('leaf.pem', leafPem);
      const root = file('root.pem', bundlePem(ca.authority.bundle));
      const middle = file('middle.pem', encodePem('CERTIFICATE', ca.intermediate.certificate));
      for (const purpose of ['sslserver', 'sslclient']) {
        const args = [
          'verify',
          '-x509_strict',
          '-purpose',
          purpose,
          '-CAfile',
          root,
          '-untrusted',
          middle,
          leaf,
        ];
        expect(execFileSync('openssl', args, { encoding: 'utf8' })).toContain('OK');
      }
      const text = execFileSync('openssl', ['x509', '-in', leaf, '-noout', '-text'], { encoding: 'utf8' });
      for (const line of [
        'X509v3 Key Usage: critical\n                Digital Signature\n',
        'X509v3 Basic Constraints: critical\n                CA:FALSE\n',
        'TLS Web Server Authentication, TLS Web Client Authentication\n',
        'X509v3 Subject Alternative Name: critical\n                URI:spiffe://example.org/ns/shop/sa/web, DNS:web.shop.svc\n',
      ]) {
        expect(text).toContain(line);
      }
    },
  );
});

describe('mutual TLS between two Node sockets', () => {
  type Side = { readonly svid: Awaited<ReturnType<typeof issue>>; readonly ca: TestAuthority };

  /** Connects `client` to `server`; gives the two URI names each saw, or the failure. */
  async function handshake(server: Side, client: Side): Promise<string[]> {
    const options = (side: Side) => ({
      key: side.svid.key,
      cert: side.svid.chainPem,
      ca: bundlePem(side.ca.authority.bundle),
      minVersion: 'TLSv1.3' as const,
      rejectUnauthorized: true,
    });
    const listener = createServer({ ...options(server), requestCert: true }).listen(0, '127.0.0.1');
    await once(listener, 'listening');
    try {
      const accepted = new Promise<TLSSocket>((resolve, reject) => {
        listener.once('secureConnection', resolve).once('tlsClientError', reject);
      });
      const { port } = listener.address() as AddressInfo;
      const near = connect({
        ...options(client),
        port,
        host: '127.0.0.1',
        checkServerIdentity: () => undefined,
      });
      near.on('error', () => undefined);
      try {
        const [far] = await Promise.all([accepted, once(near, 'secureConnect')]);
        const seen = [far, near].map((socket) =>
          peerCertificateIds(socket.getPeerX509Certificate()!.raw).uriSans.join(),
        );
        far.destroy();
        return seen;
      } finally {
        near.destroy();
      }
    } finally {
      listener.close();
    }
  }

  test.each(configs.flatMap((_, ca) => kinds.map((kind): [number, string] => [ca, kind])))(
    'authority %i, leaf key %s',
    async (index, kind) => {
      const ca = authorities[index]!;
      const web = await issue(ca, '/ns/shop/sa/web', kind);
      const orders = await issue(ca, '/ns/shop/sa/orders', kind);
      const seen = await handshake({ svid: web, ca }, { svid: orders, ca });
      expect(seen).toEqual([orders.id.text, web.id.text]);
    },
  );

  test('a client of another authority is refused, and so is such a server', async () => {
    const [ca, other] = [authorities[0]!, authorities[1]!];
    const ours = { svid: await issue(ca, '/a'), ca };
    const theirs = { svid: await issue(other, '/a'), ca };
    await expect(handshake(ours, theirs)).rejects.toThrow();
    await expect(handshake(theirs, ours)).rejects.toThrow();
  });
});
