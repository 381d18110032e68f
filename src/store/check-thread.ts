import type { Clock } from '../clock.ts';
import { type CheckStep, describeFailure } from './protocol.ts';
import type { StoreThread } from './thread.ts';

/** What a start leaves to be checked while it serves. */
export type LaterCheck = {
  /** What is wrong with the first entry of the log that is not what its hash was made of; null as long as none is. */
  readonly damage: () => string | null;
  /** Never rejects. */
  readonly ended: Promise<CheckEnd>;
};

/**
 * `whole`: all was checked before. `sound`: now it is, but for damaged entries. `failed`: the database is damaged, or cannot be
 * read. `stopped`: the store was closed first.
 */
export type CheckEnd = {
  readonly outcome: 'whole' | 'sound' | 'failed' | 'stopped';
  readonly seconds: number;
  readonly damage: string | null;
  readonly cause: string | null;
};

/** Nothing was left to be checked. */
export const checkedBefore: LaterCheck & { readonly close: () => Promise<void> } = {
  damage: () => null,
  ended: Promise.resolve({ outcome: 'whole', seconds: 0, damage: null, cause: null }),
  close: () => Promise.resolve(),
};

/**
 * Checks what a start has left, in short steps with long rests between them, on a thread that is there for as long as it takes.
 * @param start of the thread; who is told of its loss stops the store
 */
export function checkLater(
  start: () => Promise<StoreThread>,
  clock: Clock,
): LaterCheck & { readonly close: () => Promise<void> } {
  const stop = new AbortController();
  let damage: string | null = null;

  async function walk(): Promise<CheckEnd['outcome']> {
    // A start reads much itself.
    await clock.sleep(firstRestMs, stop.signal);
    if (stop.signal.aborted) return 'stopped';
    const thread = await start();
    try {
      while (!stop.signal.aborted) {
        const began = performance.now();
        const step = (await thread.call({ kind: 'check' })) as CheckStep;
        damage ??= step.damage;
        if (step.isDone) return 'sound';
        await clock.sleep(Math.ceil((performance.now() - began) * restsOfStep), stop.signal);
      }
      return 'stopped';
    } finally {
      await thread.close();
    }
  }

  async function run(): Promise<CheckEnd> {
    const began = performance.now();
    const [outcome, cause] = await walk().then(
      (end) => [end, null] as const,
      (error: unknown) => ['failed', describeFailure(error).detail] as const,
    );
    return { outcome, seconds: Math.round((performance.now() - began) / 1_000), damage, cause };
  }

  const ended = run();
  return {
    damage: () => damage,
    ended,
    close: async () => {
      stop.abort();
      await ended;
    },
  };
}

const firstRestMs = 10_000;
// A quarter of the time at most: the disk and a core are there for others.
const restsOfStep = 3;
