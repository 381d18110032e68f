import { canonicalHost } from '../host.ts';
import { canonicalPath, maxPathBytes } from '../path.ts';
import { maxIdBytes, maxTrustDomainBytes } from '../../spiffe/id.ts';
import { isMethod } from '../request.ts';
import { codesOf } from './glob.ts';

/** Where in a text somebody is who writes it from the left. */
export type DomainState = string;

/**
 * The texts that an attribute can have, written character by character. INVARIANT: `step` tells no two characters of a
 * class of `classesAt` apart, so that one of them stands for all that no glob names.
 */
export type TextDomain = {
  readonly start: DomainState;
  /** Undefined when no text goes on so. */
  readonly step: (state: DomainState, code: number) => DomainState | undefined;
  readonly ends: (state: DomainState) => boolean;
  readonly classesAt: (state: DomainState) => readonly string[];
  /** Whether the whole text is one: bounds of length count here. */
  readonly has: (text: string) => boolean;
  /** What is tried first, so that examples look like calls. */
  readonly usual: readonly string[];
};

const lower = 'xyzabcdefghijklmnopqrstuvw';
const digits = '1234567890';
const upper = lower.toUpperCase();

/** Canonical paths: see `authz/path.ts`. */
export const pathDomain: TextDomain = {
  start: '',
  step: stepPath,
  ends: (state) => state === 's' || state === 'n',
  classesAt: (state) => {
    if (state === '') return ['/'];
    if (state.startsWith('%')) return [];
    return state === 's' ? pathSegment : pathAfter;
  },
  has: (text) => text.length <= maxPathBytes && canonicalPath(text) === text,
  usual: ['/', '/x'],
};
const pathPlain = `${lower}${digits}${upper}-_~!$&'()+,=:@*`;
const pathSegment = [pathPlain, '.'];
const pathAfter = [pathPlain, '.', '/'];

/**
 * `s`: at the beginning of a segment; `d` and `e`: it is `.` and `..`; `n`: it is anything else. `%...`: within what is
 * percent-encoded, the bytes still to come after it as ranges.
 */
function stepPath(state: DomainState, code: number): DomainState | undefined {
  const character = String.fromCharCode(code);
  if (state === '') return character === '/' ? 's' : undefined;
  if (state.startsWith('%')) return stepEscape(state, character);
  if (character === '/') return state === 'n' ? 's' : undefined;
  if (character === '.') return state === 's' ? 'd' : state === 'd' ? 'e' : 'n';
  if (character === '%') return '%first:';
  return pathPlain.includes(character) ? 'n' : undefined;
}

/** `%<range>:<digit>`; between the bytes of one character `%><range>`, where a `%` must follow. */
function stepEscape(state: DomainState, character: string): DomainState | undefined {
  if (state.startsWith('%>')) return character === '%' ? `%${state.slice(2)}:` : undefined;
  if (!/^[0-9A-F]$/.test(character)) return undefined;
  const at = state.indexOf(':');
  const [range, digit] = [state.slice(1, at), state.slice(at + 1)];
  if (digit === '') return `${state}${character}`;
  const byte = Number.parseInt(digit + character, 16);
  if (range === 'first') return afterFirst(byte);
  const [bounds = '', ...more] = range.split(',');
  const [low = 0, high = 0] = bounds.split('-').map((hex) => Number.parseInt(hex, 16));
  if (byte < low || byte > high) return undefined;
  return more.length === 0 ? 'n' : `%>${more.join(',')}`;
}

/** @see RFC 3629 section 4 */
function afterFirst(byte: number): DomainState | undefined {
  if (byte < 0x80) return escaped.has(byte) ? 'n' : undefined;
  if (byte >= 0xc2 && byte <= 0xdf) return '%>80-BF';
  if (byte === 0xe0) return '%>A0-BF,80-BF';
  if (byte === 0xed) return '%>80-9F,80-BF';
  if (byte >= 0xe1 && byte <= 0xef) return '%>80-BF,80-BF';
  if (byte === 0xf0) return '%>90-BF,80-BF,80-BF';
  if (byte >= 0xf1 && byte <= 0xf3) return '%>80-BF,80-BF,80-BF';
  return byte === 0xf4 ? '%>80-8F,80-BF,80-BF' : undefined;
}

/** What stays encoded in a canonical path. */
const escaped = new Set(codesOf(' "<>[]^`{|}'));

