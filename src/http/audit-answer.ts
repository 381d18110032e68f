import { type CountPage, sortCounts } from '../audit/count.ts';
import type { AuditCoverage } from '../audit/coverage.ts';
import type { AuditEventType } from '../audit/event.ts';
import type { AuditPage, AuditRow } from '../audit/query.ts';

/**
 * A page as JSON. The text of each `event` is the leaf, byte for byte: what `leafHash` was computed over stands in the
 * answer itself.
 * @param notSearched types that were left out
 */
export function formatAuditPage(page: AuditPage, notSearched: readonly AuditEventType[]): string {
  const items = page.rows.map(formatRow).join(',');
  const { next, size, head, searched } = page;
  const coverage = coverageFor(page.coverage, notSearched);
  const rest = JSON.stringify({ next, size, head, coverage, searched });
  return `{"items":[${items}],${rest.slice(1)}`;
}

/** Counts as JSON, the greatest first. */
export function formatCounts(
  by: readonly string[],
  page: CountPage,
  notSearched: readonly AuditEventType[],
): string {
  const { next, beyond, head, searched } = page;
  const items = sortCounts(page.groups).map(({ values, ...group }) => ({
    values: Object.fromEntries(by.map((name, at) => [name, values[at] ?? null])),
    ...group,
  }));
  const complete = next === null && beyond.records === 0 && page.coverage.folded.records === 0;
  const coverage = coverageFor(page.coverage, notSearched);
  return JSON.stringify({ by, items, complete, beyond, next, head, coverage, searched });
}

/** How many calls there were is nothing for those who may not see calls. */
function coverageFor(coverage: AuditCoverage, notSearched: readonly AuditEventType[]): AuditCoverage {
  return notSearched.length === 0 ? coverage : { ...coverage, proxies: null, notSearched };
}

function formatRow({ index, leafHash, leaf, personal, shredded }: AuditRow): string {
  const gone = shredded.length === 0 ? '' : `"shredded":${JSON.stringify(shredded)},`;
  return `{"index":${index},"leafHash":"${leafHash}","personal":${JSON.stringify(personal)},${gone}"event":${leaf}}`;
}
