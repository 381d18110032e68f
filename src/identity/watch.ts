import type { Clock } from '../clock.ts';
import { MeshError } from '../errors.ts';
import type { TrustBundle } from '../spiffe/bundle.ts';
import type { JwtBundle } from '../spiffe/jwt-bundle.ts';
import type { SpiffeId, TrustDomain } from '../spiffe/id.ts';
import type { WatchCredentials, WorkloadCredentials, X509Svid } from './credentials.ts';
import { entitlementOf, entriesOf } from './entitlement.ts';
import type { RegistrationEntry } from './entry.ts';
import type { Attestation } from './evidence.ts';
import type { BanList } from './ban-list.ts';
import type { Keeper, Lease } from './keeper.ts';
import { createLatch, type Latch, latchOrSleep } from './notice.ts';
import { noPace, type Pace, pacedRaise } from './pace.ts';
import type { Registry } from './registry.ts';

export type WatchParts = {
  readonly trustDomain: TrustDomain;
  readonly registry: () => Registry;
  readonly bans: () => BanList;
  /** Every bundle a workload of ours may have, by trust domain name. */
  readonly bundles: () => ReadonlyMap<string, TrustBundle>;
  readonly jwtBundles: () => ReadonlyMap<string, JwtBundle>;
  /** Revocation lists of our own trust domain, the same array until they change. */
  readonly crls?: () => readonly Uint8Array[];
  readonly keeper: Keeper;
  readonly clock: Clock;
  /** Calls back when the registry, a ban, a bundle or a revocation list changed. */
  readonly onChange: (listener: () => void) => () => void;
  /** When each of many watchers looks again. Without it: all at once. */
  readonly pace?: Pace;
};

type HeldLease = { readonly entry: RegistrationEntry; readonly lease: Lease };

/** Turns one caller's selectors into its live credentials. */
export function createWatch(parts: WatchParts): WatchCredentials {
  return (attestation, signal) => watch(parts, attestation, signal);
}

async function* watch(
  parts: WatchParts,
  attestation: Attestation,
  signal: AbortSignal,
): AsyncGenerator<WorkloadCredentials> {
  const latch = createLatch();
  const leases = new Map<string, HeldLease>();
  const { pace = noPace } = parts;
  // What is taken away goes before what is given.
  const wake = pacedRaise(pace, latch, () => losesAny(parts, leases));
  const unsubscribe = parts.onChange(wake);
  let last: WorkloadCredentials | undefined;
  try {
    await new Promise<void>((resolve) => pace(false, resolve));
    while (!signal.aborted) {
      const current = currentCredentials(parts, attestation, leases, wake);
      if (isOutdated(parts, attestation, current)) {
        throw new MeshError('credentials_pending', 'the caller has to be attested again', {
          fix: 'open the stream again',
        });
      }
      if (current !== undefined && (last === undefined || differ(last, current))) {
        last = current;
        yield current;
        continue;
      }
      await nextChange(parts, attestation, latch, signal);
    }
  } finally {
    unsubscribe();
    for (const { lease } of leases.values()) lease.release();
  }
}

/** The full state now, or undefined while a certificate it needs is still being made. */
function currentCredentials(
  { trustDomain, registry, bans, bundles, jwtBundles, crls, keeper, clock }: WatchParts,
  attestation: Attestation,
  leases: Map<string, HeldLease>,
  wake: () => void,
): WorkloadCredentials | undefined {
  // INVARIANT: nobody holds a certificate of a banned identity, so that none is made or renewed.
  const { entries, banned, isDefaultBanned } = entitlementOf(registry(), bans(), attestation, clock.now());
  const matched = new Set(entries.map((entry) => entry.id));
  for (const [id, { lease }] of leases) {
    if (matched.has(id)) continue;
    leases.delete(id);
    lease.release();
  }
  const svids: X509Svid[] = [];
  for (const entry of entries) {
    let held = leases.get(entry.id);
    if (held?.entry !== entry) {
      // Holding again, with the newer entry, tells the keeper that it changed.
      const before = held;
      held = { entry, lease: keeper.hold(entry, attestation, wake) };
      leases.set(entry.id, held);
      before?.lease.release();
    }
    const svid = held.lease.svid();
    // INVARIANT: a state is whole or is not given: were one identity left out, another would pass for the default.
    if (svid !== undefined && svid.id.equals(entry.spiffeId)) svids.push(svid);
  }
  if (svids.length < entries.length) return undefined;
  return {
    trustDomain,
    svids,
    banned,
    isDefaultBanned,
    bundles: svids.length === 0 ? new Map() : bundles(),
    jwtBundles: svids.length === 0 ? new Map() : jwtBundles(),
    ...(crls === undefined || svids.length === 0 ? {} : { crls: crls() }),
  };
}

function losesAny({ registry, bans, clock }: WatchParts, leases: ReadonlyMap<string, HeldLease>): boolean {
  const list = bans();
  for (const [id, { entry }] of leases) {
    if (registry().entry(id) === undefined) return true;
    if (list.size > 0 && list.find({ id: entry.spiffeId }, clock.now()) !== undefined) return true;
  }
  return false;
}

/** Whether attesting again may find more, and it matters. A caller that has an identity keeps its stream for a retry. */
function isOutdated(
  { clock }: WatchParts,
  { lacks, retryAt = null }: Attestation,
  current: WorkloadCredentials | undefined,
): boolean {
  if (lacks?.() === true) return true;
  return retryAt !== null && clock.now() >= retryAt && current?.svids.length === 0;
}

/** Waits for an announced change, or for the next moment at which an entry or a ban of this caller runs out. */
export async function nextChange(
  { registry, bans, clock }: Pick<WatchParts, 'registry' | 'bans' | 'clock'>,
  attestation: Attestation,
  latch: Latch,
  signal: AbortSignal,
): Promise<void> {
  const now = clock.now();
  const entries = entriesOf(registry(), attestation, now);
  const ids = entries.map(({ spiffeId }) => spiffeId);
  const { retryAt = null } = attestation;
  const moments = [
    ...entries.map(({ expiresAt }) => expiresAt),
    bans().nextEnd(ids, now),
    retryAt !== null && retryAt > now ? retryAt : null,
  ];
  const nextMs = Math.min(...moments.map((moment) => moment?.getTime() ?? Number.POSITIVE_INFINITY));
  if (nextMs === Number.POSITIVE_INFINITY) return latch.next(signal);
  return latchOrSleep(latch, nextMs - now.getTime(), clock, signal);
}

function differ(a: WorkloadCredentials, b: WorkloadCredentials): boolean {
  if (a.svids.length !== b.svids.length || a.bundles.size !== b.bundles.size) return true;
  if (a.isDefaultBanned !== b.isDefaultBanned || a.banned.length !== b.banned.length) return true;
  if (a.banned.some((id, index) => !id.equals(b.banned[index] as SpiffeId))) return true;
  if (a.svids.some((svid, index) => svid !== b.svids[index])) return true;
  if ([...b.bundles].some(([name, bundle]) => a.bundles.get(name) !== bundle)) return true;
  if (a.jwtBundles.size !== b.jwtBundles.size || a.crls !== b.crls) return true;
  return [...b.jwtBundles].some(([name, bundle]) => a.jwtBundles.get(name) !== bundle);
}
