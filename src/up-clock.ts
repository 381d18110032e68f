import type { Clock } from './clock.ts';

/**
 * Compares the wall clock with one that cannot be set. While the two disagree by more than a minute, and for an hour
 * after that, every date is in doubt: certificates may look expired that are not.
 * @param steadyMs milliseconds of a clock that only goes forward
 * @returns a function that says what is wrong, or null
 */
export function watchClock(clock: Clock, steadyMs: () => number): () => string | null {
  let base = clock.now().getTime() - steadyMs();
  let since: number | undefined;
  return () => {
    const steady = steadyMs();
    const driftMs = clock.now().getTime() - steady - base;
    if (Math.abs(driftMs) <= toleratedMs) {
      since = undefined;
      return null;
    }
    since ??= steady;
    if (steady - since >= settleMs) {
      // It has stayed there: this is the time now.
      base += driftMs;
      since = undefined;
      return null;
    }
    const seconds = Math.round(Math.abs(driftMs) / 1_000);
    return `the clock of this machine was put ${driftMs > 0 ? 'forward' : 'back'} by ${seconds} seconds`;
  };
}

const toleratedMs = 60_000;
const settleMs = 3_600_000;
