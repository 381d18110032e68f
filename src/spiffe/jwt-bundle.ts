import type { TrustDomain } from './id.ts';

/** A key that signs JWT-SVIDs of one trust domain. */
export type JwtAuthority = {
  /** The `kid` of its tokens: 1 to 256 characters, unique within the bundle. */
  readonly keyId: string;
  /** SPKI, DER. */
  readonly publicKey: Uint8Array;
};

/**
 * The JWT authorities of one trust domain. Bundles of different trust domains are never merged: a token is verified with
 * that of its subject.
 * @see SPIFFE JWT-SVID, section 6
 */
export type JwtBundle = {
  readonly trustDomain: TrustDomain;
  /** Empty when no token of this trust domain is to be believed. */
  readonly authorities: readonly JwtAuthority[];
  /** Grows by one with every change. */
  readonly sequence: number;
};

/** Whether a text can be the `kid` of a token: 1 to 256 printable ASCII characters, space included. */
export function isKeyId(text: string): boolean {
  return /^[\x20-\x7e]{1,256}$/.test(text);
}
