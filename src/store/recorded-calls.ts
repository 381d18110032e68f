import type { AuditColumns } from '../audit/columns.ts';
import type { CallsQuery, CallsStep } from '../audit/calls-question.ts';
import {
  decidedTypes,
  joinCalls,
  keyOfCall,
  readRecordedCall,
  type RecordedCalls,
  seenTypes,
} from '../audit/recorded-call.ts';
import { readAuditSize } from './audit-log.ts';
import type { IndexRange } from './audit-plan.ts';
import { stepBudget } from './audit-query.ts';
import type { WalkBudget } from './audit-walk.ts';
import { narrowed } from './audit-window.ts';
import type { Database } from './database.ts';

/**
 * Reads recorded calls, from the newest on, and puts those together that agree in all that a policy can look at. What a step
 * answers is no longer than what it may look at.
 */
export function readRecordedCalls(
  db: Database,
  query: CallsQuery,
  budget: WalkBudget = stepBudget,
): CallsStep {
  return db.transaction(() => {
    const { since, until, wanted, below } = query;
    const started = performance.now();
    const last = (below ?? readAuditSize(db)) - 1;
    const range = narrowed(db, query, { first: 0, last });
    const chunks = chunksOf(db, query);
    const personal = personalOf(db, wanted);
    const groups = new Map<string, RecordedCalls>();
    const [sinceMs, untilMs] = [since?.getTime() ?? -Infinity, until?.getTime() ?? Infinity];
    let looked = 0;
    let chunk = { first: range.last + 1, last: range.last };
    // INVARIANT: a chunk is read whole, however long the first one takes.
    while (chunk.first > range.first) {
      if (looked >= budget.events || (looked > 0 && performance.now() - started > budget.ms)) break;
      chunk = chunks.before(chunk.first, range.first);
      const values = personal(chunk);
      for (const row of chunks.read(chunk)) {
        const [idx, , timeMs] = row;
        looked++;
        if (timeMs < sinceMs || timeMs >= untilMs) continue;
        const { call, count, firstMs } = readRecordedCall(recordOf(row, values), wanted);
        const places = { firstIndex: idx, lastIndex: idx };
        const one: RecordedCalls = { call, count, records: 1, firstMs, lastMs: timeMs, ...places };
        const key = keyOfCall(call);
        const before = groups.get(key);
        groups.set(key, before === undefined ? one : joinCalls(before, one));
      }
    }
    return { groups: [...groups.values()], next: chunk.first > range.first ? chunk.first : null };
  })();
}

type Row = readonly [
  idx: number,
  type: AuditColumns['type'],
  timeMs: number,
  destination: string | null,
  leaf: Uint8Array,
];

type Chunks = {
  /** The last indexes below `below` that are to be read at once, down to `first`. */
  readonly before: (below: number, first: number) => IndexRange;
  readonly read: (range: IndexRange) => readonly Row[];
};

/** An index leads to the calls of one service; of several all entries are looked at, in the order in which they lie. */
function chunksOf(db: Database, { of, destinations }: CallsQuery): Chunks {
  const types = (of === 'decided' ? decidedTypes : seenTypes).map((type) => `'${type}'`).join(', ');
  const columns = 'idx, type, time_ms, destination, leaf';
  const only = destinations?.length === 1 ? destinations[0] : '';
  if (only !== undefined && only !== '') {
    const from = `FROM audit_leaves INDEXED BY audit_by_destination WHERE destination = ? AND type IN (${types})`;
    const begin = db
      .prepare<[string, number, number], number>(
        `SELECT idx ${from} AND idx < ? ORDER BY idx DESC LIMIT 1 OFFSET ?`,
      )
      .pluck();
    const rows = db.prepare<[string, number, number], Row>(
      `SELECT ${columns} ${from} AND idx BETWEEN ? AND ? ORDER BY idx DESC`,
    );
    return {
      before: (below, first) => ({
        first: Math.max(first, begin.get(only, below, chunkEntries - 1) ?? first),
        last: below - 1,
      }),
      read: (range) => rows.raw().all(only, range.first, range.last),
    };
  }
  const among = destinations === null ? null : new Set(destinations);
  const rows = db.prepare<[number, number], Row>(
    `SELECT ${columns} FROM audit_leaves NOT INDEXED WHERE type IN (${types}) AND idx BETWEEN ? AND ?
     ORDER BY idx DESC`,
  );
  return {
    before: (below, first) => ({ first: Math.max(first, below - chunkEntries), last: below - 1 }),
    read: (range) => {
      const found = rows.raw().all(range.first, range.last);
      return among === null ? found : found.filter(([, , , destination]) => among.has(destination ?? ''));
    },
  };
}

/** The personal values of a chunk, by `<index> <field>`. */
function personalOf(
  db: Database,
  { path, address }: CallsQuery['wanted'],
): (range: IndexRange) => ReadonlyMap<string, string> {
  const fields = [...(path ? ["'path'"] : []), ...(address ? ["'sourceAddress'"] : [])];
  if (fields.length === 0) return () => new Map();
  const select = db.prepare<[number, number], readonly [number, string, string]>(
    `SELECT idx, field, value FROM audit_personal
     WHERE idx BETWEEN ? AND ? AND field IN (${fields.join(', ')}) AND salt <> zeroblob(32)`,
  );
  return ({ first, last }) =>
    new Map(
      select
        .raw()
        .all(first, last)
        .map(([idx, field, value]) => [`${idx} ${field}`, value]),
    );
}

function recordOf([idx, type, timeMs, destination, leaf]: Row, values: ReadonlyMap<string, string>) {
  const columns = { type, timeMs, destination, source: null, verdict: null, serial: null };
  const text = (): string => decoder.decode(leaf);
  return {
    columns,
    leaf: text,
    event: (): unknown => JSON.parse(text()),
    personal: (field: string) => values.get(`${idx} ${field}`),
  };
}

const decoder = new TextDecoder();
// A step ends between two of them.
const chunkEntries = 512;
