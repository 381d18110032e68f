import type { AuditQuery } from '../audit/query.ts';
import { blockBits } from './audit-log.ts';
import type { IndexRange } from './audit-plan.ts';
import type { Database } from './database.ts';

type Window = Pick<AuditQuery, 'since' | 'until'>;

/** The part of a range that can hold events of a window of time. */
export function narrowed(db: Database, { since, until }: Window, { first, last }: IndexRange): IndexRange {
  if (since === null && until === null) return { first, last };
  const blocks = db
    .prepare<[number, number], { first: number | null; last: number | null }>(
      'SELECT min(block) AS first, max(block) AS last FROM audit_blocks WHERE max_ms >= ? AND min_ms < ?',
    )
    .get(since?.getTime() ?? -longTimeMs, until?.getTime() ?? longTimeMs);
  if (blocks === undefined || blocks.first === null || blocks.last === null) return { first: 0, last: -1 };
  const width = 2 ** blockBits;
  return {
    first: Math.max(first, blocks.first * width),
    last: Math.min(last, (blocks.last + 1) * width - 1),
  };
}

/** Whether all events of a range are in a window of time, so that none has to be looked at for that. */
export function isWithin(db: Database, { since, until }: Window, { first, last }: IndexRange): boolean {
  if (since === null && until === null) return true;
  const width = 2 ** blockBits;
  const bounds = db
    .prepare<[number, number], { first: number | null; last: number | null }>(
      'SELECT min(min_ms) AS first, max(max_ms) AS last FROM audit_blocks WHERE block BETWEEN ? AND ?',
    )
    .get(Math.floor(first / width), Math.floor(last / width));
  if (bounds === undefined || bounds.first === null || bounds.last === null) return false;
  return (
    (since === null || bounds.first >= since.getTime()) && (until === null || bounds.last < until.getTime())
  );
}

// Beyond any time JavaScript knows.
const longTimeMs = 8_640_000_000_000_001;
