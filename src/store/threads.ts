import { describeFailure, type WalState, type WorkerStart } from './protocol.ts';
import { startOnDemand, startThread, type StoreThread, type ThreadOnDemand } from './thread.ts';

/** The threads of a store, each with a connection of its own. */
export type StoreThreads = {
  readonly writer: StoreThread;
  readonly reader: StoreThread;
  /** Questions to the log are long, and those of the mesh must not wait for them. Starts at the first. */
  readonly logReader: ThreadOnDemand;
  /** Copies from the WAL into the database. Starts when that is long enough; until then the writer says how long it is. */
  readonly checkpointer: ThreadOnDemand;
  /** @param mayFold whether the last to close folds the WAL into the database */
  readonly close: (mayFold: boolean) => Promise<void>;
};

/** Who is told what became of them, each with the cause. */
export type ThreadLosses = {
  /** A write failed, or the writer is gone. */
  readonly onWriteLost: (cause: string) => void;
  /** The database is damaged, or cannot be read or copied to, or a reader is gone: nothing can mend that. */
  readonly onLost: (cause: string) => void;
  /** The checkpointer is gone: commits copy from the WAL, later. */
  readonly onCheckpointerGone: (cause: string) => void;
};

/** Starts the writer and the reader, or none. @throws MeshError what opening the database throws, or `store_unavailable` */
export async function startThreads(
  start: Omit<WorkerStart, 'role'>,
  { onWriteLost, onLost, onCheckpointerGone }: ThreadLosses,
): Promise<StoreThreads> {
  // The writer first: it makes the database that the others open.
  const writer = await startThread({ ...start, role: 'writer' }, onWriteLost);
  const begin = (role: 'reader' | 'checkpointer', onEnded = onLost): Promise<StoreThread> =>
    startThread({ ...start, role }, onLost, onEnded);
  const reader = await begin('reader').catch(async (error: unknown) => {
    await writer.close();
    throw error;
  });
  const logReader = startOnDemand(() => begin('reader'));
  const checkpointer = startWhenLong(writer, () =>
    begin('checkpointer', onCheckpointerGone).catch((error: unknown) => {
      onCheckpointerGone(`it did not start: ${describeFailure(error).detail}`);
      throw error;
    }),
  );
  return {
    ...{ writer, reader, logReader, checkpointer },
    close: async (mayFold) => {
      // Whoever closes last folds, and a reader cannot.
      const order = mayFold
        ? [checkpointer, reader, logReader, writer]
        : [writer, checkpointer, reader, logReader];
      for (const thread of order) await thread.close();
    },
  };
}

/** One start is tried: without it commits do the work. */
function startWhenLong(writer: StoreThread, start: () => Promise<StoreThread>): ThreadOnDemand {
  let starting: Promise<StoreThread> | undefined;
  return {
    call: async (request) => {
      if (starting === undefined && request.kind === 'backfill') {
        const state = (await writer.call({ kind: 'backfill', above: Number.POSITIVE_INFINITY })) as WalState;
        if (state.frames <= request.above) return state;
      }
      starting ??= start();
      const thread = await starting;
      return thread.call(request);
    },
    close: async () => {
      const thread = await starting?.catch(() => undefined);
      await thread?.close();
    },
  };
}
