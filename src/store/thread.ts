import { Worker } from 'node:worker_threads';
import { MeshError } from '../errors.ts';
import {
  type LogSigning,
  type Question,
  type WorkerReply,
  type WorkerStart,
  type WriteBatch,
  restoreFailure,
} from './protocol.ts';

/** A worker thread that answers calls in order. */
export type StoreThread = {
  /** What opening the database answered. */
  readonly opened: unknown;
  /**
   * @throws MeshError the failure of the call; {@link FatalFailure} as its cause when the thread can write no more;
   *   `store_unavailable` when the thread is gone
   */
  readonly call: (request: ThreadRequest) => Promise<unknown>;
  /** Closes the database and ends the thread; waits for the calls before it. */
  readonly close: () => Promise<void>;
};

export type ThreadRequest =
  | { readonly kind: 'write'; readonly batch: WriteBatch }
  | { readonly kind: 'read'; readonly question: Question }
  | ({ readonly kind: 'sign' } & LogSigning)
  | { readonly kind: 'resume' }
  /** Folds the WAL into the database, and empties it. @returns whether nobody was in the way */
  | { readonly kind: 'fold' }
  /** Copies from a WAL of more than `above` frames into the database. @returns WalState or null: see `backfillWal` */
  | { readonly kind: 'backfill'; readonly above: number }
  /** A step of the check of what a start has left. @returns CheckStep */
  | { readonly kind: 'check' };

/**
 * Starts a thread and waits until its database is open.
 * @param onLost called with the cause when a write failed, or another call with what says so of the database: nothing can
 *   be written
 * @param onEnded called once with the cause when the open thread ended by itself
 * @throws MeshError what opening the database throws, or `store_unavailable`
 */
export async function startThread(
  start: WorkerStart,
  onLost: (cause: string) => void,
  onEnded = onLost,
): Promise<StoreThread> {
  // Compiled, this file and the worker are .js; from the sources Node runs the .ts.
  const file = import.meta.url.endsWith('.ts') ? './worker.ts' : './worker.js';
  const worker = new Worker(new URL(file, import.meta.url), { workerData: start });
  const waiting = new Map<number, PromiseWithResolvers<unknown>>();
  let calls = 0;
  let isOpen = false;
  let closing = false;
  let gone: string | undefined;

  function lose(cause: string): void {
    if (gone !== undefined) return;
    gone = cause;
    const error = new MeshError('store_unavailable', 'the store has stopped', { cause: new Error(cause) });
    for (const { reject } of waiting.values()) reject(error);
    waiting.clear();
    if (isOpen && !closing) onEnded(cause);
  }

  worker.on('error', (error) => lose(`a store thread failed: ${error.message}`));
  worker.on('messageerror', (error) => lose(`a store thread was not understood: ${error.message}`));
  worker.on('exit', () => lose('a store thread ended'));
  worker.on('message', (reply: WorkerReply) => {
    const call = waiting.get(reply.call);
    waiting.delete(reply.call);
    if (reply.kind === 'done') {
      call?.resolve(reply.value);
      return;
    }
    if (reply.fatal) onLost(reply.failure.detail);
    call?.reject(restoreFailure(reply.failure));
  });

  function send(message: ThreadRequest | { readonly kind: 'close' }): Promise<unknown> {
    if (gone !== undefined) {
      const cause = new Error(gone);
      return Promise.reject(new MeshError('store_unavailable', 'the store has stopped', { cause }));
    }
    const call = Promise.withResolvers<unknown>();
    waiting.set(++calls, call);
    worker.postMessage({ ...message, call: calls }, []);
    return call.promise;
  }

  const opening = Promise.withResolvers<unknown>();
  waiting.set(0, opening);
  let opened: unknown;
  try {
    opened = await opening.promise;
    isOpen = true;
  } catch (error) {
    closing = true;
    await worker.terminate();
    throw error;
  }
  return {
    opened,
    call: send,
    close: async () => {
      if (gone !== undefined) return;
      closing = true;
      const ended = new Promise((resolve) => {
        worker.once('exit', resolve);
      });
      // What was promised is in the WAL already: a close that fails takes nothing back.
      await send({ kind: 'close' }).catch(() => undefined);
      await ended;
    },
  };
}

/** A thread that starts at the first call. When it does not start, that call fails, and the next one starts another. */
export type ThreadOnDemand = Pick<StoreThread, 'call' | 'close'>;

/** @param start gives an open thread */
export function startOnDemand(start: () => Promise<StoreThread>): ThreadOnDemand {
  let starting: Promise<StoreThread> | undefined;
  return {
    call: async (request) => {
      const mine = (starting ??= start());
      const thread = await mine.catch((error: unknown) => {
        if (starting === mine) starting = undefined;
        throw error;
      });
      return thread.call(request);
    },
    close: async () => {
      const thread = await starting?.catch(() => undefined);
      await thread?.close();
    },
  };
}
