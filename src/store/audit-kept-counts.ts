import type { CountQuery } from '../audit/count.ts';
import { dayMs, type FieldFilter, hourMs, meets, spanStart } from '../audit/filter.ts';
import { foldedText, rolledTexts, rollupFields, type RollupKey } from '../audit/rollup.ts';
import type { Tally, TallyItem } from './audit-count-tally.ts';
import { type AuditFilters, typesAsked } from './audit-plan.ts';
import type { WalkBudget } from './audit-walk.ts';
import type { Database } from './database.ts';

/** Whole hours from `from` up to, not with, `to`, since 1970; of days and of all of the log likewise. */
export type KeptPart = {
  readonly kind: 'kept';
  /** 0: by hours, 1: by days, 2: all of the log. */
  readonly level: 0 | 1 | 2;
  readonly from: number;
  readonly to: number;
};

/** What is counted together and answers, by its number. */
export type KeptKeys = ReadonlyMap<number, KeptAnswer>;

/** The values of the fields asked for. */
type KeptAnswer = {
  /** Null: nobody knows whether it is asked for, as what is asked of it was not kept. */
  readonly values: readonly Value[] | null;
  /** Whether something that is asked was not kept: see `openKinds`. */
  readonly isFolded: boolean;
};

/** A value of a field, or of which span of time the beginning is to be taken. */
type Value = string | null | typeof hourMs | typeof dayMs;

/**
 * The keys that answer a question; undefined when it asks for what is not counted together.
 * @returns `unread` when reading them took longer than the budget: the same question, asked again, goes on
 */
export function readKeptKeys(
  db: Database,
  query: CountQuery,
  budgetMs = Infinity,
): KeptKeys | undefined | 'unread' {
  const started = performance.now();
  const { filters } = query;
  if (filters.serial !== null || filters.text !== null) return undefined;
  const known = rememberedKeys(db, query);
  const rows = db
    .prepare<unknown[], KeyRow>(
      `SELECT id, ${rollupFields.map((name) => (known.needed.has(name) ? name : `'' AS ${name}`)).join(', ')}
       FROM audit_rollup_keys WHERE id > ? ORDER BY id`,
    )
    .raw()
    .iterate(known.last);
  known.isRead = false;
  let read = 0;
  for (const row of rows) {
    addKey(known, query, row);
    read += 1;
    // INVARIANT: what is not remembered is read to its end, so that each step comes further.
    if (read % keysOfLook !== 0 || !known.isRemembered) continue;
    if (performance.now() - started > budgetMs) return 'unread';
  }
  known.isRead = true;
  return known.isUnknown ? undefined : known.keys;
}

function addKey(known: Remembered, { filters, by }: CountQuery, [id, ...columns]: KeyRow): void {
  const text = columns.join('\0');
  let answer = known.answers.get(text);
  if (answer === undefined) {
    const key = Object.fromEntries(
      rollupFields.map((name, at) => [name, columns[at]]),
    ) as unknown as RollupKey;
    answer = answerOf(key, filters, by);
    known.answers.set(text, answer);
  }
  known.last = id;
  if (answer === 'unknown') known.isUnknown = true;
  else if (answer !== 'other') known.keys.set(id, answer);
}

type KeyRow = readonly [id: number, ...columns: string[]];

/** What a key is for a question: the values it is counted under; not asked for; or not to be told from it. */
type KeyAnswer = KeptAnswer | 'other' | 'unknown';

/** The keys of a question, up to one: they never change, and a question comes again for each step. */
type Remembered = {
  readonly question: string;
  readonly needed: ReadonlySet<string>;
  readonly answers: Map<string, KeyAnswer>;
  readonly keys: Map<number, KeptAnswer>;
  last: number;
  isUnknown: boolean;
  /** Whether a step has come to the end. */
  isRead: boolean;
  /** Whether the next step finds it here. */
  isRemembered: boolean;
  askedAt: number;
};

/** Of the latest questions, the latest last. */
const remembered = new WeakMap<Database, Remembered[]>();

function rememberedKeys(db: Database, { filters, by }: CountQuery): Remembered {
  const { since: _since, until: _until, ...asked } = filters;
  const question = JSON.stringify([asked, by]);
  const latest = remembered.get(db) ?? [];
  const before = latest.find((one) => one.question === question);
  const now = performance.now();
  if (before !== undefined) {
    before.askedAt = now;
    return before;
  }
  const names = [
    ...['type', ...by, ...filters.where.map(({ field }) => field)].flatMap(columnsOf),
    ...(filters.source === null ? [] : ['source']),
    ...(filters.destination === null ? [] : ['destination']),
    ...(filters.verdict === null ? [] : ['outcome']),
  ];
  const fresh: Remembered = {
    question,
    needed: new Set(names),
    answers: new Map(),
    keys: new Map(),
    last: 0,
    isUnknown: false,
    isRead: false,
    isRemembered: false,
    askedAt: now,
  };
  // INVARIANT: nobody who asks takes the place of a question that is still being read, or none would come to its end.
  const given = latest.findIndex(({ isRead, askedAt }) => isRead || now - askedAt > idleMs);
  if (latest.length >= maxRemembered && given === -1) return fresh;
  fresh.isRemembered = true;
  const left = latest.length < maxRemembered ? latest : latest.toSpliced(given, 1);
  remembered.set(db, [...left, fresh]);
  return fresh;
}

