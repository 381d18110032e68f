import type { ProxiesCovered } from '../audit/coverage.ts';
import { hourMs } from '../audit/filter.ts';
import { verdictTypes } from '../audit/columns.ts';
import { farHours, keptParts, type KeptPart, readKeptEnds } from './audit-kept-counts.ts';
import { type AuditFilters, typesAsked } from './audit-plan.ts';
import type { Database } from './database.ts';

/**
 * What proxies have counted in the hours that a question touches, and how much of it they did not tell of: out of the counts
 * that are kept, within the caller's transaction. Null when the question is about no verdicts, and when none has counted.
 */
export function readProxiesCovered(db: Database, question: AuditFilters): ProxiesCovered | null {
  if (!typesAsked(question).some((type) => verdictTypes.has(type))) return null;
  const keysOf = db
    .prepare<[string, string, string | null, string | null], number>(
      `SELECT id FROM audit_rollup_keys
       WHERE type = ? AND outcome = ? AND (? IS NULL OR destination = ?) LIMIT ${maxKeys}`,
    )
    .pluck();
  const sumOf = (type: string, outcome: string): number => {
    const keys = keysOf.all(type, outcome, question.destination, question.destination);
    return keys.length === 0 ? 0 : sumKept(db, keys, wholeHoursOf(db, question));
  };
  const counted = sumOf('proxy_coverage', 'counted');
  if (counted === 0) return null;
  // INVARIANT: apart from the others. Of more services than are looked at, no loss is left out for a count.
  return { counted, missing: Math.min(counted, sumOf('loss', 'proxy_verdict')) };
}

function sumKept(db: Database, keys: readonly number[], parts: readonly KeptPart[]): number {
  const statement = db
    .prepare<[number, number, number, number, number, string], number>(
      `WITH RECURSIVE spans(start) AS (VALUES (?) UNION ALL SELECT start + ? FROM spans WHERE start + ? < ?)
       SELECT coalesce(sum(r.count), 0) FROM spans CROSS JOIN audit_rollup r
       WHERE r.level = ? AND r.start = spans.start AND r.key IN (SELECT value FROM json_each(?))`,
    )
    .pluck();
  return parts.reduce((sum, { level, from, to }) => {
    const step = level === 1 ? 24 : 1;
    return sum + (statement.get(from, step, step, to, level, JSON.stringify(keys)) ?? 0);
  }, 0);
}

/** All hours that a window touches, as far as there are any. */
function wholeHoursOf(db: Database, { since, until }: AuditFilters): readonly KeptPart[] {
  const [first, last] = readKeptEnds(db, 0, -farHours, farHours);
  if (first === null || last === null) return [];
  const isAll = since === null && until === null;
  const from = Math.max(first, since === null ? first : Math.floor(since.getTime() / hourMs));
  const to = Math.min(last + 1, until === null ? last + 1 : Math.ceil(until.getTime() / hourMs));
  if (!isAll && from >= to) return [];
  const window = isAll
    ? { since: null, until: null }
    : { since: new Date(from * hourMs), until: new Date(to * hourMs) };
  return keptParts(window, []).filter((part) => part.kind === 'kept');
}

// One for each service and day of a year would take longer than anybody waits.
const maxKeys = 4_096;
