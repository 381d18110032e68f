import type { Clock } from '../clock.ts';

/** How much one key may take. */
export type RateLimits = {
  /** How many at once, after a rest. */
  readonly burst: number;
  /** How many a second in the long run. */
  readonly perSecond: number;
};

/** Takes one from what `key` has left. False: there is nothing left. */
export type TakeToken<K = number> = (key: K) => boolean;

/**
 * A token bucket for each key. Keys that have rested are forgotten: they would be full again. When 4,096 of them are in
 * use at once, the one that was seen longest ago is forgotten, too.
 */
export function createRateLimit<K = number>({ burst, perSecond }: RateLimits, clock: Clock): TakeToken<K> {
  const buckets = new Map<K, Bucket>();
  return (key) => {
    const nowMs = clock.now().getTime();
    const bucket = buckets.get(key) ?? { tokens: burst, atMs: nowMs };
    // A clock that was put back gives nothing, and takes nothing away.
    const restedMs = Math.max(0, nowMs - bucket.atMs);
    const tokens = Math.min(burst, bucket.tokens + (restedMs * perSecond) / 1_000);
    const granted = tokens >= 1;
    // INVARIANT: in the order of their last use, so that the first is the one seen longest ago.
    buckets.delete(key);
    buckets.set(key, { tokens: granted ? tokens - 1 : tokens, atMs: nowMs });
    if (buckets.size > maxBuckets) forgetFirst(buckets);
    return granted;
  };
}

type Bucket = { readonly tokens: number; readonly atMs: number };

function forgetFirst<K>(buckets: Map<K, Bucket>): void {
  for (const key of buckets.keys()) {
    buckets.delete(key);
    return;
  }
}

const maxBuckets = 4_096;
