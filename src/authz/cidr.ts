/** A block of addresses: the bits of `bytes` after the first `length` do not count. */
export type Cidr = { readonly bytes: readonly number[]; readonly length: number };

/**
 * Reads an address or a block of addresses, IPv4 or IPv6; an address is a block of one.
 * @returns undefined for anything else, zones and leading zeros among it
 * @see RFC 4632 section 3.1, RFC 4291 section 2.3
 */
export function parseCidr(text: string): Cidr | undefined {
  const slash = text.indexOf('/');
  const bytes = parseAddress(slash === -1 ? text : text.slice(0, slash));
  if (bytes === undefined) return undefined;
  if (slash === -1) return { bytes, length: bytes.length * 8 };
  const length = text.slice(slash + 1);
  if (!/^(?:0|[1-9][0-9]{0,2})$/.test(length) || Number(length) > bytes.length * 8) return undefined;
  return { bytes, length: Number(length) };
}

/** The bytes of an address, 4 or 16; undefined for anything else. @see RFC 4291 section 2.2 */
export function parseAddress(text: string): readonly number[] | undefined {
  return text.includes(':') ? parseIpv6(text) : parseIpv4(text);
}

/** Whether an address is of a block. IPv4 is of no block of IPv6, mapped or not. */
export function isInCidr(address: readonly number[], { bytes, length }: Cidr): boolean {
  if (address.length !== bytes.length) return false;
  const whole = length >> 3;
  for (let i = 0; i < whole; i++) if (address[i] !== bytes[i]) return false;
  const rest = length & 7;
  return ((address[whole] ?? 0) ^ (bytes[whole] ?? 0)) >> (8 - rest) === 0;
}

function parseIpv4(text: string): readonly number[] | undefined {
  if (text.length > maxIpv4Length) return undefined;
  const bytes: number[] = [];
  let byte = -1;
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i);
    if (code === dot) {
      if (byte === -1) return undefined;
      bytes.push(byte);
      byte = -1;
      continue;
    }
    const digit = code - zero;
    // A leading zero: some read what follows as octal.
    if (digit < 0 || digit > 9 || byte === 0) return undefined;
    byte = byte === -1 ? digit : byte * 10 + digit;
    if (byte > 255) return undefined;
  }
  if (byte === -1 || bytes.length !== 3) return undefined;
  bytes.push(byte);
  return bytes;
}

const maxIpv4Length = 15;
const dot = 0x2e;
const zero = 0x30;

function parseIpv6(text: string): readonly number[] | undefined {
  if (text.length > maxIpv6Length) return undefined;
  const halves = text.split('::');
  if (halves.length > 2) return undefined;
  const [head, tail] = halves.map((half, index) => parseGroups(half, index === halves.length - 1));
  if (head === undefined) return undefined;
  if (halves.length === 1) return head.length === 16 ? head : undefined;
  if (tail === undefined || head.length + tail.length > 14) return undefined;
  return [...head, ...Array.from({ length: 16 - head.length - tail.length }, () => 0), ...tail];
}

const maxIpv6Length = 45;

/** @param isLast whether an IPv4 address may stand at the end */
function parseGroups(text: string, isLast: boolean): number[] | undefined {
  if (text === '') return [];
  const bytes: number[] = [];
  const groups = text.split(':');
  for (const [index, group] of groups.entries()) {
    if (isLast && index === groups.length - 1 && group.includes('.')) {
      const embedded = parseIpv4(group);
      if (embedded === undefined) return undefined;
      bytes.push(...embedded);
    } else {
      if (!/^[0-9a-fA-F]{1,4}$/.test(group)) return undefined;
      const value = Number.parseInt(group, 16);
      bytes.push(value >> 8, value & 0xff);
    }
  }
  return bytes;
}

/** The one form of an address: one of IPv4 that is written as IPv6 (RFC 4291 section 2.5.5.2) is of IPv4. */
export function canonicalAddress(bytes: readonly number[]): readonly number[] {
  return isMapped(bytes) ? bytes.slice(12) : bytes;
}

/** The one form of a block: see {@link canonicalAddress}. */
export function canonicalCidr({ bytes, length }: Cidr): Cidr {
  return length >= 96 && isMapped(bytes)
    ? { bytes: bytes.slice(12), length: length - 96 }
    : { bytes, length };
}

function isMapped(bytes: readonly number[]): boolean {
  return bytes[10] === 0xff && bytes[11] === 0xff && bytes.slice(0, 10).every((byte) => byte === 0);
}

/**
 * A block as texts: an address is of the block when the address's own key begins with one of them. A text has a
 * character for four bits, so a block that ends within four bits has up to eight texts.
 */
export function cidrKeys({ bytes, length }: Cidr): readonly string[] {
  const whole = addressKey(bytes);
  const key = whole.slice(0, 1 + (length >> 2));
  const rest = length & 3;
  if (rest === 0) return [key];
  const first = Number.parseInt(whole.charAt(key.length), 16) & (0xf0 >> rest);
  return Array.from({ length: 1 << (4 - rest) }, (_, i) => key + (first + i).toString(16));
}

/** An address as text: its family and its bits, four in a character. */
export function addressKey(bytes: readonly number[]): string {
  let key = bytes.length === 4 ? '4' : '6';
  for (const byte of bytes) key += textOfByte[byte] ?? '';
  return key;
}

const textOfByte = Array.from({ length: 256 }, (_, byte) => byte.toString(16).padStart(2, '0'));
