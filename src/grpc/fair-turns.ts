import { createRoundRobin } from '../identity/round-robin.ts';

/**
 * Does the work for one thing in each turn of the event loop, for one owner after the other: whoever connects a thousand
 * times at once keeps nobody else waiting for more than one of them.
 * @param ownerOf asked once, when the thing comes
 */
export function inFairTurns<T>(ownerOf: (one: T) => string, work: (one: T) => void): (one: T) => void {
  const waiting = createRoundRobin<T>();
  const next = (): void => {
    const one = waiting.take();
    if (waiting.size() > 0) setImmediate(next);
    if (one !== undefined) work(one);
  };
  return (one) => {
    waiting.put(ownerOf(one), one);
    if (waiting.size() === 1) setImmediate(next);
  };
}
