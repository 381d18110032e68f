import { signCheckpoint } from '../audit/checkpoint.ts';
import { leafHash } from '../audit/leaf.ts';
import { createMerkleTrail } from '../audit/merkle-trail.ts';
import { hashBytes, type TreeEdge } from '../audit/merkle-tree.ts';
import type { NoteSigner } from '../audit/note.ts';
import { prepareCheckpoint, readCheckpoint } from './audit-checkpoint.ts';
import { openDeriver } from './audit-derived.ts';
import { openTree } from './audit-tree.ts';
import type { Database } from './database.ts';
import type { LeafProof, LeafRecord } from './protocol.ts';

/** Leaves share a block of times by 1,024 (see the schema). */
export const blockBits = 10;
/** IDs of decisions share a span by 8,192. */
const spanBits = 13;

/** The log as its one writer sees it. */
export type AuditAppender = {
  /** Appends leaves inside the caller's transaction. @returns the index of the first; the size when there are none */
  readonly append: (leaves: readonly LeafRecord[]) => number;
  /** Writes what questions are answered from, inside the caller's transaction. */
  readonly derive: () => void;
  /** Signs the log as it is, inside the caller's transaction, unless that has been done. */
  readonly seal: (signer: NoteSigner) => void;
  /** A transaction begins: leaves that are appended from now on can be proven until the next one. */
  readonly begin: () => void;
  /** Proves a leaf of this transaction, which was sealed; null for any other. */
  readonly prove: (index: number) => LeafProof | null;
  /** What to go back to when the caller's savepoint or transaction is rolled back. */
  readonly mark: () => AppenderMark;
  readonly rewind: (mark: AppenderMark) => void;
};

export type AppenderMark = {
  readonly edge: TreeEdge;
  readonly sealed: number | undefined;
  readonly taken: number;
};

/**
 * Prepares to append, to the log and its tree. INVARIANT: one appender to a database, held by the writer thread.
 * @throws MeshError `audit_log_damaged`
 */
export function createAppender(db: Database): AuditAppender {
  const insertOne = prepareInsert(db, 1);
  const insertMany = prepareInsert(db, leavesOfInsert);
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
  const putCheckpoint = prepareCheckpoint(db);
  const trail = createMerkleTrail();
  const tree = openTree(db, readAuditSize(db), trail.add);
  trail.start(tree.edge());
  const deriver = openDeriver(db, tree.size());
  let sealed = readCheckpoint(db)?.size;
  let begun = tree.size();
  let proven:
    { readonly checkpoint: string; readonly pathOf: (index: number) => readonly Uint8Array[] } | undefined;

  function insertLeaves(first: number, leaves: readonly LeafRecord[]): void {
    let values: (string | number | Uint8Array | null)[] = [];
    for (const [at, { leaf, columns }] of leaves.entries()) {
      const hash = leafHash(leaf);
      tree.append(hash);
      const { type, timeMs, source, destination, verdict, serial } = columns;
      values.push(first + at, leaf, hash, type, timeMs, source, destination, verdict, serial);
      if (values.length < leavesOfInsert * columnsOfLeaf) continue;
      insertMany.run(values);
      values = [];
    }
    for (let at = 0; at < values.length; at += columnsOfLeaf)
      insertOne.run(values.slice(at, at + columnsOfLeaf));
  }

  function append(leaves: readonly LeafRecord[]): number {
    const first = tree.size();
    insertLeaves(first, leaves);
    for (const [at, record] of leaves.entries()) {
      const { personal, columns, certificate, token } = record;
      const idx = first + at;
      deriver.take(idx, record);
      const { decisionId } = columns;
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
    return first;
  }

  return {
    append,
    derive: deriver.finish,
    seal: (signer) => {
      const size = tree.size();
      if (size === sealed) return;
      const root = tree.root();
      const checkpoint = signCheckpoint({ size, root }, signer);
      putCheckpoint({ size, root, note: checkpoint });
      sealed = size;
      proven = { checkpoint, pathOf: trail.prover(tree.edge()) };
    },
    begin: () => {
      begun = tree.size();
      proven = undefined;
      trail.start(tree.edge());
    },
    prove: (index) => {
      if (proven === undefined || sealed !== tree.size() || index < begun || index >= sealed) return null;
      // Bytes of their own: a view into a shared pool would take the pool along between threads.
      const hashes = proven.pathOf(index);
      const path = new Uint8Array(hashes.length * hashBytes);
      for (const [at, hash] of hashes.entries()) path.set(hash, at * hashBytes);
      return { path, checkpoint: proven.checkpoint };
    },
    mark: () => ({ edge: tree.edge(), sealed, taken: deriver.taken() }),
    rewind: (mark) => {
      tree.rewind(mark.edge);
      trail.rewind(mark.edge.size);
      ({ sealed } = mark);
      deriver.rewind(mark.taken);
    },
  };
}

/** The number of leaves in the log. */
export function readAuditSize(db: Database): number {
  return Number(db.prepare('SELECT coalesce(max(idx) + 1, 0) FROM audit_leaves').pluck().get());
}

function prepareInsert(db: Database, leaves: number) {
  const row = `(${Array(columnsOfLeaf).fill('?').join(', ')})`;
  return db.prepare(
    `INSERT INTO audit_leaves (idx, leaf, hash, type, time_ms, source, destination, verdict, serial)
     VALUES ${Array(leaves).fill(row).join(', ')}`,
  );
}

const columnsOfLeaf = 9;
// What the triggers need to undo a statement is walked through at its end, all of the request so far: with a statement
// for each leaf that grows with the square of the leaves.
const leavesOfInsert = 64;

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
