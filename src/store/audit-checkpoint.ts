import { openCheckpoint } from '../audit/checkpoint.ts';
import { parseVerifierKey } from '../audit/note.ts';
import { MeshError } from '../errors.ts';
import type { Database } from './database.ts';

/** The latest checkpoint of the log. */
export type StoredCheckpoint = {
  readonly size: number;
  readonly root: Uint8Array;
  /** As it was signed. */
  readonly note: string;
};

/** Null as long as nobody has signed one. */
export function readCheckpoint(db: Database): StoredCheckpoint | null {
  return (
    db.prepare<[], StoredCheckpoint>('SELECT size, root, note FROM audit_checkpoint WHERE id = 1').get() ??
    null
  );
}

/** Puts the checkpoint of the log as it is, inside the caller's transaction. The schema refuses one that goes back. */
export function storeCheckpoint(db: Database, { size, root, note }: StoredCheckpoint): void {
  db.prepare(
    `INSERT INTO audit_checkpoint (id, size, root, note) VALUES (1, ?, ?, ?)
     ON CONFLICT (id) DO UPDATE SET size = excluded.size, root = excluded.root, note = excluded.note`,
  ).run(size, root, note);
}

/**
 * That the checkpoint there is was signed with a key, and says what stands beside it.
 * @throws MeshError `audit_log_damaged`
 */
export function checkSigned(db: Database, verifierKey: string): void {
  const stored = readCheckpoint(db);
  if (stored === null) return;
  try {
    const { size, root } = openCheckpoint(stored.note, parseVerifierKey(verifierKey));
    if (size === stored.size && Buffer.compare(root, stored.root) === 0) return;
  } catch (error) {
    if (error instanceof MeshError) throw damaged(error);
    throw error;
  }
  throw damaged(undefined);
}

function damaged(cause: unknown): MeshError {
  return new MeshError(
    'audit_log_damaged',
    'the audit log is damaged: its checkpoint was not signed with the key of this log',
    { fix: 'restore the data directory from a backup; keep the damaged one for the auditor', cause },
  );
}
