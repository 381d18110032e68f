import type { Clock } from '../clock.ts';

/** A place to be told that something changed: it carries no value, whoever hears it looks at the current state. */
export type Notice = {
  /** @returns a function that ends the subscription */
  readonly subscribe: (listener: () => void) => () => void;
  readonly announce: () => void;
};

export function createNotice(): Notice {
  const listeners = new Set<() => void>();
  return {
    subscribe: (listener) => {
      // A fresh closure, so that one listener may subscribe twice.
      const own = () => listener();
      listeners.add(own);
      return () => listeners.delete(own);
    },
    announce: () => {
      for (const listener of [...listeners]) listener();
    },
  };
}

/**
 * Turns announcements into awaiting: `next` resolves when anything was announced since its last call, or when
 * `signal` aborts. Many announcements between two calls count as one.
 */
export type Latch = { readonly raise: () => void; readonly next: (signal: AbortSignal) => Promise<void> };

export function createLatch(): Latch {
  let raised = false;
  let wake: (() => void) | undefined;
  return {
    raise: () => {
      raised = true;
      wake?.();
    },
    next: (signal) =>
      new Promise((resolve) => {
        const done = () => {
          signal.removeEventListener('abort', done);
          if (wake === done) wake = undefined;
          // INVARIANT: an abort consumes nothing: what was raised meanwhile is still there for the next call.
          if (!signal.aborted) raised = false;
          resolve();
        };
        if (raised || signal.aborted) return done();
        wake = done;
        signal.addEventListener('abort', done, { once: true });
        return undefined;
      }),
  };
}

/** Waits for the latch or for `ms`, whichever is first; `clock` sleeps no longer than that. */
export async function latchOrSleep(
  latch: Latch,
  ms: number,
  clock: Clock,
  signal: AbortSignal,
): Promise<void> {
  const either = new AbortController();
  const stop = () => either.abort(woken);
  if (signal.aborted) return;
  signal.addEventListener('abort', stop, { once: true });
  await Promise.race([clock.sleep(ms, either.signal), latch.next(either.signal)]);
  either.abort(woken);
  signal.removeEventListener('abort', stop);
}

/** Resolves when `signal` has aborted. */
export function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener('abort', () => resolve(), { once: true });
  });
}

// Without a reason each abort makes an error with a stack of its own, which costs more than all the rest.
const woken = 'woken';
