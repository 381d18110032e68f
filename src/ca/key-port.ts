import type { PublicKey } from './public-key.ts';
import type { AuthorityKeyKind } from './profile.ts';

/** The name node:crypto has for the hash that goes with a key's curve. */
export type KeyHash = 'sha256' | 'sha384';

/**
 * A key of a CA, wherever its private half is kept: in this process, in a KMS, in a token. Only its custody ever sees
 * private bytes; whoever signs has this value and nothing more.
 */
export type CaKey = {
  /** Subject key identifier after RFC 7093, lower-case hex. */
  readonly keyId: string;
  readonly kind: AuthorityKeyKind;
  readonly hash: KeyHash;
  readonly publicKey: PublicKey;
  /**
   * ECDSA over the hash of `bytes`, as DER. A key in this process answers at once, one that is elsewhere later.
   * @throws MeshError `internal`
   */
  readonly sign: (bytes: Uint8Array) => Uint8Array | Promise<Uint8Array>;
};

/**
 * Who keeps the private keys of the CAs. A KMS or a PKCS #11 token takes the place of the sealed files by giving these
 * three functions.
 */
export type KeyCustody = {
  /** Makes a key. INVARIANT: it is durable when this resolves, so that no certificate ever names a key that is gone. */
  readonly create: (kind: AuthorityKeyKind) => Promise<CaKey>;
  /**
   * Opens a key that was made earlier.
   * @throws MeshError `key_passphrase_wrong`, `key_envelope_invalid`, `file_missing`, `file_permissions`
   */
  readonly open: (keyId: string) => Promise<CaKey>;
  /** Deletes a key for good; one that is not there is no error. */
  readonly forget: (keyId: string) => void;
};

/** The hash that goes with a curve. */
export function hashOf(kind: AuthorityKeyKind): KeyHash {
  return kind === 'ecdsa-p256' ? 'sha256' : 'sha384';
}
