import type { AuditEventType, LossEvent } from './event.ts';
import type { PrunedClass } from './retention.ts';

/**
 * What an answer can know, and what it cannot: which records were lost, when nobody recorded, and what was not searched.
 * Losses and downtimes are those that touch the window of the question.
 */
export type AuditCoverage = {
  /** As asked; null: from the beginning, up to now. */
  readonly since: Date | null;
  readonly until: Date | null;
  /** Of the first and the last leaf of the log; null in an empty one. */
  readonly begins: Date | null;
  readonly ends: Date | null;
  /** By what was lost and why, at most {@link maxLossGroups}. */
  readonly losses: readonly LossGroup[];
  /** Whether there are losses beyond those counted here. */
  readonly moreLosses: boolean;
  /** The latest first, at most {@link maxDowntimes}. */
  readonly downtimes: readonly Downtime[];
  readonly moreDowntimes: boolean;
  /** Entries whose contents were given up, see `RetentionEvent`: no list and no walk finds them. Counts that are kept have them. */
  readonly pruned: readonly PrunedGroup[];
  /**
   * Of counts: what was counted without the caller, the rule or the destination that is asked of it, as there were too many kinds
   * of calls. Where it is counted by these they are `*`; where they are asked for it is in no group. Zeros: nothing was.
   */
  readonly folded: { readonly count: number; readonly records: number };
  /** Of questions about verdicts: what proxies judged by themselves. Null: of none is anything known. */
  readonly proxies: ProxiesCovered | null;
  /** Types that were left out for want of a permission. */
  readonly notSearched: readonly AuditEventType[];
};

/** Losses that agree in kind and cause. */
export type LossGroup = {
  readonly what: LossEvent['what'];
  readonly cause: string;
  /** Of what was lost. */
  readonly count: number;
  /** Of loss events. */
  readonly records: number;
  readonly from: Date;
  readonly to: Date;
  /** Of the first and the last of those events in the log. */
  readonly firstIndex: number;
  readonly lastIndex: number;
};

/** Entries of a class whose contents are kept no longer, in all spans of the log that touch the window. */
export type PrunedGroup = {
  readonly class: PrunedClass;
  readonly entries: number;
  /** Between which they stand. */
  readonly firstIndex: number;
  readonly lastIndex: number;
  /** The times of those spans. */
  readonly from: Date;
  readonly to: Date;
};

/**
 * Calls that policy in proxies has judged in the hours that a window touches, by the proxies' own counters, and how many of them
 * their access logs did not tell of. See `ProxyCoverageEvent`.
 */
export type ProxiesCovered = { readonly counted: number; readonly missing: number };

/** From the last record before a start of the server to that start. */
export type Downtime = {
  readonly from: Date;
  readonly to: Date;
  /** Whether the server was stopped in order; otherwise what happened last may be missing. */
  readonly clean: boolean;
  /** Of the start. */
  readonly index: number;
};

/** Of two parts of one answer. */
export function addFolded(a: AuditCoverage['folded'], b: AuditCoverage['folded']): AuditCoverage['folded'] {
  return { count: a.count + b.count, records: a.records + b.records };
}

export const maxLossGroups = 64;
export const maxDowntimes = 32;
/** The most loss events that are read for one answer. */
export const maxLossesRead = 1_000;
