import { MeshError } from '../errors.ts';
import { type CountQuery, maxCountFields } from './count.ts';
import { parseCountCursor } from './count-cursor.ts';
import { type AuditQueryFields, parseAuditQuery } from './question.ts';
import { parseCountField } from './where.ts';

/** A question for counts as it arrives from a URL or a command line. */
export type CountQueryFields = Omit<AuditQueryFields, 'limit' | 'order'> & {
  /** Names of fields; one text may name several, separated by commas. */
  readonly by?: readonly string[] | undefined;
};

/**
 * Parses a question for counts. With a cursor, `since` and `until` keep the values they had at first.
 * @param now what relative times count back from
 * @throws MeshError `audit_query_invalid` naming the field, `audit_cursor_invalid`
 */
export function parseCountQuery(fields: CountQueryFields, now: Date): CountQuery {
  const { by = [], cursor, since, until, ...filters } = fields;
  const names = by.flatMap((text) => text.split(',', maxCountFields + 1)).map((name) => name.trim());
  if (names.length > maxCountFields) {
    throw new MeshError('audit_query_invalid', 'by: names too many fields', {
      fix: `name at most ${maxCountFields}`,
    });
  }
  const going = cursor === undefined ? null : parseCountCursor(cursor);
  const parsed = parseAuditQuery(going === null ? { ...filters, since, until } : filters, now);
  const { limit: _limit, order: _order, cursor: _cursor, ...kept } = parsed;
  return {
    filters: going === null ? kept : { ...kept, since: going.since, until: going.until },
    by: [...new Set(names.map(parseCountField))],
    cursor: cursor ?? null,
  };
}
