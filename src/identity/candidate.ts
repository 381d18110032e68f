import type { Policy } from '../authz/policy.ts';
import { compileSnapshot, type Snapshot } from '../authz/snapshot.ts';
import type { SpiffeId } from '../spiffe/id.ts';
import type { CurrentMesh, MeshSettings } from './current-mesh.ts';
import type { Mesh, PolicyDocument } from './mesh.ts';
import { liveRollout, type Rollout, type StagedRollout } from './rollout.ts';

/** A candidate, compiled beside the revision in force. */
export type Candidate = {
  readonly policies: ReadonlyMap<string, Policy>;
  readonly snapshot: Snapshot;
};

/** A rollout that is under way, with what it judges by. */
export type LiveRollout = { readonly rollout: Rollout; readonly candidate: Candidate };

/**
 * The rollout that is under way; null when there is none. While there is one, a call to a destination that it
 * {@link concernsDestination | concerns} must be judged where both are known, and not in a proxy.
 */
export function rolloutOf({ mesh, candidate }: Pick<CurrentMesh, 'mesh' | 'candidate'>): LiveRollout | null {
  if (candidate === null || candidate === undefined) return null;
  const live = liveRollout(mesh);
  return live === undefined ? null : { rollout: live.state, candidate };
}

/**
 * Whether a candidate may say anything else of calls to a destination than what is in force: false when the very same
 * compiled policies apply in both.
 */
export function concernsDestination(active: Snapshot, candidate: Snapshot, destination: SpiffeId): boolean {
  // In Istio mode other destinations are told apart by no object that both share.
  if (active.mode === 'istio' || candidate.mode === 'istio') return true;
  return active.appliedTo(destination) !== candidate.appliedTo(destination);
}

/** Compiles the candidate of a mesh; null when no rollout is under way. */
export function compileCandidate(
  mesh: Mesh,
  compiled: Pick<CurrentMesh, 'policies' | 'snapshot'>,
  { trustDomain, rootNamespace }: MeshSettings,
  read: (document: PolicyDocument) => Policy,
  previous?: CurrentMesh,
): Candidate | null {
  const live = liveRollout(mesh);
  if (live === undefined) return null;
  const { snapshot: active } = compiled;
  const before = previous?.candidate ?? undefined;
  const sameSet = previous?.mesh.rollout?.changes === live.changes && previous.policies === compiled.policies;
  const policies =
    before !== undefined && sameSet ? before.policies : candidatePolicies(compiled.policies, live, read);
  const sameEntries = previous?.mesh.entries === mesh.entries;
  if (before !== undefined && policies === before.policies && sameEntries) {
    return { policies, snapshot: before.snapshot.at(mesh.revision, active.mode) };
  }
  const snapshot = compileSnapshot({
    revision: mesh.revision,
    mode: active.mode,
    trustDomain,
    rootNamespace,
    policies: [...policies.values()],
    workloads: [...mesh.entries.values()].map(({ spiffeId, labels }) => ({ id: spiffeId, labels })),
    // What is the same in both is compiled once.
    previous: active,
  });
  return { policies, snapshot };
}

/** The documents of a candidate: those in force, but for what it changes. */
export function candidateDocuments(
  policies: ReadonlyMap<string, PolicyDocument>,
  { changes }: Pick<StagedRollout, 'changes'>,
): ReadonlyMap<string, PolicyDocument> {
  const documents = new Map(policies);
  for (const key of changes.deleted) documents.delete(key);
  for (const document of changes.put) documents.set(document.key, document);
  return documents;
}

function candidatePolicies(
  active: ReadonlyMap<string, Policy>,
  { changes }: StagedRollout,
  read: (document: PolicyDocument) => Policy,
): ReadonlyMap<string, Policy> {
  const policies = new Map(active);
  for (const key of changes.deleted) policies.delete(key);
  for (const document of changes.put) policies.set(document.key, read(document));
  return policies;
}
