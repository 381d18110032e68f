import type { Breathe } from './breath.ts';
import type { Latch } from './notice.ts';

/** Runs small pieces of work when their turn comes: urgent ones before all others, else in the order they came. */
export type Pace = (isUrgent: boolean, work: () => void) => void;

/** Spreads work that thousands are told to do at once over as many turns of the event loop as it takes. */
export function createPace(breathe: Breathe): Pace {
  const [urgent, usual] = [createQueue(), createQueue()];
  let running = false;
  const run = async (): Promise<void> => {
    running = true;
    for (let work = urgent.take(); ; work = urgent.take()) {
      work ??= usual.take();
      if (work === undefined) break;
      work();
      // Most of what it causes is done by those who awaited it: they go first.
      await Promise.resolve();
      const next = breathe();
      if (next !== undefined) await next;
    }
    running = false;
  };
  return (isUrgent, work) => {
    (isUrgent ? urgent : usual).put(work);
    if (!running) void run();
  };
}

/** Everything at its time: for a few listeners. */
export const noPace: Pace = (_isUrgent, work) => work();

/**
 * A listener that raises the latch when its turn comes; told again before that, it is no second time, unless it has
 * become urgent meanwhile.
 * @param isUrgent asked at each call; must be cheap
 */
export function pacedRaise(pace: Pace, latch: Latch, isUrgent: () => boolean): () => void {
  let waiting: 'no' | 'usual' | 'urgent' = 'no';
  return () => {
    if (waiting === 'urgent') return;
    const now = isUrgent() ? 'urgent' : 'usual';
    if (waiting === now) return;
    waiting = now;
    pace(now === 'urgent', () => {
      waiting = 'no';
      latch.raise();
    });
  };
}

type Queue = { readonly put: (work: () => void) => void; readonly take: () => (() => void) | undefined };

/** Taking from the front of a long array moves all that is behind it. */
function createQueue(): Queue {
  let [incoming, outgoing]: [(() => void)[], (() => void)[]] = [[], []];
  return {
    put: (work) => void incoming.push(work),
    take: () => {
      if (outgoing.length === 0) [incoming, outgoing] = [outgoing, incoming.reverse()];
      return outgoing.pop();
    },
  };
}
