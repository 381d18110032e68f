import { ambiguous, malformed, type Rejection } from './rejection.ts';

/** The longest path, query not counted, in bytes. */
export const maxPathBytes = 8_192;

/**
 * The one spelling of a path that policy compares: percent-encodings of characters that may stand plainly in a path are
 * decoded once, all others have upper-case digits. Whatever a proxy, a framework and a policy are known to read
 * differently is refused, not repaired: the application gets the path as sent.
 * @param path at most 8,192 bytes are accepted; without query
 * @see RFC 3986 sections 3.3 and 6.2.2
 */
export function canonicalPath(path: string): string | Rejection {
  if (path.length > maxPathBytes) return malformed(`is longer than ${maxPathBytes} bytes`);
  if (!path.startsWith('/')) return malformed('does not begin with /');
  const refused = checkCharacters(path);
  if (refused !== undefined) return refused;
  const decoded = path.includes('%') ? decode(path) : path;
  if (typeof decoded !== 'string') return decoded;
  return checkSegments(decoded) ?? decoded;
}

function checkCharacters(path: string): Rejection | undefined {
  for (let i = 0; i < path.length; i++) {
    const code = path.charCodeAt(i);
    if (plain[code] === 1) continue;
    if (code <= 0x20 || code === 0x7f) return malformed('has a space or a control character');
    if (code >= 0x80) return malformed('has characters outside ASCII that are not percent-encoded');
    const character = path.charAt(i);
    if (character === '\\') return ambiguous('has a backslash');
    if (character === ';') return ambiguous('has a ; in a segment');
    if (character === '#') return ambiguous('has a fragment');
    if (character !== '%') return malformed('has a character that no path may have');
  }
  return undefined;
}

/** `pchar` of RFC 3986 without `;` and `%`, and the slash. Characters outside ASCII have no place in it. */
const plain = new Uint8Array(0x80);
for (const character of "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~!$&'()*+,=:@/") {
  plain[character.charCodeAt(0)] = 1;
}

function decode(path: string): string | Rejection {
  let out = '';
  let copied = 0;
  for (let at = path.indexOf('%'); at !== -1; at = path.indexOf('%', at + 3)) {
    const digits = path.slice(at + 1, at + 3);
    if (!/^[0-9A-Fa-f]{2}$/.test(digits)) return malformed('has a % that begins no percent-encoding');
    const code = Number.parseInt(digits, 16);
    if (code < 0x20 || code === 0x7f) return ambiguous('has a percent-encoded control character');
    const hazard = hazards.get(code);
    if (hazard !== undefined) return ambiguous(`has a percent-encoded ${hazard}`);
    out += path.slice(copied, at);
    out += plain[code] === 1 ? String.fromCharCode(code) : `%${digits.toUpperCase()}`;
    copied = at + 3;
  }
  out += path.slice(copied);
  return isUtf8(out) ? out : ambiguous('has percent-encoded bytes that are not UTF-8');
}

/** What changes the structure of a path once somebody decodes it, or hides a second encoding. */
const hazards = new Map([
  [0x23, '#'],
  [0x25, '%'],
  [0x2e, 'dot'],
  [0x2f, 'slash'],
  [0x3b, ';'],
  [0x3f, '?'],
  [0x5c, 'backslash'],
]);

/** An overlong encoding such as `%C0%AF` is a slash to some decoders. */
function isUtf8(path: string): boolean {
  try {
    decodeURIComponent(path);
    return true;
  } catch {
    return false;
  }
}

function checkSegments(path: string): Rejection | undefined {
  let start = 1;
  for (let i = 1; i <= path.length; i++) {
    if (i < path.length && path.charCodeAt(i) !== slash) continue;
    const length = i - start;
    if (length === 0 && i < path.length) return ambiguous('has an empty segment (//)');
    if (length === 1 && path.charCodeAt(start) === dot) return ambiguous('has a dot segment (/./)');
    if (length === 2 && path.charCodeAt(start) === dot && path.charCodeAt(start + 1) === dot) {
      return ambiguous('has a dot segment (/../)');
    }
    start = i + 1;
  }
  return undefined;
}

const slash = 0x2f;
const dot = 0x2e;
