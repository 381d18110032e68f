import type { Fork, HeldCheckpoint } from '../audit/witness.ts';
import { proveConsistency } from '../audit/merkle-proof.ts';
import { MeshError } from '../errors.ts';
import { readCheckpoint } from './audit-checkpoint.ts';
import { hashReader } from './audit-tree.ts';
import type { Database } from './database.ts';

/** The latest checkpoint that we have cosigned for a log; null while there is none. */
export function readHeld(db: Database, origin: string): HeldCheckpoint | null {
  const row = db.prepare<[string], HeldRow>('SELECT * FROM witnessed_logs WHERE origin = ?').get(origin);
  return row === undefined ? null : heldOf(row);
}

/** The same of every log, in the order of their origins. */
export function readAllHeld(db: Database): readonly HeldCheckpoint[] {
  return db.prepare<[], HeldRow>('SELECT * FROM witnessed_logs ORDER BY origin').all().map(heldOf);
}

/** Of each log that was caught with two histories, the two notes. */
export function readForks(db: Database): readonly StoredFork[] {
  return db
    .prepare<[], Fork & { seen_at_ms: number }>('SELECT * FROM witnessed_forks ORDER BY origin')
    .all()
    .map(({ origin, held, other, seen_at_ms: seenMs }) => ({
      origin,
      held,
      other,
      seenAt: new Date(seenMs),
    }));
}

export type StoredFork = Fork & { readonly seenAt: Date };

/**
 * Keeps the latest checkpoint that we cosign, inside the caller's transaction. The schema refuses one that goes back.
 * @param from the size that must be held; null for none
 * @throws MeshError `revision_conflict` when another is held
 */
export function storeHeld(db: Database, next: HeldCheckpoint, from: number | null): void {
  const held = readHeld(db, next.origin);
  if ((held?.size ?? null) !== from) {
    throw new MeshError('revision_conflict', 'another checkpoint of this log was cosigned meanwhile');
  }
  const { origin, size, root, note, cosignedAt } = next;
  const values = [size, root, note, cosignedAt.getTime(), origin];
  if (held === null) {
    db.prepare(
      'INSERT INTO witnessed_logs (size, root, note, cosigned_at_ms, origin) VALUES (?, ?, ?, ?, ?)',
    ).run(values);
  } else {
    db.prepare(
      'UPDATE witnessed_logs SET size = ?, root = ?, note = ?, cosigned_at_ms = ? WHERE origin = ?',
    ).run(values);
  }
}

/** Keeps the proof that a log shows two histories, inside the caller's transaction: the first of each log. */
export function storeFork(db: Database, { origin, held, other }: Fork, seenMs: number): void {
  db.prepare(
    'INSERT INTO witnessed_forks (origin, held, other, seen_at_ms) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING',
  ).run(origin, held, other, seenMs);
}

/** The latest checkpoint of our log that a quorum has cosigned; null while there is none. */
export function readWitnessed(db: Database): string | null {
  return readWitnessedHead(db)?.note ?? null;
}

/** The same with its size. */
export function readWitnessedHead(db: Database): { readonly size: number; readonly note: string } | null {
  return (
    db
      .prepare<[], { size: number; note: string }>('SELECT size, note FROM audit_witnessed WHERE id = 1')
      .get() ?? null
  );
}

/** Keeps it, inside the caller's transaction, unless a later one is kept. */
export function storeWitnessed(db: Database, { size, note }: { size: number; note: string }): void {
  db.prepare(
    `INSERT INTO audit_witnessed (id, size, note) VALUES (1, ?, ?)
     ON CONFLICT (id) DO UPDATE SET size = excluded.size, note = excluded.note WHERE excluded.size >= size`,
  ).run(size, note);
}

/** The hashes that show that our log of `to` entries begins with its first `from`; null when it has not as many. */
export function proveGrowth(
  db: Database,
  { from, to }: { readonly from: number; readonly to: number },
): readonly Uint8Array[] | null {
  return db.transaction(() => {
    if (from > to || to > (readCheckpoint(db)?.size ?? -1)) return null;
    return proveConsistency(hashReader(db), from, to);
  })();
}

type HeldRow = { origin: string; size: number; root: Uint8Array; note: string; cosigned_at_ms: number };

function heldOf({ origin, size, root, note, cosigned_at_ms: cosignedMs }: HeldRow): HeldCheckpoint {
  return { origin, size, root, note, cosignedAt: new Date(cosignedMs) };
}
