import type { Actor } from '../audit/event.ts';
import type { Laggard, Slot, SlotKind } from '../ca/slot.ts';
import type { ChainPart } from '../ca/chain.ts';
import type { StoredRequest } from '../ca/stored.ts';

/** What `GET /v1/ca` and `countersign ca status` tell. Times are serialised as RFC 3339. */
export type CaReport = {
  /** Of the bundle that proxies are given. */
  readonly bundleSequence: number;
  /** All that are not retired, the oldest first. */
  readonly authorities: readonly (Slot & {
    /** How many CAs of somebody else stand between it and its root. */
    readonly upstream: number;
    readonly certificateSha256: string;
  })[];
  /** The key that waits for a certificate from elsewhere; null when none does. */
  readonly waiting: { readonly keyId: string } | null;
  /** What needs somebody, in words; empty when nothing does. */
  readonly warnings: readonly string[];
  /** Of those with an unexpired certificate, how many have confirmed the bundle that matters now, or a later one. */
  readonly coverage: { readonly sequence: number; readonly confirmed: number; readonly holders: number };
  /** The step that a rotation under way takes next, and whether it is safe; null when none is under way. */
  readonly next: { readonly step: 'activate' | 'retire'; readonly safe: boolean } | null;
  /** Who is in the way of it, at most 20. */
  readonly laggards: readonly Laggard[];
  readonly moreLaggards: number;
  /** Why no evidence counts at the moment; null when it does. */
  readonly doubt: string | null;
};

/**
 * The CA as the admin API sees it. Steps throw `rotation_unproven`, `rotation_out_of_order`, `authority_not_found`; an
 * import also `csr_not_waiting` and `chain_*`.
 */
export type CaPort = {
  readonly report: () => Promise<CaReport>;
  /** The certificate request of the key that waits. @throws MeshError `csr_not_waiting` */
  readonly request: () => StoredRequest;
  /** @param offline ask for a root that is kept elsewhere */
  readonly rotate: (scope: SlotKind, actor: Actor, offline?: boolean) => Promise<CaReport>;
  readonly importChain: (chain: readonly ChainPart[], actor: Actor) => Promise<CaReport>;
  readonly activate: (force: boolean, actor: Actor) => Promise<CaReport>;
  readonly retire: (force: boolean, actor: Actor) => Promise<CaReport>;
  readonly taint: (keyId: string, actor: Actor) => Promise<CaReport>;
};