/** SPIFFE IDs with a path, without `spiffe://`. */
export const callerDomain: TextDomain = {
  start: 't',
  step: (state, code) => {
    const character = String.fromCharCode(code);
    if (state === 't' || state === 'u') {
      if (character === '/') return state === 'u' ? 's' : undefined;
      return idLower.includes(character) || character === '.' ? 'u' : undefined;
    }
    if (character === '/') return state === 'n' ? 's' : undefined;
    if (character === '.') return state === 's' ? 'd' : state === 'd' ? 'e' : 'n';
    return idAny.includes(character) ? 'n' : undefined;
  },
  ends: (state) => state === 'n',
  classesAt: (state) => (state === 't' || state === 'u' ? idName : idPath),
  has: (text) => text.length <= maxIdBytes - 'spiffe://'.length && text.indexOf('/') <= maxTrustDomainBytes,
  usual: [],
};
const idLower = `${lower}${digits}-_`;
const idAny = `${idLower}${upper}`;
const idName = [idLower, '.', '/'];
const idPath = [idAny, '.', '/'];

/** Tokens of at most 64 characters; CONNECT has no path and is refused before. */
export const methodDomain: TextDomain = {
  start: '',
  step: (_, code) => (methodPlain.includes(String.fromCharCode(code)) ? 'm' : undefined),
  ends: (state) => state === 'm',
  classesAt: () => [methodPlain],
  has: (text) => isMethod(text) && text !== 'CONNECT',
  usual: ['GET', 'POST', 'PUT', 'DELETE', 'PATCH', 'HEAD', 'OPTIONS'],
};
const methodPlain = `${upper}${lower}${digits}!#$%&'*+.^_\`|~-`;

/**
 * Names of hosts. A name whose last label is a number is an address: those are tried as they are written in policies, and
 * no name stands for them.
 */
export const hostDomain: TextDomain = {
  start: 's',
  step: (state, code) => {
    const character = String.fromCharCode(code);
    if (character === '.') return state === 's' ? undefined : 's';
    if (!/^[a-z0-9_-]$/.test(character)) return undefined;
    if (state === 's') return character === '0' ? 'z' : /[1-9]/.test(character) ? 'd' : 'n';
    if (state === 'z') return character === 'x' ? 'h' : /[0-9]/.test(character) ? 'd' : 'n';
    if (state === 'd') return /[0-9]/.test(character) ? 'd' : 'n';
    return state === 'h' && /[0-9a-f]/.test(character) ? 'h' : 'n';
  },
  ends: (state) => state === 'n',
  classesAt: () => hostClasses,
  has: (text) => canonicalHost(text) === text,
  usual: ['unknown.invalid', '192.0.2.1', '[2001:db8::1]'],
};
const hostClasses = ['yzghijklmnopqrstuvw_-', 'x', 'abcdef', '123456789', '0', '.'];

/** What TLS may ask for: nothing is the empty text. */
export const serverNameDomain: TextDomain = {
  start: '',
  step: (_, code) => (/^[a-z0-9._-]$/.test(String.fromCharCode(code)) ? 'n' : undefined),
  ends: () => true,
  classesAt: () => [`${lower}${digits}._-`],
  has: (text) => text.length <= 255,
  usual: ['', 'unknown.invalid'],
};

/** A line of a header without outer spaces, in ASCII. */
export const headerDomain: TextDomain = {
  start: '',
  step: (state, code) => {
    const isSpace = code === 0x20 || code === 0x09;
    if (!isSpace && (code < 0x21 || code > 0x7e)) return undefined;
    return isSpace ? (state === '' ? undefined : ' ') : 'n';
  },
  ends: (state) => state !== ' ',
  classesAt: (state) => (state === '' ? [printable] : [printable, ' \t']),
  has: (text) => text.length <= 65_536,
  usual: ['x'],
};
const printable = `${lower}${digits}${upper}!"#$%&'()*+,-./:;<=>?@[\\]^_\`{|}~`;

/** Any text: of claims, and of what filters note. */
export const textDomain: TextDomain = {
  start: '',
  step: () => '',
  ends: () => true,
  // Nobody writes all of these into policies; whoever does is told that nothing is proven.
  classesAt: () => [
    `${printable}${Array.from({ length: 512 }, (_, i) => String.fromCharCode(0x4e00 + i)).join('')}`,
  ],
  has: () => true,
  usual: ['x'],
};