/** The columns of a key that a field is told by, see `rolledTexts`. */
function columnsOf(field: string): readonly string[] {
  switch (field) {
    case 'verdict':
    case 'action':
    case 'what':
    case 'kind':
      return ['outcome'];
    case 'code':
    case 'cause':
    case 'failure':
      return ['reason'];
    case 'spiffeId':
      return ['source'];
    default:
      return [field];
  }
}

function answerOf(key: RollupKey, filters: AuditFilters, by: readonly string[]): KeyAnswer {
  if (!typesAsked(filters).includes(key.type)) return 'other';
  const asked: FieldFilter[] = [...filters.where];
  for (const field of ['source', 'destination', 'verdict'] as const)
    if (filters[field] !== null) asked.push({ field, op: 'is', value: filters[field] });
  const met = asked.map((filter) => {
    const texts = rolledTexts(key, filter.field);
    if (texts === undefined) return undefined;
    return texts.includes(foldedText) ? 'folded' : meets(texts, filter);
  });
  // What one condition that is known leaves out need not be known to the others.
  if (met.includes(false)) return 'other';
  const values = by.map((field) => valueOf(key, field));
  if (met.includes(undefined) || values.includes(undefined)) return 'unknown';
  if (met.includes('folded')) return { values: null, isFolded: true };
  return { values: values as readonly Value[], isFolded: values.includes(foldedText) };
}

function valueOf(key: RollupKey, field: string): Value | undefined {
  if (field === 'hour') return hourMs;
  if (field === 'day') return dayMs;
  const texts = rolledTexts(key, field);
  return texts === undefined ? undefined : (texts[0] ?? null);
}

type Window = { readonly since: Date | null; readonly until: Date | null };

/** The parts of a window: whole hours and days from kept counts, the rest of the hours at its ends by a walk. */
export function keptParts(
  { since, until }: Window,
  by: readonly string[],
): readonly (KeptPart | ({ readonly kind: 'walk' } & Window))[] {
  const isByTime = by.includes('hour') || by.includes('day');
  if (since === null && until === null && !isByTime) return [{ kind: 'kept', level: 2, from: 0, to: 1 }];
  const first = since === null ? -farHours : Math.ceil(since.getTime() / hourMs);
  const end = until === null ? farHours : Math.floor(until.getTime() / hourMs);
  if (first > end) return [{ kind: 'walk', since, until }];
  const [begins, ends] = [new Date(first * hourMs), new Date(end * hourMs)];
  return [
    ...(since !== null && since < begins ? [{ kind: 'walk', since, until: begins } as const] : []),
    ...wholeHours(first, end, by.includes('hour')),
    ...(until !== null && ends < until ? [{ kind: 'walk', since: ends, until } as const] : []),
  ];
}

function wholeHours(first: number, end: number, isByHour: boolean): readonly KeptPart[] {
  const firstDay = Math.ceil(first / 24) * 24;
  const endDay = Math.floor(end / 24) * 24;
  const parts: readonly KeptPart[] =
    isByHour || firstDay >= endDay
      ? [{ kind: 'kept', level: 0, from: first, to: end }]
      : [
          { kind: 'kept', level: 0, from: first, to: firstDay },
          { kind: 'kept', level: 1, from: firstDay, to: endDay },
          { kind: 'kept', level: 0, from: endDay, to: end },
        ];
  return parts.filter(({ from, to }) => from < to);
}

/**
 * Adds the counts of a part, some spans at a time.
 * @param at the span to begin with; null: the first
 * @returns the span to go on with, or null at the end
 */
