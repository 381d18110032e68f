import { MeshError } from '../errors.ts';
import { restoreFailure, type WriteAnswer, type WriteKept, type WriteRequest } from './protocol.ts';

/** The most events and bytes of leaves that wait for a commit. */
export const maxQueuedEvents = 50_000;
export const maxQueuedBytes = 67_108_864;
/** The most events of one transaction, unless one request alone has more. */
export const maxBatchEvents = 2_048;

/**
 * Gathers requests into batches (group commit): while a batch is being committed, all that arrives waits for the next.
 */
export type WriteQueue = {
  /**
   * Resolves with the index of the request's first leaf and the proofs it asked for, after the commit that holds it.
   * @throws MeshError what the request was refused for, or `store_unavailable`
   */
  readonly push: (request: WriteRequest) => Promise<WriteKept>;
  /** Refuses all that waits and all that comes, until `resume`. */
  readonly fail: (cause: string) => void;
  readonly resume: () => void;
  /** Resolves when nothing waits any more. */
  readonly drained: () => Promise<void>;
};

/** @param commit commits a batch durably and answers each of its requests, or throws: then none is known to be kept */
export function createWriteQueue(
  commit: (requests: readonly WriteRequest[]) => Promise<readonly WriteAnswer[]>,
): WriteQueue {
  let waiting: Waiting[] = [];
  let queuedEvents = 0;
  let queuedBytes = 0;
  let failed: string | undefined;
  let running: Promise<void> | undefined;

  // INVARIANT: one run at a time, so batches are committed in the order their requests came.
  async function run(): Promise<void> {
    // Whoever writes in the same turn of the event loop goes into the same batch.
    await Promise.resolve();
    while (waiting.length > 0) await commitNext();
    running = undefined;
  }

  async function commitNext(): Promise<void> {
    const batch = takeBatch();
    try {
      const answers = await commit(batch.map(({ request }) => request));
      for (const [at, { settle }] of batch.entries()) settleWith(settle, answers[at]);
    } catch (error) {
      for (const { settle } of batch) settle.reject(unavailable(error));
    } finally {
      for (const { request, bytes } of batch) release(request.leaves.length, bytes);
    }
  }

  function takeBatch(): readonly Waiting[] {
    let events = 0;
    const end = waiting.findIndex(({ request }, at) => {
      events += request.leaves.length;
      return at > 0 && events > maxBatchEvents;
    });
    const batch = end === -1 ? waiting : waiting.slice(0, end);
    waiting = end === -1 ? [] : waiting.slice(end);
    return batch;
  }

  function release(events: number, bytes: number): void {
    queuedEvents -= events;
    queuedBytes -= bytes;
  }

  return {
    push: (request) => {
      const bytes = request.leaves.reduce((sum, { leaf }) => sum + leaf.length, 0);
      if (failed !== undefined) return Promise.reject(unavailable(new Error(failed)));
      if (queuedEvents + request.leaves.length > maxQueuedEvents || queuedBytes + bytes > maxQueuedBytes) {
        return Promise.reject(unavailable(new Error('too many events wait to be written')));
      }
      queuedEvents += request.leaves.length;
      queuedBytes += bytes;
      const settle = Promise.withResolvers<WriteKept>();
      waiting.push({ request, bytes, settle });
      running ??= run();
      return settle.promise;
    },
    fail: (cause) => {
      failed ??= cause;
      for (const { request, bytes, settle } of waiting) {
        release(request.leaves.length, bytes);
        settle.reject(unavailable(new Error(failed)));
      }
      waiting = [];
    },
    resume: () => {
      failed = undefined;
    },
    drained: async () => {
      await running;
    },
  };
}

type Waiting = {
  readonly request: WriteRequest;
  readonly bytes: number;
  readonly settle: PromiseWithResolvers<WriteKept>;
};

function settleWith(settle: PromiseWithResolvers<WriteKept>, answer: WriteAnswer | undefined): void {
  if (answer === undefined) settle.reject(unavailable(new Error('a request was not answered')));
  else if ('failure' in answer) settle.reject(restoreFailure(answer.failure));
  else settle.resolve(answer);
}

function unavailable(cause: unknown): MeshError {
  return new MeshError('store_unavailable', 'the store cannot write', {
    fix: 'see the cause in /readyz and mend it; room on the disk is noticed, for the rest restart',
    cause,
  });
}
