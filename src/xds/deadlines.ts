import type { Clock } from '../clock.ts';

/**
 * Waits that are all as long, with one timer for all of them: thousands begin at once, and hardly one ends in vain. The
 * timer ends a turn of the event loop after the last of them, for most of the time the next begins at once.
 */
export type Deadlines = {
  /** @param onLate called once, unless the wait is ended before; must not throw. @returns ends the wait */
  readonly expect: (onLate: () => void) => () => void;
};

/** @param ms how long each waits. A wall clock that is put forward may end it early. */
export function createDeadlines(clock: Clock, ms: number): Deadlines {
  // In the order in which they began, which is that in which they run out.
  const waits = new Set<Wait>();
  let stop: AbortController | undefined;
  let isLooking = false;
  // INVARIANT: without anybody who waits there is no timer.
  const look = (): void => {
    isLooking = false;
    if (waits.size > 0) return;
    stop?.abort(nobody);
    stop = undefined;
  };
  const end = (wait: Wait): boolean => {
    if (!waits.delete(wait)) return false;
    if (waits.size > 0 || isLooking) return true;
    isLooking = true;
    setImmediate(look);
    return true;
  };
  const watch = async (signal: AbortSignal): Promise<void> => {
    for (let [first] = waits; first !== undefined && !signal.aborted; [first] = waits) {
      await clock.sleep(Math.min(first.dueMs - clock.now().getTime(), ms), signal);
      if (!signal.aborted && end(first)) first.onLate();
    }
    // INVARIANT: whoever begins to wait from here on has somebody who watches, though nobody has looked yet.
    if (stop?.signal === signal) stop = undefined;
  };
  return {
    expect: (onLate) => {
      const wait = { dueMs: clock.now().getTime() + ms, onLate };
      waits.add(wait);
      if (stop === undefined) {
        stop = new AbortController();
        void watch(stop.signal);
      }
      return () => void end(wait);
    },
  };
}

type Wait = { readonly dueMs: number; readonly onLate: () => void };

// Without a reason each abort makes an error with a stack of its own.
const nobody = 'nobody waits';
