import { canonicalAddress, type Cidr, isInCidr } from '../cidr.ts';

/**
 * One address for each interval that blocks cut out of all addresses, IPv4 first, as bytes. Addresses of IPv4 that are
 * written as IPv6 are those of IPv4, so none of them stands for an interval of IPv6.
 */
export function cutAddresses(blocks: readonly Cidr[]): readonly (readonly number[])[] {
  const found: (readonly number[])[] = [];
  for (const size of [4, 16]) {
    const starts = new Map<string, readonly number[]>();
    const cut = (bytes: readonly number[] | undefined): void => {
      if (bytes !== undefined) starts.set(bytes.join(), bytes);
    };
    cut(Array.from({ length: size }, () => 0));
    // The blocks of a size are nested or apart: an interval begins where one begins, or just after one ends.
    const cuts = blocks.filter(({ bytes }) => bytes.length === size);
    for (const { bytes, length } of size === 16 ? [...cuts, mapped] : cuts) {
      cut(masked(bytes, length, 0));
      cut(next(masked(bytes, length, 0xff)));
    }
    const zero = Array.from({ length: size }, () => 0);
    const usual = size === 4 ? documentation4 : documentation6;
    // Nobody calls from the address of all zeros, where another is in the same blocks.
    if (cuts.every((block) => isInCidr(zero, block) === isInCidr(usual, block))) {
      starts.delete(zero.join());
      cut(usual);
    }
    for (const bytes of starts.values()) {
      if (size === 4 || !isInCidr(bytes, mapped)) found.push(bytes);
    }
  }
  return found.filter((bytes) => canonicalAddress(bytes).length === bytes.length);
}

/** An address as text. */
export function formatAddress(bytes: readonly number[]): string {
  if (bytes.length === 4) return bytes.join('.');
  const groups = Array.from({ length: 8 }, (_, i) =>
    (((bytes[2 * i] ?? 0) << 8) | (bytes[2 * i + 1] ?? 0)).toString(16),
  );
  return groups.join(':');
}

/** The first address of a block, or with `fill` 0xff the last. */
function masked(bytes: readonly number[], length: number, fill: number): readonly number[] {
  return bytes.map((byte, i) => {
    const kept = Math.max(0, Math.min(8, length - 8 * i));
    const mask = (0xff00 >> kept) & 0xff;
    return (byte & mask) | (fill & ~mask & 0xff);
  });
}

/** Undefined after the last address. */
function next(bytes: readonly number[]): readonly number[] | undefined {
  const after = [...bytes];
  for (let i = after.length - 1; i >= 0; i--) {
    const byte = after[i] ?? 0;
    if (byte < 255) {
      after[i] = byte + 1;
      return after;
    }
    after[i] = 0;
  }
  return undefined;
}

/** 192.0.2.1. @see RFC 5737 */
const documentation4 = [192, 0, 2, 1];
/** 2001:db8::1. @see RFC 3849 */
const documentation6 = [0x20, 0x01, 0x0d, 0xb8, ...Array.from({ length: 11 }, () => 0), 1];

/** @see RFC 4291 section 2.5.5.2 */
const mapped: Cidr = {
  bytes: [...Array.from({ length: 10 }, () => 0), 0xff, 0xff, 0, 0, 0, 0],
  length: 96,
};
