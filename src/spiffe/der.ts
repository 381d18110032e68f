import { MeshError } from '../errors.ts';

/** The ASN.1 tags this house reads, as identifier octets. */
export const derTag = {
  boolean: 0x01,
  integer: 0x02,
  bitString: 0x03,
  octetString: 0x04,
  null: 0x05,
  oid: 0x06,
  enumerated: 0x0a,
  utcTime: 0x17,
  generalizedTime: 0x18,
  sequence: 0x30,
  set: 0x31,
} as const;

/** Deepest nesting read. A certificate needs 9 levels; the cap stops a hostile file from filling the stack. */
export const maxDerDepth = 24;

/**
 * Reads DER, and only DER: definite and minimal lengths, minimal integers, canonical booleans, low tag numbers.
 * Every method throws MeshError `der_invalid` and nothing else, and costs no more than the bytes it passes over.
 * A reader covers one content; who has read all of it says so with {@link DerReader.finish}.
 * @see ITU-T X.690 sections 8, 10 and 11
 */
export class DerReader {
  readonly #bytes: Uint8Array;
  readonly #end: number;
  readonly #depth: number;
  #at: number;

  private constructor(bytes: Uint8Array, start: number, end: number, depth: number) {
    this.#bytes = bytes;
    this.#at = start;
    this.#end = end;
    this.#depth = depth;
  }

  /** A reader over all of `bytes`. What it returns are views into `bytes`, not copies. */
  static over(bytes: Uint8Array): DerReader {
    return new DerReader(bytes, 0, bytes.length, 0);
  }

  /** The tag of the next element, or undefined at the end. */
  peek(): number | undefined {
    return this.#at < this.#end ? this.#bytes[this.#at] : undefined;
  }

