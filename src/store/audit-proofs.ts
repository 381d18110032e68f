import { encodeBundle } from '../audit/entry-bundle.ts';
import { proveConsistency, proveInclusion } from '../audit/merkle-proof.ts';
import { readRoot, tileWidth, widthOfTile } from '../audit/merkle-tree.ts';
import type { ConsistencyProof, EntryProof } from '../audit/proof.ts';
import type { TileName } from '../audit/tile-path.ts';
import { damaged, readCheckpoint } from './audit-checkpoint.ts';
import { hashReader } from './audit-tree.ts';
import type { Database } from './database.ts';
import { readWitnessedHead } from './witness-table.ts';

/** A tile or a bundle under the latest checkpoint; null for one that it does not cover. */
export function readTile(db: Database, { level, index, width }: TileName): Uint8Array | null {
  const size = readCheckpoint(db)?.size ?? 0;
  if (width > widthOfTile(size, level === 'entries' ? 0 : level, index)) return null;
  const first = index * tileWidth;
  if (level !== 'entries') return Buffer.concat(hashReader(db)(level, first, width));
  const entries = db
    .prepare<[number, number], Uint8Array>(
      'SELECT leaf FROM audit_leaves WHERE idx >= ? AND idx < ? ORDER BY idx',
    )
    .pluck()
    .all(first, first + width);
  if (entries.length !== width)
    throw damaged(`of the entries ${first} to ${first + width - 1} some are missing`);
  // A damaged page is read as NULL, or as a text, without a word.
  const broken = entries.findIndex((entry) => !((entry as unknown) instanceof Uint8Array));
  if (broken >= 0) throw damaged(`entry ${first + broken} cannot be read`);
  return encodeBundle(entries);
}

/**
 * Proves an entry under the latest checkpoint, or the latest that a quorum of witnesses has cosigned; null when that does
 * not cover it, or there is none.
 */
export function proveStoredEntry(db: Database, index: number, isWitnessed = false): EntryProof | null {
  // One read transaction: the checkpoint and what it covers belong together.
  return db.transaction(() => {
    const checkpoint = isWitnessed ? readWitnessedHead(db) : readCheckpoint(db);
    if (checkpoint === null || index >= checkpoint.size) return null;
    const { size, note } = checkpoint;
    const row = db
      .prepare<[number], { leaf: Uint8Array; hash: Uint8Array }>(
        'SELECT leaf, hash FROM audit_leaves WHERE idx = ?',
      )
      .get(index);
    if (row === undefined) throw damaged(`entry ${index} is missing`);
    const path = proveInclusion(hashReader(db), index, size);
    return { index, leaf: row.leaf, leafHash: row.hash, size, path, checkpoint: note };
  })();
}

/** Proves that the log under the latest checkpoint begins with its first `from` entries; null when it has fewer. */
export function proveStoredConsistency(db: Database, from: number): ConsistencyProof | null {
  return db.transaction(() => {
    const checkpoint = readCheckpoint(db);
    if (checkpoint === null || from > checkpoint.size) return null;
    const { size, note } = checkpoint;
    const read = hashReader(db);
    return {
      from,
      fromRoot: readRoot(read, from),
      size,
      path: proveConsistency(read, from, size),
      checkpoint: note,
    };
  })();
}
