import { X509Certificate } from 'node:crypto';
import { MeshError, publicError } from '../errors.ts';
import { bytesEqual, hexOf } from '../spiffe/der.ts';
import type { TrustDomain } from '../spiffe/id.ts';
import { checkX509Authority, type X509Authority } from '../spiffe/svid.ts';
import type { CaKey, KeyHash } from './key-port.ts';
import { type PublicKey, readPublicKey } from './public-key.ts';

/** A CA certificate, read twice: by our reader for the profile, by OpenSSL for signatures. */
export type AuthorityCertificate = X509Authority & {
  readonly der: Uint8Array;
  readonly x509: X509Certificate;
  readonly publicKey: PublicKey;
  /**
   * What we call the key: its RFC 7093 identifier, lower-case hex. A CA that somebody else signed may have another one
   * in its certificate (`subjectKeyId`), which is what certificates below it must name.
   */
  readonly keyId: string;
};

/** A CA that signs leaves. */
export type Issuer = {
  /** Its trust domain is that of the leaves, also when the certificate itself names none. */
  readonly certificate: AuthorityCertificate;
  readonly key: CaKey;
  readonly hash: KeyHash;
};

/**
 * Reads a CA certificate.
 * @throws MeshError `authority_invalid`
 */
export function openAuthorityCertificate(der: Uint8Array): AuthorityCertificate {
  return orInvalid(() => {
    const own = new Uint8Array(der);
    const authority = checkX509Authority(own);
    const publicKey = readPublicKey(authority.spki);
    return {
      ...authority,
      der: own,
      x509: new X509Certificate(own),
      publicKey,
      keyId: hexOf(publicKey.keyId),
    };
  });
}

/**
 * Joins a CA certificate with its key.
 * @param trustDomain of the leaves, when the certificate names none
 * @throws MeshError `authority_invalid`
 */
export function openIssuer(certificateDer: Uint8Array, key: CaKey, trustDomain?: TrustDomain): Issuer {
  const certificate = openAuthorityCertificate(certificateDer);
  if (!bytesEqual(key.publicKey.spki, certificate.spki)) refuseAuthority('belongs to another private key');
  // Without it nothing below could say whose it is (RFC 5280 section 4.2.1.2: every CA has one).
  if (certificate.subjectKeyId === undefined) refuseAuthority('has no subject key identifier');
  return {
    certificate: { ...certificate, trustDomain: certificate.trustDomain ?? trustDomain },
    key,
    hash: key.hash,
  };
}

/** Throws `authority_invalid` about a CA. */
export function refuseAuthority(why: string, cause?: unknown): never {
  throw new MeshError('authority_invalid', `the CA certificate ${why}`, { cause });
}

function orInvalid<T>(read: () => T): T {
  try {
    return read();
  } catch (cause) {
    if (cause instanceof MeshError && cause.code === 'authority_invalid') throw cause;
    const why =
      cause instanceof MeshError ? `is refused: ${publicError(cause).message}` : 'or its key cannot be read';
    return refuseAuthority(why, cause);
  }
}
