import type { SpiffeId } from '../spiffe/id.ts';
import type { Selector } from './selector.ts';

/** The shortest and longest leaf lifetime an entry may ask for. */
export const minTtlSeconds = 20;
export const maxTtlSeconds = 86_400;
export const defaultTtlSeconds = 3_600;

/**
 * A registration entry: a workload whose attested selectors include all of `selectors` is given `spiffeId`.
 * Immutable; a change makes a new value with the revision of the change.
 */
export type RegistrationEntry = {
  /** `[a-z0-9][a-z0-9._-]{0,127}`, chosen by the author; the key of the entry. */
  readonly id: string;
  /** Of our own trust domain, with a path. */
  readonly spiffeId: SpiffeId;
  /** At least one; all must be attested. Sorted by text, without duplicates. */
  readonly selectors: readonly Selector[];
  /** 20 to 86,400. */
  readonly ttlSeconds: number;
  /** DNS SANs of the certificate, lower case. */
  readonly dnsNames: readonly string[];
  /** What policy selectors match; `namespace` and `serviceAccount` derive from the ID and may not contradict it. */
  readonly labels: Readonly<Record<string, string>>;
  /** The Workload API's hint; at most 1,024 bytes, may be empty. */
  readonly hint: string;
  /** From then on the entry matches nothing; null for never. */
  readonly expiresAt: Date | null;
  /**
   * Which attested nodes may serve it: `node:<name>`, `alias:<name>` or `*` for every one; sorted, without duplicates.
   * Left out or empty: none, only the node that `countersign up` is itself.
   */
  readonly nodes?: readonly string[];
  /** The registry revision that last changed this entry. */
  readonly revision: number;
};

/** Labels below this are read by Countersign itself; there is no other than those it knows. */
export const ownLabels = 'countersign.dev/';
/** The label of an entry whose certificates may be renewed over the network by whoever shows one: `'true'`. */
export const renewOverNetworkLabel = `${ownLabels}renew-over-network`;

/** Whether a certificate of the entry is enough to be given the next one. */
export function mayRenewOverNetwork({ labels }: Pick<RegistrationEntry, 'labels'>): boolean {
  return labels[renewOverNetworkLabel] === 'true';
}

/** An entry as an author writes it, before it is parsed. Omitted fields take their defaults. */
export type EntryInput = {
  readonly id: string;
  readonly spiffeId: string;
  readonly selectors: readonly string[];
  readonly ttlSeconds?: number;
  readonly dnsNames?: readonly string[];
  readonly labels?: Readonly<Record<string, string>>;
  readonly hint?: string;
  /** RFC 3339, or null for never. */
  readonly expiresAt?: string | null;
  /** `node:<name>`, `alias:<name>` or `*`; none for an entry that only `countersign up` serves. */
  readonly nodes?: readonly string[];
};
