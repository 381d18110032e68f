/** Time as an argument: the core reads no other clock. Tests hand in one that stands still until it is moved. */
export type Clock = {
  /** The wall clock, to the millisecond. */
  readonly now: () => Date;
  /**
   * Resolves after `ms` (0 to any length), or at once when `signal` aborts. It never rejects. A wall clock that is put
   * forward or back may end it early: whoever waits for a moment looks at `now` again.
   */
  readonly sleep: (ms: number, signal?: AbortSignal) => Promise<void>;
};

// A timer does not count the time a machine is suspended, nor that by which its clock is put forward: this is how late
// such a jump is noticed at most. And setTimeout beyond 2^31 ms fires at once.
const longestSliceMs = 15_000;

/** The clock of the machine. */
export const systemClock: Clock = {
  now: () => new Date(),
  sleep: async (ms, signal) => {
    const [wallEnd, steadyEnd] = [Date.now() + ms, performance.now() + ms];
    let left = ms;
    while (left > 0 && signal?.aborted !== true) {
      await slice(Math.min(left, longestSliceMs), signal);
      // Whichever is first: with the wall clock alone, one that is put back a year would make this wait a year.
      left = Math.min(wallEnd - Date.now(), steadyEnd - performance.now());
    }
  },
};

function slice(ms: number, signal: AbortSignal | undefined): Promise<void> {
  return new Promise((resolve) => {
    const done = () => {
      clearTimeout(timer);
      signal?.removeEventListener('abort', done);
      resolve();
    };
    const timer = setTimeout(done, ms);
    signal?.addEventListener('abort', done, { once: true });
  });
}
