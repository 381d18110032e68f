import { MeshError } from '../errors.ts';
import type { Actor } from '../audit/event.ts';
import { type Ban, banKey, parseBanTarget } from '../identity/ban.ts';
import type { RegistrationEntry } from '../identity/entry.ts';
import type { Mesh } from '../identity/mesh.ts';
import type { NodeAlias } from '../identity/node-alias.ts';
import { parseNodeSelector } from '../identity/node-selector.ts';
import { parseSelector } from '../identity/selector.ts';
import { SpiffeId } from '../spiffe/id.ts';
import type { BanRow, EntryRow, StoredMesh } from './protocol.ts';

/** A registration entry as plain data. */
export function entryRowOf(entry: RegistrationEntry): EntryRow {
  return {
    ...entry,
    spiffeId: entry.spiffeId.text,
    selectors: entry.selectors.map(({ text }) => text),
    nodes: entry.nodes ?? [],
  };
}

/** A ban as plain data. */
export function banRowOf(ban: Ban): BanRow {
  return { ...ban, actor: JSON.stringify(ban.actor) };
}

/**
 * The mesh of its rows, parsed again: what is in the database is not trusted to be what we once wrote.
 * @throws MeshError `store_corrupt`
 */
export function meshOf(stored: StoredMesh): Mesh {
  return {
    revision: stored.revision,
    entries: new Map(stored.entries.map((row) => [row.id, entryOf(row)])),
    policies: new Map(stored.policies.map((policy) => [policy.key, policy])),
    bans: new Map(stored.bans.map(banOf).map((ban) => [banKey(ban), ban])),
    aliases: new Map(stored.aliases.map((row) => [row.name, aliasOf(row)])),
    grants: new Map(stored.grants.map((grant) => [grant.name, grant])),
    ...(stored.policyRevision === null ? {} : { policyRevision: stored.policyRevision }),
    ...(stored.rollout === null
      ? {}
      : { rollout: stored.rollout.rollout, rolloutReason: stored.rollout.reason }),
  };
}

function entryOf(row: EntryRow): RegistrationEntry {
  try {
    return {
      ...row,
      spiffeId: SpiffeId.parseWorkload(row.spiffeId),
      selectors: row.selectors.map(parseSelector),
    };
  } catch (error) {
    throw unreadable('a stored registration entry', error);
  }
}

// INVARIANT: a ban that cannot be read stops the start: to leave it out would open a door.
function banOf(row: BanRow): Ban {
  try {
    const target = parseBanTarget(row.kind, row.value);
    if (target.value !== row.value) throw new MeshError('ban_invalid', 'the stored ban is in another form');
    return { ...row, ...target, actor: JSON.parse(row.actor) as Actor };
  } catch (error) {
    throw unreadable('a stored ban', error);
  }
}

function aliasOf(row: NodeAlias): NodeAlias {
  try {
    // INVARIANT: an alias without selectors would be every node.
    if (row.selectors.length === 0)
      throw new MeshError('node_alias_invalid', 'the stored alias is of no node');
    return { ...row, selectors: row.selectors.map(parseNodeSelector) };
  } catch (error) {
    throw unreadable('a stored node alias', error);
  }
}

function unreadable(what: string, cause: unknown): MeshError {
  return new MeshError('store_corrupt', `${what} cannot be read`, {
    fix: 'restore the data directory from a backup',
    cause,
  });
}
