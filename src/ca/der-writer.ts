import { derTag } from '../spiffe/der.ts';

/** One DER element: tag, minimal length, the parts one after the other. At most 16 MiB, far above what we sign. */
export function tlv(tag: number, ...parts: readonly Uint8Array[]): Uint8Array {
  let size = 0;
  for (const part of parts) size += part.length;
  const element = new Uint8Array(elementSize(size));
  let at = writeHeader(element, 0, tag, size);
  for (const part of parts) {
    element.set(part, at);
    at += part.length;
  }
  return element;
}

/** The size of an element whose content has `size` octets. */
export function elementSize(size: number): number {
  return 2 + longOctets(size) + size;
}

/** Writes tag and minimal length of an element into `into` at `at`. @returns where its content begins */
export function writeHeader(into: Uint8Array, at: number, tag: number, size: number): number {
  const octets = longOctets(size);
  into[at] = tag;
  into[at + 1] = octets === 0 ? size : 0x80 | octets;
  for (let i = 0; i < octets; i++) into[at + 2 + i] = (size >>> (8 * (octets - 1 - i))) & 0xff;
  return at + 2 + octets;
}

export function sequence(...parts: readonly Uint8Array[]): Uint8Array {
  return tlv(derTag.sequence, ...parts);
}

/** An INTEGER from its magnitude, big-endian; leading zero octets are dropped or added as DER wants it. */
export function unsignedInteger(magnitude: Uint8Array): Uint8Array {
  let start = 0;
  while (start < magnitude.length - 1 && magnitude[start] === 0) start++;
  const bytes = magnitude.subarray(start);
  return (bytes[0] ?? 0) >= 0x80 || bytes.length === 0
    ? tlv(derTag.integer, Uint8Array.of(0), bytes)
    : tlv(derTag.integer, bytes);
}

export function octetString(content: Uint8Array): Uint8Array {
  return tlv(derTag.octetString, content);
}

/** A BIT STRING of whole octets, or of all but `unusedBits` (0 to 7) bits, which must be zero. */
export function bitString(octets: Uint8Array, unusedBits = 0): Uint8Array {
  return tlv(derTag.bitString, Uint8Array.of(unusedBits), octets);
}

/** TRUE. FALSE is a default everywhere in a certificate, and DER leaves defaults out. */
export function booleanTrue(): Uint8Array {
  return Uint8Array.of(derTag.boolean, 1, 0xff);
}

/** An OBJECT IDENTIFIER from dotted text. For constants: the text is trusted. */
export function objectIdentifier(dotted: string): Uint8Array {
  const [first = 0, second = 0, ...rest] = dotted.split('.').map(Number);
  return tlv(derTag.oid, Uint8Array.from([first * 40 + second, ...rest].flatMap(base128)));
}

/**
 * A Time: UTCTime to the year 2049, GeneralizedTime from 2050. Whole seconds; the caller keeps the year within 1950 to
 * 9999.
 * @see RFC 5280 section 4.1.2.5
 */
export function time(instant: Date): Uint8Array {
  const year = instant.getUTCFullYear();
  const isUtcTime = year < 2050;
  const digits = isUtcTime ? 12 : 14;
  const element = new Uint8Array(2 + digits + 1);
  let at = writeHeader(element, 0, isUtcTime ? derTag.utcTime : derTag.generalizedTime, digits + 1);
  const pair = (value: number): void => {
    element[at++] = zero + Math.floor(value / 10);
    element[at++] = zero + (value % 10);
  };
  if (!isUtcTime) pair(Math.floor(year / 100));
  pair(year % 100);
  pair(instant.getUTCMonth() + 1);
  pair(instant.getUTCDate());
  pair(instant.getUTCHours());
  pair(instant.getUTCMinutes());
  pair(instant.getUTCSeconds());
  element[at] = zulu;
  return element;
}

/** Text of ASCII characters as bytes. */
export function ascii(text: string): Uint8Array {
  return Buffer.from(text, 'latin1');
}

/** How many octets a length takes besides its first. */
function longOctets(size: number): number {
  return size < 0x80 ? 0 : size < 0x100 ? 1 : size < 0x1_0000 ? 2 : 3;
}

function base128(arc: number): number[] {
  const octets = [arc & 0x7f];
  for (let rest = arc >>> 7; rest > 0; rest >>>= 7) octets.unshift(0x80 | (rest & 0x7f));
  return octets;
}

const zero = 0x30;
const zulu = 0x5a;
