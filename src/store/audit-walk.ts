import type { AuditColumns } from '../audit/columns.ts';
import type { AuditEventType } from '../audit/event.ts';
import { personalFieldNames, spanFields } from '../audit/asked-fields.ts';
import { type FieldFilter, type FilteredRecord, fieldTexts, mayMeet, meets } from '../audit/filter.ts';
import { holdsWords, leafWords } from '../audit/words.ts';
import { type AuditFilters, type IndexRange, planWalks, type Walk } from './audit-plan.ts';
import { isWithin } from './audit-window.ts';
import type { Database } from './database.ts';

/** How long a step may look at events, and at how many. The first event is always looked at. */
export type WalkBudget = { readonly ms: number; readonly events: number };

/** An event that answers. */
export type Found = FilteredRecord & { readonly idx: number };

/** How a walk ended: `reached` is the last index up to which all was looked at; null when all of the range was. */
export type WalkEnd = { readonly reached: number | null };

/**
 * Walks through the events that can answer, in the order of the log, and hands those that do to `take`, until it returns
 * false, the range ends or the budget is spent.
 * @param fields of the events, besides those of the filters, that will be looked at
 */
export function walkLog(
  db: Database,
  asked: AuditFilters,
  range: IndexRange,
  {
    order,
    budget,
    fields,
  }: { readonly order: 'newest' | 'oldest'; readonly budget: WalkBudget; readonly fields: readonly string[] },
  take: (found: Found) => boolean,
): WalkEnd {
  if (range.first > range.last) return { reached: null };
  const started = performance.now();
  const filters = isWithin(db, asked, range) ? { ...asked, since: null, until: null } : asked;
  const walks = planWalks(db, filters, range);
  const needed = columnsNeeded(filters, fields, walks);
  const personal = personalReader(db);
  const heads = walks
    .map((walk) => ({ walk, rows: rowsOf(db, walk, needed, range, order) }))
    .map(({ walk, rows }) => ({ walk, rows, row: rows.next() }));
  let looked = 0;
  try {
    for (;;) {
      const head = earliest(heads, order);
      if (head === undefined || head.row.done === true) return { reached: null };
      const row = head.row.value;
      const [idx] = row;
      // A row of nothing but its index ends a window.
      if (row.length > 1) {
        const found = foundOf(row, personal);
        if (answers(found, filters, head.walk) && !take(found)) return { reached: idx };
      }
      head.row = head.rows.next();
      looked++;
      const isSpent =
        looked >= budget.events ||
        ((looked % 32 === 0 || row.length === 1) && performance.now() - started > budget.ms);
      // Another walk may stand at the same index: an event is in one walk, the end of a window is not.
      if (isSpent && !heads.some(({ row: next }) => next.done !== true && next.value[0] === idx)) {
        return heads.every(({ row: next }) => next.done === true) ? { reached: null } : { reached: idx };
      }
    }
  } finally {
    for (const { rows } of heads) rows.return(undefined);
  }
}

type Row =
  | readonly [
      idx: number,
      type: AuditEventType,
      timeMs: number,
      source: string | null,
      destination: string | null,
      verdict: 'allow' | 'deny' | null,
      serial: string | null,
      leaf: Uint8Array | null,
    ]
  | readonly [idx: number];

type Head = {
  readonly walk: Walk;
  readonly rows: Generator<Row, undefined>;
  row: IteratorResult<Row, undefined>;
};

function earliest(heads: readonly Head[], order: 'newest' | 'oldest'): Head | undefined {
  let best: Head | undefined;
  let bestIdx = 0;
  for (const head of heads) {
    if (head.row.done === true) continue;
    const [idx] = head.row.value;
    if (best !== undefined && (order === 'newest' ? idx <= bestIdx : idx >= bestIdx)) continue;
    best = head;
    bestIdx = idx;
  }
  return best;
}

function* rowsOf(
  db: Database,
  walk: Walk,
  needed: ReadonlySet<string>,
  { first, last }: IndexRange,
  order: 'newest' | 'oldest',
): Generator<Row, undefined> {
  const statement = db.prepare<unknown[], Row>(walkSql(walk, needed, order)).raw();
  const width = walk.window ?? Infinity;
  if (width >= last - first) {
    yield* statement.iterate(...walk.values, first, last);
    return;
  }
  let size = width;
  for (let at = 0; at <= last - first;) {
    const [begin, end] =
      order === 'newest'
        ? [Math.max(first, last - at - size + 1), last - at]
        : [first + at, Math.min(last, first + at + size - 1)];
    const started = performance.now();
    yield* statement.iterate(...walk.values, begin, end);
    yield [order === 'newest' ? begin : end];
    at += size;
    // A window costs something by itself; time that was spent on what it found lets it grow no further.
    if (performance.now() - started < quickMs) size *= 4;
  }
}

