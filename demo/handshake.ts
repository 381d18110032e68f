import { generateKeyPairSync } from 'node:crypto';
import { type ConnectionOptions, connect } from 'node:tls';
import { createIntermediate, createRoot } from '../src/ca/x509.ts';
import { createAuthority } from '../src/ca/authority.ts';
import { createMemoryKey } from '../src/ca/memory-key.ts';
import { parseProfile } from '../src/ca/profile.ts';
import { SpiffeId } from '../src/spiffe/id.ts';
import { encodePem } from '../src/spiffe/pem.ts';
import { randomBytes } from 'node:crypto';
import type { DemoMesh } from './mesh.ts';

/**
 * Shakes hands with `shop/orders` as a rogue would and waits for the alert.
 * @returns the alert; @throws Error when the handshake succeeds
 */
export async function tryHandshake(
  { ordersPort, web }: DemoMesh,
  attempt: 'no certificate' | 'a certificate of its own CA',
): Promise<string> {
  const identity = attempt === 'no certificate' ? {} : await forge(web.id);
  return new Promise((resolve, reject) => {
    // In TLS 1.3 the client is done before the server has judged it: the refusal is the first thing that arrives.
    const socket = connect({ port: ordersPort, host: '127.0.0.1', rejectUnauthorized: false, ...identity });
    socket.setTimeout(10_000, () => socket.destroy(new Error('no answer within 10 s')));
    socket.once('secureConnect', () => socket.write('GET /orders/1 HTTP/1.1\r\nhost: orders\r\n\r\n'));
    socket.once('data', (data: Buffer) => {
      socket.destroy();
      reject(
        new Error(
          `expected that the handshake with ${attempt} is refused, it answered ${data.toString('latin1', 0, 40)}`,
        ),
      );
    });
    socket.once('error', (error: NodeJS.ErrnoException) => {
      const alert =
        /alert ([a-z ]+)/.exec(error.message)?.[1] ?? /ssl\/tls alert ([a-z ]+)/.exec(error.message)?.[1];
      if (alert === undefined) reject(new Error(`expected a TLS alert, got ${error.message}`));
      else resolve(`TLS alert "${alert.trim()}"`);
    });
  });
}

/** A certificate with the right name, the right form and the wrong CA. */
async function forge(id: string): Promise<ConnectionOptions> {
  const profile = parseProfile();
  const { trustDomain } = SpiffeId.parse(id);
  const now = new Date();
  const random = (size: number) => new Uint8Array(randomBytes(size));
  const key = await createMemoryKey(profile.authorityKey);
  const rootKey = await createMemoryKey(profile.authorityKey);
  const made = { trustDomain, profile, now, randomBytes: random };
  const root = { ...(await createRoot({ ...made, key: rootKey })), key: rootKey };
  const signed = await createIntermediate({ ...made, publicKey: key.publicKey, root });
  const authority = createAuthority({ ...made, root, intermediate: { ...signed, key } });
  const { publicKey, privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const prepared = authority.prepare(
    {
      id: SpiffeId.parseWorkload(id),
      publicKey: new Uint8Array(publicKey.export({ type: 'spki', format: 'der' })),
      dnsNames: [],
      ttlSeconds: 3_600,
    },
    now,
  );
  const { certificates } = await authority.sign(prepared);
  return {
    cert: certificates.map((der) => encodePem('CERTIFICATE', der)).join(''),
    key: privateKey.export({ type: 'pkcs8', format: 'pem' }).toString(),
  };
}
