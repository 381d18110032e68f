import type { TrustBundle } from '../spiffe/bundle.ts';
import type { JwtBundle } from '../spiffe/jwt-bundle.ts';
import { type Entitlement, entitlementOf } from './entitlement.ts';
import type { Attestation } from './evidence.ts';
import { createLatch } from './notice.ts';
import { noPace, pacedRaise } from './pace.ts';
import { nextChange, type WatchParts } from './watch.ts';

/** The bundles that one caller may have: all of them, as long as it has any identity. */
export type EntitledBundles = {
  readonly entitlement: Entitlement;
  /** By trust domain name, our own among them. Empty when the caller has no identity. */
  readonly bundles: ReadonlyMap<string, TrustBundle>;
  /** By trust domain name, our own among them. Empty when the caller has no identity. */
  readonly jwtBundles: ReadonlyMap<string, JwtBundle>;
};

/**
 * The live bundles of one attested caller, with what it is entitled to: the current state at once, then one after each
 * change of entries, bans or bundles. No certificate is made for it. Level-triggered; ends when `signal` aborts. States
 * may repeat.
 */
export type WatchBundles = (attestation: Attestation, signal: AbortSignal) => AsyncIterable<EntitledBundles>;

/** Watches for callers that want bundles alone. */
export function createBundleWatch(parts: Omit<WatchParts, 'keeper' | 'trustDomain'>): WatchBundles {
  return (attestation, signal) => watch(parts, attestation, signal);
}

async function* watch(
  parts: Omit<WatchParts, 'keeper' | 'trustDomain'>,
  attestation: Attestation,
  signal: AbortSignal,
): AsyncGenerator<EntitledBundles> {
  const latch = createLatch();
  const unsubscribe = parts.onChange(pacedRaise(parts.pace ?? noPace, latch, () => false));
  try {
    while (!signal.aborted) {
      const entitlement = entitlementOf(parts.registry(), parts.bans(), attestation, parts.clock.now());
      const hasIdentity = entitlement.entries.length > 0;
      yield {
        entitlement,
        bundles: hasIdentity ? parts.bundles() : new Map(),
        jwtBundles: hasIdentity ? parts.jwtBundles() : new Map(),
      };
      await nextChange(parts, attestation, latch, signal);
    }
  } finally {
    unsubscribe();
  }
}
