import { createHash } from 'node:crypto';
import { canonicalJson } from '../audit/canonical-json.ts';
import type { Actor } from '../audit/event.ts';
import { MeshError, quote } from '../errors.ts';
import type { SpiffeId, TrustDomain } from '../spiffe/id.ts';
import type { Mesh, PolicyDocument } from './mesh.ts';
import type { PolicyRevision, PolicySigner } from './policy-revision.ts';

/** `shadow`: the candidate is judged by and decides nothing. `canary`: it decides the calls of some workloads. */
export type RolloutStage = 'shadow' | 'canary' | 'ended';

/**
 * A candidate beside the revision in force, and how far it has come, signed. Of two states beside the same revision the one
 * with the higher step is the later one; one beside a higher revision is later than all beside a lower one. None is step 0.
 */
export type Rollout = {
  /** 32 lower-case hex digits. */
  readonly id: string;
  /** The number of the policy revision it stands beside. With any other in force it is over. */
  readonly base: number;
  /** From 1. */
  readonly step: number;
  readonly stage: RolloutStage;
  /** Of the workloads, 1 to 100, whose calls the candidate decides; 0 unless the stage is `canary`. */
  readonly percent: number;
  /** Newly denied calls that a node lets the candidate deny before it falls back; 0 to {@link mostNewDenials}. */
  readonly maxNewDenials: number;
  /** The candidate: see `policySetId`. */
  readonly candidate: string;
  readonly time: Date;
  /** See {@link rolloutRecordDigest}. */
  readonly recordSha256: string;
  /** Ed25519, SubjectPublicKeyInfo as DER, in base64. */
  readonly publicKey: string;
  /** Ed25519 over {@link rolloutStatement}, in base64. */
  readonly signature: string;
};

/** What of it is not signed yet. */
export type RolloutState = Omit<Rollout, 'recordSha256' | 'publicKey' | 'signature'>;

/** In what a candidate differs from the revision in force; nothing once the rollout has ended. */
export type CandidateChanges = {
  readonly put: readonly PolicyDocument[];
  /** Keys, sorted. */
  readonly deleted: readonly string[];
};

/** A rollout as a mesh holds it. */
export type StagedRollout = { readonly state: Rollout; readonly changes: CandidateChanges };

/** Who took a step and why, and who began; agents are not told. */
export type RolloutReason = {
  readonly author: Actor;
  readonly message: string;
  /** Of an end that nobody asked for: the call that ended it, in words. Empty for all else. */
  readonly cause: string;
  readonly startedAt: Date;
  readonly startedBy: Actor;
};

/** What is to become of a rollout. */
export type RolloutCommand =
  | { readonly kind: 'stage'; readonly candidate: string }
  /** Left out, the budget stays as it was. */
  | { readonly kind: 'canary'; readonly percent: number; readonly maxNewDenials?: number | undefined }
  | { readonly kind: 'end' };

/**
 * The state that follows; a pure function of the one before. shadow → canary → canary with another share or budget; from
 * both to the end; and from there, or from nothing, to a new shadow.
 * @param before of whatever revision; it counts only beside the one in force
 * @param active what is in force
 * @throws MeshError `policy_rollout_active`, `policy_rollout_none`, `policy_rollout_invalid`
 */
export function nextRollout(
  before: Rollout | undefined,
  active: Pick<PolicyRevision, 'number' | 'id'>,
  command: RolloutCommand,
  time: Date,
): RolloutState {
  const known = before?.base === active.number ? before : undefined;
  const live = known === undefined || known.stage === 'ended' ? undefined : known;
  const step = (known?.step ?? 0) + 1;
  if (command.kind === 'stage') {
    if (live !== undefined) throw underWay(live, 'two cannot be told apart');
    const { candidate } = command;
    if (candidate === active.id) {
      throw new MeshError('policy_rollout_invalid', 'the candidate is what is in force already', {
        fix: 'change a policy, or use --prune to leave out those that the files do not name',
      });
    }
    const base = active.number;
    return {
      id: idOf({ base, step, candidate, time }),
      base,
      step,
      stage: 'shadow',
      percent: 0,
      maxNewDenials: 0,
      candidate,
      time,
    };
  }
  if (live === undefined) throw noRollout();
  const { id, base, candidate } = live;
  if (command.kind === 'end') {
    const { maxNewDenials } = live;
    return { id, base, step, stage: 'ended', percent: 0, maxNewDenials, candidate, time };
  }
  const { percent, maxNewDenials = live.maxNewDenials } = command;
  if (!Number.isInteger(percent) || percent < 1 || percent > 100) {
    throw new MeshError('policy_rollout_invalid', `${quote(`${percent}`)} is no share of the workloads`, {
      fix: 'name a whole number of percent, 1 to 100',
    });
  }
  if (!Number.isInteger(maxNewDenials) || maxNewDenials < 0 || maxNewDenials > mostNewDenials) {
    throw new MeshError('policy_rollout_invalid', 'the number of newly denied calls is out of range', {
      fix: `name a whole number, 0 to ${mostNewDenials}`,
    });
  }
  if (live.stage === 'canary' && live.percent === percent && live.maxNewDenials === maxNewDenials) {
    throw new MeshError('policy_rollout_invalid', `the candidate decides for ${percent} percent already`, {
      fix: 'name another share, or another --max-new-denials',
    });
  }
  return { id, base, step, stage: 'canary', percent, maxNewDenials, candidate, time };
}

