import { MeshError } from '../errors.ts';
import type { Database } from './database.ts';
import { readGrants, storeGrants } from './grant-table.ts';
import { readAliases, storeAliases } from './node-tables.ts';
import type { BanRow, EntryRow, StoreChange, StoredMesh } from './protocol.ts';
import { readActiveRevision, readPolicies, storePolicies } from './revision-table.ts';
import { readRollout, storeRollout } from './rollout-table.ts';

/**
 * Stores one step of the mesh, inside the caller's transaction.
 * @throws MeshError `revision_conflict` when the stored revision is not the one the step starts from
 */
export function storeMesh(db: Database, change: Extract<StoreChange, { kind: 'mesh' }>): void {
  if (change.revision !== change.expectRevision + 1) {
    throw new MeshError('internal', 'a change of the mesh is no single step');
  }
  // The comparison and the step are one statement: of two that start from the same revision one finds no row.
  const stepped = db
    .prepare('UPDATE mesh SET revision = ? WHERE id = 1 AND revision = ?')
    .run(change.revision, change.expectRevision);
  if (stepped.changes !== 1) {
    throw new MeshError(
      'revision_conflict',
      `the mesh is no longer at revision ${change.expectRevision}: somebody else changed it`,
      { fix: 'read it again and repeat the change' },
    );
  }
  const deleteEntry = db.prepare('DELETE FROM entries WHERE id = ?');
  for (const id of change.deleteEntries) deleteEntry.run(id);
  for (const entry of change.putEntries) putEntry(db, entry);
  storePolicies(db, change);
  storeRollout(db, change);
  const deleteBan = db.prepare('DELETE FROM bans WHERE kind = ? AND value = ?');
  for (const { kind, value } of change.deleteBans) deleteBan.run(kind, value);
  const putBan = db.prepare(
    `INSERT OR REPLACE INTO bans (kind, value, reason, until_ms, created_at_ms, actor, revision)
     VALUES (?, ?, ?, ?, ?, ?, ?)`,
  );
  for (const { kind, value, reason, until, createdAt, actor, revision } of change.putBans) {
    putBan.run(kind, value, reason, until?.getTime() ?? null, createdAt.getTime(), actor, revision);
  }
  storeAliases(db, change);
  storeGrants(db, change);
}

/** Reads the mesh, all in the order of their keys. */
export function readMesh(db: Database): StoredMesh {
  return db.transaction(() => ({
    revision: Number(db.prepare('SELECT revision FROM mesh WHERE id = 1').pluck().get()),
    entries: db.prepare<[], StoredEntry>('SELECT * FROM entries ORDER BY id').all().map(entryRow),
    policies: readPolicies(db),
    policyRevision: readActiveRevision(db),
    rollout: readRollout(db),
    bans: db.prepare<[], StoredBan>('SELECT * FROM bans ORDER BY kind, value').all().map(banRow),
    aliases: readAliases(db),
    grants: readGrants(db),
  }))();
}

type StoredEntry = {
  id: string;
  spiffe_id: string;
  selectors: string;
  ttl_seconds: number;
  dns_names: string;
  labels: string;
  hint: string;
  expires_at_ms: number | null;
  nodes: string;
  revision: number;
};

type StoredBan = Omit<BanRow, 'until' | 'createdAt'> & {
  until_ms: number | null;
  created_at_ms: number;
};

function putEntry(db: Database, entry: EntryRow): void {
  const row: StoredEntry = {
    id: entry.id,
    spiffe_id: entry.spiffeId,
    selectors: JSON.stringify(entry.selectors),
    ttl_seconds: entry.ttlSeconds,
    dns_names: JSON.stringify(entry.dnsNames),
    // As pairs: an object read back would reorder keys, and lose one named __proto__.
    labels: JSON.stringify(Object.entries(entry.labels)),
    hint: entry.hint,
    expires_at_ms: entry.expiresAt?.getTime() ?? null,
    nodes: JSON.stringify(entry.nodes),
    revision: entry.revision,
  };
  db.prepare(
    `INSERT OR REPLACE INTO entries
       (id, spiffe_id, selectors, ttl_seconds, dns_names, labels, hint, expires_at_ms, nodes, revision)
     VALUES
       (@id, @spiffe_id, @selectors, @ttl_seconds, @dns_names, @labels, @hint, @expires_at_ms, @nodes, @revision)`,
  ).run(row);
}

function entryRow(row: StoredEntry): EntryRow {
  return {
    id: row.id,
    spiffeId: row.spiffe_id,
    selectors: JSON.parse(row.selectors) as string[],
    ttlSeconds: row.ttl_seconds,
    dnsNames: JSON.parse(row.dns_names) as string[],
    labels: Object.fromEntries(JSON.parse(row.labels) as [string, string][]),
    hint: row.hint,
    expiresAt: row.expires_at_ms === null ? null : new Date(row.expires_at_ms),
    nodes: JSON.parse(row.nodes) as string[],
    revision: row.revision,
  };
}

function banRow({ until_ms: untilMs, created_at_ms: createdAtMs, ...row }: StoredBan): BanRow {
  return { ...row, until: untilMs === null ? null : new Date(untilMs), createdAt: new Date(createdAtMs) };
}
