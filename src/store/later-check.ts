import { hashesOfLevel, readRoot, tileWidth } from '../audit/merkle-tree.ts';
import { spanEntries } from '../audit/retention.ts';
import { MeshError } from '../errors.ts';
import { damaged, readCheckpoint } from './audit-checkpoint.ts';
import { readAuditSize } from './audit-log.ts';
import { isPrunedTile, proveTile } from './audit-pruned.ts';
import { hashReader, proveNode } from './audit-tree.ts';
import { type Database, isBusy } from './database.ts';
import { largeTrees } from './large-tables.ts';
import { corrupt } from './start-check.ts';
import type { CheckStep } from './protocol.ts';
import { oddRowOf, oddValues, walkTree } from './tree-walk.ts';

/**
 * Checks what a start has not looked at: each call goes on for some 20 ms. Every page that grows with the log is read, and every
 * entry is proven under the signed root.
 *
 * A database that is damaged ends it. An entry that is not what its hash was made of does not: nothing else stands on it, and
 * that it was changed is what the tree is there to show.
 * @throws MeshError `store_corrupt`, and errors of SQLite
 */
export function createLaterCheck(db: Database, budgetMs = stepMs): () => CheckStep {
  // What was read is not read again.
  db.pragma('cache_size = -2048');
  let pieces = checkLargeTables(db);
  let isDone = false;
  return () => {
    const end = performance.now() + budgetMs;
    let damage: string | null = null;
    try {
      while (!isDone) {
        const piece = pieces.next();
        isDone = piece.done === true;
        damage ??= piece.value ?? null;
        if (performance.now() >= end) break;
      }
    } catch (error) {
      if (!isBusy(error)) throw error;
      // Somebody recovers the WAL. INVARIANT: from the beginning. A generator that has thrown is done, and looks like the end.
      pieces = checkLargeTables(db);
    }
    return { isDone, damage };
  };
}

/**
 * What {@link createLaterCheck} goes through, a piece for each `next`. Yields what is wrong with the entries of a piece.
 * @throws MeshError `store_corrupt`, and errors of SQLite
 */
export function* checkLargeTables(db: Database): Generator<string | undefined, undefined> {
  yield* proveEntries(db);
  for (const tree of largeTrees) {
    // Read with the entries.
    if (tree.table !== 'audit_leaves' || tree.index !== null) yield* walkTree(db, tree);
  }
}

function* proveEntries(db: Database): Generator<string | undefined, void> {
  // What is added from now on was hashed by this process.
  const size = readAuditSize(db);
  const count = db
    .prepare<[number, number], number>('SELECT count(*) FROM audit_leaves WHERE idx >= ? AND idx < ?')
    .pluck();
  const odd = db
    .prepare<[number, number], number>(
      `SELECT count(*) FROM audit_leaves WHERE idx >= ? AND idx < ? AND ${oddRowOf(db, 'audit_leaves')}`,
    )
    .pluck();
  const announced = db
    .prepare<[number], number>('SELECT coalesce(sum(entries), 0) FROM audit_pruned WHERE first = ?')
    .pluck();
  let missing = 0;
  for (let first = 0; first < size; first += tileWidth) {
    const end = Math.min(size, first + tileWidth);
    yield damageOf(db, () => {
      if (odd.get(first, end) !== 0) throw oddValues('audit_leaves');
      const gone = end - first - (count.get(first, end) ?? 0);
      missing += gone;
      if (gone > 0 && !isPrunedTile(db, first / tileWidth))
        throw corrupt(new Error(`of the entries ${first} to ${end - 1} some are missing`));
      // The others were proven as the tree was opened.
      if (end - first === tileWidth) proveTile(db, first);
    });
    if (end % spanEntries !== 0) continue;
    yield damageOf(db, () => {
      // Announced before it goes: at any time no more is missing than that.
      const span = end - spanEntries;
      if (missing > (announced.get(span) ?? 0))
        throw damaged(`of the entries ${span} to ${end - 1} more are missing than was announced`);
    });
    missing = 0;
  }
  const read = hashReader(db);
  for (let level = 2; hashesOfLevel(size, level) > 0; level++) {
    for (let index = 0; index < hashesOfLevel(size, level); index++)
      yield damageOf(db, () => proveNode(read, level, index));
  }
  yield damageOf(db, () => {
    const checkpoint = readCheckpoint(db);
    if (checkpoint !== null && Buffer.compare(readRoot(read, checkpoint.size), checkpoint.root) !== 0)
      throw damaged(`the entries 0 to ${checkpoint.size - 1} do not have the root that the checkpoint has`);
  });
}

function damageOf(db: Database, prove: () => void): string | undefined {
  try {
    db.transaction(prove)();
    return undefined;
  } catch (error) {
    if (error instanceof MeshError && error.code === 'audit_log_damaged') return error.message;
    throw error;
  }
}

const stepMs = 20;