const quickMs = 8;

/** The statement of a walk. Columns that nobody looks at are not read: many walks need no more than the index. */
export function walkSql(walk: Walk, needed: ReadonlySet<string>, order: 'newest' | 'oldest'): string {
  const columns = rowColumns.map((name) => (needed.has(name) ? `l.${name}` : 'NULL'));
  return `SELECT ${walk.idx}, ${columns.join(', ')} FROM ${walk.from} AND ${walk.idx} BETWEEN ? AND ?
          ORDER BY ${walk.idx} ${order === 'newest' ? 'DESC' : 'ASC'}`;
}

/** The columns of leaves that a question looks at. */
export function columnsNeeded(
  filters: AuditFilters,
  fields: readonly string[],
  walks: readonly Walk[],
): ReadonlySet<string> {
  const needed = new Set<string>();
  if (walks.some(({ isPure }) => !isPure)) needed.add('type');
  if (filters.since !== null || filters.until !== null) needed.add('time_ms');
  for (const name of ['source', 'destination', 'verdict', 'serial'] as const)
    if (filters[name] !== null) needed.add(name);
  if (filters.text !== null) needed.add('leaf');
  for (const name of [...filters.where.map(({ field }) => field), ...fields]) {
    if (spanFields.some((span) => span === name)) needed.add('time_ms');
    else if (!personalFieldNames.has(name)) needed.add(leafFieldOf(name) ? 'leaf' : name);
  }
  return needed;
}

function answers(found: Found, filters: AuditFilters, walk: Walk): boolean {
  const { type, timeMs, source, destination, verdict, serial } = found.columns;
  return (
    (walk.isPure || walk.types.has(type)) &&
    (filters.since === null || timeMs >= filters.since.getTime()) &&
    (filters.until === null || timeMs < filters.until.getTime()) &&
    (filters.source === null || source === filters.source) &&
    (filters.destination === null || destination === filters.destination) &&
    (filters.verdict === null || verdict === filters.verdict) &&
    (filters.serial === null || serial === filters.serial) &&
    filters.where.every((filter) => meetsOne(found, filter)) &&
    (filters.text === null || holdsText(found, filters.text))
  );
}

function meetsOne(found: Found, filter: FieldFilter): boolean {
  if (leafFieldOf(filter.field) && !mayMeet(found.leaf(), filter)) return false;
  return meets(fieldTexts(found, filter.field), filter);
}

/** Whether a field is read from the leaf, which is there then. */
function leafFieldOf(name: string): boolean {
  return (
    !personalFieldNames.has(name) && !spanFields.some((span) => span === name) && !rowColumns.includes(name)
  );
}

function holdsText(found: Found, text: string): boolean {
  // Words are not escaped in JSON, so the text of the leaf has them all.
  const leaf = found.leaf().toLowerCase();
  if (!text.split(' ').every((word) => leaf.includes(word))) return false;
  return leafWords(found.event()).some((words) => holdsWords(words, text));
}

function foundOf(row: Row, personal: (idx: number, field: string) => string | undefined): Found {
  const [idx, type, timeMs, source, destination, verdict, serial, leaf] = row as Exclude<
    Row,
    readonly [number]
  >;
  const columns: Omit<AuditColumns, 'decisionId'> = { type, timeMs, source, destination, verdict, serial };
  let text: string | undefined;
  let event: unknown;
  const leafText = (): string => (text ??= decoder.decode(leaf ?? noLeaf));
  return {
    idx,
    columns,
    leaf: leafText,
    event: () => (event ??= JSON.parse(leafText())),
    personal: (field) => personal(idx, field),
  };
}

function personalReader(db: Database): (idx: number, field: string) => string | undefined {
  const select = db
    .prepare<[number, string], string>(
      'SELECT value FROM audit_personal WHERE idx = ? AND field = ? AND salt <> zeroblob(32)',
    )
    .pluck();
  return (idx, field) => select.get(idx, field);
}

const rowColumns: readonly string[] = [
  'type',
  'time_ms',
  'source',
  'destination',
  'verdict',
  'serial',
  'leaf',
];
const decoder = new TextDecoder();
const noLeaf = new TextEncoder().encode('{}');
