import type { AuditEvent } from '../audit/event.ts';
import type { AdminGrant } from './admin-grant.ts';
import type { Ban, BanTarget } from './ban.ts';
import type { RegistrationEntry } from './entry.ts';
import type { NodeAlias } from './node-alias.ts';
import type { NamespaceChanges, PolicyRevision, PolicyRevisionRecord } from './policy-revision.ts';
import type { RolloutReason, StagedRollout } from './rollout.ts';

/** A policy as its author wrote it; `authz/parse.ts` reads `source` again when the mesh is loaded. */
export type PolicyDocument = {
  /** `namespace/name`, the key. */
  readonly key: string;
  /** The YAML of this one document. */
  readonly source: string;
  /** The file it came from and the line it began on there, so that errors and reasons point at the author's file. */
  readonly file: string;
  readonly line: number;
  /** Lower-case hex SHA-256 of `source`. */
  readonly sha256: string;
  /** The mesh revision that last changed it. */
  readonly revision: number;
};

/** All that is administered, at one revision. Immutable; a change makes the next one. */
export type Mesh = {
  /** Grows by one with every change to entries, policies, bans, aliases or grants. 0 for an empty mesh. */
  readonly revision: number;
  readonly entries: ReadonlyMap<string, RegistrationEntry>;
  readonly policies: ReadonlyMap<string, PolicyDocument>;
  /** By `banKey`; those that have run out stay until they are lifted. */
  readonly bans: ReadonlyMap<string, Ban>;
  /** By name. Absent where nobody knows which there are: an agent is not told, and files alone do not say. */
  readonly aliases?: ReadonlyMap<string, NodeAlias>;
  /** By name: who may administer. Absent where nobody knows, as above. */
  readonly grants?: ReadonlyMap<string, AdminGrant>;
  /** What the policies are, together. Absent while there never was one, and where files alone say. */
  readonly policyRevision?: PolicyRevision;
  /** The last rollout beside that revision, under way or ended. Absent while there was none. */
  readonly rollout?: StagedRollout;
  /** Of that rollout. Absent where nobody knows, as above. */
  readonly rolloutReason?: RolloutReason;
};

/** One step from a revision to the next: all of it is stored with its events, or nothing is. */
export type MeshChange = {
  readonly expectRevision: number;
  /** expectRevision + 1 */
  readonly revision: number;
  readonly putEntries: readonly RegistrationEntry[];
  readonly deleteEntries: readonly string[];
  readonly putPolicies: readonly PolicyDocument[];
  readonly deletePolicies: readonly string[];
  readonly putBans: readonly Ban[];
  readonly deleteBans: readonly BanTarget[];
  readonly putAliases: readonly NodeAlias[];
  readonly deleteAliases: readonly string[];
  readonly putGrants?: readonly AdminGrant[];
  readonly deleteGrants?: readonly string[];
  /** INVARIANT: there whenever policies change, and whenever what is said of them does. */
  readonly policyRevision?: NewPolicyRevision;
  /** The state that takes the place of the one before. A policy revision leaves none. */
  readonly rollout?: NewRollout;
  readonly events: readonly AuditEvent[];
};

/** A revision, and what it changed. */
export type NewPolicyRevision = {
  readonly record: PolicyRevisionRecord;
  readonly changes: readonly NamespaceChanges[];
};

/** A step of a rollout. */
export type NewRollout = { readonly rollout: StagedRollout; readonly reason: RolloutReason };

/**
 * Stores a change and its events in one transaction.
 * @throws MeshError `revision_conflict` when the stored revision is not `expectRevision`
 */
export type CommitMesh = (change: MeshChange) => Promise<void>;

export type LoadMesh = () => Promise<Mesh>;
