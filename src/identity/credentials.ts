import type { TrustBundle } from '../spiffe/bundle.ts';
import type { JwtBundle } from '../spiffe/jwt-bundle.ts';
import type { SpiffeId, TrustDomain } from '../spiffe/id.ts';
import type { Attestation } from './evidence.ts';

/** An X.509 SVID with its key, ready for a proxy. */
export type X509Svid = {
  readonly id: SpiffeId;
  /** DER, leaf first, then intermediates; never the root. */
  readonly certificates: readonly Uint8Array[];
  /** PKCS#8 DER. Never logged. */
  readonly privateKey: Uint8Array;
  /** Lower-case hex. */
  readonly serial: string;
  /** Subject key identifier of the CA that signed the leaf, lower-case hex. */
  readonly issuerKeyId: string;
  readonly notBefore: Date;
  readonly notAfter: Date;
  readonly hint: string;
  readonly entryId: string;
  /** That its record is in the audit log, a `.tlog-proof`; absent when it came without. */
  readonly proof?: string;
  /** The serial of the certificate that it was given for over the network; absent when a process was attested. */
  readonly renewedFrom?: string;
};

/**
 * The joint between identity and every door that hands out certificates: the full state of what one caller may have.
 * Each value replaces the one before it; absence is withdrawal.
 */
export type WorkloadCredentials = {
  readonly trustDomain: TrustDomain;
  /** The default identity first, unless it is banned. Empty when no entry matches the caller, or all are banned. */
  readonly svids: readonly X509Svid[];
  /** Identities that the caller would have were they not banned. */
  readonly banned: readonly SpiffeId[];
  /** Whether the default identity is banned: then none is the default, or a ban would make one workload another. */
  readonly isDefaultBanned: boolean;
  /** By trust domain name, our own among them. Empty when there is no SVID. */
  readonly bundles: ReadonlyMap<string, TrustBundle>;
  /**
   * Revocation lists (DER) of our own trust domain: one of every CA whose leaves may be presented, or none. The same
   * array until they change.
   */
  readonly crls?: readonly Uint8Array[];
  /** By trust domain name, our own among them. Empty when there is no SVID. */
  readonly jwtBundles: ReadonlyMap<string, JwtBundle>;
};

/**
 * The live credentials of one attested caller: the current state at once, then a new full state after each change
 * (entry, renewal, bundle, ban). Level-triggered: a slow reader sees only the newest state. Ends when `signal` aborts.
 * The first state may be empty: a caller whose entry is made later gets its certificate on the same iteration.
 */
export type WatchCredentials = (
  attestation: Attestation,
  signal: AbortSignal,
) => AsyncIterable<WorkloadCredentials>;
