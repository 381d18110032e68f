import { type AuditCoverage, addFolded } from './coverage.ts';
import { addCounts, type CountGroup, type CountPage, type CountQuery, maxCountGroups } from './count.ts';
import type { AuditPage, AuditQuery, AuditRow, SearchedRange } from './query.ts';

/** Answers a question to the log as far as it comes in a step, which is short. */
export type SearchAudit = (query: AuditQuery) => Promise<AuditPage>;
/** The same for counts. */
export type CountAudit = (query: CountQuery) => Promise<CountPage>;

/**
 * Searches step by step until the page is full, the log has been searched or the time is up. Others are answered between
 * two steps. Head and coverage are those of the last step: a log only grows, so they hold for the rows of the first too.
 * The size is that up to which was searched: the newest are looked for below what the first step saw.
 * @param isTimeUp asked after each step
 * @throws what `search` throws
 */
export async function collectPage(
  search: SearchAudit,
  query: AuditQuery,
  isTimeUp: () => boolean,
): Promise<AuditPage> {
  const rows: AuditRow[] = [];
  let searched: SearchedRange | null = null;
  let firstSize: number | undefined;
  let { cursor } = query;
  for (;;) {
    const page = await search({ ...query, cursor, limit: query.limit - rows.length });
    rows.push(...page.rows);
    searched = joined(searched, page.searched);
    firstSize ??= page.size;
    cursor = page.next;
    if (cursor === null || rows.length >= query.limit || isTimeUp())
      return { ...page, size: query.order === 'newest' ? firstSize : page.size, rows, searched };
  }
}

/**
 * Counts step by step until all is counted or the time is up; then `next` goes on, and its answer is to be added with
 * `mergeCounts`.
 * @throws what `count` throws
 */
export async function collectCounts(
  count: CountAudit,
  query: CountQuery,
  isTimeUp: () => boolean,
): Promise<CountPage> {
  const groups = new Map<string, CountGroup>();
  const beyond = { count: 0, records: 0 };
  let folded: AuditCoverage['folded'] = { count: 0, records: 0 };
  let searched: SearchedRange | null = null;
  let { cursor } = query;
  for (;;) {
    const page = await count({ ...query, cursor });
    // INVARIANT: a step costs what it has found, not what all before it have, and the answer has no more than the most.
    const left = addCounts(groups, page.groups, maxCountGroups);
    beyond.count += page.beyond.count + left.count;
    beyond.records += page.beyond.records + left.records;
    folded = addFolded(folded, page.coverage.folded);
    searched = joined(searched, page.searched);
    cursor = page.next;
    if (cursor !== null && !isTimeUp()) continue;
    return {
      ...page,
      groups: [...groups.values()],
      beyond,
      coverage: { ...page.coverage, folded },
      searched,
    };
  }
}

function joined(a: SearchedRange | null, b: SearchedRange | null): SearchedRange | null {
  if (a === null || b === null) return a ?? b;
  return { first: Math.min(a.first, b.first), last: Math.max(a.last, b.last) };
}
