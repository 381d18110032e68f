import { callTypes } from '../audit/columns.ts';
import type { AuditEventType } from '../audit/event.ts';
import { typesWith } from '../audit/asked-fields.ts';
import type { AuditQuery } from '../audit/query.ts';
import { auditEventTypes } from '../audit/question.ts';
import { factNumber, factValue } from './audit-derived.ts';
import type { Database } from './database.ts';

/** What a walk is planned by. */
export type AuditFilters = Omit<AuditQuery, 'limit' | 'order' | 'cursor'>;

/** Indexes that can hold an answer: from `first` to `last`, both included. */
export type IndexRange = { readonly first: number; readonly last: number };

/** A walk along an index of the database in the order of the log, from end to end of a range. */
export type Walk = {
  /** `FROM` and `WHERE`, up to a range of `idx`, which is called `l.idx`. */
  readonly from: string;
  readonly values: readonly (string | number)[];
  /** The column that the walk is ordered by. */
  readonly idx: string;
  /** The types of events that it is to find; others are passed by. */
  readonly types: ReadonlySet<AuditEventType>;
  /** Whether it meets no event of other types. */
  readonly isPure: boolean;
  /** Walked through in windows of so many leaves, because much may lie between two that it finds. */
  readonly window: number | undefined;
};

/**
 * The walks that find all events that can answer a question, each event in one of them. INDEXED BY makes SQLite refuse,
 * rather than scan, should an index not serve.
 * @param db for asking which of several indexes leaves the fewest events
 */
export function planWalks(db: Database, filters: AuditFilters, range: IndexRange): readonly Walk[] {
  const types = typesAsked(filters);
  const calls = types.filter((type) => callTypes.has(type));
  const others = types.filter((type) => !callTypes.has(type));
  if (types.length === auditEventTypes.length && isUnfiltered(filters)) return [wholeLog(types)];
  return [
    ...(calls.length === 0 ? [] : planCalls(db, filters, calls, range)),
    ...(others.length === 0 ? [] : planOthers(db, filters, others, range)),
  ];
}

/** The types of events that can answer: a record that does not have a field meets no condition on it. */
export function typesAsked({ types, where, destination, verdict }: AuditFilters): readonly AuditEventType[] {
  const fields = [
    ...where.map(({ field }) => field),
    ...(destination === null ? [] : ['destination']),
    ...(verdict === null ? [] : ['verdict']),
  ];
  const having = fields.map((field) => new Set(typesWith(field)));
  const asked = types.length === 0 ? auditEventTypes : types;
  return asked.filter((type) => having.every((set) => set.has(type)));
}

type Lead = Omit<Walk, 'types'> & {
  /** What it is counted by, when that takes less than `from`. */
  readonly counted?: string;
  /** Tells by an index alone whether it meets the event of an index. Its values are `values`. */
  readonly meets?: (idx: string) => string;
};

function planCalls(
  db: Database,
  filters: AuditFilters,
  types: readonly AuditEventType[],
  range: IndexRange,
): readonly Walk[] {
  const { serial, source, destination, verdict } = equalities(filters);
  const decisionId = valueOf(filters, 'decisionId');
  const denied = verdict === 'deny';
  const leads: Lead[] = [];
  if (decisionId !== undefined) leads.push(decisions(decisionId, range));
  if (serial !== undefined) leads.push(column('audit_by_serial', 'serial', serial));
  if (source !== undefined)
    leads.push(
      column(
        denied ? 'audit_denials_by_source' : 'audit_by_source',
        'source',
        source,
        denied ? andDenied : '',
      ),
    );
  if (destination !== undefined)
    leads.push(
      denied
        ? column('audit_denials_by_destination', 'destination', destination, andDenied)
        : column('audit_by_destination', 'destination', destination),
    );
  if (leads.length === 0 && denied)
    leads.push({ ...fixed, from: "audit_leaves l INDEXED BY audit_denials WHERE l.verdict = 'deny'" });
  const lead = leanest(db, leads, range);
  return lead === undefined ? types.map(typeWalk) : [{ ...lead, types: new Set(types) }];
}

function planOthers(
  db: Database,
  filters: AuditFilters,
  types: readonly AuditEventType[],
  range: IndexRange,
): readonly Walk[] {
  const { serial, source, destination } = equalities(filters);
  const leads: Lead[] = [];
  if (serial !== undefined) leads.push(column('audit_by_serial', 'serial', serial));
  const jwtId = valueOf(filters, 'jwtId');
  if (jwtId !== undefined) leads.push(column('audit_by_serial', 'serial', jwtId));
  if (source !== undefined) leads.push(fact('source', source));
  if (destination !== undefined) leads.push(column('audit_by_destination', 'destination', destination));
  for (const { field, op, value } of filters.where) {
    // What is empty is no fact.
    if (op === 'is' && value !== '' && field !== 'source' && factNumber(field) !== undefined)
      leads.push(fact(field, value));
  }
  if (filters.text !== null) leads.push(words(filters.text));
  const [only] = types;
  // Of what there is little: one entry may have a hundred thousand issuances and two changes.
  if (leads.length > 0 && types.length === 1 && only !== undefined) leads.push(typeWalk(only));
  const lead = leanest(db, leads, range);
  return lead === undefined ? types.map(typeWalk) : [{ ...lead, types: new Set(types) }];
}

/**
 * Of several, the one that meets the fewest events, counted up to a limit; those that reach it, up to a higher one. What
 * the others do not meet is passed by, as far as an index tells.
 */
