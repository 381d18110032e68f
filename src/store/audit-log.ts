import { leafHash } from '../audit/leaf.ts';
import type { Database } from './database.ts';
import type { LeafRecord } from './protocol.ts';

/** Leaves share a block of times by 1,024 (see the schema). */
export const blockBits = 10;
/** IDs of decisions share a span by 8,192. */
const spanBits = 13;

/** The log as its one writer sees it. */
export type AuditAppender = {
  /** Appends leaves inside the caller's transaction. @returns the index of the first; the size when there are none */
  readonly append: (leaves: readonly LeafRecord[]) => number;
  /** The size as it was when the caller's savepoint began: forgets what was appended since. */
  readonly rewind: (size: number) => void;
  readonly size: () => number;
};

/** Prepares to append. INVARIANT: one appender to a database, held by the writer thread. */
export function createAppender(db: Database): AuditAppender {
  const insertLeaf = db.prepare(
    `INSERT INTO audit_leaves (idx, leaf, hash, type, time_ms, source, destination, verdict, serial)
     VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)`,
  );
  const insertPersonal = db.prepare(
    'INSERT INTO audit_personal (idx, field, salt, value) VALUES (?, ?, ?, ?)',
  );
  const insertCertificate = db.prepare(
    `INSERT INTO certificates (serial, spiffe_id, entry_id, issuer_key_id, spki_sha256, not_after_ms)
     VALUES (?, ?, ?, ?, ?, ?)`,
  );
  const insertDecision = db.prepare('INSERT INTO decision_ids (span, id, idx) VALUES (?, ?, ?)');
  const extendKey = db.prepare(
    `INSERT INTO jwt_expiries (key_id, last_expiry_ms) VALUES (?, ?)
     ON CONFLICT (key_id) DO UPDATE SET last_expiry_ms = max(last_expiry_ms, excluded.last_expiry_ms)`,
  );
  const widenBlock = db.prepare(
    `INSERT INTO audit_blocks (block, min_ms, max_ms) VALUES (?, ?, ?)
     ON CONFLICT (block) DO UPDATE SET min_ms = min(min_ms, excluded.min_ms), max_ms = max(max_ms, excluded.max_ms)`,
  );
  let size = readAuditSize(db);

  function append(leaves: readonly LeafRecord[]): number {
    const first = size;
    for (const [at, { leaf, personal, columns, certificate, token }] of leaves.entries()) {
      const idx = first + at;
      const { type, timeMs, source, destination, verdict, serial, decisionId } = columns;
      insertLeaf.run(idx, leaf, leafHash(leaf), type, timeMs, source, destination, verdict, serial);
      if (decisionId !== null) insertDecision.run(Math.floor(idx / 2 ** spanBits), decisionId, idx);
      for (const { field, salt, value } of personal) {
        insertPersonal.run(idx, field, Buffer.from(salt, 'hex'), value);
      }
      if (certificate !== null) {
        const { spiffeId, entryId, issuerKeyId, spkiSha256, notAfterMs } = certificate;
        insertCertificate.run(certificate.serial, spiffeId, entryId, issuerKeyId, spkiSha256, notAfterMs);
      }
      if (token !== null) extendKey.run(token.keyId, token.expiresAtMs);
    }
    for (const [block, span] of blockSpans(first, leaves)) widenBlock.run(block, span.minMs, span.maxMs);
    size = first + leaves.length;
    return first;
  }

  return {
    append,
    rewind: (to) => {
      size = to;
    },
    size: () => size,
  };
}

/** The number of leaves in the log. */
export function readAuditSize(db: Database): number {
  return Number(db.prepare('SELECT coalesce(max(idx) + 1, 0) FROM audit_leaves').pluck().get());
}

type Span = { minMs: number; maxMs: number };

function blockSpans(first: number, leaves: readonly LeafRecord[]): ReadonlyMap<number, Span> {
  const spans = new Map<number, Span>();
  for (const [at, { columns }] of leaves.entries()) {
    const block = Math.floor((first + at) / 2 ** blockBits);
    const span = spans.get(block) ?? { minMs: columns.timeMs, maxMs: columns.timeMs };
    span.minMs = Math.min(span.minMs, columns.timeMs);
    span.maxMs = Math.max(span.maxMs, columns.timeMs);
    spans.set(block, span);
  }
  return spans;
}
