import 'reflect-metadata';
import type { webcrypto } from 'node:crypto';
import { connect, type TLSSocket } from 'node:tls';
import * as x509 from '@peculiar/x509';
import type { KeyPair } from './sds-client.ts';

/** How a handshake with a server that wants a certificate ended, seen from the client. */
export type Handshake =
  | { readonly accepted: true; readonly answer: string }
  /** The TLS alert the server sent, such as `certificate expired`. */
  | { readonly accepted: false; readonly alert: string };

/**
 * Connects as a client that checks nothing of the server, so that whatever refuses is the server, and sends an HTTP
 * request: with TLS 1.3 a client learns only afterwards what the server thinks of its certificate.
 */
export function shakeHands(port: number, keyPair: KeyPair | null, path = '/'): Promise<Handshake> {
  return new Promise((resolve, reject) => {
    const socket: TLSSocket = connect({
      host: '127.0.0.1',
      port,
      rejectUnauthorized: false,
      ALPNProtocols: ['http/1.1'],
      minVersion: 'TLSv1.3',
      ...(keyPair === null ? {} : { key: keyPair.key, cert: keyPair.cert }),
    });
    let answer = '';
    let failed: Error | undefined;
    socket.setTimeout(10_000, () => socket.destroy(new Error('no answer within 10 s')));
    socket.on('secureConnect', () =>
      socket.write(`GET ${path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n`),
    );
    socket.on('data', (chunk: Buffer) => {
      answer += chunk.toString('latin1');
    });
    socket.on('error', (error) => {
      failed = error;
    });
    socket.on('close', () => {
      const alert = /alert ([a-z0-9 ]+)/i.exec(failed?.message ?? '')?.[1];
      if (answer !== '') resolve({ accepted: true, answer });
      else if (alert !== undefined) resolve({ accepted: false, alert });
      else reject(failed ?? new Error('the connection was closed without an alert'));
    });
  });
}

/** A certificate with the given SPIFFE ID from a CA that nobody here knows, in the shape of ours. */
export async function forgeKeyPair(spiffeId: string): Promise<KeyPair> {
  x509.cryptoProvider.set(globalThis.crypto);
  const algorithm = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' };
  const [ca, leaf] = await Promise.all([makeKeys(algorithm), makeKeys(algorithm)]);
  const notBefore = new Date(Date.now() - 60_000);
  const notAfter = new Date(Date.now() + 3_600_000);
  const certificate = await x509.X509CertificateGenerator.create({
    serialNumber: '01',
    issuer: 'CN=foreign',
    subject: 'O=foreign',
    notBefore,
    notAfter,
    publicKey: leaf.publicKey,
    signingKey: ca.privateKey,
    signingAlgorithm: algorithm,
    extensions: [
      new x509.SubjectAlternativeNameExtension([{ type: 'url', value: spiffeId }]),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature, true),
      new x509.ExtendedKeyUsageExtension(['1.3.6.1.5.5.7.3.1', '1.3.6.1.5.5.7.3.2']),
      new x509.BasicConstraintsExtension(false, undefined, true),
    ],
  });
  const pkcs8 = Buffer.from(await crypto.subtle.exportKey('pkcs8', leaf.privateKey)).toString('base64');
  const key = `-----BEGIN PRIVATE KEY-----\n${pkcs8}\n-----END PRIVATE KEY-----\n`;
  return { key, cert: certificate.toString('pem') };
}

function makeKeys(algorithm: { name: string; namedCurve: string }): Promise<webcrypto.CryptoKeyPair> {
  return crypto.subtle.generateKey(algorithm, true, ['sign', 'verify']);
}
