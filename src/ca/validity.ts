import { MeshError } from '../errors.ts';
import { leafTtlBounds } from './profile.ts';

/** From when to when a certificate is valid, both ends included, whole seconds. */
export type Validity = { readonly notBefore: Date; readonly notAfter: Date };

/**
 * The validity of a leaf issued at `now`: it begins `backdateSeconds` in the past, but not before its issuer, and ends
 * after `ttlSeconds`, but not after its issuer.
 * @param ttlSeconds 20 to 86,400
 * @throws MeshError `issuer_expired` when the issuer has less left than a minute (or half the lifetime, if that is less),
 *   or is not valid yet; `profile_invalid` when the lifetime is out of bounds or a date is none
 * @see RFC 5280 section 4.1.2.5
 */
export function leafValidity(
  now: Date,
  ttlSeconds: number,
  backdateSeconds: number,
  issuer: Validity,
): Validity {
  const { minSeconds, maxSeconds } = leafTtlBounds;
  if (!Number.isSafeInteger(ttlSeconds) || ttlSeconds < minSeconds || ttlSeconds > maxSeconds) {
    refuse(`a certificate's lifetime must be ${minSeconds} to ${maxSeconds} whole seconds`);
  }
  const start = wholeSeconds(now);
  const [issuerStart, issuerEnd] = [wholeSeconds(issuer.notBefore), wholeSeconds(issuer.notAfter)];
  const needed = ttlSeconds < 60 ? ttlSeconds / 2 : 60;
  if (start < issuerStart) {
    throw new MeshError('issuer_expired', `the issuing CA is not valid before ${isoSeconds(issuerStart)}`, {
      fix: "check this machine's clock",
    });
  }
  if (issuerEnd - start < needed) {
    throw new MeshError('issuer_expired', `the issuing CA is valid only until ${isoSeconds(issuerEnd)}`, {
      fix: 'make a new intermediate CA',
    });
  }
  return {
    notBefore: new Date(Math.max(start - backdateSeconds, issuerStart) * 1_000),
    notAfter: new Date(Math.min(start + ttlSeconds, issuerEnd) * 1_000),
  };
}

/**
 * The validity of a CA made at `now`, within that of its own issuer if it has one.
 * @throws MeshError `issuer_expired` when the issuer's time has not come or has passed, `profile_invalid` when a date is none
 */
export function authorityValidity(
  now: Date,
  ttlSeconds: number,
  backdateSeconds: number,
  issuer: Validity | undefined,
): Validity {
  const start = wholeSeconds(now);
  const floor = issuer === undefined ? earliest : wholeSeconds(issuer.notBefore);
  const ceiling = issuer === undefined ? latest : wholeSeconds(issuer.notAfter);
  const end = Math.min(start + ttlSeconds, ceiling);
  if (start < floor || end - start < 3_600) {
    throw new MeshError('issuer_expired', 'the root CA has less than an hour left, or is not valid yet', {
      fix: "make a new root CA, or check this machine's clock",
    });
  }
  return {
    notBefore: new Date(Math.max(start - backdateSeconds, floor) * 1_000),
    notAfter: new Date(end * 1_000),
  };
}

function wholeSeconds(instant: Date): number {
  const seconds = Math.floor(instant.getTime() / 1_000);
  // Within these years every instant has an RFC 5280 Time, and a day more or less keeps it so. NaN fails too.
  if (!(seconds >= earliest && seconds <= latest)) refuse('a date is not within the years 1970 to 9998');
  return seconds;
}

function isoSeconds(seconds: number): string {
  return new Date(seconds * 1_000).toISOString();
}

function refuse(why: string): never {
  throw new MeshError('profile_invalid', why);
}

const earliest = 86_400;
const latest = Date.UTC(9998, 11, 31) / 1_000;
