import { type CountCursor, formatCountCursor, parseCountCursor } from '../audit/count-cursor.ts';
import { countedFilters, type CountPage, type CountQuery } from '../audit/count.ts';
import { hasField } from '../audit/asked-fields.ts';
import { fieldTexts } from '../audit/filter.ts';
import type { SearchedRange } from '../audit/query.ts';
import { MeshError } from '../errors.ts';
import { createTally, type Tally } from './audit-count-tally.ts';
import { readAuditCoverage, readHead } from './audit-coverage.ts';
import { addKept, keptParts, type KeptPart, readKeptKeys } from './audit-kept-counts.ts';
import { readAuditSize } from './audit-log.ts';
import { type AuditFilters, type IndexRange, typesAsked } from './audit-plan.ts';
import { stepBudget } from './audit-query.ts';
import { narrowed } from './audit-window.ts';
import { type Found, type WalkBudget, walkLog } from './audit-walk.ts';
import type { Database } from './database.ts';

/** A part of the window of a question: answered from kept counts, or by a walk through the leaves of a span of time. */
type Part = KeptPart | { readonly kind: 'walk'; readonly since: Date | null; readonly until: Date | null };

/**
 * Counts, as far as a step of its budget comes: from the counts that are kept by the hour when they have the fields, and
 * through the leaves at the edges of the window; else through the leaves alone. A record is in one part of the window, and
 * a walk goes up the log, so none is counted twice.
 * @throws MeshError `audit_cursor_invalid`
 */
export function readAuditCounts(db: Database, query: CountQuery, budget: WalkBudget = stepBudget): CountPage {
  return db.transaction(() => {
    const started = performance.now();
    const size = readAuditSize(db);
    const { by } = query;
    const filters = countedFilters(query);
    if (filters === null) return nothing(db, query, size);
    const given = query.cursor === null ? null : parseCountCursor(query.cursor);
    const keys = given?.way === 'walk' ? undefined : readKeptKeys(db, { ...query, filters }, budget.ms);
    if (keys === 'unread') {
      const again = given ?? { ...windowOf(filters), way: 'read', part: 0, at: 0 };
      return { ...nothing(db, query, size), next: formatCountCursor(again) };
    }
    const cursor = given?.way === 'read' ? null : given;
    const way = cursor?.way ?? (keys === undefined ? 'walk' : 'kept');
    const parts: readonly Part[] =
      keys === undefined ? [{ kind: 'walk', ...windowOf(filters) }] : keptParts(windowOf(filters), by);
    if (cursor !== null && (cursor.part >= parts.length || (way === 'kept' && keys === undefined)))
      refuseCursor();
    const tally = createTally();
    let searched: SearchedRange | null = null;
    let next: string | null = null;
    for (let part = cursor?.part ?? 0; part < parts.length && next === null; part++) {
      const left = { ...budget, ms: budget.ms - (performance.now() - started) };
      const at = cursor?.part === part ? cursor.at : null;
      const stop = (place: number): void => {
        next = formatCountCursor({ ...windowOf(filters), way, part, at: place });
      };
      const asked = parts[part];
      if (asked === undefined) break;
      // INVARIANT: a step comes further, however long it took to begin with.
      if (left.ms <= 0 && part > (cursor?.part ?? 0)) stop(at ?? firstPlace(asked));
      else if (asked.kind === 'kept') {
        const reached = addKept(db, { keys: keys ?? new Map(), part: asked, at, budget: left }, tally);
        if (reached !== null) stop(reached);
      } else {
        const narrow = { ...filters, since: asked.since, until: asked.until };
        const range = narrowed(db, narrow, { first: Math.max(0, at ?? 0), last: size - 1 });
        const reached = addWalked(db, { filters: narrow, by, range, budget: left }, tally);
        if (range.first <= range.last) searched = { ...range, last: reached ?? range.last };
        if (reached !== null) stop(reached + 1);
      }
    }
    return {
      ...tally.result(),
      next,
      head: readHead(db, size),
      coverage: { ...readAuditCoverage(db, filters), folded: tally.folded() },
      searched,
    };
  })();
}

function nothing(db: Database, { filters }: CountQuery, size: number): CountPage {
  const coverage = readAuditCoverage(db, filters);
  return { ...createTally().result(), next: null, head: readHead(db, size), coverage, searched: null };
}

/** Counts what a walk finds. @returns the last index that was looked at, or null at the end */
function addWalked(
  db: Database,
  {
    filters,
    by,
    range,
    budget,
  }: {
    readonly filters: AuditFilters;
    readonly by: readonly string[];
    readonly range: IndexRange;
    readonly budget: WalkBudget;
  },
  tally: Tally,
): number | null {
  const counted = typesAsked(filters).some((type) => hasField(type, 'count'));
  const fields = [...by, 'hour', ...(counted ? ['count'] : [])];
  const end = walkLog(db, filters, range, { order: 'oldest', budget, fields }, (found) => {
    const { timeMs } = found.columns;
    tally.add({
      values: by.map((field) => valueOf(fieldTexts(found, field))),
      count: counted ? countOf(found) : 1,
      records: 1,
      firstIndex: found.idx,
      lastIndex: found.idx,
      firstMs: timeMs,
      lastMs: timeMs,
    });
    return true;
  });
  return end.reached;
}

function countOf(found: Found): number {
  const [text] = fieldTexts(found, 'count');
  const count = Number(text ?? 1);
  return Number.isSafeInteger(count) && count >= 0 ? count : 1;
}

/** What a field is counted as: several texts are one value. */
export function valueOf(texts: readonly string[]): string | null {
  return texts.length === 0 ? null : texts.join(', ');
}

function windowOf({ since, until }: AuditFilters): Pick<CountCursor, 'since' | 'until'> {
  return { since, until };
}

function firstPlace(part: Part): number {
  return part.kind === 'kept' ? part.from : 0;
}

function refuseCursor(): never {
  throw new MeshError('audit_cursor_invalid', 'the cursor belongs to another question', {
    fix: 'ask the same question as before, or leave the cursor out to begin anew',
  });
}
