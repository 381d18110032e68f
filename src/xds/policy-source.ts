import type { Clock } from '../clock.ts';
import { MeshError } from '../errors.ts';
import type { BanList } from '../identity/ban-list.ts';
import { type Entitlement, entitlementOf } from '../identity/entitlement.ts';
import type { Attestation } from '../identity/evidence.ts';
import { createLatch } from '../identity/notice.ts';
import type { Registry } from '../identity/registry.ts';
import { nextChange } from '../identity/watch.ts';
import { nodeIdOf } from './pipe.ts';
import type { PolicyBeats } from './policy-beats.ts';
import type { PolicyBook } from './policy-book.ts';
import { policyServiceFor } from './policy-capability.ts';
import type { DeskLease, DeskPolicy, PolicyDesk } from './policy-desk.ts';
import {
  extensionTypeUrl,
  fixedResource,
  type PolicyName,
  policyResource,
  readPolicyName,
} from './policy-resource.ts';
import type { Resource } from './resource.ts';
import type { FollowOffers, ResourceSource } from './source.ts';

export type PolicySourceParts = {
  readonly registry: () => Registry;
  readonly bans: () => BanList;
  /** Calls back when the registry or a ban changed. */
  readonly onChange: (listener: () => void) => () => void;
  readonly desk: PolicyDesk;
  readonly beats: PolicyBeats;
  readonly book: PolicyBook;
  readonly clock: Clock;
};

/**
 * The policies that proxies decide by themselves, as configurations of their filters. A caller gets those of the identities
 * it is entitled to; under the name of any other, and of one that is banned, it gets a policy that denies every call: what
 * it had before is taken back by that, for silence takes nothing back. Other names are not answered.
 */
export function createPolicySource(parts: PolicySourceParts): ResourceSource {
  return {
    typeUrl: extensionTypeUrl,
    forNode: (node) => {
      const service = policyServiceFor(node);
      const nodeId = nodeIdOf(node);
      return (attestation, follower) => {
        const line = parts.book.open({ nodeId, caller: attestation.caller, service });
        if (service.serves === 'nothing') return line.close;
        const stop = followPolicies(parts, service.serves, line)(attestation, follower);
        return () => {
          stop();
          line.close();
        };
      };
    },
  };
}

function followPolicies(
  parts: PolicySourceParts,
  serves: 'policy' | 'ask',
  line: ReturnType<PolicyBook['open']>,
): FollowOffers {
  const { desk, beats } = parts;
  return (attestation, follower) => {
    const over = new AbortController();
    const leases = new Map<string, DeskLease>();
    let entitlement: Entitlement | undefined;
    const offer = (): void => {
      if (over.signal.aborted || entitlement === undefined) return;
      // Whole or not at all: a name that is not found would be told as refused.
      const policies = new Map<string, DeskPolicy>();
      for (const [id, lease] of leases) {
        const current = lease.current();
        if (current === undefined) return;
        policies.set(id, current);
      }
      const now = entitlement;
      const find = findIn(now, (id) => policies.get(id), serves);
      line.offered(find, (name) => {
        const read = readPolicyName(name);
        return read && policyOf(read, now, (id) => policies.get(id));
      });
      follower.offered({
        find,
        reasonFor: () => ({ code: 'identity_none', message: 'no policy has this name' }),
        bannedOf: () => undefined,
        ttlSeconds: beats.ttlSeconds,
        told: line,
      });
    };
    const settle = (): Entitlement => {
      const found = entitlementOf(parts.registry(), parts.bans(), attestation, parts.clock.now());
      entitlement = found;
      const ids = new Set(found.entries.map(({ spiffeId }) => spiffeId.text));
      for (const [id, lease] of leases) {
        if (ids.has(id)) continue;
        leases.delete(id);
        lease.release();
      }
      for (const { spiffeId } of found.entries) {
        if (!leases.has(spiffeId.text)) leases.set(spiffeId.text, desk.hold(spiffeId, offer));
      }
      offer();
      return found;
    };
    const leaveBeats = beats.join(follower.beat);
    void keepSettled(parts, attestation, settle, over.signal).catch((error: unknown) => {
      if (!over.signal.aborted) follower.failed(error);
    });
    return () => {
      over.abort(left);
      leaveBeats();
      for (const lease of leases.values()) lease.release();
      leases.clear();
    };
  };
}

/** Looks at what the caller is entitled to at once, and at each change of it. */
async function keepSettled(
  parts: PolicySourceParts,
  attestation: Attestation,
  settle: () => Entitlement,
  signal: AbortSignal,
): Promise<void> {
  const latch = createLatch();
  const unsubscribe = parts.onChange(latch.raise);
  try {
    while (!signal.aborted) {
      if (isOutdated(parts, attestation, settle())) {
        throw new MeshError('credentials_pending', 'the caller has to be attested again', {
          fix: 'open the stream again',
        });
      }
      await nextChange(parts, attestation, latch, signal);
    }
  } finally {
    unsubscribe();
  }
}

/** Whether attesting again may find more, and it matters. */
function isOutdated(
  { clock }: PolicySourceParts,
  { lacks, retryAt = null }: Attestation,
  { entries }: Entitlement,
): boolean {
  if (lacks?.() === true) return true;
  return retryAt !== null && clock.now() >= retryAt && entries.length === 0;
}

function findIn(
  entitlement: Entitlement,
  policies: (id: string) => DeskPolicy | undefined,
  serves: 'policy' | 'ask',
): (name: string) => Resource | undefined {
  const fixed = new Map<string, Resource>();
  return (name) => {
    const read = readPolicyName(name);
    if (read === undefined) return undefined;
    const found = policyOf(read, entitlement, policies);
    if (found !== undefined && serves === 'policy') return policyResource(name, read.filter, found.policy);
    const known =
      fixed.get(name) ??
      fixedResource(
        name,
        read.filter,
        found !== undefined
          ? { verdict: 'ask', reason: 'capability_lacking' }
          : { verdict: 'deny', reason: isBanned(read, entitlement) ? 'identity_banned' : 'identity_none' },
      );
    fixed.set(name, known);
    return known;
  };
}

function policyOf(
  name: PolicyName,
  { entries, isDefaultBanned }: Entitlement,
  policies: (id: string) => DeskPolicy | undefined,
): DeskPolicy | undefined {
  // INVARIANT: while the default is banned no other identity passes for it.
  const id = name.id ?? (isDefaultBanned ? undefined : entries[0]?.spiffeId.text);
  return id === undefined ? undefined : policies(id);
}

function isBanned({ id }: PolicyName, { banned, isDefaultBanned }: Entitlement): boolean {
  return id === null ? isDefaultBanned : banned.some(({ text }) => text === id);
}

// Without a reason each abort makes an error with a stack of its own.
const left = 'left';
