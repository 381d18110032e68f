import type { AuditCoverage } from './coverage.ts';
import { typesWith } from './asked-fields.ts';
import type { AuditQuery, LogHead, SearchedRange } from './query.ts';

/** The most fields that counts are made by. */
export const maxCountFields = 6;
/** The most groups of one answer. */
export const maxCountGroups = 10_000;

/** How many there are of each kind. The filters are those of {@link AuditQuery}. */
export type CountQuery = {
  readonly filters: Omit<AuditQuery, 'limit' | 'order' | 'cursor'>;
  /**
   * Names of fields (see `isAuditField`), 0 to {@link maxCountFields}; none: one count of all. Types of events that can have
   * none of the fields are left out: see {@link countedFilters}.
   */
  readonly by: readonly string[];
  /** From an answer's `next`. */
  readonly cursor: string | null;
};

/** The filters, without the types of events that can have none of the fields that are counted by. Null: none is left. */
export function countedFilters({ filters, by }: CountQuery): CountQuery['filters'] | null {
  if (by.length === 0) return filters;
  const having = new Set(by.flatMap(typesWith));
  const asked = filters.types.length === 0 ? [...typesWith('type')] : filters.types;
  const types = asked.filter((type) => having.has(type));
  if (types.length === 0) return null;
  return types.length === asked.length ? filters : { ...filters, types };
}

/** Records that agree in the fields asked for. */
export type CountGroup = {
  /** The values of the fields, in their order; null: the records have none. */
  readonly values: readonly (string | null)[];
  /** What the records stand for: calls counted together are as many as they are, refusals too. */
  readonly count: number;
  /** Of leaves. */
  readonly records: number;
  readonly firstIndex: number;
  readonly lastIndex: number;
  /** The earliest and the latest, by the times of the records. */
  readonly first: Date;
  readonly last: Date;
};

/** A part of the answer; the parts of all pages are to be merged, with `mergeCounts`. */
export type CountPage = {
  /** At most {@link maxCountGroups}, in no order. */
  readonly groups: readonly CountGroup[];
  /** Records of groups beyond the most; they are in no group. Zeros: all are. */
  readonly beyond: { readonly count: number; readonly records: number };
  /** Where the search went no further for now; null: all is counted. */
  readonly next: string | null;
  readonly head: LogHead;
  readonly coverage: AuditCoverage;
  /** The leaves that were walked through, null when counts that are kept have answered. */
  readonly searched: SearchedRange | null;
};

/** Adds counts up, group by group. */
export function mergeCounts(pages: readonly (readonly CountGroup[])[]): readonly CountGroup[] {
  const merged = new Map<string, CountGroup>();
  for (const groups of pages) addCounts(merged, groups, Infinity);
  return [...merged.values()];
}

/**
 * Adds counts to those that are there.
 * @param most of groups that there may be
 * @returns what is in the groups that came when there were so many
 */
export function addCounts(
  merged: Map<string, CountGroup>,
  groups: readonly CountGroup[],
  most: number,
): CountPage['beyond'] {
  const beyond = { count: 0, records: 0 };
  for (const group of groups) {
    const key = JSON.stringify(group.values);
    const before = merged.get(key);
    if (before !== undefined) merged.set(key, sum(before, group));
    else if (merged.size < most) merged.set(key, group);
    else {
      beyond.count += group.count;
      beyond.records += group.records;
    }
  }
  return beyond;
}

/** The greatest counts first; what agrees in them, by the values. */
export function sortCounts(groups: readonly CountGroup[]): readonly CountGroup[] {
  const keyed = groups.map((group) => ({ group, key: JSON.stringify(group.values) }));
  keyed.sort((a, b) => b.group.count - a.group.count || (a.key < b.key ? -1 : 1));
  return keyed.map(({ group }) => group);
}

function sum(a: CountGroup, b: CountGroup): CountGroup {
  return {
    values: a.values,
    count: a.count + b.count,
    records: a.records + b.records,
    firstIndex: Math.min(a.firstIndex, b.firstIndex),
    lastIndex: Math.max(a.lastIndex, b.lastIndex),
    first: a.first < b.first ? a.first : b.first,
    last: a.last > b.last ? a.last : b.last,
  };
}