/** The rollout of a mesh that is under way; undefined when there is none. */
export function liveRollout({
  rollout,
  policyRevision,
}: Pick<Mesh, 'rollout' | 'policyRevision'>): StagedRollout | undefined {
  // INVARIANT: a candidate counts only beside the very revision that it was planned on.
  if (rollout === undefined || rollout.state.base !== policyRevision?.number) return undefined;
  return rollout.state.stage === 'ended' ? undefined : rollout;
}

/** What edits are refused with meanwhile. */
export function underWay({ id, stage }: Pick<Rollout, 'id' | 'stage'>, why: string): MeshError {
  return new MeshError(
    'policy_rollout_active',
    `the rollout ${id.slice(0, 8)} is under way (${stage}): ${why}`,
    {
      fix: 'countersign policy rollout shows it; end it first with countersign policy abort, or with policy enforce',
    },
  );
}

/** What is answered when there is nothing to go on with. */
export function noRollout(): MeshError {
  return new MeshError('policy_rollout_none', 'no rollout is under way', {
    fix: 'begin one with countersign policy shadow -f FILE',
  });
}

/**
 * Where a workload stands among all, 0 to below 100 and evenly spread: the first 48 bits of SHA-256 over the rollout's ID, a
 * line feed and the SPIFFE ID. A canary of `percent` has those below it, so a share that grows keeps whom it had.
 */
export function canaryShare(rolloutId: string, destination: SpiffeId): number {
  const digest = createHash('sha256').update(`${rolloutId}\n${destination.text}`, 'utf8').digest();
  return (digest.readUIntBE(0, 6) / 2 ** 48) * 100;
}

/** SHA-256, lower-case hex, of the canonical JSON of `{"author", "cause", "message", "v": 1}`. */
export function rolloutRecordDigest({
  author,
  message,
  cause,
}: Pick<RolloutReason, 'author' | 'message' | 'cause'>): string {
  return sha256Of(canonicalJson({ author, cause, message, v: 1 }));
}

/**
 * What is signed: a line that is in no other statement of ours, then canonical JSON.
 * INVARIANT: everything that an agent enforces of a rollout is in it.
 */
export function rolloutStatement(
  trustDomain: TrustDomain,
  rollout: Omit<Rollout, 'publicKey' | 'signature'>,
): Uint8Array {
  const { id, base, step, stage, percent, maxNewDenials, candidate, time, recordSha256 } = rollout;
  const statement = {
    base,
    candidate,
    id,
    maxNewDenials,
    percent,
    recordSha256,
    stage,
    step,
    time: time.toISOString(),
    trustDomain: trustDomain.name,
  };
  return Buffer.from(`countersign policy rollout v1\n${canonicalJson(statement)}`, 'utf8');
}

/** Signs a state. */
export async function signRollout(
  signer: PolicySigner,
  trustDomain: TrustDomain,
  state: RolloutState,
  reason: Pick<RolloutReason, 'author' | 'message' | 'cause'>,
): Promise<Rollout> {
  const { id, base, step, stage, percent, maxNewDenials, candidate, time } = state;
  const recordSha256 = rolloutRecordDigest(reason);
  const signed = { id, base, step, stage, percent, maxNewDenials, candidate, time, recordSha256 };
  const signature = await signer.sign(rolloutStatement(trustDomain, signed));
  return { ...signed, publicKey: signer.publicKey, signature: Buffer.from(signature).toString('base64') };
}

function idOf(parts: {
  readonly base: number;
  readonly step: number;
  readonly candidate: string;
  readonly time: Date;
}): string {
  return sha256Of(canonicalJson({ ...parts, time: parts.time.toISOString() })).slice(0, 32);
}

function sha256Of(text: string): string {
  return createHash('sha256').update(text, 'utf8').digest('hex');
}

/** The largest budget of newly denied calls. */
export const mostNewDenials = 1_000_000;