export function addKept(
  db: Database,
  {
    keys,
    part,
    at,
    budget,
  }: {
    readonly keys: KeptKeys;
    readonly part: KeptPart;
    readonly at: number | null;
    readonly budget: WalkBudget;
  },
  tally: Tally,
): number | null {
  const started = performance.now();
  const { level } = part;
  if (level === 2) return addTotals(db, keys, at ?? 0, budget, tally);
  const [first, last] = readKeptEnds(db, level, Math.max(part.from, at ?? part.from), part.to);
  if (first === null || last === null) return null;
  const isByTime = [...keys.values()].some(
    ({ values }) => values?.some((value) => typeof value === 'number') === true,
  );
  const statement = db.prepare<unknown[], KeptRow>(keptSql(isByTime)).raw();
  // How many rows a span has depends on the mesh: a day of one is a month of another.
  let spans = isByTime ? 4 : 8;
  for (let from = first; from <= last;) {
    const begun = performance.now();
    if (from > first && begun - started > budget.ms) return from;
    const end = from + spans * (level === 1 ? 24 : 1);
    addRows(statement.iterate(level, from, Math.min(last + 1, end)), keys, tally);
    if (performance.now() - begun < quickMs) spans *= 2;
    from = end;
  }
  return null;
}

/** The first and the last span that has counts, from `from` up to, not with, `to`. */
export function readKeptEnds(
  db: Database,
  level: number,
  from: number,
  to: number,
): readonly [number, number] | readonly [null, null] {
  const which = 'FROM audit_rollup WHERE level = :level AND start >= :from AND start < :to';
  // Two seeks: asked for together, SQLite looks at all between the two.
  const ends = db
    .prepare<[object], readonly [number, number] | readonly [null, null]>(
      `SELECT (SELECT min(start) ${which}), (SELECT max(start) ${which})`,
    )
    .raw()
    .get({ level, from, to });
  return ends ?? [null, null];
}

/** The counts of all of the log, some keys at a time. @returns the key to go on with, or null at the end */
function addTotals(
  db: Database,
  keys: KeptKeys,
  at: number,
  budget: WalkBudget,
  tally: Tally,
): number | null {
  const started = performance.now();
  const last = Number(db.prepare('SELECT coalesce(max(id), -1) FROM audit_rollup_keys').pluck().get());
  const statement = db.prepare<unknown[], KeptRow>(totalsSql).raw();
  for (let from = at; from <= last; from += keysOfChunk) {
    if (from > at && performance.now() - started > budget.ms) return from;
    addRows(statement.iterate(from, from + keysOfChunk), keys, tally);
  }
  return null;
}

function addRows(rows: Iterable<KeptRow>, keys: KeptKeys, tally: Tally): void {
  // Many keys have the same values, and those are one list: it is enough to tell lists apart, in each span.
  let span: number | undefined;
  const items = new Map<KeptAnswer, { -readonly [K in keyof TallyItem]: TallyItem[K] }>();
  const flush = (): void => {
    for (const item of items.values()) tally.add(item);
    items.clear();
  };
  for (const [start, key, count, records, firstIndex, lastIndex, firstMs, lastMs] of rows) {
    const answer = keys.get(key);
    if (answer === undefined) continue;
    if (span !== start) flush();
    span = start;
    const { values } = answer;
    if (answer.isFolded) tally.fold({ count, records });
    if (values === null) continue;
    const item = items.get(answer);
    if (item === undefined) {
      const said = values.map((value) =>
        typeof value === 'number' ? spanStart(start * hourMs, value) : value,
      );
      items.set(answer, { values: said, count, records, firstIndex, lastIndex, firstMs, lastMs });
      continue;
    }
    item.count += count;
    item.records += records;
    item.firstIndex = Math.min(item.firstIndex, firstIndex);
    item.lastIndex = Math.max(item.lastIndex, lastIndex);
    item.firstMs = Math.min(item.firstMs, firstMs);
    item.lastMs = Math.max(item.lastMs, lastMs);
  }
  flush();
}

type KeptRow = readonly [
  start: number,
  key: number,
  count: number,
  records: number,
  firstIndex: number,
  lastIndex: number,
  firstMs: number,
  lastMs: number,
];

/** The statement that adds kept counts up; spans of time are kept apart when they are asked for. */
export function keptSql(isByTime: boolean): string {
  return `SELECT ${isByTime ? 'start' : '0'}, key, sum(count), sum(records), min(first_idx), max(last_idx), min(first_ms), max(last_ms)
          FROM audit_rollup WHERE level = ? AND start >= ? AND start < ? GROUP BY ${isByTime ? 'start, ' : ''}key`;
}

const totalsSql = `SELECT 0, key, count, records, first_idx, last_idx, first_ms, last_ms
  FROM audit_rollup WHERE level = 2 AND start = 0 AND key >= ? AND key < ?`;
const keysOfChunk = 4_096;
const maxRemembered = 4;
// Whoever asked does not come again.
const idleMs = 60_000;
const keysOfLook = 1_024;
/** A multiple of a day, beyond any time that an event may have. */
export const farHours = 240_000_000;
// Then as much again is read at once, and as much more.
const quickMs = 16;
