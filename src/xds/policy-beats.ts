import type { Clock } from '../clock.ts';
import { createLatch, latchOrSleep } from '../identity/notice.ts';

/** Tells proxies, again and again, that what they were given is still so: without it they give it up after a while. */
export type PolicyBeats = {
  /** How long what is sent now may be used without another word, in whole seconds from 1. */
  readonly ttlSeconds: () => number;
  /**
   * @param listener called at each beat; `hasLapsed` when it comes later than what was sent before it allowed for
   * @returns leaves
   */
  readonly join: (listener: (hasLapsed: boolean) => void) => () => void;
};

/**
 * Beats as long as somebody listens: eight times in the time for which a policy may be used, every ten minutes at the
 * least.
 * @param usableUntil when the policy of this process becomes too old to decide by, if nobody confirms it from now on
 */
export function createPolicyBeats(usableUntil: () => Date, clock: Clock): PolicyBeats {
  const listeners = new Set<(hasLapsed: boolean) => void>();
  const sooner = createLatch();
  let stop: AbortController | undefined;
  let beatsAtMs = 0;
  // When the first of what was sent since the last beat is given up.
  let lapsesAtMs = Number.POSITIVE_INFINITY;
  const ttlSeconds = (): number =>
    Math.max(1, Math.floor((usableUntil().getTime() - clock.now().getTime()) / 1_000));
  const run = async (signal: AbortSignal): Promise<void> => {
    while (!signal.aborted) {
      const waitMs = Math.max(leastMs, Math.min(mostMs, (ttlSeconds() * 1_000) / beatsInLife));
      beatsAtMs = clock.now().getTime() + waitMs;
      await latchOrSleep(sooner, waitMs, clock, signal);
      if (signal.aborted) return;
      const hasLapsed = clock.now().getTime() >= lapsesAtMs;
      lapsesAtMs = Number.POSITIVE_INFINITY;
      for (const listener of [...listeners]) if (listeners.has(listener)) listener(hasLapsed);
    }
  };
  return {
    ttlSeconds: () => {
      const seconds = ttlSeconds();
      const atMs = clock.now().getTime() + seconds * 1_000;
      lapsesAtMs = Math.min(lapsesAtMs, atMs);
      // What may be used for less time than before does not wait for a beat that was planned then.
      if (atMs <= beatsAtMs) sooner.raise();
      return seconds;
    },
    join: (listener) => {
      const own = (hasLapsed: boolean): void => listener(hasLapsed);
      listeners.add(own);
      if (stop === undefined) {
        stop = new AbortController();
        void run(stop.signal);
      }
      return () => {
        if (!listeners.delete(own) || listeners.size > 0) return;
        stop?.abort(left);
        stop = undefined;
      };
    },
  };
}

const beatsInLife = 8;
const leastMs = 1_000;
const mostMs = 600_000;
// Without a reason each abort makes an error with a stack of its own.
const left = 'left';
