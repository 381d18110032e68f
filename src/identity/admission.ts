import { MeshError } from '../errors.ts';
import { createRoundRobin } from './round-robin.ts';

/** How many are let in at once, and how many may wait; all 1 or more. */
export type AdmissionLimits = {
  readonly atOnce: number;
  readonly waiting: number;
  readonly waitingPerOwner: number;
};

/**
 * Waits to be let in. Those who wait are let in one owner after the other, so that nobody who asks often keeps others
 * out.
 * @param signal who gives up waits no longer, and is let in without a place
 * @returns gives the place back; a second call does nothing
 * @throws MeshError `server_busy` at once when too many wait
 */
export type Admit = (owner: string, signal: AbortSignal) => Promise<() => void>;

export function createAdmission(limits: AdmissionLimits): Admit {
  const waiting = createRoundRobin<() => void>();
  let inside = 0;
  const leave = (): (() => void) => {
    let isOver = false;
    return () => {
      if (isOver) return;
      isOver = true;
      // INVARIANT: a place is handed on, or given back: never both.
      const next = waiting.take();
      if (next === undefined) inside -= 1;
      else next();
    };
  };
  return async (owner, signal) => {
    if (signal.aborted) return () => undefined;
    if (inside < limits.atOnce) {
      inside += 1;
      return leave();
    }
    if (waiting.size() >= limits.waiting || waiting.sizeOf(owner) >= limits.waitingPerOwner) {
      throw new MeshError('server_busy', 'too many wait for this server', {
        fix: 'try again in some seconds',
      });
    }
    return new Promise((resolve) => {
      const enter = (): void => {
        signal.removeEventListener('abort', giveUp);
        resolve(leave());
      };
      const giveUp = (): void => {
        waiting.drop(owner, enter);
        resolve(() => undefined);
      };
      waiting.put(owner, enter);
      signal.addEventListener('abort', giveUp, { once: true });
    });
  };
}
