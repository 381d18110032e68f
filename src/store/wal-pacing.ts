import type { Clock } from '../clock.ts';
import type { WalState } from './protocol.ts';
import type { StoreThread } from './thread.ts';

/** Keeps the WAL short while it is written to. */
export type WalPacing = {
  /** Says that something was committed. Never waits. */
  readonly committed: () => void;
  /** Empties the WAL when nobody copies from it. @returns whether it may, and no reader was in the way */
  readonly fold: () => Promise<boolean>;
  /** Ends it; waits for what is under way. */
  readonly close: () => Promise<void>;
};

type WalThread = Pick<StoreThread, 'call'>;

/**
 * Has the checkpointer copy a WAL of more than 8,000 frames into the database, so that no commit waits for that, and the
 * writer the little that came meanwhile: once all is copied the next commit begins the WAL anew. Asks every 100 ms at most,
 * and never while nothing is written.
 * @param mayFold whether all that was copied before is known to be in the database
 */
export function paceWal(
  checkpointer: WalThread,
  writer: WalThread,
  clock: Clock,
  mayFold: () => boolean,
): WalPacing {
  const stop = new AbortController();
  let isDue = false;
  let running: Promise<void> | undefined;
  let turn: Promise<unknown> = Promise.resolve();

  async function run(): Promise<void> {
    while (isDue && !stop.signal.aborted) {
      await clock.sleep(pauseMs, stop.signal);
      if (stop.signal.aborted) break;
      isDue = false;
      // A thread that fails has told the store. What is not copied now is copied later, at the latest by a commit.
      await alone(shorten).catch(() => undefined);
    }
    running = undefined;
  }

  async function shorten(): Promise<void> {
    let left = 0;
    // SQLite waits for the disk at the end of a pass only if no commit came during it. The second pass is short, so it
    // does that mostly, and the writer need not.
    for (let pass = 0; pass < passes; pass++) {
      const state = await backfill(checkpointer);
      if (state === null || state.frames <= framesAtRest) return;
      left = state.frames - state.backfilled;
    }
    // More are left when somebody reads an older state.
    if (left <= maxRestFrames) await backfill(writer);
  }

  /** INVARIANT: one at a time. SQLite refuses the second, and a fold that is refused leaves what was to be overwritten. */
  function alone<T>(work: () => Promise<T>): Promise<T> {
    const result = turn.then(work);
    turn = result.catch(() => undefined);
    return result;
  }

  return {
    committed: () => {
      isDue = true;
      running ??= run();
    },
    // Asked when it is its turn: what it waits for may fail.
    fold: () => alone(async () => mayFold() && (await writer.call({ kind: 'fold' })) === true),
    close: async () => {
      stop.abort();
      await running;
    },
  };
}

function backfill(thread: WalThread): Promise<WalState | null> {
  return thread.call({ kind: 'backfill', above: framesAtRest }) as Promise<WalState | null>;
}

const pauseMs = 100;
const passes = 2;
const framesAtRest = 8_000;
const maxRestFrames = 2_000;
