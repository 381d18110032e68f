import { formatCursor, parseCursor } from '../audit/cursor.ts';
import type { AuditPage, AuditQuery, AuditRow } from '../audit/query.ts';
import { readAuditCoverage, readHead } from './audit-coverage.ts';
import { readAuditSize } from './audit-log.ts';
import { personalReader } from './audit-personal.ts';
import type { IndexRange } from './audit-plan.ts';
import { type WalkBudget, walkLog } from './audit-walk.ts';
import { narrowed } from './audit-window.ts';
import type { Database } from './database.ts';

/** A page ends early when its leaves are this long together. */
export const maxPageBytes = 8_388_608;
/** What one step of a search or of counting may take, so that others need not wait for long. */
export const stepBudget: WalkBudget = { ms: 40, events: 100_000 };

/**
 * Answers a question to the log, as far as a step of its budget comes. Pages follow the order of the log; the cursor holds
 * the last index that was looked at, so leaves that are appended meanwhile neither shift a page nor come twice.
 * @throws MeshError `audit_cursor_invalid`
 */
export function readAuditPage(db: Database, query: AuditQuery, budget: WalkBudget = stepBudget): AuditPage {
  // One read transaction: the head, the rows and what is said of them belong together.
  return db.transaction(() => {
    const size = readAuditSize(db);
    const range = searchRange(db, query, size);
    const indexes: number[] = [];
    let isFull = false;
    const end = walkLog(db, query, range, { order: query.order, budget, fields: [] }, ({ idx }) => {
      isFull = indexes.length === query.limit;
      if (!isFull) indexes.push(idx);
      return !isFull;
    });
    const rows = readRows(db, indexes);
    const reached = rows.length < indexes.length || isFull ? rows.at(-1)?.index : end.reached;
    return {
      rows,
      size,
      head: readHead(db, size),
      coverage: readAuditCoverage(db, query),
      next: reached === null || reached === undefined ? null : cursorAt(query, reached),
      searched: range.first > range.last ? null : searchedRange(query, range, reached ?? null),
    };
  })();
}

function cursorAt({ order, since, until }: AuditQuery, index: number): string {
  return formatCursor({ order, index, since, until });
}

function searchedRange({ order }: AuditQuery, range: IndexRange, reached: number | null): IndexRange {
  if (reached === null) return range;
  return order === 'newest' ? { ...range, first: reached } : { ...range, last: reached };
}

/** The range of indexes left by the cursor and, through the blocks, by the window of time. */
function searchRange(db: Database, query: AuditQuery, size: number): IndexRange {
  let first = 0;
  let last = size - 1;
  if (query.cursor !== null) {
    const { index } = parseCursor(query.cursor);
    if (query.order === 'newest') last = Math.min(last, index - 1);
    else first = index + 1;
  }
  return narrowed(db, query, { first, last });
}

/** Rows by their indexes, fewer when their leaves are longer together than `maxBytes`. */
export function readRows(
  db: Database,
  indexes: readonly number[],
  maxBytes = maxPageBytes,
): readonly AuditRow[] {
  const selectLeaf = db.prepare<[number], { leaf: Buffer; hash: Buffer; type: string }>(
    'SELECT leaf, hash, type FROM audit_leaves WHERE idx = ?',
  );
  const personalOf = personalReader(db);
  const rows: AuditRow[] = [];
  let bytes = 0;
  for (const index of indexes) {
    const found = selectLeaf.get(index);
    if (found === undefined) continue;
    bytes += found.leaf.length;
    if (rows.length > 0 && bytes > maxBytes) break;
    rows.push({
      index,
      leafHash: found.hash.toString('hex'),
      leaf: found.leaf.toString('utf8'),
      ...personalOf(index, found.type),
    });
  }
  return rows;
}
