import { mayHavePersonal, shreddedFields, spanEntries } from '../audit/retention.ts';
import { MeshError } from '../errors.ts';
import type { Database } from './database.ts';

/** Which personal values are meant. All that is given must hold. */
export type PersonalFilter = {
  /** Entries with this source address, whatever the port. */
  readonly address: string | null;
  /** Entries about this SPIFFE ID, or made by this SPIFFE ID or subject of an ID token. */
  readonly subject: string | null;
  /** Empty: any. */
  readonly indexes: readonly number[];
  /** Entries older than this; milliseconds since 1970. */
  readonly beforeMs: number | null;
};

/** Values that were found by one bounded step, and where the next begins: null at the end. */
export type PersonalMatches = PersonalBatch & { readonly next: number | null };

/** Values, by their rows, and the entries that commit to them. */
export type PersonalBatch = {
  readonly ids: readonly number[];
  readonly entries: number;
  readonly first: number;
  readonly last: number;
};

/** The values that are held of an entry, by field. */
export function personalReader(db: Database): (
  index: number,
  type: string,
) => {
  readonly personal: Readonly<Record<string, string>>;
  readonly shredded: readonly string[];
} {
  const select = db
    .prepare<[number], [field: string, value: string]>(
      'SELECT field, value FROM audit_personal WHERE idx = ? AND salt <> zeroblob(32) ORDER BY field',
    )
    .raw();
  return (index, type) => {
    if (!mayHavePersonal(type)) return nothingPersonal;
    const held = select.all(index);
    return {
      personal: Object.fromEntries(held),
      shredded: shreddedFields(
        type,
        held.map(([field]) => field),
      ),
    };
  };
}

/** Looks at a bounded number of values, from the entry `from` on. */
export function findPersonal(db: Database, filter: PersonalFilter, from: number): PersonalMatches {
  const rows = db
    .prepare<(number | string)[], PersonalRow>(
      `SELECT p.id, p.idx, p.field, p.value, l.time_ms AS timeMs, l.source,
         ${filter.subject === null ? 'NULL' : 'CAST(l.leaf AS TEXT)'} AS leaf
       FROM audit_personal AS p JOIN audit_leaves AS l ON l.idx = p.idx
       WHERE p.idx >= ? AND p.salt <> zeroblob(32)
         ${filter.indexes.length === 0 ? '' : 'AND p.idx IN (SELECT value FROM json_each(?))'}
       ORDER BY p.idx LIMIT ?`,
    )
    .all(from, ...(filter.indexes.length === 0 ? [] : [JSON.stringify(filter.indexes)]), rowsOfStep);
  const isEnd = rows.length < rowsOfStep;
  // All rows of the last entry may not be among them.
  const end = isEnd ? Number.POSITIVE_INFINITY : (rows.at(-1)?.idx ?? 0);
  const wanted = rows.filter(({ idx }) => idx < end);
  const chosen = new Set(wanted.filter((row) => fits(row, filter)).map(({ idx }) => idx));
  // Of an entry found by its address all values go: a path may name whom the address is of.
  const ids = wanted.filter(({ idx }) => chosen.has(idx)).map(({ id }) => id);
  const indexes = [...chosen];
  return {
    ids,
    entries: indexes.length,
    first: indexes[0] ?? 0,
    last: indexes.at(-1) ?? 0,
    next: isEnd ? null : end,
  };
}

