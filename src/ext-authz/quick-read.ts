import type { Address } from '../wire/core.ts';
import { type Headers, headersAt } from './header-list.ts';
import { KnownTexts } from './known-texts.ts';

/** What is read of a CheckRequest; all else in it is left alone. */
export type CheckParts = {
  readonly source: Peer | undefined;
  readonly destination: Peer | undefined;
  readonly http: HttpParts | undefined;
  readonly tlsSession: { readonly sni: string } | undefined;
  /** What the filters of the proxy noted. */
  readonly filterMetadata:
    Readonly<Record<string, Readonly<Record<string, unknown>> | undefined>> | undefined;
};

type Peer = {
  readonly principal: string;
  readonly certificate: string;
  readonly address: Address | undefined;
};

type HttpParts = {
  readonly method: string;
  readonly path: string;
  readonly host: string;
  readonly headers: Headers;
};

/**
 * Reads what we need of a CheckRequest, if it is written as Envoy writes one with our bootstrap: known fields, each at
 * most once and within its message. Undefined for anything else, which says nothing about it: the generated decoder reads
 * that. INVARIANT: what is answered is what that decoder would have read; test/ext-authz/quick-read.test.ts compares them.
 */
export function readQuickly(bytes: Buffer): CheckParts | undefined {
  // Longer ones are rare, and offsets are small integers below.
  if (bytes.length > maxBytes) return undefined;
  try {
    const reader = new Reader(bytes);
    if (reader.varint() !== tag(1, 2)) return undefined;
    reader.enter();
    if (reader.end !== bytes.length) return undefined;
    return readAttributes(reader);
  } catch (error) {
    if (error === unusual) return undefined;
    throw error;
  }
}

function readAttributes(reader: Reader): CheckParts {
  let source: Peer | undefined;
  let destination: Peer | undefined;
  let http: HttpParts | undefined;
  let tlsSession: CheckParts['tlsSession'];
  let filterMetadata: CheckParts['filterMetadata'];
  const { end } = reader;
  let last = 0;
  while (reader.at < end) {
    const field = reader.varint();
    // In the order of their numbers, so that none comes twice.
    if (field <= last) throw unusual;
    last = field;
    reader.enter();
    if (field === tag(1, 2)) source = readPeer(reader);
    else if (field === tag(2, 2)) destination = readPeer(reader);
    else if (field === tag(4, 2)) http = readRequest(reader);
    else if (field === tag(12, 2)) tlsSession = readTlsSession(reader);
    else if (field === tag(11, 2) && reader.at === reader.end) filterMetadata = {};
    else if (field !== tag(13, 2) || reader.at !== reader.end) throw unusual;
    reader.leave(end);
  }
  return { source, destination, http, tlsSession, filterMetadata };
}

function readPeer(reader: Reader): Peer {
  let [principal, certificate] = ['', ''];
  let address: Address | undefined;
  const { end } = reader;
  let last = 0;
  while (reader.at < end) {
    const field = reader.varint();
    if (field <= last) throw unusual;
    last = field;
    reader.enter();
    if (field === tag(1, 2)) address = readAddress(reader);
    else if (field === tag(4, 2)) principal = reader.known(knownTexts);
    else if (field === tag(5, 2)) certificate = reader.known(knownTexts);
    else if (field === tag(2, 2)) reader.skip();
    else throw unusual;
    reader.leave(end);
  }
  return { principal, certificate, address };
}

function readAddress(reader: Reader): Address {
  const { end } = reader;
  if (reader.varint() !== tag(1, 2)) throw unusual;
  reader.enter();
  if (reader.end !== end) throw unusual;
  let address = '';
  let port: number | undefined;
  let last = 0;
  while (reader.at < end) {
    const field = reader.varint();
    if (field <= last) throw unusual;
    last = field;
    if (field === tag(2, 2)) {
      reader.enter();
      address = reader.text();
      reader.leave(end);
    } else if (field === tag(3, 0)) port = reader.varint();
    else if (field === tag(1, 0)) reader.varint();
    else throw unusual;
  }
  return {
    address: {
      $case: 'socketAddress',
      socketAddress: {
        protocol: 0,
        address,
        portSpecifier: port === undefined ? undefined : { $case: 'portValue', portValue: port },
      },
    },
  };
}

function readTlsSession(reader: Reader): { readonly sni: string } {
  if (reader.at === reader.end) return { sni: '' };
  const { end } = reader;
  if (reader.varint() !== tag(1, 2)) throw unusual;
  reader.enter();
  const sni = reader.text();
  if (reader.at !== end) throw unusual;
  return { sni };
}

function readRequest(reader: Reader): HttpParts | undefined {
  let http: HttpParts | undefined;
  const { end } = reader;
  let last = 0;
  while (reader.at < end) {
    const field = reader.varint();
    if (field <= last) throw unusual;
    last = field;
    reader.enter();
    if (field === tag(1, 2)) readTime(reader);
    else if (field === tag(2, 2)) http = readHttp(reader);
    else throw unusual;
    reader.leave(end);
  }
  return http;
}

