import type { WorkerStart } from './protocol.ts';
import { startOnDemand, startThread, type StoreThread } from './thread.ts';

/** The threads of a store, each with a connection of its own. */
export type StoreThreads = {
  readonly writer: StoreThread;
  readonly reader: StoreThread;
  /** Questions to the log are long, and those of the mesh must not wait for them. Starts at the first. */
  readonly logReader: Pick<StoreThread, 'call' | 'close'>;
  /** Copies from the WAL into the database. */
  readonly checkpointer: StoreThread;
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

/** Starts all but the last reader, or none. @throws MeshError what opening the database throws, or `store_unavailable` */
export async function startThreads(
  start: Omit<WorkerStart, 'role'>,
  { onWriteLost, onLost, onCheckpointerGone }: ThreadLosses,
): Promise<StoreThreads> {
  // The writer first: it makes the database that the others open.
  const writer = await startThread({ ...start, role: 'writer' }, onWriteLost);
  const others: StoreThread[] = [];
  const next = async (role: 'reader' | 'checkpointer', onEnded = onLost): Promise<StoreThread> => {
    const thread = await startThread({ ...start, role }, onLost, onEnded);
    others.push(thread);
    return thread;
  };
  const logReader = startOnDemand(() => startThread({ ...start, role: 'reader' }, onLost));
  const close = async (mayFold: boolean): Promise<void> => {
    const [reader, checkpointer] = others;
    // Whoever closes last folds, and a reader cannot.
    const order = mayFold
      ? [checkpointer, reader, logReader, writer]
      : [writer, checkpointer, reader, logReader];
    for (const thread of order) await thread?.close();
  };
  try {
    return {
      writer,
      reader: await next('reader'),
      logReader,
      checkpointer: await next('checkpointer', onCheckpointerGone),
      close,
    };
  } catch (error) {
    await close(true);
    throw error;
  }
}
