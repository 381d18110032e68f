import { MeshError, quote } from '../errors.ts';
import { attestationMethods, type AttestedNode, type JoinToken } from '../identity/node.ts';
import type { NodeAlias } from '../identity/node-alias.ts';
import type { Database } from './database.ts';

/** Puts a node by name, inside the caller's transaction. */
export function storeNode(db: Database, node: AttestedNode): void {
  db.prepare(
    `INSERT OR REPLACE INTO nodes
       (name, method, selectors, attested_at_ms, renewed_at_ms, not_after_ms, serials, evicted_at_ms)
     VALUES (?, ?, ?, ?, ?, ?, ?, ?)`,
  ).run(
    node.name,
    node.method,
    JSON.stringify(node.selectors),
    node.attestedAt.getTime(),
    node.renewedAt.getTime(),
    node.notAfter.getTime(),
    JSON.stringify(node.serials),
    node.evictedAt?.getTime() ?? null,
  );
}

/** Forgets a node, with what it has shipped, inside the caller's transaction. */
export function removeNode(db: Database, name: string): void {
  db.prepare('DELETE FROM nodes WHERE name = ?').run(name);
  db.prepare('DELETE FROM node_shipments WHERE node = ?').run(name);
}

/** All nodes, by name. */
export function readNodes(db: Database): readonly AttestedNode[] {
  return db.prepare<[], NodeRow>('SELECT * FROM nodes ORDER BY name').all().map(nodeOf);
}

/**
 * Uses up a token for the node it was made for, and puts the node, inside the caller's transaction. Whoever has used it
 * may do so again with the very key, until the node has renewed or was evicted: the answer may have been lost.
 * @throws MeshError `node_evidence_invalid`
 */
export function redeemJoinToken(
  db: Database,
  {
    secretSha256,
    keySha256,
    nowMs,
    node,
  }: { secretSha256: string; keySha256: string; nowMs: number; node: AttestedNode },
): void {
  // INVARIANT: the look and the use are one statement: of two that try at once one finds no row. A token that was used,
  // one that has expired and one that never was are the same to it.
  const used = db
    .prepare(
      `UPDATE join_tokens SET used_at_ms = coalesce(used_at_ms, @nowMs), used_by = @keySha256
       WHERE secret_sha256 = @secretSha256 AND node = @name AND expires_at_ms > @nowMs AND (
         used_at_ms IS NULL OR (used_by = @keySha256 AND used_by <> '' AND EXISTS (
           SELECT 1 FROM nodes WHERE nodes.name = join_tokens.node AND evicted_at_ms IS NULL
             AND json_array_length(serials) <= 1
             AND selectors LIKE '%:' || join_tokens.id || '"%')))`,
    )
    .run({ nowMs, secretSha256, keySha256, name: node.name });
  if (used.changes !== 1) {
    throw new MeshError(
      'node_evidence_invalid',
      'the join token does not count: it was used, has expired, or never existed',
      { fix: 'make another with countersign node token create' },
    );
  }
  storeNode(db, node);
}

/** Stores a join token, inside the caller's transaction; those long over are dropped meanwhile: the log tells of them. */
export function storeJoinToken(db: Database, token: JoinToken): void {
  db.prepare('DELETE FROM join_tokens WHERE expires_at_ms < ?').run(token.createdAt.getTime() - keepMs);
  db.prepare(
    `INSERT INTO join_tokens (id, node, secret_sha256, created_at_ms, expires_at_ms, used_at_ms)
     VALUES (?, ?, ?, ?, ?, NULL)`,
  ).run(token.id, token.node, token.secretSha256, token.createdAt.getTime(), token.expiresAt.getTime());
}

/** Removes a join token, inside the caller's transaction. @throws MeshError `join_token_not_found` */
export function removeJoinToken(db: Database, id: string): void {
  const removed = db.prepare('DELETE FROM join_tokens WHERE id = ?').run(id);
  if (removed.changes === 0) {
    throw new MeshError('join_token_not_found', `there is no join token ${quote(id)}`, {
      fix: 'countersign node token list shows all of them',
    });
  }
}

