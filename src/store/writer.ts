import type { NoteSigner } from '../audit/note.ts';
import { createAppender } from './audit-log.ts';
import { removeShredded, shredPersonal } from './audit-personal.ts';
import { notePruned, prunePart } from './audit-pruned.ts';
import { backfillWal, type Database, inTransaction, sqliteCode } from './database.ts';
import { storeJwtKeys } from './jwt-key-table.ts';
import { storeMesh } from './mesh-table.ts';
import {
  redeemJoinToken,
  removeJoinToken,
  removeNode,
  storeJoinToken,
  storeNode,
  storeShipment,
} from './node-tables.ts';
import {
  describeFailure,
  type StoreChange,
  type WriteAnswer,
  type WriteBatch,
  type WriteRequest,
} from './protocol.ts';
import { dropRevisions } from './revision-table.ts';
import { storeAuthorities, storeCoverage } from './rotation-tables.ts';
import { removeExpired, removeToken, storeMeta, storeToken } from './state-tables.ts';
import { storeFork, storeHeld, storeWitnessed } from './witness-table.ts';

/**
 * Commits batches of requests, each batch in one transaction, each request all or nothing within it.
 * The answers are promises kept: they are returned after the COMMIT.
 */
export type BatchWriter = (batch: WriteBatch) => readonly WriteAnswer[];

/**
 * Makes the one writer of a database. An error it throws (and does not answer with) means that nothing of the batch is
 * known to be stored and that the handle must not be written through again.
 * @param signer signs each batch that extends the log, in its transaction; undefined until somebody gives one
 * @throws MeshError `audit_log_damaged`
 */
export function createBatchWriter(
  db: Database,
  signer: () => NoteSigner | undefined = () => undefined,
): BatchWriter {
  const appender = createAppender(db);
  const savepoint = db.prepare('SAVEPOINT request');
  const release = db.prepare('RELEASE request');
  const rollback = db.prepare('ROLLBACK TO request');
  let committed = 0;

  function answer(request: WriteRequest): WriteAnswer {
    const mark = appender.mark();
    savepoint.run();
    try {
      applyChange(db, request.change);
      const firstIndex = appender.append(request.leaves);
      // INVARIANT: behind its event, and before any other.
      if (request.change.kind === 'prune') notePruned(db, request.change, firstIndex);
      release.run();
      return { firstIndex };
    } catch (error) {
      if (!isRefusal(error)) throw error;
      rollback.run();
      release.run();
      appender.rewind(mark);
      return { failure: describeFailure(error) };
    }
  }

  /** INVARIANT: no change looks at a leaf, so that leaves may come after all changes, and in one go. */
  function applyTogether(requests: readonly WriteRequest[]): readonly WriteAnswer[] {
    for (const { change } of requests) applyChange(db, change);
    let next = appender.append(requests.flatMap(({ leaves }) => leaves));
    return requests.map(({ leaves }) => {
      const firstIndex = next;
      next += leaves.length;
      return { firstIndex };
    });
  }

  function commit(
    { requests, nowMs }: WriteBatch,
    apply: (requests: readonly WriteRequest[]) => readonly WriteAnswer[],
  ): readonly WriteAnswer[] {
    const mark = appender.mark();
    try {
      const answers = inTransaction(db, () => {
        appender.begin();
        if (committed % batchesBetweenSweeps === 0) removeExpired(db, nowMs - keepExpiredMs);
        const given = apply(requests);
        appender.derive();
        // INVARIANT: whoever is told that an entry is kept can prove it at once.
        const notary = signer();
        if (notary !== undefined) appender.seal(notary);
        return given.map((each, at) => withProofs(each, requests[at]));
      });
      // INVARIANT: what was rolled back was no sweep.
      committed++;
      return answers;
    } catch (error) {
      appender.rewind(mark);
      throw error;
    }
  }

  function withProofs(given: WriteAnswer, request: WriteRequest | undefined): WriteAnswer {
    if (request?.prove === undefined || 'failure' in given) return given;
    const proofs = request.leaves.flatMap((_, at) => appender.prove(given.firstIndex + at) ?? []);
    return proofs.length === 0 ? given : { ...given, proofs };
  }

  function commitBatch(batch: WriteBatch): readonly WriteAnswer[] {
    if (batch.requests.some(({ change }) => change.kind === 'prune'))
      return commit(batch, (requests) => requests.map(answer));
    try {
      // Hardly ever is a request refused, and a savepoint for each copies every page that it changes.
      return commit(batch, applyTogether);
    } catch (error) {
      if (!isRefusal(error) || db.inTransaction) throw error;
    }
    // INVARIANT: a refusal is one of a request. What fails here outside of all of them is thrown.
    return commit(batch, (requests) => requests.map(answer));
  }

  return (batch) => {
    const answers = commitBatch(batch);
    backfillWal(db, framesAtMost);
    return answers;
  };
}

function applyChange(db: Database, change: StoreChange): void {
  switch (change.kind) {
    case 'none':
      return;
    case 'mesh':
      storeMesh(db, change);
      return;
    case 'authorities':
      storeAuthorities(db, change.authorities);
      storeMeta(db, 'bundle_sequence', `${change.bundleSequence}`);
      storeMeta(db, 'authority_request', change.request);
      return;
    case 'jwt_keys':
      storeJwtKeys(db, change.slots);
      storeMeta(db, 'jwt_bundle_sequence', `${change.bundleSequence}`);
      return;
    case 'coverage':
      storeCoverage(db, change);
      return;
    case 'policy_revisions_dropped':
      dropRevisions(db, change.through);
      return;
    case 'meta':
      storeMeta(db, change.key, change.value);
      return;
    case 'token_created':
      storeToken(db, change.token);
      return;
    case 'token_revoked':
      removeToken(db, change.id);
      return;
    case 'node':
      storeNode(db, change.node);
      return;
    case 'node_forgotten':
      removeNode(db, change.name);
      return;
    case 'join_token_redeemed':
      redeemJoinToken(db, change);
      return;
    case 'join_token_created':
      storeJoinToken(db, change.token);
      return;
    case 'join_token_revoked':
      removeJoinToken(db, change.id);
      return;
    case 'held':
      storeHeld(db, change.next, change.from);
      return;
    case 'fork':
      storeFork(db, change.fork, change.seenMs);
      return;
    case 'witnessed':
      storeWitnessed(db, change);
      return;
    case 'shipment':
      storeShipment(db, change);
      return;
    case 'prune':
      // Noted behind its event.
      return;
    case 'prune_part':
      prunePart(db, change);
      return;
    case 'shred':
      shredPersonal(db, change.ids);
      if (change.remove) removeShredded(db, Math.max(...change.ids));
      return;
    default:
      change satisfies never;
  }
}

/**
 * Whether an error is about the request alone: a refusal of ours, a value that cannot be bound, or a constraint such as
 * a serial used twice. What else SQLite throws is about the database.
 */
function isRefusal(error: unknown): boolean {
  const code = sqliteCode(error);
  return code === undefined || code.startsWith('SQLITE_CONSTRAINT');
}

const batchesBetweenSweeps = 64;
// 64 MiB. A backstop: wal-pacing.ts has it copied from long before, where no commit waits.
const framesAtMost = 16_000;
// A clock that jumped ahead must not make us forget certificates that are valid once it is put right.
const keepExpiredMs = 7 * 86_400_000;
