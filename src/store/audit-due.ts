import { proveInclusion, verifyInclusion } from '../audit/merkle-proof.ts';
import { tileWidth } from '../audit/merkle-tree.ts';
import { type PrunedClass, spanEntries } from '../audit/retention.ts';
import { MeshError } from '../errors.ts';
import { readCheckpoint } from './audit-checkpoint.ts';
import { demandLeaf, typeText } from './audit-pruned.ts';
import { hashReader } from './audit-tree.ts';
import type { Database } from './database.ts';

/** Which spans of the log may lose contents. */
export type PruneQuestion = {
  readonly class: PrunedClass;
  /** Spans of which any entry is as young as this keep what they have. Milliseconds since 1970. */
  readonly beforeMs: number;
  /** The index to look from. */
  readonly from: number;
};

/** A span that is due, and how many of its entries are of the class: possibly none. */
export type DueSpan = {
  readonly first: number;
  readonly entries: number;
  /** Why nothing of it may be announced; null when it may. */
  readonly fault: string | null;
};

/** The first span at or behind `from` that is due and was not announced; null when there is none. */
export function findDueSpan(db: Database, { class: pruned, beforeMs, from }: PruneQuestion): DueSpan | null {
  const first = db
    .prepare<[number, number, string, number], number>(
      // The last two spans stay whole: what a start proves is at the end.
      `SELECT block / ${blocksOfSpan} * ${spanEntries} AS first FROM audit_blocks
       WHERE block >= ? AND (block / ${blocksOfSpan} + 2) * ${spanEntries} <= ?
         AND NOT EXISTS (
           SELECT 1 FROM audit_pruned
           WHERE audit_pruned.first = block / ${blocksOfSpan} * ${spanEntries} AND class = ?)
       GROUP BY first HAVING max(max_ms) < ? ORDER BY first LIMIT 1`,
    )
    .pluck()
    .get(Math.floor(from / spanEntries) * blocksOfSpan, lastIndex(db), pruned, beforeMs);
  if (first === undefined) return null;
  const types = typeText(pruned);
  const entries = Number(
    db
      .prepare<[number, number, string], number>(
        `SELECT count(*) FROM audit_leaves NOT INDEXED
         WHERE idx >= ? AND idx < ? AND instr(?, ' ' || type || ' ') > 0`,
      )
      .pluck()
      .get(first, first + spanEntries, types),
  );
  return {
    first,
    entries,
    fault: entries === 0 ? null : db.transaction(faultOf)(db, first, types, beforeMs),
  };
}

/**
 * Holds a span against the signed checkpoint, and what stands beside its leaves against the leaves themselves.
 * INVARIANT: before it is announced. Else whoever can write the file and cannot sign has us announce, as calls that are old,
 * what is neither.
 */
function faultOf(db: Database, span: number, types: string, beforeMs: number): string | null {
  const checkpoint = readCheckpoint(db);
  if (checkpoint === null) return 'the audit log has no checkpoint';
  const read = hashReader(db);
  const select = db.prepare<[number, number], LeafRow>(
    'SELECT idx, type, leaf, hash FROM audit_leaves WHERE idx >= ? AND idx < ?',
  );
  try {
    for (let first = span; first < span + spanEntries; first += tileWidth) {
      for (const { idx, type, leaf, hash } of select.all(first, first + tileWidth)) {
        demandLeaf(idx, leaf, hash);
        const told = JSON.parse(Buffer.from(leaf).toString('utf8')) as { type: unknown; time: unknown };
        if (told.type !== type)
          return `entry ${idx} of the audit log is no ${type}, as what stands beside it says`;
        // Of other entries nothing goes; `!` for a time that is none.
        if (types.includes(` ${type} `) && !(Date.parse(String(told.time)) < beforeMs))
          return `entry ${idx} of the audit log is younger than what stands beside it says`;
      }
      const [hash] = read(0, first, 1);
      const claim = { index: first, size: checkpoint.size, root: checkpoint.root, leafHash: hash ?? gone };
      // One proof for all of a tile: it is made of the hashes of all its leaves.
      if (!verifyInclusion({ ...claim, path: proveInclusion(read, first, checkpoint.size) }))
        return `the entries from ${first} on are not those that the checkpoint of the audit log was signed over`;
    }
    return null;
  } catch (error) {
    if (error instanceof MeshError) return error.message;
    if (error instanceof SyntaxError) return `an entry of the audit log from ${span} on is no JSON`;
    throw error;
  }
}

type LeafRow = {
  readonly idx: number;
  readonly type: string;
  readonly leaf: Uint8Array;
  readonly hash: Uint8Array;
};

function lastIndex(db: Database): number {
  return Number(db.prepare('SELECT coalesce(max(idx), -1) FROM audit_leaves').pluck().get());
}

const gone = new Uint8Array();
const blocksOfSpan = spanEntries / 1_024;
