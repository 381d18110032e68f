import type { Clock } from '../../src/clock.ts';

/** A clock that stands still until a test moves it. */
export type ManualClock = Clock & {
  /** Moves time forward step by step, letting whoever wakes run before the next one wakes. */
  readonly advance: (ms: number) => Promise<void>;
  /** Sets the wall clock forward or back; who sleeps goes on sleeping as long as before. */
  readonly jump: (ms: number) => void;
  /** How many sleep. */
  readonly sleepers: () => number;
};

export function manualClock(start = new Date('2026-01-01T00:00:00.000Z')): ManualClock {
  let nowMs = start.getTime();
  const sleepers = new Set<{ at: number; readonly wake: () => void }>();
  return {
    now: () => new Date(nowMs),
    sleep: (ms, signal) =>
      new Promise((resolve) => {
        if (ms <= 0 || signal?.aborted === true) return resolve();
        const sleeper = {
          at: nowMs + ms,
          wake: () => {
            sleepers.delete(sleeper);
            resolve();
          },
        };
        sleepers.add(sleeper);
        signal?.addEventListener('abort', sleeper.wake, { once: true });
        return undefined;
      }),
    sleepers: () => sleepers.size,
    jump: (ms) => {
      nowMs += ms;
      for (const sleeper of sleepers) sleeper.at += ms;
    },
    advance: async (ms) => {
      const until = nowMs + ms;
      await settle();
      for (;;) {
        const next = [...sleepers].filter(({ at }) => at <= until).sort((a, b) => a.at - b.at)[0];
        if (next === undefined) break;
        nowMs = Math.max(nowMs, next.at);
        next.wake();
        await settle();
      }
      nowMs = until;
      await settle();
    },
  };
}

/** Lets promises and the work they queue run until nothing is left to run at once. */
export async function settle(): Promise<void> {
  for (let turn = 0; turn < 20; turn++) await new Promise((resolve) => setImmediate(resolve));
}
