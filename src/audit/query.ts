import type { AuditEventType } from './event.ts';

/** The most rows one page may hold. */
export const maxPageSize = 1_000;

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

export type AuditPage = {
  readonly rows: readonly AuditRow[];
  /** The number of leaves in the log when the page was read. */
  readonly size: number;
  /** Where the next page begins, or null at the end. */
  readonly next: string | null;
};
