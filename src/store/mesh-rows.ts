import { MeshError } from '../errors.ts';
import type { RegistrationEntry } from '../identity/entry.ts';
import type { Mesh } from '../identity/mesh.ts';
import { parseSelector } from '../identity/selector.ts';
import { SpiffeId } from '../spiffe/id.ts';
import type { EntryRow, StoredMesh } from './protocol.ts';

/** A registration entry as plain data. */
export function entryRowOf(entry: RegistrationEntry): EntryRow {
  return {
    ...entry,
    spiffeId: entry.spiffeId.text,
    selectors: entry.selectors.map(({ text }) => text),
  };
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
    throw new MeshError('store_corrupt', 'a stored registration entry cannot be read', {
      fix: 'restore the data directory from a backup',
      cause: error,
    });
  }
}