function leanest(db: Database, leads: readonly Lead[], range: IndexRange): Lead | undefined {
  const lead = fewest(db, leads, range);
  if (lead === undefined) return undefined;
  const others = leads.filter((other) => other !== lead && other.meets !== undefined);
  const conditions = others.map(({ meets }) => ` AND EXISTS (${meets?.(lead.idx) ?? ''})`);
  return {
    ...lead,
    from: `${lead.from}${conditions.join('')}`,
    values: [...lead.values, ...others.flatMap(({ values }) => values)],
  };
}

function fewest(db: Database, leads: readonly Lead[], range: IndexRange): Lead | undefined {
  let left = leads;
  for (const most of counted) {
    if (left.length < 2) return left[0];
    let best: { readonly lead: Lead; readonly count: number } | undefined;
    const many: Lead[] = [];
    for (const lead of left) {
      // INVARIANT: a step plans anew, so a count costs little: words that no record holds as a phrase are not looked for in all.
      const first = Math.max(range.first, range.last + 1 - (lead.window ?? Infinity));
      const from = lead.counted ?? lead.from;
      const sql = `SELECT count(*) FROM (SELECT 1 FROM ${from} AND ${lead.idx} BETWEEN ? AND ? LIMIT ?)`;
      const count = Number(
        db
          .prepare(sql)
          .pluck()
          .get(...lead.values, first, range.last, best?.count ?? most),
      );
      if (count === most) many.push(lead);
      if (best === undefined || count < best.count) best = { lead, count };
      if (count === 0) break;
    }
    if (best !== undefined && best.count < most) return best.lead;
    left = many;
  }
  return left[0];
}

/** The conditions on columns, whichever way they were given. */
function equalities(filters: AuditFilters) {
  return {
    serial: filters.serial ?? valueOf(filters, 'serial') ?? valueOf(filters, 'sourceSerial'),
    source: filters.source ?? valueOf(filters, 'source') ?? valueOf(filters, 'spiffeId'),
    destination: filters.destination ?? valueOf(filters, 'destination'),
    verdict: filters.verdict ?? valueOf(filters, 'verdict'),
  };
}

// What is empty in a leaf is null in a column.
function valueOf({ where }: AuditFilters, name: string): string | undefined {
  return where.find(({ field, op, value }) => field === name && op === 'is' && value !== '')?.value;
}

function isUnfiltered({ source, destination, verdict, serial, where, text }: AuditFilters): boolean {
  return (
    [source, destination, verdict, serial, text].every((filter) => filter === null) && where.length === 0
  );
}

function wholeLog(types: readonly AuditEventType[]): Walk {
  return { ...fixed, from: 'audit_leaves l NOT INDEXED WHERE true', isPure: true, types: new Set(types) };
}

function typeWalk(type: AuditEventType): Walk & Lead {
  return {
    ...fixed,
    from: 'audit_leaves l INDEXED BY audit_by_type WHERE l.type = ?',
    values: [type],
    isPure: true,
    types: new Set([type]),
    meets: (idx) =>
      `SELECT 1 FROM audit_leaves o INDEXED BY audit_by_type WHERE o.type = ? AND o.idx = ${idx}`,
  };
}

function column(index: string, name: string, value: string, and = ''): Lead {
  const among = (table: string): string =>
    `audit_leaves ${table} INDEXED BY ${index} WHERE ${table}.${name} = ?${and.replaceAll('l.', `${table}.`)}`;
  return {
    ...fixed,
    from: among('l'),
    values: [value],
    meets: (idx) => `SELECT 1 FROM ${among('o')} AND o.idx = ${idx}`,
  };
}

function fact(field: string, value: string): Lead {
  return {
    ...fixed,
    from: 'audit_facts f CROSS JOIN audit_leaves l ON l.idx = f.idx WHERE f.field = ? AND f.value = ?',
    values: [factNumber(field) ?? -1, factValue(value)],
    idx: 'f.idx',
    counted: 'audit_facts f WHERE f.field = ? AND f.value = ?',
    meets: (idx) => `SELECT 1 FROM audit_facts o WHERE o.field = ? AND o.value = ? AND o.idx = ${idx}`,
  };
}

function words(text: string): Lead {
  return {
    ...fixed,
    from: 'audit_words CROSS JOIN audit_leaves l ON l.idx = audit_words.rowid WHERE audit_words MATCH ?',
    values: [`"${text}"`],
    idx: 'audit_words.rowid',
    // A phrase of words that many records hold, and few one after the other.
    window: 65_536,
  };
}

/** One seek in each span of the range: see migration 12. */
function decisions(id: string, { first, last }: IndexRange): Lead {
  return {
    ...fixed,
    from: `(WITH RECURSIVE spans (span) AS (
              VALUES (?) UNION ALL SELECT span + 1 FROM spans WHERE span < ?
            ) SELECT span FROM spans) s
           CROSS JOIN decision_ids d ON d.span = s.span AND d.id = ?
           CROSS JOIN audit_leaves l ON l.idx = d.idx WHERE true`,
    values: [Math.floor(first / 8_192), Math.floor(last / 8_192), id],
    idx: 'd.idx',
  };
}

const fixed = { values: [], idx: 'l.idx', isPure: false, window: undefined } as const;
// Literals: SQLite takes the partial indexes of denials for no parameter.
const andDenied = " AND l.verdict = 'deny'";
const counted = [2_000, 50_000] as const;
