import type { AuditRow } from '../audit/query.ts';
import { readRows } from './audit-query.ts';
import type { Database } from './database.ts';

/** The records of an ID, and whether there are more than were asked for. */
export type DecisionRows = { readonly rows: readonly AuditRow[]; readonly more: boolean };

/**
 * The records of decisions with an ID (outcomes have it, too), in the order of the log. An ID cannot be known before it is made, so one that took it
 * from another comes later, unless the node of the other was cut off meanwhile.
 */
export function readDecisions(
  db: Database,
  { id, limit }: { readonly id: string; readonly limit: number },
): DecisionRows {
  const indexes = db
    .prepare<[string, number], number>(
      // One seek to each span that there is, and one in it. The order of the recursion is that of the log.
      `WITH RECURSIVE spans (span) AS (
         SELECT min(span) FROM decision_ids
         UNION ALL
         SELECT (SELECT min(later.span) FROM decision_ids later WHERE later.span > spans.span) FROM spans
         WHERE spans.span IS NOT NULL
       )
       SELECT found.idx FROM spans CROSS JOIN decision_ids found CROSS JOIN audit_leaves leaf
       WHERE found.span = spans.span AND found.id = ? AND leaf.idx = found.idx AND leaf.type = 'decision' LIMIT ?`,
    )
    .pluck()
    .all(id, limit + 1);
  return { rows: readRows(db, indexes.slice(0, limit)), more: indexes.length > limit };
}
