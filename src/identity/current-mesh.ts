import { parsePolicy } from '../authz/parse.ts';
import type { Policy } from '../authz/policy.ts';
import type { PolicyMode } from '../authz/policy-mode.ts';
import { compileSnapshot, type Snapshot } from '../authz/snapshot.ts';
import { MeshError, quote } from '../errors.ts';
import type { TrustDomain } from '../spiffe/id.ts';
import { readDocuments } from '../yaml.ts';
import { type BanList, indexBans } from './ban-list.ts';
import { type Candidate, compileCandidate } from './candidate.ts';
import type { Mesh, PolicyDocument } from './mesh.ts';
import { createNotice } from './notice.ts';
import { indexEntries, type Registry } from './registry.ts';

/** What the whole mesh is read under. */
export type MeshSettings = {
  readonly trustDomain: TrustDomain;
  readonly rootNamespace: string;
  /** How policies are read; `strict` when left out. */
  readonly policyMode?: PolicyMode;
  /** Lifetime of a certificate whose entry names none. */
  readonly ttlSeconds: number;
};

/** One revision of the mesh, compiled: what doors match and decide with. Immutable. */
export type CurrentMesh = {
  readonly mesh: Mesh;
  readonly registry: Registry;
  readonly policies: ReadonlyMap<string, Policy>;
  readonly snapshot: Snapshot;
  readonly bans: BanList;
  /** What a rollout tries; null, or left out, while none is under way. */
  readonly candidate?: Candidate | null;
};

/** Holds the current revision; a change swaps it in one assignment, so that no reader sees half of one. */
export type MeshHolder = {
  readonly current: () => CurrentMesh;
  readonly replace: (next: CurrentMesh) => void;
  readonly onChange: (listener: () => void) => () => void;
};

export function createMeshHolder(first: CurrentMesh): MeshHolder {
  let current = first;
  const notice = createNotice();
  return {
    current: () => current,
    replace: (next) => {
      current = next;
      notice.announce();
    },
    onChange: notice.subscribe,
  };
}

/**
 * Compiles a stored mesh. A policy that this version cannot read stops the start: to leave it out could open a door.
 * @param previous what did not change is taken over from it; of the same settings, but for the mode
 * @throws MeshError `policy_invalid` naming the policy
 */
export function compileStoredMesh(mesh: Mesh, settings: MeshSettings, previous?: CurrentMesh): CurrentMesh {
  if (previous?.mesh.policies === mesh.policies) {
    return compileMesh(mesh, previous.policies, settings, previous);
  }
  const policies = new Map<string, Policy>();
  for (const document of mesh.policies.values()) {
    const known = previous?.mesh.policies.get(document.key) === document;
    const policy = known ? previous.policies.get(document.key) : undefined;
    policies.set(document.key, policy ?? readStoredPolicy(document));
  }
  return compileMesh(mesh, policies, settings, previous);
}

/**
 * Compiles a mesh whose policies have been parsed; what did not change is taken over from `previous`.
 * @param ready a snapshot of the same policies and workloads, of whatever revision
 */
export function compileMesh(
  mesh: Mesh,
  policies: ReadonlyMap<string, Policy>,
  settings: MeshSettings,
  previous?: CurrentMesh,
  ready?: Snapshot,
): CurrentMesh {
  const { trustDomain, rootNamespace, policyMode: mode = 'strict' } = settings;
  const sameEntries = previous?.mesh.entries === mesh.entries;
  const known = ready ?? (sameEntries && previous.policies === policies ? previous.snapshot : undefined);
  const snapshot =
    known?.at(mesh.revision, mode) ??
    compileSnapshot({
      revision: mesh.revision,
      mode,
      trustDomain,
      rootNamespace,
      policies: [...policies.values()],
      workloads: [...mesh.entries.values()].map(({ spiffeId, labels }) => ({ id: spiffeId, labels })),
      ...(previous === undefined ? {} : { previous: previous.snapshot }),
    });
  return {
    mesh,
    registry: sameEntries ? previous.registry : indexEntries(mesh.entries.values()),
    policies,
    snapshot,
    bans: indexBans(mesh.bans.values()),
    candidate: compileCandidate(mesh, { policies, snapshot }, settings, readStoredPolicy, previous),
  };
}

/**
 * Reads a policy that was stored.
 * @throws MeshError `policy_invalid` naming it, `store_corrupt`
 */
export function readStoredPolicy(stored: PolicyDocument): Policy {
  try {
    const [document] = readDocuments({ file: stored.file, text: stored.source, firstLine: stored.line });
    if (document !== undefined) return parsePolicy(document);
  } catch (cause) {
    throw new MeshError(
      'policy_invalid',
      `the stored policy ${quote(stored.key)} cannot be read by this version`,
      {
        cause,
        ...(cause instanceof MeshError && cause.place !== undefined ? { place: cause.place } : {}),
        fix: 'start the version that stored it, change the policy there, and start this version again',
      },
    );
  }
  throw new MeshError('store_corrupt', `the stored policy ${quote(stored.key)} is empty`);
}