/** All join tokens, the oldest first. */
export function readJoinTokens(db: Database): readonly JoinToken[] {
  return db.prepare<[], TokenRow>('SELECT * FROM join_tokens ORDER BY created_at_ms, id').all().map(tokenOf);
}

export function readJoinToken(db: Database, secretSha256: string): JoinToken | null {
  const row = db
    .prepare<[string], TokenRow>('SELECT * FROM join_tokens WHERE secret_sha256 = ?')
    .get(secretSha256);
  return row === undefined ? null : tokenOf(row);
}

/** Stores what a step of the mesh changes of aliases, inside the caller's transaction. */
export function storeAliases(
  db: Database,
  change: { readonly putAliases: readonly NodeAlias[]; readonly deleteAliases: readonly string[] },
): void {
  const deleteAlias = db.prepare('DELETE FROM node_aliases WHERE name = ?');
  for (const name of change.deleteAliases) deleteAlias.run(name);
  const putAlias = db.prepare(
    'INSERT OR REPLACE INTO node_aliases (name, selectors, revision) VALUES (?, ?, ?)',
  );
  for (const { name, selectors, revision } of change.putAliases) {
    putAlias.run(name, JSON.stringify(selectors), revision);
  }
}

/** All aliases, by name. */
export function readAliases(db: Database): readonly NodeAlias[] {
  const rows = db
    .prepare<[], AliasRow>('SELECT name, selectors, revision FROM node_aliases ORDER BY name')
    .all();
  return rows.map((row) => ({ ...row, selectors: JSON.parse(row.selectors) as string[] }));
}

/**
 * Notes a batch of a node as shipped, inside the caller's transaction.
 * @throws MeshError `revision_conflict` when it, or a later one of the epoch, was shipped before
 */
export function storeShipment(
  db: Database,
  { node, epoch, sequence }: { node: string; epoch: string; sequence: number },
): void {
  const stored = db
    .prepare(
      `INSERT INTO node_shipments (node, epoch, sequence) VALUES (?, ?, ?)
       ON CONFLICT (node) DO UPDATE SET epoch = excluded.epoch, sequence = excluded.sequence
       WHERE node_shipments.epoch <> excluded.epoch OR node_shipments.sequence < excluded.sequence`,
    )
    .run(node, epoch, sequence);
  if (stored.changes === 0) throw new MeshError('revision_conflict', 'the batch was shipped before');
}

type NodeRow = {
  name: string;
  method: string;
  selectors: string;
  attested_at_ms: number;
  renewed_at_ms: number;
  not_after_ms: number;
  serials: string;
  evicted_at_ms: number | null;
};

type AliasRow = { name: string; selectors: string; revision: number };

type TokenRow = {
  id: string;
  node: string;
  secret_sha256: string;
  created_at_ms: number;
  expires_at_ms: number;
  used_at_ms: number | null;
};

function nodeOf(row: NodeRow): AttestedNode {
  const method = attestationMethods.find((known) => known === row.method);
  if (method === undefined) {
    throw new MeshError(
      'store_corrupt',
      `the stored node ${quote(row.name)} was attested in an unknown way`,
      {
        fix: 'restore the data directory from a backup',
      },
    );
  }
  return {
    name: row.name,
    method,
    selectors: JSON.parse(row.selectors) as string[],
    attestedAt: new Date(row.attested_at_ms),
    renewedAt: new Date(row.renewed_at_ms),
    notAfter: new Date(row.not_after_ms),
    serials: JSON.parse(row.serials) as string[],
    evictedAt: row.evicted_at_ms === null ? null : new Date(row.evicted_at_ms),
  };
}

function tokenOf(row: TokenRow): JoinToken {
  return {
    id: row.id,
    node: row.node,
    secretSha256: row.secret_sha256,
    createdAt: new Date(row.created_at_ms),
    expiresAt: new Date(row.expires_at_ms),
    usedAt: row.used_at_ms === null ? null : new Date(row.used_at_ms),
  };
}

const keepMs = 30 * 86_400_000;
