import { MeshError } from '../errors.ts';

/** A source of `size` cryptographically strong random octets; a new array each time. */
export type RandomBytes = (size: number) => Uint8Array;

/**
 * Draws from `randomBytes` 4 KiB at a time, because a small draw costs as much as a large one. No octet is given twice,
 * and none is left behind in the pool once it was given.
 */
export function poolRandom(randomBytes: RandomBytes): RandomBytes {
  let pool = new Uint8Array(0);
  let at = 0;
  return (size) => {
    if (size > poolBytes / 16) return randomBytes(size);
    if (at + size > pool.length) {
      const fresh = new Uint8Array(randomBytes(poolBytes));
      if (fresh.length !== poolBytes) throw new MeshError('internal', 'the source of randomness is broken');
      pool = fresh;
      at = 0;
    }
    const drawn = pool.slice(at, at + size);
    pool.fill(0, at, at + size);
    at += size;
    return drawn;
  };
}

/**
 * A new serial number: 20 octets, the top bits 01 so that it is positive and always of this length, 158 bits random.
 * @throws MeshError `internal` when the source gives something else than asked
 * @see RFC 5280 section 4.1.2.2
 */
export function makeSerial(randomBytes: RandomBytes): Uint8Array {
  const serial = takeRandom(randomBytes, serialBytes);
  serial[0] = ((serial[0] ?? 0) & 0x3f) | 0x40;
  return serial;
}

/**
 * `size` random octets, at least 12, as a copy of our own.
 * @throws MeshError `internal` when the source gives another number of octets or all the same ones
 */
export function takeRandom(randomBytes: RandomBytes, size: number): Uint8Array {
  const bytes = new Uint8Array(randomBytes(size));
  if (bytes.length !== size || bytes.every((octet) => octet === bytes[0])) {
    throw new MeshError('internal', 'the source of randomness is broken');
  }
  return bytes;
}

const serialBytes = 20;
const poolBytes = 4_096;
