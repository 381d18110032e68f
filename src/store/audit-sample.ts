import type { AuditEventType } from '../audit/event.ts';
import { textsAt } from '../audit/filter.ts';
import {
  createSample,
  type SampleKind,
  type SampleMark,
  type SampleQuery,
  sampleRank,
  type SampleStep,
} from '../audit/sample.ts';
import { factNumber, maxFactLength } from './audit-derived.ts';
import { readAuditSize } from './audit-log.ts';
import type { AuditFilters, IndexRange } from './audit-plan.ts';
import { readRows } from './audit-query.ts';
import { type WalkBudget, walkLog } from './audit-walk.ts';
import { narrowed } from './audit-window.ts';
import type { Database } from './database.ts';

/** What a step looks at. The rest of it takes about as long again. */
const sampleBudget: WalkBudget = { ms: 20, events: 8_192 };

/**
 * Goes through a population, as far as a step comes, and draws from what it found. What is in it the index of types says,
 * what each record did the facts: only a few leaves are read.
 */
export function readSampleStep(
  db: Database,
  query: SampleQuery,
  budget: WalkBudget = sampleBudget,
): SampleStep {
  return db.transaction(() => {
    const { seed, size: most, bar, below, marks, maxMarked } = query;
    const size = readAuditSize(db);
    const filters = filtersOf(query);
    const range = narrowed(db, filters, { first: 0, last: Math.min(below ?? size, size) - 1 });
    const found = new Map<number, AuditEventType>();
    const end = walkLog(db, filters, range, { order: 'newest', budget, fields: ['type'] }, (record) => {
      found.set(record.idx, record.columns.type);
      return true;
    });
    const looked = { first: end.reached ?? range.first, last: range.last };
    const events = eventReader(db);
    const actions = readActions(db, found, looked, events);
    const drawing = createSample<{ readonly index: number }>(seed, most);
    for (const index of found.keys()) drawing.take({ index });
    const drawn = drawing.drawn().map(({ index }) => index);
    const marked = maxMarked <= 0 ? [] : readMarked(db, { found, actions, looked, marks, events });
    return {
      size,
      kinds: kindsOf(found, actions),
      drawn: readRows(
        db,
        drawn.filter((index) => bar === null || sampleRank(seed, index) < bar),
        Infinity,
      ),
      marked: readRows(db, marked.slice(0, Math.max(0, maxMarked)), Infinity),
      next: end.reached,
    };
  })();
}

function filtersOf({ types, action, since, until }: SampleQuery): AuditFilters {
  const where = action === null ? [] : [{ field: 'action', op: 'is', value: action } as const];
  return {
    types,
    since,
    until,
    where,
    source: null,
    destination: null,
    verdict: null,
    serial: null,
    text: null,
  };
}

function kindsOf(
  found: ReadonlyMap<number, AuditEventType>,
  actions: ReadonlyMap<number, string>,
): readonly SampleKind[] {
  const kinds = new Map<string, { -readonly [K in keyof SampleKind]: SampleKind[K] }>();
  for (const [index, type] of found) {
    const action = actions.get(index) ?? '';
    const key = `${type} ${action}`;
    const kind = kinds.get(key);
    if (kind === undefined) {
      kinds.set(key, { type, action, records: 1, firstIndex: index, lastIndex: index });
      continue;
    }
    kind.records++;
    kind.firstIndex = Math.min(kind.firstIndex, index);
    kind.lastIndex = Math.max(kind.lastIndex, index);
  }
  return [...kinds.values()];
}

/** The action of each record. A record without a fact of it is read. */
function readActions(
  db: Database,
  found: ReadonlyMap<number, AuditEventType>,
  { first, last }: IndexRange,
  events: (index: number) => unknown,
): ReadonlyMap<number, string> {
  const actions = new Map<number, string>();
  const selectFacts = db
    .prepare<[number, string, number, number], number>(
      'SELECT idx FROM audit_facts WHERE field = ? AND value = ? AND idx BETWEEN ? AND ?',
    )
    .pluck();
  for (const action of actionsCounted(db, new Set(found.values()))) {
    // A fact about a longer value is of its beginning.
    if (action === '' || action.length >= maxFactLength) continue;
    for (const index of selectFacts.iterate(factNumber('action') ?? -1, action, first, last))
      if (found.has(index)) actions.set(index, action);
  }
  for (const index of found.keys())
    if (!actions.has(index)) actions.set(index, textsAt(events(index), 'action')[0] ?? '');
  return actions;
}

/** The actions by which records of these types were ever counted: some may be gone, and another type may have them too. */
function actionsCounted(db: Database, types: Iterable<AuditEventType>): ReadonlySet<string> {
  const selectNext = db
    .prepare<[string, string], string | null>(
      'SELECT min(outcome) FROM audit_rollup_keys WHERE type = ? AND outcome > ?',
    )
    .pluck();
  const actions = new Set<string>();
  for (const type of types) {
    for (
      let action = selectNext.get(type, '');
      typeof action === 'string';
      action = selectNext.get(type, action)
    )
      actions.add(action);
  }
  return actions;
}

/** The records that meet one of the marks, the newest first. */
function readMarked(
  db: Database,
  step: {
    readonly found: ReadonlyMap<number, AuditEventType>;
    readonly actions: ReadonlyMap<number, string>;
    readonly looked: IndexRange;
    readonly marks: readonly SampleMark[];
    readonly events: (index: number) => unknown;
  },
): readonly number[] {
  const { found, actions, looked, marks, events } = step;
  const marked = new Set<number>();
  for (const { types, field, is } of marks) {
    const having = is === 'present' ? readHaving(db, field, looked) : undefined;
    for (const [index, type] of found) {
      if (!types.includes(type) || marked.has(index)) continue;
      const isMet =
        having !== undefined
          ? having.has(index)
          : meetsMark(field === 'action' ? [actions.get(index) ?? ''] : textsAt(events(index), field), is);
      if (isMet) marked.add(index);
    }
  }
  return [...marked].sort((a, b) => b - a);
}

function meetsMark(texts: readonly string[], is: SampleMark['is']): boolean {
  if (is === 'present') return texts.some((text) => text !== '');
  if ('text' in is) return texts.includes(is.text);
  return texts.some((text) => Number.isSafeInteger(Number(text)) && Number(text) > is.above);
}

/** Where a field has any value; undefined when no facts are kept of it, or so many that the leaves tell it sooner. */
function readHaving(
  db: Database,
  field: string,
  { first, last }: IndexRange,
): ReadonlySet<number> | undefined {
  const number = factNumber(field);
  if (number === undefined) return undefined;
  const facts = db
    .prepare<[number, number], number>('SELECT idx FROM audit_facts WHERE field = ? LIMIT ?')
    .pluck()
    .all(number, maxFactsRead + 1);
  if (facts.length > maxFactsRead) return undefined;
  return new Set(facts.filter((index) => index >= first && index <= last));
}

function eventReader(db: Database): (index: number) => unknown {
  const select = db.prepare<[number], Uint8Array>('SELECT leaf FROM audit_leaves WHERE idx = ?').pluck();
  return (index) => {
    const leaf = select.get(index);
    return leaf === undefined ? {} : JSON.parse(decoder.decode(leaf));
  };
}

const decoder = new TextDecoder();
const maxFactsRead = 10_000;
