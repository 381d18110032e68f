import { openCheckpoint } from '../audit/checkpoint.ts';
import { parseVerifierKey } from '../audit/note.ts';
import { MeshError } from '../errors.ts';
import type { Database } from './database.ts';
import { readMeta } from './state-tables.ts';

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

/**
 * Prepares to put the checkpoint of the log as it is, inside the caller's transaction: each commit does. The schema refuses one
 * that goes back.
 */
export function prepareCheckpoint(db: Database): (checkpoint: StoredCheckpoint) => void {
  const put = db.prepare(
    `INSERT INTO audit_checkpoint (id, size, root, note) VALUES (1, ?, ?, ?)
     ON CONFLICT (id) DO UPDATE SET size = excluded.size, root = excluded.root, note = excluded.note`,
  );
  return ({ size, root, note }) => void put.run(size, root, note);
}

/**
 * That the checkpoint there is was signed with a key, says what stands beside it, and covers a log that has a key.
 * @param leaves how many there are
 * @throws MeshError `audit_log_damaged`
 */
export function checkSigned(db: Database, verifierKey: string, leaves: number): void {
  const stored = readCheckpoint(db);
  // INVARIANT: what the key has not signed already it never signs at a start. The row that names the key is committed with
  // the first checkpoint, and no entry without one. Else whoever has the file and not the key could rewrite it, take the
  // checkpoint away or put an older one back, and have us sign.
  if (readMeta(db, 'audit_key') !== null && stored?.size !== leaves) {
    throw damaged(`the key of this log has signed ${stored?.size ?? 'none'} of its ${leaves} entries`);
  }
  if (stored === null) return;
  try {
    const { size, root } = openCheckpoint(stored.note, parseVerifierKey(verifierKey));
    if (size === stored.size && Buffer.compare(root, stored.root) === 0) return;
  } catch (error) {
    if (error instanceof MeshError) throw damaged(otherKey, error);
    throw error;
  }
  throw damaged(otherKey);
}

/** The stored log does not agree with its tree, its checkpoint or its key. */
export function damaged(what: string, cause?: unknown): MeshError {
  return new MeshError('audit_log_damaged', `the audit log is damaged: ${what}`, {
    fix: 'restore the data directory from a backup; keep the damaged one for the auditor',
    cause,
  });
}

const otherKey = 'its checkpoint was not signed with the key of this log';
