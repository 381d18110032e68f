import { parentPort, workerData } from 'node:worker_threads';
import { createNoteSigner, type NoteSigner } from '../audit/note.ts';
import { MeshError } from '../errors.ts';
import { checkSigned, readCheckpoint } from './audit-checkpoint.ts';
import { readAuditSize } from './audit-log.ts';
import { readAuditCounts } from './audit-count.ts';
import { findOldPersonal, findPersonal } from './audit-personal.ts';
import { proveStoredConsistency, proveStoredEntry, readRemains, readTile } from './audit-proofs.ts';
import { findDueSpan } from './audit-due.ts';
import { readLastPruned } from './audit-pruned.ts';
import { readAuditPage } from './audit-query.ts';
import { readSampleStep } from './audit-sample.ts';
import type { Migration } from './backup.ts';
import {
  type Database,
  backfillWal,
  foldWal,
  isBusy,
  isOutOfRoom,
  openForBackfill,
  openForReading,
  openForWriting,
  storageError,
  touch,
} from './database.ts';
import { proveRoom } from './disk-error.ts';
import { readDecisions } from './decision-table.ts';
import { checkLargeTables, createLaterCheck } from './later-check.ts';
import { readJwtExpiries, readJwtKeys } from './jwt-key-table.ts';
import { readMesh } from './mesh-table.ts';
import { readKeyOwners, readNamed } from './named-certificates.ts';
import { readJoinToken, readJoinTokens, readNodes } from './node-tables.ts';
import {
  describeFailure,
  type Question,
  restoreFailure,
  type CheckStep,
  type Resumption,
  type WorkerCall,
  type WorkerReply,
  type WorkerStart,
  type WriteAnswer,
  type WriteBatch,
  type WriterOpened,
  type WriteRequest,
} from './protocol.ts';
import { readRecordedCalls } from './recorded-calls.ts';
import {
  readKeptRevisions,
  readPast,
  readPoliciesIn,
  readPoliciesOf,
  readPolicyOf,
  readRevision,
  readRevisionAt,
  readRevisions,
} from './revision-table.ts';
import { readAuthorities, readCoverage, readUnexpired } from './rotation-tables.ts';
import { readLatestExpiries, readLatestExpiry, readMeta, readToken, readTokens } from './state-tables.ts';
import { clearSuspicion, isSuspect, noteSuspicion } from './suspicion.ts';
import { proveGrowth, readAllHeld, readForks, readHeld, readWitnessed } from './witness-table.ts';
import { type BatchWriter, createBatchWriter } from './writer.ts';

// A thread of the store: it opens the database, says so as call 0, and answers calls one after the other. All SQL runs
// here; the thread that serves proxies never waits for a disk.
serve(workerData as WorkerStart);

function serve(start: WorkerStart): void {
  let db: Database | undefined;
  let write: BatchWriter | undefined;
  let signer: NoteSigner | undefined;
  let wasRefusedRoom = false;
  let check: (() => CheckStep) | undefined;

  function open(): WriterOpened | null {
    let migration: Migration | null = null;
    let isLeft = false;
    if (start.role === 'reader') {
      db = openForReading(start.dataDir);
      return null;
    }
    if (start.role === 'checkpointer') {
      db = openForBackfill(start.dataDir);
      return null;
    }
    const { dataDir, wholeCheckBytes } = start;
    const onLeft = () => (isLeft = true);
    db = openForWriting(dataDir, new Date(start.nowMs), (made) => (migration = made), {
      wholeCheckBytes,
      onLeft,
    });
    write = createBatchWriter(db, () => signer);
    if (isSuspect(dataDir)) {
      // Entries that do not prove are told of later, as ever.
      for (const piece of checkLargeTables(db)) void piece;
      clearSuspicion(dataDir);
    }
    return { migration, isLeft };
  }

  function handle(message: WorkerCall): unknown {
    if (db === undefined) throw new MeshError('store_unavailable', 'the database is not open');
    const held = db;
    switch (message.kind) {
      case 'write':
        return commit(message.batch);
      case 'read':
        return read(db, message.question);
      case 'sign': {
        const notary = createNoteSigner(message.name, message.key);
        checkSigned(db, notary.verifierKey, readAuditSize(db));
        signer = notary;
        const requests = keyRows(message.newKeyId, notary.verifierKey);
        for (const kept of commit({ requests, nowMs: start.nowMs }))
          if ('failure' in kept) throw restoreFailure(kept.failure);
        return notary.verifierKey;
      }
      case 'resume':
        return resume(db);
      case 'fold':
        if (write === undefined) throw new MeshError('store_unavailable', 'an earlier write failed');
        return writing(() => foldWal(held));
      case 'backfill':
        return writing(() => backfillWal(held, message.above));
      case 'check':
        check ??= createLaterCheck(held);
        return check();
      case 'close':
        db.close();
        return null;
      default:
        return message satisfies never;
    }
  }

  function commit(batch: WriteBatch): readonly WriteAnswer[] {
    const current = write;
    if (current === undefined) throw new MeshError('store_unavailable', 'an earlier write failed');
    return writing(() => current(batch));
  }

  // INVARIANT: after a failure nothing is written through this handle again: the kernel may have dropped pages that it
  // failed to write, and would call the next fsync a success. Pages copied from the WAL are still in there, until a commit
  // begins it anew. A disk without room is another matter: see resume.
  function writing<T>(work: () => T): T {
    try {
      return work();
    } catch (error) {
      if (!isBusy(error)) {
        write = undefined;
        wasRefusedRoom = isOutOfRoom(error);
      }
      throw error;
    }
  }

  // The kernel took nothing and dropped nothing: every fsync so far has succeeded, and SQLite has rolled back. So this
  // very handle may go on. Another one must not: it would read what is left of the refused commit as if it were kept.
  function resume(open: Database): Resumption {
    if (write !== undefined) return 'resumed';
    if (!wasRefusedRoom) return 'never';
    try {
      proveRoom(start.dataDir);
      touch(open);
    } catch (error) {
      if (storageError(error) !== undefined && !isOutOfRoom(error) && !isBusy(error)) wasRefusedRoom = false;
      return 'not_yet';
    }
    write = createBatchWriter(open, () => signer);
    return 'resumed';
  }

  function suspect(error: MeshError): void {
    noteSuspicion(start.dataDir, describeFailure(error).detail);
  }

  answer(0, open);
  parentPort?.on('message', (message: WorkerCall) => {
    answer(message.call, () => handle(message), message.kind, suspect);
    if (message.kind === 'close') parentPort?.close();
  });
}

