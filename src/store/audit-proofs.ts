import { encodeBundle } from '../audit/entry-bundle.ts';
import { proveConsistency, proveInclusion } from '../audit/merkle-proof.ts';
import { readRoot, tileWidth, widthOfTile } from '../audit/merkle-tree.ts';
import type { ConsistencyProof, EntryProof } from '../audit/proof.ts';
import type { TileName } from '../audit/tile-path.ts';
import { MeshError } from '../errors.ts';
import { damaged, readCheckpoint } from './audit-checkpoint.ts';
import { isPrunedTile } from './audit-pruned.ts';
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
  if (entries.length !== width && isPrunedTile(db, index)) throw pruned(index);
  if (entries.length !== width)
    throw damaged(`of the entries ${first} to ${first + width - 1} some are missing`);
  // A damaged page is read as NULL, or as a text, without a word.
  const broken = entries.findIndex((entry) => !((entry as unknown) instanceof Uint8Array));
  if (broken >= 0) throw damaged(`entry ${first + broken} cannot be read`);
  return encodeBundle(entries);
}

/**
 * What is left of a bundle that has lost contents, with nothing in the place of an entry that is gone; null for a bundle that
 * is whole or is not there.
 */
export function readRemains(db: Database, { level, index, width }: TileName): Uint8Array | null {
  if (level !== 'entries' || !isPrunedTile(db, index)) return null;
  const first = index * tileWidth;
  const rows = db
    .prepare<[number, number], { idx: number; leaf: Uint8Array }>(
      'SELECT idx, leaf FROM audit_leaves WHERE idx >= ? AND idx < ?',
    )
    .all(first, first + width);
  const broken = rows.find(({ leaf }) => !((leaf as unknown) instanceof Uint8Array));
  if (broken !== undefined) throw damaged(`entry ${broken.idx} cannot be read`);
  const left = new Map(rows.map(({ idx, leaf }) => [idx, leaf]));
  return encodeBundle(Array.from({ length: width }, (_, at) => left.get(first + at) ?? gone));
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
      .prepare<[number], { leaf: Uint8Array }>('SELECT leaf FROM audit_leaves WHERE idx = ?')
      .get(index);
    const read = hashReader(db);
    const [leafHash] = read(0, index, 1);
    if (leafHash === undefined) throw damaged(`entry ${index} is missing`);
    const path = proveInclusion(read, index, size);
    return { index, leaf: row?.leaf ?? null, leafHash, size, path, checkpoint: note };
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

function pruned(tile: number): MeshError {
  const first = tile * tileWidth;
  return new MeshError(
    'audit_entries_pruned',
    `of the entries ${first} to ${first + tileWidth - 1} some are kept no longer`,
    { fix: 'their hashes are in the tile of level 0; pruned=empty in the query gives what is left' },
  );
}

const gone = new Uint8Array();
