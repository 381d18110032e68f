import { verdictTypes } from '../audit/columns.ts';
import { formatCursor, parseCursor } from '../audit/cursor.ts';
import type { AuditPage, AuditQuery, AuditRow } from '../audit/query.ts';
import { blockBits, readAuditSize } from './audit-log.ts';
import { personalReader } from './audit-personal.ts';
import type { Database } from './database.ts';

/** A page ends early when its leaves are this long together. */
export const maxPageBytes = 8_388_608;

/**
 * Answers a question to the log, along an index whatever it asks. Pages follow the order of the log; the cursor holds
 * the last index, so leaves that are appended meanwhile neither shift a page nor come twice.
 * @throws MeshError `audit_cursor_invalid`
 */
export function readAuditPage(db: Database, query: AuditQuery): AuditPage {
  // One read transaction: the size and the rows belong together.
  return db.transaction(() => {
    const size = readAuditSize(db);
    const found = findIndexes(db, query, searchRange(db, query, size));
    const rows = readRows(db, found.slice(0, query.limit));
    const last = rows.at(-1);
    const more = last !== undefined && found.length > rows.length;
    const { order, since, until } = query;
    return { rows, size, next: more ? formatCursor({ order, index: last.index, since, until }) : null };
  })();
}

/** Indexes that can hold an answer: from `first` to `last`, both included. */
export type IndexRange = { readonly first: number; readonly last: number };

/** A statement that finds indexes in order, `limit + 1` at most. */
export type Search = { readonly sql: string; readonly values: readonly (string | number)[] };

/**
 * The statements that answer a question together. INDEXED BY makes SQLite refuse, rather than scan, should an index not
 * serve. With several types there is one statement for each: a single one would sort all rows of those types.
 */
export function planSearches(query: AuditQuery, range: IndexRange): readonly Search[] {
  const index = leadingIndex(query);
  const given = filters(query);
  if (index === 'audit_by_type')
    return query.types.map((type) => search(query, range, index, [...given, typeIn([type])]));
  return [search(query, range, index, query.types.length === 0 ? given : [...given, typeIn(query.types)])];
}

type Filter = Search;

function filters(query: AuditQuery): readonly Filter[] {
  const given: Filter[] = [];
  if (query.serial !== null) given.push({ sql: 'serial = ?', values: [query.serial] });
  if (query.source !== null) given.push({ sql: 'source = ?', values: [query.source] });
  if (query.destination !== null) given.push({ sql: 'destination = ?', values: [query.destination] });
  // Literals: SQLite takes the partial indexes of denials for no parameter.
  if (query.verdict !== null)
    given.push({ sql: `verdict = '${query.verdict === 'deny' ? 'deny' : 'allow'}'`, values: [] });
  if (query.since !== null) given.push({ sql: 'time_ms >= ?', values: [query.since.getTime()] });
  if (query.until !== null) given.push({ sql: 'time_ms < ?', values: [query.until.getTime()] });
  return given;
}

function typeIn(types: readonly string[]): Filter {
  return { sql: `type IN (${types.map(() => '?').join(', ')})`, values: types };
}

/** The index expected to leave the fewest rows. Undefined: the log itself, in its order. */
function leadingIndex(query: AuditQuery): string | undefined {
  if (query.serial !== null) return 'audit_by_serial';
  const denials = query.verdict === 'deny';
  if (query.source !== null) return denials ? 'audit_denials_by_source' : 'audit_by_source';
  if (query.destination !== null) return denials ? 'audit_denials_by_destination' : 'audit_by_destination';
  if (query.verdict !== null) return 'audit_by_verdict';
  return query.types.length > 0 ? 'audit_by_type' : undefined;
}

function search(
  query: AuditQuery,
  range: IndexRange,
  index: string | undefined,
  given: readonly Filter[],
): Search {
  const conditions = [{ sql: 'idx BETWEEN ? AND ?', values: [range.first, range.last] }, ...given];
  return {
    sql: `SELECT idx FROM audit_leaves ${index === undefined ? 'NOT INDEXED' : `INDEXED BY ${index}`}
          WHERE ${conditions.map(({ sql }) => sql).join(' AND ')}
          ORDER BY idx ${query.order === 'newest' ? 'DESC' : 'ASC'} LIMIT ?`,
    values: [...conditions.flatMap(({ values }) => values), query.limit + 1],
  };
}

// Looking for others would walk through all that have a verdict to find none.
function asksForNothing({ verdict, types }: AuditQuery): boolean {
  return verdict !== null && types.length > 0 && !types.some((type) => verdictTypes.has(type));
}

function findIndexes(db: Database, query: AuditQuery, range: IndexRange): readonly number[] {
  if (range.first > range.last || asksForNothing(query)) return [];
  const found = planSearches(query, range).flatMap(
    ({ sql, values }) =>
      db
        .prepare(sql)
        .pluck()
        .all(...values) as number[],
  );
  return found.sort((a, b) => (query.order === 'newest' ? b - a : a - b));
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
  if (query.since === null && query.until === null) return { first, last };
  const blocks = db
    .prepare<[number, number], { first: number | null; last: number | null }>(
      'SELECT min(block) AS first, max(block) AS last FROM audit_blocks WHERE max_ms >= ? AND min_ms < ?',
    )
    .get(query.since?.getTime() ?? -longTimeMs, query.until?.getTime() ?? longTimeMs);
  if (blocks === undefined || blocks.first === null || blocks.last === null) return { first: 0, last: -1 };
  const width = 2 ** blockBits;
  return {
    first: Math.max(first, blocks.first * width),
    last: Math.min(last, (blocks.last + 1) * width - 1),
  };
}

/** Rows by their indexes, fewer when their leaves are {@link maxPageBytes} long together. */
export function readRows(db: Database, indexes: readonly number[]): readonly AuditRow[] {
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
    if (rows.length > 0 && bytes > maxPageBytes) break;
    rows.push({
      index,
      leafHash: found.hash.toString('hex'),
      leaf: found.leaf.toString('utf8'),
      ...personalOf(index, found.type),
    });
  }
  return rows;
}

// Beyond any time JavaScript knows.
const longTimeMs = 8_640_000_000_000_001;
