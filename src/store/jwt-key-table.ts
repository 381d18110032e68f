import type { JwtKeyType, JwtSlot } from '../ca/jwt-slot.ts';
import type { Database } from './database.ts';

/** Stores JWT keys by key ID, new ones and changed ones; others stay. Inside the caller's transaction. */
export function storeJwtKeys(db: Database, slots: readonly JwtSlot[]): void {
  const put = db.prepare(
    `INSERT INTO jwt_keys (key_id, key_type, public_key, state, published_at_ms, activated_at_ms, stopped_at_ms)
     VALUES (?, ?, ?, ?, ?, ?, ?)`,
  );
  // INVARIANT: at no moment are two active. REPLACE would delete the other one instead of refusing.
  const take = db.prepare('DELETE FROM jwt_keys WHERE key_id = ?');
  for (const { keyId } of slots) take.run(keyId);
  for (const slot of slots) {
    put.run(
      slot.keyId,
      slot.keyType,
      slot.publicKey,
      slot.state,
      slot.publishedAt.getTime(),
      slot.activatedAt?.getTime() ?? null,
      slot.stoppedAt?.getTime() ?? null,
    );
  }
}

/** All JWT keys, those published first first. */
export function readJwtKeys(db: Database): readonly JwtSlot[] {
  type Row = {
    key_id: string;
    key_type: JwtKeyType;
    public_key: Buffer;
    state: JwtSlot['state'];
    published_at_ms: number;
    activated_at_ms: number | null;
    stopped_at_ms: number | null;
  };
  return db
    .prepare<[], Row>('SELECT * FROM jwt_keys ORDER BY published_at_ms, key_id')
    .all()
    .map((row) => ({
      keyId: row.key_id,
      keyType: row.key_type,
      publicKey: new Uint8Array(row.public_key),
      state: row.state,
      publishedAt: new Date(row.published_at_ms),
      activatedAt: dateOf(row.activated_at_ms),
      stoppedAt: dateOf(row.stopped_at_ms),
    }));
}

/** When the last token recorded under each key expires, by key ID. */
export function readJwtExpiries(db: Database): ReadonlyMap<string, Date> {
  const rows = db
    .prepare<[], { key_id: string; last_expiry_ms: number }>(
      'SELECT key_id, last_expiry_ms FROM jwt_expiries',
    )
    .all();
  return new Map(rows.map(({ key_id: keyId, last_expiry_ms: ms }) => [keyId, new Date(ms)]));
}

function dateOf(ms: number | null): Date | null {
  return ms === null ? null : new Date(ms);
}
