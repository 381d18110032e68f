import { createHash } from 'node:crypto';
import { MeshError } from '../errors.ts';
import type { PolicyDocument } from '../identity/mesh.ts';
import { type PolicyRevision, policySetMode } from '../identity/policy-revision.ts';
import { candidateDocuments } from '../identity/candidate.ts';
import { policyKeyId, verifyRevision, verifyRollout } from '../identity/policy-signature.ts';
import type { Rollout, StagedRollout } from '../identity/rollout.ts';
import type { NodeView } from '../identity/view.ts';
import type { TrustDomain } from '../spiffe/id.ts';

/** Keeps an agent from policies that it must not enforce. */
export type PolicyGuard = {
  /**
   * Judges a view.
   * @throws MeshError `policy_replayed` for policies that are older than those enforced, or are others under the same
   *   number, and so for a rollout beside them; `policy_revision_invalid` for what is not what was signed, or was signed by
   *   another key
   */
  readonly demand: (view: NodeView) => void;
  /** Remembers that the policies of a view, which was judged, are enforced from now on. */
  readonly enforce: (view: NodeView) => void;
};

/**
 * INVARIANT: the number of what is enforced never falls, and the key that signs never changes. The first revision is
 * believed for its server's sake; what was enforced is in the sealed cache, and is enforced first after a restart.
 */
export function createPolicyGuard(): PolicyGuard {
  let enforced: PolicyRevision | undefined;
  let rollout: Rollout | undefined;
  return {
    demand: ({ mesh, bundle }) => {
      const { policyRevision: next, policies } = mesh;
      if (next === undefined) {
        // A server that does not know of revisions yet.
        if (enforced === undefined) return;
        throw replayed(enforced, 'no revision of the policies');
      }
      if (enforced !== undefined && next.publicKey !== enforced.publicKey) {
        throw invalid(
          next,
          `were signed by the key ${policyKeyId(next.publicKey)}, and not by ${policyKeyId(enforced.publicKey)}`,
          'restore the key of the server, or remove the cache of this agent if the key was replaced for good',
        );
      }
      if (!verifyRevision(bundle.trustDomain, next)) throw invalid(next, 'have a signature that is wrong');
      if (enforced !== undefined && next.number < enforced.number) {
        throw replayed(enforced, `policy revision ${next.number}`);
      }
      // INVARIANT: the id is that of the mode as well, so no mode is enforced that was not signed.
      if (enforced !== undefined && next.number === enforced.number && next.id !== enforced.id) {
        throw replayed(enforced, 'other policies under the same number');
      }
      if (!areWhole(policies) || policySetMode(policies, next.id) === undefined) {
        throw invalid(next, 'are not those that were signed');
      }
      demandRollout(bundle.trustDomain, mesh, next);
      if (enforced?.number === next.number) demandStep(rollout, mesh.rollout?.state, next);
    },
    enforce: ({ mesh }) => {
      enforced = mesh.policyRevision;
      rollout = mesh.rollout?.state;
    },
  };
}

/** INVARIANT: no candidate, no stage and no share is enforced that was not signed, beside the revision it was signed for. */
function demandRollout(trustDomain: TrustDomain, mesh: NodeView['mesh'], next: PolicyRevision): void {
  if (mesh.rollout === undefined) return;
  const { state } = mesh.rollout;
  if (state.base !== next.number) throw invalid(next, `have a rollout beside them that is of ${state.base}`);
  if (state.publicKey !== next.publicKey)
    throw invalid(next, 'have a rollout that was signed by another key');
  if (!verifyRollout(trustDomain, state)) throw invalid(next, 'have a rollout whose signature is wrong');
  if (state.stage === 'ended' || fitting.get(mesh.rollout) === mesh.policies) return;
  const candidate = candidateDocuments(mesh.policies, mesh.rollout);
  const mode = areWhole(candidate) ? policySetMode(candidate, state.candidate) : undefined;
  if (mode === undefined || mode !== policySetMode(mesh.policies, next.id)) {
    throw invalid(next, 'have a candidate beside them that is not the one that was signed');
  }
  fitting.set(mesh.rollout, mesh.policies);
}

/** INVARIANT: beside one revision the step never falls, and is never another one under the same number. */
function demandStep(before: Rollout | undefined, next: Rollout | undefined, of: PolicyRevision): void {
  if (before === undefined || (next !== undefined && next.step > before.step)) return;
  if (next?.step === before.step && next.signature === before.signature) return;
  const what = next === undefined ? 'no rollout' : `step ${next.step} of a rollout`;
  throw replayed(of, `${what} beside policy revision ${of.number}, of which step ${before.step} was taken,`);
}

function areWhole(policies: ReadonlyMap<string, PolicyDocument>): boolean {
  return [...policies.values()].every((document) => {
    if (whole.has(document)) return true;
    const { source, sha256 } = document;
    if (createHash('sha256').update(source).digest('hex') !== sha256) return false;
    whole.add(document);
    return true;
  });
}

function replayed({ number }: PolicyRevision, what: string): MeshError {
  return new MeshError(
    'policy_replayed',
    `the server sent ${what}, and policy revision ${number} was enforced here`,
    {
      fix: `if the server was restored from a backup: countersign policy renumber --after ${number}, at the server`,
    },
  );
}

function invalid({ number }: PolicyRevision, what: string, fix?: string): MeshError {
  return new MeshError('policy_revision_invalid', `the policies of revision ${number} ${what}`, {
    ...(fix === undefined ? {} : { fix }),
  });
}

// Documents never change, so each is looked at once.
const whole = new WeakSet<PolicyDocument>();
// Nor do a candidate and what it stands beside.
const fitting = new WeakMap<StagedRollout, NodeView['mesh']['policies']>();
