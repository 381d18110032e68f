import type { Clock } from './clock.ts';
import { MeshError, publicError, quote } from './errors.ts';
import type { Administration } from './identity/administration.ts';
import type { MeshHolder } from './identity/current-mesh.ts';
import { candidateDocuments } from './identity/candidate.ts';
import { createLatch, latchOrSleep } from './identity/notice.ts';
import { type PolicySigner, policySetMode } from './identity/policy-revision.ts';
import { openPolicySigner, policyKeyId } from './identity/policy-signature.ts';
import { liveRollout } from './identity/rollout.ts';
import type { Log } from './log.ts';
import type { KeptRevision } from './store/protocol.ts';
import type { Store } from './store/store.ts';
import { generateEd25519 } from './up-key-pair.ts';
import { type KeyParts, openStoredKey, sealNewKeys } from './up-keys.ts';

/**
 * Opens the key that signs policy revisions, or makes it at the first start.
 * @throws MeshError `key_passphrase_wrong`, `key_envelope_invalid`, `file_missing`, `file_permissions`,
 *   `authority_invalid`
 */
export async function openPolicyKey(
  parts: KeyParts & { readonly store: Pick<Store, 'readMeta' | 'commitMeta'> },
): Promise<PolicySigner> {
  const { store } = parts;
  const keyId = await store.readMeta('policy_key');
  const pkcs8 = keyId === null ? await generateEd25519() : await openStoredKey(parts, keyId);
  try {
    const signer = openPolicySigner(pkcs8);
    const ownId = policyKeyId(signer.publicKey);
    if (keyId === null) {
      // Key first, then the row that names it: a crash in between leaves a key that nobody uses.
      await sealNewKeys(parts, [{ keyId: ownId, privateKey: pkcs8 }]);
      await store.commitMeta('policy_key', ownId, []);
    } else if (ownId !== keyId) {
      throw new MeshError('authority_invalid', `the sealed key ${quote(keyId)} is another one`, {
        fix: 'restore it from a backup',
      });
    }
    return signer;
  } finally {
    pkcs8.fill(0);
  }
}

/**
 * Proves that the stored policies are those of the revision in force.
 * @throws MeshError `store_corrupt`
 */
export function checkPolicyRevision(mesh: ReturnType<Administration['current']>): void {
  const { policies, policyRevision } = mesh;
  const live = liveRollout(mesh);
  if (live !== undefined && !policySetMode(candidateDocuments(policies, live), live.state.candidate)) {
    // Agents would refuse everything together with it.
    throw new MeshError('store_corrupt', 'the stored candidate of the rollout is not the one it names', {
      fix: 'restore the data directory from a backup',
    });
  }
  if (policyRevision === undefined || policySetMode(policies, policyRevision.id)) return;
  throw new MeshError(
    'store_corrupt',
    `the stored policies are not those of policy revision ${policyRevision.number}`,
    { fix: 'restore the data directory from a backup' },
  );
}

/** Drops old revisions, after each new one and once a day. */
export function keepPolicyRevisions(parts: {
  readonly store: Pick<Store, 'keptRevisions' | 'dropRevisions'>;
  readonly holder: MeshHolder;
  readonly clock: Clock;
  /** Why the time is not to be relied upon; null when it is. */
  readonly doubt: () => string | null;
  readonly log: Log;
}): { readonly close: () => Promise<void> } {
  const { store, holder, clock, log } = parts;
  const stop = new AbortController();
  const latch = createLatch();
  const numberNow = () => holder.current().mesh.policyRevision?.number ?? 0;
  let last = numberNow();
  const forget = holder.onChange(() => {
    if (numberNow() === last) return;
    last = numberNow();
    latch.raise();
  });
  const dropOld = async (): Promise<void> => {
    const time = clock.now();
    const kept = await store.keptRevisions();
    const through = oldRevisions(kept, parts.doubt() === null ? time : null);
    const first = kept[0]?.number;
    if (through === null || first === undefined) return;
    const { mesh } = holder.current();
    await store.dropRevisions(through, [
      {
        type: 'policy_revision',
        time,
        action: 'dropped',
        number: through,
        first,
        id: '',
        parent: 0,
        restores: 0,
        revision: mesh.revision,
        actor: { kind: 'system' },
        message: '',
        signature: '',
      },
    ]);
  };
  const run = async (): Promise<void> => {
    while (!stop.signal.aborted) {
      try {
        await dropOld();
      } catch (error) {
        log.error(publicError(error), 'old policy revisions could not be dropped');
      }
      await latchOrSleep(latch, dayMs, clock, stop.signal);
    }
  };
  const running = run();
  return {
    close: async () => {
      forget();
      stop.abort('closed');
      await running;
    },
  };
}

/**
 * Hears which policy revision each node has enforced, and tells the log when it is one that this server does not know:
 * then its data is older than it was, and that node refuses what it is sent.
 */
export function watchAhead(
  holder: MeshHolder,
  clock: Clock,
  log: Log,
): (node: string, number: number) => void {
  let saidMs = Number.NEGATIVE_INFINITY;
  return (node, number) => {
    const own = holder.current().mesh.policyRevision?.number ?? 0;
    const nowMs = clock.now().getTime();
    if (number <= own || Math.abs(nowMs - saidMs) < sayEveryMs) return;
    saidMs = nowMs;
    log.error(
      { node, enforced: number, inForce: own },
      'a node has enforced a later policy revision than this server has: it refuses older ones. Was this server restored from a backup? See docs/policy.md, Revisions',
    );
  };
}

/**
 * The last of the revisions that are kept no longer: all but the last thousand, and those that ceased to be in force over
 * a year ago. The last ten always stay, so that there is a way back.
 * @param now null when the time is not to be relied upon: then age counts for nothing
 */
export function oldRevisions(kept: readonly KeptRevision[], now: Date | null): number | null {
  const cutoff = now === null ? Number.NEGATIVE_INFINITY : now.getTime() - maxAgeMs;
  const alive = kept.findIndex(({ endedMs }) => endedMs === null || endedMs > cutoff);
  const aged = Math.min(alive === -1 ? 0 : alive, kept.length - minKept);
  const dropped = Math.max(aged, kept.length - maxKept);
  return kept[dropped - 1]?.number ?? null;
}

const sayEveryMs = 60_000;
const maxKept = 1_000;
const minKept = 10;
const dayMs = 86_400_000;
const maxAgeMs = 365 * dayMs;
