import type { Clock } from '../clock.ts';
import { createRateLimit, type RateLimits, type TakeToken } from '../identity/rate-limit.ts';

export type TrustRates = { readonly perAddress: RateLimits; readonly total: RateLimits };

/** What strangers may ask for. A connection is one, and each request on it is one more. */
export const defaultTrustRates: TrustRates = {
  perAddress: { burst: 100, perSecond: 20 },
  // A handshake takes about a millisecond of the thread that makes certificates: this is a tenth of it.
  total: { burst: 300, perSecond: 100 },
};

/**
 * Bounds how often strangers make the server work: each address has its own allowance, and all of them share one more,
 * so that many together cannot take the time in which certificates are made.
 */
export function createTrustRate(clock: Clock, rates: TrustRates = defaultTrustRates): TakeToken<string> {
  const ofAddress = createRateLimit<string>(rates.perAddress, clock);
  const ofAll = createRateLimit<null>(rates.total, clock);
  // The address pays first: one that has nothing left takes nothing from the others.
  return (address) => ofAddress(address) && ofAll(null);
}
