import { MeshError } from '../errors.ts';

const maxDepth = 32;

/**
 * Writes a value as canonical JSON (RFC 8785, restricted to safe integers): object keys sorted by UTF-16 code unit, no
 * white space, strings escaped as ECMAScript does. Lone surrogates become U+FFFD first, in keys as in values.
 * @param value null, boolean, safe integer, string, array or plain object, at most 32 levels deep
 * @throws MeshError `internal` for any other value: our own code made it
 */
export function canonicalJson(value: unknown): string {
  return write(value, 0);
}

/** The UTF-8 bytes `text` takes inside a JSON string, without the quotes: one for `a`, two for `"`, six for U+0001. */
export function jsonBytes(text: string): number {
  let bytes = 0;
  for (let at = 0; at < text.length; at++) {
    const code = text.codePointAt(at) ?? 0;
    if (code > 0xffff) at++;
    bytes += characterBytes(code);
  }
  return bytes;
}

/** The same for one code point. Lone surrogates count as the U+FFFD that replaces them. */
export function characterBytes(code: number): number {
  if (code < 0x20) return shortEscapes.has(code) ? 2 : 6;
  if (code < 0x80) return code === doubleQuote || code === backslash ? 2 : 1;
  if (code < 0x800) return 2;
  return code > 0xffff ? 4 : 3;
}

function write(value: unknown, depth: number): string {
  if (typeof value === 'string') return canonicalString(value);
  if (typeof value === 'number') {
    if (!Number.isSafeInteger(value)) refuse('a number that is no safe integer');
    // JSON has a minus zero, integers have not.
    return value === 0 ? '0' : String(value);
  }
  if (value === null || typeof value === 'boolean') return String(value);
  if (typeof value !== 'object') refuse(`a value of type ${typeof value}`);
  if (depth === maxDepth) refuse(`more than ${maxDepth} levels`);
  if (Array.isArray(value)) return `[${value.map((item) => write(item, depth + 1)).join(',')}]`;
  return writeObject(value, depth + 1);
}

function writeObject(object: object, depth: number): string {
  if (!isPlain(object)) refuse('an object that is not plain');
  // Without a comparison function strings are sorted by UTF-16 code unit.
  const names = Object.keys(object).sort();
  const members = names.every((name) => name.isWellFormed())
    ? (object as Readonly<Record<string, unknown>>)
    : undefined;
  if (members === undefined) return writeIllFormed(object, depth);
  let text = '';
  for (const name of names) {
    text += `${text === '' ? '' : ','}${quoteName(name)}:${write(members[name], depth)}`;
  }
  return `{${text}}`;
}

/** Keys with lone surrogates, which may become the same key. */
function writeIllFormed(object: object, depth: number): string {
  const members = new Map<string, unknown>();
  for (const [key, value] of Object.entries(object)) {
    const name = key.toWellFormed();
    if (members.has(name)) refuse('the same key twice');
    members.set(name, value);
  }
  const parts = [...members.keys()]
    .sort()
    .map((name) => `${quoteName(name)}:${write(members.get(name), depth)}`);
  return `{${parts.join(',')}}`;
}

/** The names of our own fields come again and again. */
function quoteName(name: string): string {
  const known = quotedNames.get(name);
  if (known !== undefined) return known;
  const quoted = JSON.stringify(name);
  if (name.length <= 32 && quotedNames.size < 512) quotedNames.set(name, quoted);
  return quoted;
}

const quotedNames = new Map<string, string>();

function canonicalString(text: string): string {
  return JSON.stringify(text.toWellFormed());
}

function isPlain(object: object): boolean {
  const prototype: unknown = Object.getPrototypeOf(object);
  return prototype === Object.prototype || prototype === null;
}

function refuse(what: string): never {
  throw new MeshError('internal', `canonical JSON cannot hold ${what}`);
}

const doubleQuote = 0x22;
const backslash = 0x5c;
// \b \t \n \f \r (RFC 8785 section 3.2.2.2)
const shortEscapes: ReadonlySet<number> = new Set([0x08, 0x09, 0x0a, 0x0c, 0x0d]);
