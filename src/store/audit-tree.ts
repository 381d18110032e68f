import { leafHash } from '../audit/leaf.ts';
import {
  type GrowingTree,
  growTree,
  hashBytes,
  hashesOfLevel,
  perfectRoot,
  readEdge,
  type ReadHashes,
  readRoot,
  tileWidth,
} from '../audit/merkle-tree.ts';
import { damaged, readCheckpoint } from './audit-checkpoint.ts';
import { readPrunedHashes } from './audit-pruned.ts';
import { type Database, inTransaction } from './database.ts';

/**
 * Opens the tree over the log for its one writer. A log that has no checkpoint yet may be older than its tree: then the
 * tree is made, a step at a time, and a start that is cut off goes on where it was.
 *
 * What is at the right edge is proven: that the last entries are what was hashed, that the last hash of each level is
 * that of those below it, and that the checkpoint has their root. The rest is for `countersign audit verify`.
 * @param size the number of leaves
 * @param made as `growTree` takes it
 * @throws MeshError `audit_log_damaged` naming the entries
 */
export function openTree(
  db: Database,
  size: number,
  made?: (level: number, hash: Uint8Array) => void,
): GrowingTree {
  const read = hashReader(db);
  const checkpoint = readCheckpoint(db);
  if (checkpoint === null) completeTree(db, read, size);
  else if (checkpoint.size > size)
    throw damaged(`entry ${size} is missing: the checkpoint is of ${checkpoint.size}`);
  checkLeaves(db, Math.max(0, Math.floor(size / tileWidth) - 1) * tileWidth, size);
  checkNodes(db, read, size);
  if (checkpoint !== null && Buffer.compare(readRoot(read, checkpoint.size), checkpoint.root) !== 0) {
    throw damaged(`the entries 0 to ${checkpoint.size - 1} do not have the root that the checkpoint has`);
  }
  return growTree(readEdge(read, size), keeper(db), made);
}

/** Reads the hashes of the tree as they are stored. */
export function hashReader(db: Database): ReadHashes {
  const leaves = db
    .prepare<[number, number], Uint8Array>(
      'SELECT hash FROM audit_leaves WHERE idx BETWEEN ? AND ? ORDER BY idx',
    )
    .pluck();
  const nodes = db
    .prepare<[number, number, number], Uint8Array>(
      'SELECT hash FROM audit_nodes WHERE level = ? AND idx BETWEEN ? AND ? ORDER BY idx',
    )
    .pluck();
  return (level, first, count) => {
    const last = first + count - 1;
    const found = level === 0 ? leaves.all(first, last) : nodes.all(level, first, last);
    // A damaged page is read as NULL, or as a text, without a word.
    if (found.length === count && found.every(isHash)) return found;
    const kept = level === 0 ? readPrunedHashes(db, first, count) : undefined;
    if (kept?.every(isHash) === true) return kept;
    throw damaged(`hashes of the ${entriesUnder(level, first, last)} are missing`);
  };
}

function isHash(value: unknown): value is Uint8Array {
  return value instanceof Uint8Array && value.length === hashBytes;
}

/** Makes what is missing of the tree, in transactions of a bounded size. */
function completeTree(db: Database, read: ReadHashes, size: number): void {
  const whole = hashesOfLevel(size, 1) * tileWidth;
  let done = nodesOf(db, 1) * tileWidth;
  if (done >= whole) return;
  const tree = growTree(readEdge(read, done), keeper(db));
  while (done < whole) {
    const end = Math.min(whole, done + leavesOfStep);
    // INVARIANT: no entry comes under a root that is not what its hash was made of.
    checkLeaves(db, done, end);
    inTransaction(db, () => {
      for (let first = done; first < end; first += tileWidth) {
        for (const hash of read(0, first, tileWidth)) tree.append(hash);
      }
    });
    done = end;
  }
}

/** That the entries from `begin` up to, not with, `end` are what their hashes were made of. */
function checkLeaves(db: Database, begin: number, end: number): void {
  const rows = db
    .prepare<[number, number], { idx: number; leaf: Uint8Array; hash: Uint8Array }>(
      'SELECT idx, leaf, hash FROM audit_leaves WHERE idx >= ? AND idx < ? ORDER BY idx',
    )
    .iterate(begin, end);
  let next = begin;
  for (const { idx, leaf, hash } of rows) {
    if (idx !== next) break;
    if (Buffer.compare(leafHash(leaf), hash) !== 0)
      throw damaged(`entry ${idx} is not what its hash was made of`);
    next++;
  }
  if (next < end) throw damaged(`entry ${next} is missing`);
}

/** That every level has the hashes it should have, and that the last of each is that of those below it. */
function checkNodes(db: Database, read: ReadHashes, size: number): void {
  for (let level = 1; level <= maxLevel; level++) {
    const count = hashesOfLevel(size, level);
    if (nodesOf(db, level) !== count)
      throw damaged(`level ${level} of the tree is not that of ${size} entries`);
    if (count === 0) continue;
    proveNode(read, level, count - 1);
  }
}

/** That a stored hash, of level 1 or higher, is that of those below it. @throws MeshError `audit_log_damaged` */
export function proveNode(read: ReadHashes, level: number, index: number): void {
  const made = perfectRoot(read(level - 1, index * tileWidth, tileWidth));
  const [stored = emptyHash] = read(level, index, 1);
  if (Buffer.compare(made, stored) !== 0)
    throw damaged(`the ${entriesUnder(level, index, index)} are not what their hash was made of`);
}

function keeper(db: Database): (level: number, index: number, hash: Uint8Array) => void {
  const insert = db.prepare('INSERT INTO audit_nodes (level, idx, hash) VALUES (?, ?, ?)');
  return (level, index, hash) => void insert.run(level, index, hash);
}

function nodesOf(db: Database, level: number): number {
  return Number(
    db.prepare('SELECT coalesce(max(idx) + 1, 0) FROM audit_nodes WHERE level = ?').pluck().get(level),
  );
}

function entriesUnder(level: number, first: number, last: number): string {
  const width = tileWidth ** level;
  return `entries ${first * width} to ${(last + 1) * width - 1}`;
}

const leavesOfStep = 16_384;
// 256^7 leaves are more than a safe integer can count.
const maxLevel = 7;
const emptyHash = new Uint8Array();
