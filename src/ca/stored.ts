import type { Slot } from './slot.ts';

/** A certificate authority as it is kept: the certificate here, its key with whoever has the custody of it. */
export type StoredAuthority = Slot & {
  readonly certificate: Uint8Array;
  /** DER, the lower one first: CAs of somebody else between an intermediate of ours and its root. Usually none. */
  readonly upstream: readonly Uint8Array[];
};

/** A key that waits for a certificate from elsewhere. */
export type StoredRequest = {
  readonly keyId: string;
  /** PKCS #10, DER. */
  readonly csr: Uint8Array;
};