/** Nobody asks for it, but what is no time is no request. */
function readTime(reader: Reader): void {
  const { end } = reader;
  let last = 0;
  while (reader.at < end) {
    const field = reader.varint();
    if (field <= last || (field !== tag(1, 0) && field !== tag(2, 0))) throw unusual;
    last = field;
    reader.longVarint();
  }
}

function readHttp(reader: Reader): HttpParts {
  let [method, path, host] = ['', '', ''];
  const names: string[] = [];
  const borders: number[] = [];
  let isRaw = true;
  const { end } = reader;
  let last = 0;
  while (reader.at < end) {
    const field = reader.varint();
    if (field < last || (field === last && field !== tag(3, 2))) throw unusual;
    last = field;
    if (field === tag(9, 0)) {
      reader.longVarint();
      continue;
    }
    reader.enter();
    if (field === tag(2, 2)) method = reader.text();
    else if (field === tag(3, 2)) {
      isRaw = false;
      readHeader(reader, names, borders, isRaw);
    } else if (field === tag(4, 2)) path = reader.text();
    else if (field === tag(5, 2)) host = reader.text();
    else if (field === tag(13, 2)) {
      // Both ways in one request are for the generated decoder.
      if (!isRaw && reader.at !== reader.end) throw unusual;
      readHeaderMap(reader, names, borders);
    } else if (skipped.has(field)) reader.skip();
    else throw unusual;
    reader.leave(end);
  }
  return { method, path, host, headers: headersAt({ bytes: reader.bytes, names, borders, isRaw }) };
}

function readHeaderMap(reader: Reader, names: string[], borders: number[]): void {
  const { end } = reader;
  while (reader.at < end) {
    if (reader.varint() !== tag(1, 2)) throw unusual;
    reader.enter();
    readHeader(reader, names, borders, true);
    reader.leave(end);
  }
}

/** A HeaderValue with a raw value, or an entry of the map. */
function readHeader(reader: Reader, names: string[], borders: number[], isRaw: boolean): void {
  const { end } = reader;
  if (names.length === maxHeaders || reader.at === end || reader.varint() !== tag(1, 2)) throw unusual;
  reader.enter();
  const name = reader.known(knownNames);
  reader.leave(end);
  if (!isRaw && (names.includes(name) || !plainName.test(name))) throw unusual;
  let [from, to] = [0, 0];
  if (reader.at < end) {
    if (reader.varint() !== tag(isRaw ? 3 : 2, 2)) throw unusual;
    reader.enter();
    [from, to] = [reader.at, reader.end];
    reader.skip();
    if (reader.at !== end) throw unusual;
  }
  names.push(name);
  borders.push(from, to);
}

/** A place in the bytes of a message, and the end of what is being read. */
class Reader {
  readonly bytes: Buffer;
  at = 0;
  end: number;

  constructor(bytes: Buffer) {
    this.bytes = bytes;
    this.end = bytes.length;
  }

  /** At most four bytes: a tag, a length or a port. */
  varint(): number {
    let value = 0;
    for (let shift = 0; shift < 28; shift += 7) {
      if (this.at >= this.end) throw unusual;
      const byte = this.bytes[this.at++] ?? 0;
      value |= (byte & 0x7f) << shift;
      if (byte < 0x80) return value;
    }
    throw unusual;
  }

  longVarint(): void {
    for (let i = 0; i < 10; i++) {
      if (this.at >= this.end) throw unusual;
      if ((this.bytes[this.at++] ?? 0) < 0x80) return;
    }
    throw unusual;
  }

  /** Goes into what has its length before it. */
  enter(): void {
    const length = this.varint();
    if (this.at + length > this.end) throw unusual;
    this.end = this.at + length;
  }

  /** Goes back to what ends at `outer`. INVARIANT: all within has been read. */
  leave(outer: number): void {
    if (this.at !== this.end) throw unusual;
    this.end = outer;
  }

  skip(): void {
    this.at = this.end;
  }

  text(): string {
    const text = this.at === this.end ? '' : this.bytes.toString('utf8', this.at, this.end);
    this.at = this.end;
    return text;
  }

  /** A text that comes again and again: the same string for the same bytes. */
  known(texts: KnownTexts): string {
    const { bytes, at, end } = this;
    this.at = end;
    return texts.read(bytes, at, end);
  }
}

function tag(field: number, wireType: 0 | 2): number {
  return (field << 3) | wireType;
}

/** Names of headers, in lower case: the same few come with every call. */
const knownNames = new KnownTexts({ capacity: 1_024, maxBytes: 64, read: (text) => text.toLowerCase() });
/** Of the callers of a proxy, with every call: who they are, and a kilobyte of certificate. */
const knownTexts = new KnownTexts({ capacity: 4_096, maxBytes: 8_192, read: (text) => text });
const maxHeaders = 200;
const maxBytes = 65_536;
// id, scheme, query, fragment, protocol
const skipped: ReadonlySet<number> = new Set([1, 6, 7, 8, 10].map((field) => tag(field, 2)));
// What an object of JavaScript keeps in the order it came, and under no other name.
const plainName = /^[a-z:][a-z0-9:._-]*$/;
const unusual = new Error('not written as usual');
