import { createHash } from 'node:crypto';
import { MeshError } from '../errors.ts';
import type { PolicyDocument } from '../identity/mesh.ts';
import { type PolicyRevision, policySetMode } from '../identity/policy-revision.ts';
import { policyKeyId, verifyRevision } from '../identity/policy-signature.ts';
import type { NodeView } from '../identity/view.ts';

/** Keeps an agent from policies that it must not enforce. */
export type PolicyGuard = {
  /**
   * Judges a view.
   * @throws MeshError `policy_replayed` for policies that are older than those enforced, or are others under the same
   *   number; `policy_revision_invalid` for those that are not what was signed, or were signed by another key
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
    },
    enforce: ({ mesh }) => {
      enforced = mesh.policyRevision;
    },
  };
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
