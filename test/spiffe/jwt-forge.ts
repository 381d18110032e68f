import { constants, generateKeyPairSync, type KeyObject, sign } from 'node:crypto';
import { TrustDomain } from '../../src/spiffe/id.ts';
import type { JwtAuthority, JwtBundle } from '../../src/spiffe/jwt-bundle.ts';
import { startCpuWatch } from '../harness/cpu-watch.ts';

export type Pair = { readonly publicKey: KeyObject; readonly privateKey: KeyObject };

/** Made once for all tests of a file. */
export const ec: Pair = generateKeyPairSync('ec', { namedCurve: 'P-256' });
export const otherEc: Pair = generateKeyPairSync('ec', { namedCurve: 'P-256' });
export const ec384: Pair = generateKeyPairSync('ec', { namedCurve: 'P-384' });
export const ec521: Pair = generateKeyPairSync('ec', { namedCurve: 'P-521' });
export const rsa: Pair = generateKeyPairSync('rsa', { modulusLength: 2_048 });

export const spkiBytes = (key: KeyObject): Uint8Array =>
  new Uint8Array(key.export({ format: 'der', type: 'spki' }));

export const authorityOf = (keyId: string, { publicKey }: Pair): JwtAuthority => ({
  keyId,
  publicKey: spkiBytes(publicKey),
});

export const bundleOf = (trustDomain: string, keys: Readonly<Record<string, Pair>>): JwtBundle => ({
  trustDomain: TrustDomain.parse(trustDomain),
  authorities: Object.entries(keys).map(([keyId, pair]) => authorityOf(keyId, pair)),
  sequence: 1,
});

export const at = new Date('2026-11-21T12:00:00Z');
export const seconds = at.getTime() / 1_000;
export const goodHeader: object = { alg: 'ES256', kid: 'ec', typ: 'JWT' };
export const goodClaims: object = {
  sub: 'spiffe://example.org/web',
  aud: ['orders'],
  exp: seconds + 60,
  iat: seconds,
};

/** Base64url of JSON; text is taken as it stands, so that it may be no JSON. */
export const part = (value: object | string | Uint8Array): string =>
  Buffer.from(
    typeof value === 'string' || value instanceof Uint8Array ? value : JSON.stringify(value),
  ).toString('base64url');

export type Forging = {
  readonly header?: object | string | Uint8Array;
  readonly claims?: object | string | Uint8Array;
  readonly key?: KeyObject;
  /** How it is signed; ES256 unless told, whatever the header says. */
  readonly as?: string;
};

/** Signs whatever it is given. */
export function forge({ header = goodHeader, claims = goodClaims, key, as = 'ES256' }: Forging = {}): string {
  const signed = `${part(header)}.${part(claims)}`;
  return `${signed}.${signatureOf(signed, key ?? ec.privateKey, as).toString('base64url')}`;
}

export function signatureOf(text: string, key: KeyObject, as: string): Buffer {
  const hash = `sha${as.slice(2)}`;
  const pss = { padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: constants.RSA_PSS_SALTLEN_DIGEST };
  const options = { ES: { dsaEncoding: 'ieee-p1363' as const }, PS: pss, RS: {} }[as.slice(0, 2)];
  return sign(hash, Buffer.from(text), { key, ...options });
}

/**
 * The least time of a processor that one of three runs takes, in milliseconds: any one of them may meet a pause that is not
 * ours, code that is slow is slow each time.
 */
export function leastMs(run: () => unknown): number {
  let least = Number.POSITIVE_INFINITY;
  for (let i = 0; i < 3 && least > 5; i++) {
    const usedMs = startCpuWatch();
    run();
    least = Math.min(least, usedMs());
  }
  return least;
}
