import { createPrivateKey, createPublicKey, type KeyObject, X509Certificate } from 'node:crypto';
import { MeshError, publicError } from '../errors.ts';
import { bytesEqual, hexOf } from '../spiffe/der.ts';
import { checkX509Authority, type X509Authority } from '../spiffe/svid.ts';
import { type PublicKey, readPublicKey } from './public-key.ts';

/** A CA certificate, read twice: by our reader for the profile, by OpenSSL for signatures. */
export type AuthorityCertificate = X509Authority & {
  readonly der: Uint8Array;
  readonly x509: X509Certificate;
  readonly publicKey: PublicKey;
  /** Lower-case hex; a CA of ours always has one. */
  readonly keyId: string;
};

/** A CA that signs leaves. The key never leaves this value, and nothing prints it. */
export type Issuer = {
  readonly certificate: AuthorityCertificate;
  readonly privateKey: KeyObject;
  /** The name node:crypto has for the hash that goes with the key's curve. */
  readonly hash: 'sha256' | 'sha384';
};

/**
 * Reads a certificate of one of our CAs.
 * @throws MeshError `authority_invalid`
 */
export function openAuthorityCertificate(der: Uint8Array): AuthorityCertificate {
  return orInvalid(() => {
    const own = new Uint8Array(der);
    const authority = checkX509Authority(own);
    const publicKey = readPublicKey(authority.spki);
    const keyId = hexOf(publicKey.keyId);
    if (authority.subjectKeyId !== keyId) refuse('names another key than it holds');
    return { ...authority, der: own, x509: new X509Certificate(own), publicKey, keyId };
  });
}

/**
 * Joins a CA certificate with its private key (PKCS#8, DER), which must be an ECDSA key on P-256 or P-384.
 * @throws MeshError `authority_invalid`
 */
export function openIssuer(certificateDer: Uint8Array, pkcs8: Uint8Array): Issuer {
  const certificate = openAuthorityCertificate(certificateDer);
  return orInvalid(() => {
    const hash = hashes.get(certificate.publicKey.kind);
    if (hash === undefined) refuse('has a key that is not ECDSA P-256 or P-384');
    const privateKey = createPrivateKey({ key: Buffer.from(pkcs8), format: 'der', type: 'pkcs8' });
    const spki = createPublicKey(privateKey).export({ format: 'der', type: 'spki' });
    if (!bytesEqual(spki, certificate.spki)) refuse('belongs to another private key');
    return { certificate, privateKey, hash };
  });
}

/** Throws `authority_invalid` about a CA. */
export function refuseAuthority(why: string, cause?: unknown): never {
  throw new MeshError('authority_invalid', `the CA certificate ${why}`, { cause });
}

const refuse: (why: string) => never = refuseAuthority;

function orInvalid<T>(read: () => T): T {
  try {
    return read();
  } catch (cause) {
    if (cause instanceof MeshError && cause.code === 'authority_invalid') throw cause;
    // What OpenSSL says about a private key stays inside.
    const why =
      cause instanceof MeshError ? `is refused: ${publicError(cause).message}` : 'or its key cannot be read';
    return refuseAuthority(why, cause);
  }
}

const hashes: ReadonlyMap<string, Issuer['hash']> = new Map([
  ['ecdsa-p256', 'sha256'],
  ['ecdsa-p384', 'sha384'],
]);