  /** Enters the next element, which must have the constructed tag `tag`, and steps over it. */
  enter(tag: number): DerReader {
    if (this.#depth >= maxDerDepth) this.#refuse(`is nested more than ${maxDerDepth} levels deep`);
    const start = this.#header(tag);
    const inner = new DerReader(this.#bytes, start, this.#at, this.#depth + 1);
    return inner;
  }

  /** The content octets of the next element, which must have the tag `tag`. */
  content(tag: number): Uint8Array {
    const start = this.#header(tag);
    return this.#bytes.subarray(start, this.#at);
  }

  /** The whole next element, header included. With `tag`, it must have that tag. */
  element(tag?: number): Uint8Array {
    const start = this.#at;
    this.#header(tag);
    return this.#bytes.subarray(start, this.#at);
  }

  /** The content of an INTEGER: at least one octet, two's complement, minimal. */
  integer(): Uint8Array {
    const value = this.content(derTag.integer);
    const [first, second] = value;
    if (first === undefined) this.#refuse('has an empty integer');
    if (second !== undefined && ((first === 0x00 && second < 0x80) || (first === 0xff && second >= 0x80))) {
      this.#refuse('has an integer with needless leading octets');
    }
    return value;
  }

  /** An INTEGER from 0 to 127. */
  smallInteger(): number {
    const value = this.integer();
    const [first] = value;
    if (value.length !== 1 || first === undefined || first > 0x7f)
      this.#refuse('has an integer out of range');
    return first;
  }

  boolean(): boolean {
    const value = this.content(derTag.boolean);
    if (value.length !== 1 || (value[0] !== 0x00 && value[0] !== 0xff))
      this.#refuse('has a malformed boolean');
    return value[0] === 0xff;
  }

  /** A BIT STRING: its octets and how many bits at the end, which must be zero, are unused. */
  bitString(): { unusedBits: number; octets: Uint8Array } {
    const value = this.content(derTag.bitString);
    const [unusedBits] = value;
    const last = value.at(-1) ?? 0;
    if (unusedBits === undefined || unusedBits > 7 || (value.length === 1 && unusedBits !== 0)) {
      this.#refuse('has a malformed bit string');
    }
    if (value.length > 1 && (last & ((1 << unusedBits) - 1)) !== 0)
      this.#refuse('has a bit string with set padding');
    return { unusedBits, octets: value.subarray(1) };
  }

  /** An OBJECT IDENTIFIER as dotted text, such as `2.5.29.17`. Arcs of more than 28 bits are refused. */
  oid(): string {
    const value = this.content(derTag.oid);
    if (value.length === 0 || value.length > 32) this.#refuse('has a malformed object identifier');
    let text = '';
    let arc = 0;
    let first = true;
    for (let i = 0, begin = 0; i < value.length; i++) {
      const octet = value[i] ?? 0;
      if ((i === begin && octet === 0x80) || i - begin > 3) this.#refuse('has a malformed object identifier');
      arc = (arc << 7) | (octet & 0x7f);
      if (octet >= 0x80) continue;
      if (first) {
        const root = Math.min(2, Math.floor(arc / 40));
        text = `${root}.${arc - root * 40}`;
        first = false;
      } else {
        text += `.${arc}`;
      }
      arc = 0;
      begin = i + 1;
    }
    if ((value.at(-1) ?? 0x80) >= 0x80) this.#refuse('has a malformed object identifier');
    return text;
  }

  /**
   * A Time as RFC 5280 wants it: UTCTime to 2049, GeneralizedTime from 2050, whole seconds, `Z`.
   * @see RFC 5280 section 4.1.2.5
   */
  time(): Date {
    const utc = this.peek() === derTag.utcTime;
    const text = this.content(utc ? derTag.utcTime : derTag.generalizedTime);
    if (text.length !== (utc ? 13 : 15) || text.at(-1) !== zulu) this.#refuse('has a malformed time');
    let at = 0;
    const pair = (): number => {
      const [tens, ones] = [(text[at] ?? 0) - zero, (text[at + 1] ?? 0) - zero];
      if (tens < 0 || tens > 9 || ones < 0 || ones > 9) this.#refuse('has a malformed time');
      at += 2;
      return tens * 10 + ones;
    };
    const first = pair();
    const year = utc ? (first < 50 ? 2000 : 1900) + first : first * 100 + pair();
    const [month, day, hour, minute, second] = [pair(), pair(), pair(), pair(), pair()];
    if (!utc && year < 2050) this.#refuse('has a GeneralizedTime before 2050');
    const time = new Date(Date.UTC(year, month - 1, day, hour, minute, second));
    // Date rolls 30 February over into March: what it made must read like what was written.
    if (
      time.getUTCFullYear() !== year ||
      time.getUTCMonth() !== month - 1 ||
      time.getUTCDate() !== day ||
      time.getUTCHours() !== hour ||
      time.getUTCMinutes() !== minute ||
      time.getUTCSeconds() !== second
    ) {
      this.#refuse('has a time that does not exist');
    }
    return time;
  }

  /** Demands that nothing is left. */
  finish(): void {
    if (this.#at !== this.#end) this.#refuse('has bytes after the end');
  }

  /** Steps over the next element and returns where its content starts; `#at` is then where it ends. */
  #header(tag: number | undefined): number {
    const found = this.#bytes[this.#at];
    const length = this.#bytes[this.#at + 1];
    if (this.#at + 2 > this.#end || found === undefined || length === undefined)
      this.#refuse('ends too early');
    if (tag !== undefined && found !== tag) this.#refuse(`has tag ${hex(found)} where ${hex(tag)} belongs`);
    if ((found & 0x1f) === 0x1f) this.#refuse('has a tag of more than one octet');
    const [start, size] = length < 0x80 ? [this.#at + 2, length] : this.#longLength(length & 0x7f);
    if (size > this.#end - start) this.#refuse('ends too early');
    this.#at = start + size;
    return start;
  }

  #longLength(octets: number): [start: number, size: number] {
    if (octets === 0) this.#refuse('has an indefinite length');
    if (octets > 3) this.#refuse('has a length of more than three octets');
    if (this.#at + 2 + octets > this.#end) this.#refuse('ends too early');
    let size = 0;
    for (let i = 0; i < octets; i++) size = (size << 8) | (this.#bytes[this.#at + 2 + i] ?? 0);
    if (size < 0x80 || size < 1 << (8 * (octets - 1))) this.#refuse('has a length that is not minimal');
    return [this.#at + 2 + octets, size];
  }

  #refuse(why: string): never {
    throw new MeshError('der_invalid', `the DER ${why} (at byte ${this.#at})`);
  }
}

/**
 * Walks all of `bytes`, which must be one element of tag `tag`: every length and every nesting, down to the leaves.
 * @throws MeshError `der_invalid`
 */
export function checkDer(bytes: Uint8Array, tag: number = derTag.sequence): void {
  const outer = DerReader.over(bytes);
  walk(outer.enter(tag));
  outer.finish();
}

function walk(reader: DerReader): void {
  for (let tag = reader.peek(); tag !== undefined; tag = reader.peek()) {
    if ((tag & 0x20) !== 0) walk(reader.enter(tag));
    else reader.element(tag);
  }
}

const zero = 0x30;
const zulu = 0x5a;

/** Bytes as text, one character each. */
export function latin1(bytes: Uint8Array): string {
  return view(bytes).toString('latin1');
}

/** Bytes as lower-case hex. */
export function hexOf(bytes: Uint8Array): string {
  return view(bytes).toString('hex');
}

/** Whether two byte strings are the same. For public values only: it stops at the first difference. */
export function bytesEqual(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && view(a).equals(b);
}

function view(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
}

function hex(octet: number): string {
  return `0x${octet.toString(16).padStart(2, '0')}`;
}
