import { z } from 'zod';
import { maxPageSize } from '../audit/query.ts';
import { MeshError } from '../errors.ts';

/** One page of a list, and the cursor of the next one: null at the end. */
export type Page<T> = { readonly items: readonly T[]; readonly next: string | null };

/** Rows of a page when the caller names no number. */
export const defaultPageSize = 100;

/** The query of every list route, as it stands in a URL. */
export const pageQuery = z.strictObject({
  limit: z
    .string()
    .regex(/^[1-9][0-9]{0,3}$/, 'a whole number from 1 to 1000')
    .transform(Number)
    .refine((limit) => limit <= maxPageSize, 'a whole number from 1 to 1000')
    .optional(),
  cursor: z.string().max(1_024).optional(),
});

/**
 * Cuts a page out of keyed values, in the order of their keys. The cursor is the last key of the page before, so a
 * value that comes or goes between two pages neither repeats nor hides another.
 * @param values never changed after the first call: the order of its keys is remembered
 * @throws MeshError `query_invalid` for a cursor that is none of ours
 */
export function pageOf<T>(values: ReadonlyMap<string, T>, query: z.output<typeof pageQuery>): Page<T> {
  const limit = query.limit ?? defaultPageSize;
  const after = query.cursor === undefined ? undefined : decodeCursor(query.cursor);
  const keys = sortedKeys(values);
  const from = after === undefined ? 0 : firstAbove(keys, after);
  const shown = keys.slice(from, from + limit);
  const last = shown.at(-1);
  return {
    items: shown.map((key) => values.get(key) as T),
    next: last === undefined || from + limit >= keys.length ? null : encodeCursor(last),
  };
}

// A revision of the mesh never changes, and sorting a hundred thousand keys for each page would hold up everything else.
const sortedOf = new WeakMap<object, readonly string[]>();

function sortedKeys(values: ReadonlyMap<string, unknown>): readonly string[] {
  const known = sortedOf.get(values);
  if (known !== undefined) return known;
  const sorted = [...values.keys()].sort();
  sortedOf.set(values, sorted);
  return sorted;
}

function firstAbove(keys: readonly string[], key: string): number {
  let low = 0;
  let high = keys.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((keys[middle] as string) <= key) low = middle + 1;
    else high = middle;
  }
  return low;
}

function encodeCursor(key: string): string {
  return Buffer.from(key, 'utf8').toString('base64url');
}

function decodeCursor(cursor: string): string {
  const key = Buffer.from(cursor, 'base64url').toString('utf8');
  if (encodeCursor(key) !== cursor) {
    throw new MeshError('query_invalid', 'the cursor is not one of a page before', {
      fix: 'pass the "next" of a page on unchanged, or leave cursor out',
    });
  }
  return key;
}
