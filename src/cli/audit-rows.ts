import { canonicalJson } from '../audit/canonical-json.ts';
import { formatCursor } from '../audit/cursor.ts';
import { leafHash } from '../audit/leaf.ts';
import type { PackRecord } from '../audit/pack-manifest.ts';
import { MeshError } from '../errors.ts';
import type { AuditItem } from './audit-summary.ts';
import type { AdminClient, Query } from './client.ts';

/** A record of the log: its exact text, held against its hash, and what was recorded. */
export type AuditRecord = PackRecord & Pick<AuditItem, 'event' | 'personal'>;

/** Where to go on: behind this index, in the window that the first page was asked for. */
export type RowsFrom = { readonly index: number; readonly since: Date | null; readonly until: Date | null };

/**
 * Reads records in the order of the log, a page at a time.
 * @param query filters of `GET /v1/audit`
 * @throws MeshError `audit_log_invalid` for a record that is not what its hash was made of
 */
export async function* readAuditRows(
  client: AdminClient,
  query: Query,
  after: RowsFrom | null = null,
): AsyncGenerator<readonly AuditRecord[]> {
  let cursor: string | null = after === null ? null : formatCursor({ order: 'oldest', ...after });
  do {
    const page = await client.get<{ items: readonly AuditItem[]; next: string | null }>('/v1/audit', {
      ...query,
      order: 'oldest',
      limit: '1000',
      cursor: cursor ?? undefined,
    });
    yield page.items.map(readRecord);
    cursor = page.next;
  } while (cursor !== null);
}

/** INVARIANT: a leaf is canonical JSON, so its text can be made again from what was parsed; its hash tells if not. */
function readRecord({ index, leafHash: stated, event, personal }: AuditItem): AuditRecord {
  const leaf = canonicalJson(event);
  if (Buffer.from(leafHash(Buffer.from(leaf))).toString('hex') === stated)
    return { index, leafHash: stated, leaf, event, personal };
  throw new MeshError('audit_log_invalid', `entry ${index} is not what its hash was made of`, {
    fix: 'see what countersign audit verify says',
  });
}
