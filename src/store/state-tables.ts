import { MeshError, quote } from '../errors.ts';
import { roleText } from '../identity/access.ts';
import type { AdminToken } from '../identity/admin-token.ts';
import type { Database } from './database.ts';
import { grantsOf, grantsText } from './grant-table.ts';

/** Stores a named value, inside the caller's transaction. */
export function storeMeta(db: Database, key: string, value: string): void {
  db.prepare('INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)').run(key, value);
}

export function readMeta(db: Database, key: string): string | null {
  const row = db.prepare<[string], { value: string }>('SELECT value FROM meta WHERE key = ?').get(key);
  return row?.value ?? null;
}

/** Stores a token, inside the caller's transaction; one of the same id or secret is never replaced. */
export function storeToken(db: Database, token: AdminToken): void {
  db.prepare(
    `INSERT INTO admin_tokens (id, role, grants, label, secret_sha256, created_at_ms, expires_at_ms)
     VALUES (?, ?, ?, ?, ?, ?, ?)`,
  ).run(
    token.id,
    roleText(token.grants),
    grantsText(token.grants),
    token.label,
    token.secretSha256,
    token.createdAt.getTime(),
    token.expiresAt.getTime(),
  );
}

/**
 * Removes a token, inside the caller's transaction; what it was is in the log.
 * @throws MeshError `token_not_found`
 */
export function removeToken(db: Database, id: string): void {
  const removed = db.prepare('DELETE FROM admin_tokens WHERE id = ?').run(id);
  if (removed.changes === 0) throw new MeshError('token_not_found', `there is no token ${quote(id)}`);
}

/** All tokens, the oldest first. */
export function readTokens(db: Database): readonly AdminToken[] {
  return db
    .prepare<[], TokenRow>('SELECT * FROM admin_tokens ORDER BY created_at_ms, id')
    .all()
    .map(adminToken);
}

export function readToken(db: Database, secretSha256: string): AdminToken | null {
  const row = db
    .prepare<[string], TokenRow>('SELECT * FROM admin_tokens WHERE secret_sha256 = ?')
    .get(secretSha256);
  return row === undefined ? null : adminToken(row);
}

/** When the last certificate issued under an entry and still valid at `nowMs` runs out; null when none is. */
export function readLatestExpiry(db: Database, entryId: string, nowMs: number): number | null {
  const latest = db
    .prepare<[string, number], number | null>(
      'SELECT max(not_after_ms) FROM certificates WHERE entry_id = ? AND not_after_ms > ?',
    )
    .pluck()
    .get(entryId, nowMs);
  return latest ?? null;
}

/** The same for each SPIFFE ID, whichever entry its certificates were issued under. */
export function readLatestExpiries(
  db: Database,
  spiffeIds: readonly string[],
  nowMs: number,
): readonly (number | null)[] {
  const latest = db
    .prepare<[string, number], number | null>(
      'SELECT max(not_after_ms) FROM certificates WHERE spiffe_id = ? AND not_after_ms > ?',
    )
    .pluck();
  return spiffeIds.map((id) => latest.get(id, nowMs) ?? null);
}

/** Removes a few certificates that expired before `beforeMs` from the projection; the log keeps them all. */
export function removeExpired(db: Database, beforeMs: number): void {
  db.prepare(
    `DELETE FROM certificates WHERE serial IN
       (SELECT serial FROM certificates WHERE not_after_ms < ? ORDER BY not_after_ms LIMIT 256)`,
  ).run(beforeMs);
}

type TokenRow = {
  id: string;
  grants: string;
  label: string;
  secret_sha256: string;
  created_at_ms: number;
  expires_at_ms: number;
};

function adminToken(row: TokenRow): AdminToken {
  return {
    id: row.id,
    grants: grantsOf(row.grants, `token ${row.id}`),
    label: row.label,
    secretSha256: row.secret_sha256,
    createdAt: new Date(row.created_at_ms),
    expiresAt: new Date(row.expires_at_ms),
  };
}
