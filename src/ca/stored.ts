/** A certificate authority as it is kept: the certificate here, its key sealed in a file of its own. */
export type StoredAuthority = {
  readonly kind: 'root' | 'intermediate';
  /** Subject key identifier, lower-case hex; also the name of the key. */
  readonly keyId: string;
  readonly certificate: Uint8Array;
  readonly notBefore: Date;
  readonly notAfter: Date;
  readonly state: 'active' | 'retired';
};