/** Values of the first span, from `from` on, that is older than `beforeMs` and has any: some at a time. Null: there are none. */
export function findOldPersonal(
  db: Database,
  { beforeMs, from }: { readonly beforeMs: number; readonly from: number },
): PersonalBatch | null {
  const index = db
    .prepare<[number], number>(
      'SELECT idx FROM audit_personal WHERE idx >= ? AND salt <> zeroblob(32) ORDER BY idx LIMIT 1',
    )
    .pluck()
    .get(from);
  if (index === undefined) return null;
  const first = Math.floor(index / spanEntries) * spanEntries;
  const youngest = db
    .prepare<[number, number], { blocks: number; maxMs: number }>(
      'SELECT count(*) AS blocks, max(max_ms) AS maxMs FROM audit_blocks WHERE block >= ? AND block < ?',
    )
    .get(first / blockEntries, (first + spanEntries) / blockEntries);
  if (youngest === undefined || youngest.blocks < spanEntries / blockEntries) return null;
  if (youngest.maxMs >= beforeMs) return null;
  const rows = db
    .prepare<[number, number, number], { id: number; idx: number }>(
      'SELECT id, idx FROM audit_personal WHERE idx >= ? AND idx < ? AND salt <> zeroblob(32) ORDER BY idx LIMIT ?',
    )
    .all(Math.max(first, from), first + spanEntries, rowsOfStep);
  // The next step begins behind the last entry: an entry has few values, and all of them.
  if (rows.length === rowsOfStep) rows.splice(rows.findIndex(({ idx }) => idx === rows.at(-1)?.idx));
  const indexes = new Set(rows.map(({ idx }) => idx));
  return {
    ids: rows.map(({ id }) => id),
    entries: indexes.size,
    first: rows[0]?.idx ?? first,
    last: rows.at(-1)?.idx ?? first,
  };
}

/**
 * Overwrites values where they stand, inside the caller's transaction.
 * @throws MeshError `revision_conflict` when one of them is gone already; then none is touched
 */
export function shredPersonal(db: Database, ids: readonly number[]): void {
  for (let at = 0; at < ids.length; at += idsOfStatement) {
    const some = ids.slice(at, at + idsOfStatement);
    const wiped = wipePersonal(db, 'id IN (SELECT value FROM json_each(?))', [JSON.stringify(some)]);
    if (wiped === some.length) continue;
    throw new MeshError('revision_conflict', 'somebody else has shredded some of these values', {
      fix: 'ask again',
    });
  }
}

/**
 * Overwrites the values that are held of those that SQL chooses, inside the caller's transaction. @returns how many
 * INVARIANT: of the same length, so that SQLite writes over them and moves nothing.
 */
export function wipePersonal(db: Database, which: string, given: readonly (string | number)[]): number {
  const { changes } = db
    .prepare(
      `UPDATE audit_personal
       SET salt = zeroblob(32), value = CAST(zeroblob(length(CAST(value AS BLOB))) AS TEXT)
       WHERE ${which} AND salt <> zeroblob(32)`,
    )
    .run(...given);
  return changes;
}

/**
 * Gives the room of shredded values back, up to a row, inside the caller's transaction. INVARIANT: the last of them stay:
 * SQLite moves the rows beside those that go, and what it moves must be zeros.
 */
export function removeShredded(db: Database, throughId: number): void {
  db.prepare('DELETE FROM audit_personal WHERE id <= ? AND salt = zeroblob(32)').run(throughId - rowsKept);
}

type PersonalRow = {
  readonly id: number;
  readonly idx: number;
  readonly field: string;
  readonly value: string;
  readonly timeMs: number;
  readonly source: string | null;
  readonly leaf: string | null;
};

function fits(row: PersonalRow, { address, subject, beforeMs }: PersonalFilter): boolean {
  if (beforeMs !== null && row.timeMs >= beforeMs) return false;
  if (subject !== null && row.source !== subject && !isBy(row.leaf ?? '', subject)) return false;
  return address === null || (row.field === 'sourceAddress' && hostOf(row.value) === address);
}

/** Who did it is the actor; what was done to whom says nothing of them. */
function isBy(leaf: string, subject: string): boolean {
  const { actor } = JSON.parse(leaf) as { actor?: { subject?: unknown; spiffeId?: unknown } };
  return actor?.subject === subject || actor?.spiffeId === subject;
}

/** `192.0.2.7:443`, `192.0.2.7`, `[2001:db8::1]:443`, `2001:db8::1`: without port and brackets. */
function hostOf(value: string): string {
  const [, bracketed, plain] = /^(?:\[([^\]]*)\](?::[0-9]+)?|([^:]*):[0-9]+)$/.exec(value) ?? [];
  return bracketed ?? plain ?? value;
}

const nothingPersonal = { personal: {}, shredded: [] };
const idsOfStatement = 1_024;
const rowsOfStep = 4_000;
const rowsKept = 512;
const blockEntries = 1_024;
