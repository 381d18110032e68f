import { parentPort, workerData } from 'node:worker_threads';
import { MeshError } from '../errors.ts';
import { readAuditSize } from './audit-log.ts';
import { readAuditPage } from './audit-query.ts';
import { type Database, isBusy, openForReading, openForWriting, storageError } from './database.ts';
import { readMesh } from './mesh-table.ts';
import {
  describeFailure,
  type Question,
  type WorkerCall,
  type WorkerReply,
  type WorkerStart,
  type WriteAnswer,
  type WriteBatch,
} from './protocol.ts';
import { readAuthorities, readCoverage, readUnexpired } from './rotation-tables.ts';
import { readLatestExpiries, readLatestExpiry, readMeta, readToken, readTokens } from './state-tables.ts';
import { type BatchWriter, createBatchWriter } from './writer.ts';

// A thread of the store: it opens the database, says so as call 0, and answers calls one after the other. All SQL runs
// here; the thread that serves proxies never waits for a disk.
serve(workerData as WorkerStart);

function serve(start: WorkerStart): void {
  let db: Database | undefined;
  let write: BatchWriter | undefined;

  function open(): null {
    db = start.role === 'writer' ? openForWriting(start.dataDir) : openForReading(start.dataDir);
    if (start.role === 'writer') write = createBatchWriter(db);
    return null;
  }

  function handle(message: WorkerCall): unknown {
    if (db === undefined) throw new MeshError('store_unavailable', 'the database is not open');
    switch (message.kind) {
      case 'write':
        return commit(message.batch);
      case 'read':
        return read(db, message.question);
      case 'close':
        db.close();
        return null;
      default:
        return message satisfies never;
    }
  }

  function commit(batch: WriteBatch): readonly WriteAnswer[] {
    // INVARIANT: after a failure nothing is written through this handle again: the kernel may have dropped pages that it
    // failed to write, and would call the next fsync a success.
    if (write === undefined) throw new MeshError('store_unavailable', 'an earlier write failed');
    try {
      return write(batch);
    } catch (error) {
      if (!isBusy(error)) write = undefined;
      throw error;
    }
  }

  answer(0, open);
  parentPort?.on('message', (message: WorkerCall) => {
    answer(message.call, () => handle(message), message.kind === 'write');
    if (message.kind === 'close') parentPort?.close();
  });
}

function answer(call: number, work: () => unknown, isWrite = false): void {
  let reply: WorkerReply;
  try {
    reply = { call, kind: 'done', value: work() };
  } catch (error) {
    const storage = storageError(error);
    // A reader that meets a damaged page has learned something about the database, not about the question.
    const fatal = call !== 0 && !isBusy(error) && (isWrite || storage !== undefined);
    reply = { call, kind: 'failed', failure: describeFailure(storage ?? error), fatal };
  }
  parentPort?.postMessage(reply, []);
}

function read(db: Database, question: Question): unknown {
  switch (question.kind) {
    case 'mesh':
      return readMesh(db);
    case 'authorities':
      return readAuthorities(db);
    case 'coverage':
      return readCoverage(db);
    case 'unexpired':
      return readUnexpired(db, question.ask);
    case 'meta':
      return readMeta(db, question.ask);
    case 'tokens':
      return readTokens(db);
    case 'token':
      return readToken(db, question.ask);
    case 'latestExpiry':
      return readLatestExpiry(db, question.ask.entryId, question.ask.nowMs);
    case 'latestExpiries':
      return readLatestExpiries(db, question.ask.spiffeIds, question.ask.nowMs);
    case 'auditPage':
      return readAuditPage(db, question.ask);
    case 'auditSize':
      return readAuditSize(db);
    default:
      return question satisfies never;
  }
}
