import { createPublicKey, hash } from 'node:crypto';
import { MeshError, publicError } from '../errors.ts';
import { bytesEqual } from './der.ts';
import type { TrustDomain } from './id.ts';
import { encodePem } from './pem.ts';
import { checkX509Authority } from './svid.ts';

/**
 * The X.509 authorities of one trust domain. Bundles of different trust domains are never merged.
 * @see SPIFFE Trust Domain and Bundle, section 4
 */
export type TrustBundle = {
  readonly trustDomain: TrustDomain;
  /** CA certificates, DER, at least one. */
  readonly x509Authorities: readonly Uint8Array[];
  /** Grows by one with every change. */
  readonly sequence: number;
};

/** The most authorities one bundle holds: a proxy reads them all at every handshake. */
export const maxAuthorities = 64;

/**
 * Makes a bundle of CA certificates, each proven: a proxy refuses a whole bundle for one bad authority, and trusts any
 * certificate in it, CA or not.
 * @param authoritiesDer 1 to 64 CA certificates, DER, no two the same; those with a SPIFFE ID carry that of `trustDomain`
 * @param sequence a whole number from 0
 * @throws MeshError `bundle_invalid`
 */
export function makeBundle(
  trustDomain: TrustDomain,
  authoritiesDer: readonly Uint8Array[],
  sequence: number,
): TrustBundle {
  if (authoritiesDer.length === 0) refuse(trustDomain, 'has no authority');
  if (authoritiesDer.length > maxAuthorities)
    refuse(trustDomain, `has more than ${maxAuthorities} authorities`);
  if (!Number.isSafeInteger(sequence) || sequence < 0)
    refuse(trustDomain, 'has a sequence that is no whole number');
  const x509Authorities: Uint8Array[] = [];
  for (const der of authoritiesDer) {
    checkAuthority(trustDomain, der);
    if (x509Authorities.some((other) => bytesEqual(other, der)))
      refuse(trustDomain, 'has an authority twice');
    x509Authorities.push(new Uint8Array(der));
  }
  return { trustDomain, x509Authorities, sequence };
}

/** All authorities of a bundle as PEM, in order. */
export function bundlePem(bundle: TrustBundle): string {
  return bundle.x509Authorities.map((der) => encodePem('CERTIFICATE', der)).join('');
}

/** Tells a bundle from any other, whatever its sequence says: SHA-256 over those of its authorities, lower-case hex. */
export function bundleSha256({ x509Authorities }: TrustBundle): string {
  return hash('sha256', Buffer.concat(x509Authorities.map((der) => hash('sha256', der, 'buffer'))), 'hex');
}

function checkAuthority(trustDomain: TrustDomain, der: Uint8Array): void {
  let own: TrustDomain | undefined;
  try {
    const authority = checkX509Authority(der);
    own = authority.trustDomain;
    createPublicKey({ key: Buffer.from(authority.spki), format: 'der', type: 'spki' });
  } catch (cause) {
    const why =
      cause instanceof MeshError ? publicError(cause).message : 'the certificate has an unreadable key';
    refuse(trustDomain, `has an authority that is refused: ${why}`, cause);
  }
  if (own !== undefined && !own.equals(trustDomain)) {
    refuse(trustDomain, `has an authority of the trust domain ${own.name}`);
  }
}

function refuse(trustDomain: TrustDomain, why: string, cause?: unknown): never {
  throw new MeshError('bundle_invalid', `the bundle of ${trustDomain.name} ${why}`, { cause });
}
