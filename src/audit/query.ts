import type { AuditCoverage } from './coverage.ts';
import type { AuditEventType } from './event.ts';
import type { FieldFilter } from './filter.ts';

/** The most rows one page may hold. */
export const maxPageSize = 1_000;
/** The most conditions on fields of one question. */
export const maxFieldFilters = 16;

/** A question to the log. All given filters must hold. */
export type AuditQuery = {
  /** One of these; empty for all. */
  readonly types: readonly AuditEventType[];
  /** From this time on. */
  readonly since: Date | null;
  /** Before this time. */
  readonly until: Date | null;
  /** Caller of a decision, or owner of a certificate. */
  readonly source: string | null;
  readonly destination: string | null;
  readonly verdict: 'allow' | 'deny' | null;
  /** Of a certificate that was issued, made an authority, or presented by a caller; lower-case hex. */
  readonly serial: string | null;
  /** At most {@link maxFieldFilters}. */
  readonly where: readonly FieldFilter[];
  /** Words that a record must hold one after the other; see `wordsOf`. */
  readonly text: string | null;
  /** 1 to 1,000. */
  readonly limit: number;
  /** By index in the log. */
  readonly order: 'newest' | 'oldest';
  /** From a page's `next`. */
  readonly cursor: string | null;
};

/** A stored event: its place, its hash and what was recorded. */
export type AuditRow = {
  readonly index: number;
  /** SHA-256(0x00 || bytes), lower-case hex (RFC 6962 section 2.1). */
  readonly leafHash: string;
  /** The leaf's exact bytes, UTF-8 JSON. */
  readonly leaf: string;
  /** Personal fields that are still held, by field name. */
  readonly personal: Readonly<Record<string, string>>;
  /** The personal fields whose values are kept no longer. */
  readonly shredded: readonly string[];
};

/** What an answer is proven under: the log as it stood when it was read. */
export type LogHead = {
  /** The number of leaves in the log. */
  readonly size: number;
  /** Of the latest checkpoint, lower-case hex; empty while nobody signs the log. */
  readonly root: string;
  /** The signed note, or empty. Its size is `size`. */
  readonly checkpoint: string;
};

export type AuditPage = {
  readonly rows: readonly AuditRow[];
  /** The number of leaves in the log when the page was read. */
  readonly size: number;
  /**
   * Where the page after this one begins; null at the end. A page may have fewer rows than were asked for, even none, and
   * a next one: then the search went no further for now.
   */
  readonly next: string | null;
  readonly head: LogHead;
  readonly coverage: AuditCoverage;
  /** How far the search went. Null: no leaf was looked at. */
  readonly searched: SearchedRange | null;
};

/** Leaves that were looked at, or left out by an index: all from `first` to `last`. */
export type SearchedRange = { readonly first: number; readonly last: number };
