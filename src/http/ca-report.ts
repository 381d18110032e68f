import type { Actor } from '../audit/event.ts';
import type { Laggard, Slot, SlotKind } from '../ca/slot.ts';

/** What `GET /v1/ca` and `countersign ca status` tell. Times are serialised as RFC 3339. */
export type CaReport = {
  /** Of the bundle that proxies are given. */
  readonly bundleSequence: number;
  /** All that are not retired, the oldest first. */
  readonly authorities: readonly (Slot & { readonly certificateSha256: string })[];
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

/** The CA as the admin API sees it. Steps throw `rotation_unproven`, `rotation_out_of_order`, `authority_not_found`. */
export type CaPort = {
  readonly report: () => Promise<CaReport>;
  readonly rotate: (scope: SlotKind, actor: Actor) => Promise<CaReport>;
  readonly activate: (force: boolean, actor: Actor) => Promise<CaReport>;
  readonly retire: (force: boolean, actor: Actor) => Promise<CaReport>;
  readonly taint: (keyId: string, actor: Actor) => Promise<CaReport>;
};
