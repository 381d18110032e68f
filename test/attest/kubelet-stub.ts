import 'reflect-metadata';
import { createServer as createHttp, type RequestListener, type Server } from 'node:http';
import { createServer as createHttps } from 'node:https';
import type { AddressInfo } from 'node:net';
import { webcrypto } from 'node:crypto';
import * as x509 from '@peculiar/x509';

export type TlsPair = { readonly cert: string; readonly key: string };

/** A CA and what it signs; `ca.crt` of a cluster in small. */
export async function makeClusterCa(): Promise<{
  readonly pem: string;
  readonly sign: (purpose: 'server' | 'client', dnsName: string) => Promise<TlsPair>;
}> {
  const caKeys = await keyPair();
  const ca = await x509.X509CertificateGenerator.createSelfSigned(
    {
      name: 'CN=kubernetes',
      keys: caKeys,
      notBefore: new Date(Date.now() - 60_000),
      notAfter: new Date(Date.now() + 3_600_000),
      extensions: [new x509.BasicConstraintsExtension(true, undefined, true)],
    },
    webcrypto,
  );
  return {
    pem: ca.toString('pem'),
    sign: async (purpose, dnsName) => {
      const keys = await keyPair();
      const certificate = await x509.X509CertificateGenerator.create(
        {
          subject: `O=system:nodes, CN=system:node:${dnsName}`,
          issuer: ca.subject,
          signingKey: caKeys.privateKey,
          publicKey: keys.publicKey,
          notBefore: new Date(Date.now() - 60_000),
          notAfter: new Date(Date.now() + 3_600_000),
          extensions: [
            new x509.ExtendedKeyUsageExtension([`1.3.6.1.5.5.7.3.${purpose === 'server' ? 1 : 2}`]),
            new x509.SubjectAlternativeNameExtension([{ type: 'dns', value: dnsName }]),
          ],
        },
        webcrypto,
      );
      const pkcs8 = Buffer.from(await webcrypto.subtle.exportKey('pkcs8', keys.privateKey));
      const body = pkcs8.toString('base64').replace(/.{64}/g, '$&\n');
      return {
        cert: certificate.toString('pem'),
        key: `-----BEGIN PRIVATE KEY-----\n${body}\n-----END PRIVATE KEY-----\n`,
      };
    },
  };
}

/** A server on a loopback port or a Unix socket; over TLS when it is given a pair. */
export async function serve(
  listener: RequestListener,
  { pair, socketPath }: { readonly pair?: TlsPair; readonly socketPath?: string } = {},
): Promise<{ readonly url: URL; readonly close: () => Promise<void> }> {
  const server: Server = pair === undefined ? createHttp(listener) : createHttps(pair, listener);
  server.on('tlsClientError', () => undefined);
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    if (socketPath === undefined) server.listen(0, '127.0.0.1', resolve);
    else server.listen(socketPath, resolve);
  });
  const port = socketPath === undefined ? (server.address() as AddressInfo).port : 0;
  return {
    url: new URL(`${pair === undefined ? 'http' : 'https'}://127.0.0.1:${port}`),
    close: () =>
      new Promise((resolve) => {
        server.closeAllConnections();
        server.close(() => resolve());
      }),
  };
}

function keyPair() {
  return webcrypto.subtle.generateKey({ name: 'ECDSA', namedCurve: 'P-256' }, true, ['sign', 'verify']);
}