/** @param suspect told of what makes the database suspect: a damaged page, or a disk that fails */
function answer(
  call: number,
  work: () => unknown,
  kind?: WorkerCall['kind'],
  suspect: (error: MeshError) => void = () => undefined,
): void {
  let reply: WorkerReply;
  try {
    reply = { call, kind: 'done', value: work() };
  } catch (error) {
    const storage = storageError(error);
    // A reader that meets a damaged page has learned something about the database, not about the question.
    const damage = storage ?? (kind === 'check' && isCorrupt(error) ? error : undefined);
    const isWrite = kind === 'write' || kind === 'sign';
    const fatal = call !== 0 && !isBusy(error) && (isWrite || damage !== undefined);
    if (fatal && damage !== undefined && !isOutOfRoom(error)) suspect(damage);
    reply = { call, kind: 'failed', failure: describeFailure(storage ?? error), fatal };
  }
  parentPort?.postMessage(reply, []);
}

function isCorrupt(error: unknown): error is MeshError {
  return error instanceof MeshError && error.code === 'store_corrupt';
}

/** What names the key of the log, for {@link checkSigned}: in the transaction of the first checkpoint. */
function keyRows(newKeyId: string | null, verifierKey: string): readonly WriteRequest[] {
  if (newKeyId === null) return [];
  const rows = [
    ['audit_key', newKeyId],
    ['audit_verifier_key', verifierKey],
  ] as const;
  return rows.map(([key, value]) => ({ change: { kind: 'meta', key, value }, leaves: [] }));
}

function read(db: Database, question: Question): unknown {
  switch (question.kind) {
    case 'mesh':
      return readMesh(db);
    case 'policyRevision':
      return readRevision(db, question.ask);
    case 'policyRevisions':
      return readRevisions(db, question.ask);
    case 'policyPast':
      return readPast(db, question.ask);
    case 'policiesOf':
      return readPoliciesOf(db, question.ask);
    case 'policyOf':
      return readPolicyOf(db, question.ask.number, question.ask.key);
    case 'policiesIn':
      return readPoliciesIn(db, question.ask);
    case 'revisionAt':
      return readRevisionAt(db, question.ask);
    case 'decisions':
      return readDecisions(db, question.ask);
    case 'keptRevisions':
      return readKeptRevisions(db);
    case 'authorities':
      return readAuthorities(db);
    case 'jwtKeys':
      return readJwtKeys(db);
    case 'jwtExpiries':
      return readJwtExpiries(db);
    case 'coverage':
      return readCoverage(db);
    case 'unexpired':
      return readUnexpired(db, question.ask);
    case 'keyOwners':
      return readKeyOwners(db, question.ask);
    case 'named':
      return readNamed(db, question.ask);
    case 'meta':
      return readMeta(db, question.ask);
    case 'tokens':
      return readTokens(db);
    case 'token':
      return readToken(db, question.ask);
    case 'nodes':
      return readNodes(db);
    case 'joinTokens':
      return readJoinTokens(db);
    case 'joinToken':
      return readJoinToken(db, question.ask);
    case 'latestExpiry':
      return readLatestExpiry(db, question.ask.entryId, question.ask.nowMs);
    case 'latestExpiries':
      return readLatestExpiries(db, question.ask.spiffeIds, question.ask.nowMs);
    case 'auditPage':
      return readAuditPage(db, question.ask);
    case 'auditCount':
      return readAuditCounts(db, question.ask);
    case 'auditSample':
      return readSampleStep(db, question.ask);
    case 'recordedCalls':
      return readRecordedCalls(db, question.ask);
    case 'auditSize':
      return readAuditSize(db);
    case 'auditCheckpoint':
      return readCheckpoint(db)?.note ?? null;
    case 'auditTile':
      return readTile(db, question.ask);
    case 'auditProof':
      return proveStoredEntry(db, question.ask.index, question.ask.isWitnessed);
    case 'auditConsistency':
      return proveStoredConsistency(db, question.ask);
    case 'held':
      return readHeld(db, question.ask);
    case 'allHeld':
      return readAllHeld(db);
    case 'forks':
      return readForks(db);
    case 'witnessed':
      return readWitnessed(db);
    case 'growth':
      return proveGrowth(db, question.ask);
    case 'auditRemains':
      return readRemains(db, question.ask);
    case 'dueSpan':
      return findDueSpan(db, question.ask);
    case 'lastPruned':
      return readLastPruned(db);
    case 'oldPersonal':
      return findOldPersonal(db, question.ask);
    case 'personal':
      return findPersonal(db, question.ask.filter, question.ask.from);
    default:
      return question satisfies never;
  }
}
