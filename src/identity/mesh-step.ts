import type { Snapshot } from '../authz/snapshot.ts';
import { MeshError } from '../errors.ts';
import { maxGrants } from './admin-grant.ts';
import { banKey } from './ban.ts';
import { compileMesh, type CurrentMesh, type MeshSettings } from './current-mesh.ts';
import type { Mesh } from './mesh.ts';
import { maxAliases } from './node-alias.ts';
import type { MeshPlan } from './plan.ts';

/**
 * The mesh that a plan leads to. Its policy revision is still the one before: whoever takes the step makes the next.
 * @param ready a snapshot of the same policies and workloads, of whatever revision
 * @throws MeshError `document_too_large`, and what policies cannot be compiled for
 */
export function follow(
  current: CurrentMesh,
  plan: MeshPlan,
  settings: MeshSettings,
  ready?: Snapshot,
): CurrentMesh {
  const { mesh } = current;
  const entries = stepped(
    mesh.entries,
    plan.deleteEntries,
    keyed(plan.putEntries, ({ id }) => id),
  );
  const documents = stepped(
    mesh.policies,
    plan.deletePolicies,
    plan.putPolicies.map(({ document }) => [document.key, document]),
  );
  const policies = stepped(
    current.policies,
    plan.deletePolicies,
    plan.putPolicies.map(({ document, policy }) => [document.key, policy]),
  );
  const bans = stepped(mesh.bans, plan.deleteBans.map(banKey), keyed(plan.putBans, banKey));
  const aliases = stepped(
    mesh.aliases ?? noAliases,
    plan.deleteAliases,
    keyed(plan.putAliases, ({ name }) => name),
  );
  const grants = stepped(
    mesh.grants ?? noGrants,
    plan.deleteGrants,
    keyed(plan.putGrants, ({ name }) => name),
  );
  if (aliases.size > maxAliases) refuseSize(`${maxAliases} node aliases`);
  if (grants.size > maxGrants) refuseSize(`${maxGrants} grants`);
  if (entries.size > maxEntries) refuseSize(`${maxEntries} entries`);
  if (documents.size > maxPolicies) refuseSize(`${maxPolicies} policies`);
  if (bans.size > maxBans) refuseSize(`${maxBans} bans`);
  // Beside other policies a rollout is over.
  const { rollout: _rollout, rolloutReason: _reason, ...bare } = mesh;
  const rest = documents === mesh.policies ? mesh : bare;
  const next = { ...rest, revision: mesh.revision + 1, entries, policies: documents, bans, aliases, grants };
  return compileMesh(next, policies, settings, current, ready);
}

/** The same plan for another revision than it was made for. */
export function stampPlan(plan: MeshPlan, revision: number): MeshPlan {
  return {
    ...plan,
    putEntries: plan.putEntries.map((entry) => ({ ...entry, revision })),
    putPolicies: plan.putPolicies.map(({ document, policy }) => ({
      document: { ...document, revision },
      policy,
    })),
    putAliases: plan.putAliases.map((alias) => ({ ...alias, revision })),
    putGrants: plan.putGrants.map((grant) => ({ ...grant, revision })),
  };
}

/** What stays as it is stays the same object, so that it is not indexed again. */
function stepped<T>(
  before: ReadonlyMap<string, T>,
  gone: readonly string[],
  put: readonly (readonly [string, T])[],
): ReadonlyMap<string, T> {
  if (gone.length + put.length === 0) return before;
  const after = new Map(before);
  for (const key of gone) after.delete(key);
  for (const [key, value] of put) after.set(key, value);
  return after;
}

function keyed<T>(values: readonly T[], keyOf: (value: T) => string): (readonly [string, T])[] {
  return values.map((value) => [keyOf(value), value]);
}

function refuseSize(limit: string): never {
  throw new MeshError('document_too_large', `a mesh holds at most ${limit}`, { fix: 'remove some first' });
}

// Beyond this a change takes long enough for callers to notice.
const maxEntries = 100_000;
const maxPolicies = 20_000;
const maxBans = 10_000;
const noAliases: NonNullable<Mesh['aliases']> = new Map();
const noGrants: NonNullable<Mesh['grants']> = new Map();
