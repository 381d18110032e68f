import { hash } from 'node:crypto';
import { canonicalJson, characterBytes, jsonBytes } from './canonical-json.ts';
import type { AuditEvent, CanonicalJson } from './event.ts';

/**
 * The most bytes a field may take in a leaf, counted as escaped JSON in UTF-8. Fields not named here have
 * `defaultFieldBytes`. SPIFFE IDs and serials as our parsers make them are never cut.
 */
export const fieldBytes: ReadonlyMap<string, number> = new Map([
  ['spiffeId', 2_048],
  ['issuer', 2_048],
  ['source', 2_048],
  ['claimedSource', 2_048],
  ['destination', 2_048],
  ['resource', 2_048],
  ['message', 2_048],
  ['detail', 2_048],
  ['why', 2_048],
  ['reason', 2_048],
  ['value', 2_048],
  ['breakGlass', 2_048],
  // A part of a policy document is made to fit.
  ['text', 40_960],
  ['method', 128],
  ['path', 8_192],
  ['pathPattern', 8_192],
]);
export const defaultFieldBytes = 1_024;
/** The most bytes all selectors of an event may take together, and one of them. */
export const selectorsBytes = 16_384;
export const selectorBytes = 6_400;
/** A policy's text over this is left out (its SHA-256 is in the event). */
export const documentBytes = 40_960;
/** The state before or after a change, when over this, is replaced by `{bytes, sha256}` of its canonical JSON. */
export const stateBytes = 20_480;

/**
 * Cuts what a stranger can make long, so that every event fits into a leaf. Cut text ends with `…[+n]`, n being the
 * UTF-16 code units left out; a cut list ends with `…[+n]`, n being the items left out. An event that fits is
 * returned with the same content. Fitting twice changes nothing.
 */
export function fitEvent<E extends AuditEvent>(event: E): E {
  const fitted: Record<string, unknown> = {};
  for (const name of Object.keys(event)) fitted[name] = fitField(name, Reflect.get(event, name));
  return fitted as E;
}

function fitField(name: string, value: unknown): unknown {
  if (name === 'before' || name === 'after') return fitState(value as CanonicalJson);
  if (name === 'document' && typeof value === 'string') return fits(value, documentBytes) ? value : '';
  if (typeof value === 'string') return cutText(value, fieldBytes.get(name) ?? defaultFieldBytes);
  if (Array.isArray(value)) return cutList(value);
  if (typeof value !== 'object' || value === null || value instanceof Date) return value;
  // Actors, callers and personal values: flat objects.
  const limitOf = (key: string): number =>
    fieldBytes.get(key === 'personal' ? name : key) ?? defaultFieldBytes;
  const fitted: Record<string, unknown> = {};
  for (const [key, inner] of Object.entries(value) as [string, unknown][]) {
    fitted[key] = typeof inner === 'string' ? cutText(inner, limitOf(key)) : inner;
  }
  return fitted;
}

/** Cuts `text` so that it takes at most `maxBytes` (32 or more) in a leaf, the marker included. */
export function cutText(text: string, maxBytes: number): string {
  if (fits(text, maxBytes)) return text;
  let bytes = markerBytes;
  let end = 0;
  for (;;) {
    const code = text.codePointAt(end) ?? 0;
    bytes += characterBytes(code);
    if (bytes > maxBytes) break;
    end += code > 0xffff ? 2 : 1;
  }
  return `${text.slice(0, end)}${marker(text.length - end)}`;
}

function fits(text: string, maxBytes: number): boolean {
  // One UTF-16 code unit takes at most six bytes, and at least one.
  return text.length * 6 <= maxBytes || (text.length <= maxBytes && jsonBytes(text) <= maxBytes);
}

function cutList(items: readonly unknown[]): readonly unknown[] {
  const whole = takeItems(items, selectorsBytes);
  if (whole.length === items.length) return whole;
  const kept = takeItems(items, selectorsBytes - markerBytes - itemOverheadBytes);
  return [...kept, marker(items.length - kept.length)];
}

function takeItems(items: readonly unknown[], maxBytes: number): readonly string[] {
  const kept: string[] = [];
  let bytes = 0;
  for (const item of items) {
    const text = cutText(String(item), selectorBytes);
    bytes += jsonBytes(text) + itemOverheadBytes;
    if (bytes > maxBytes) break;
    kept.push(text);
  }
  return kept;
}

function fitState(state: CanonicalJson): CanonicalJson {
  const json = canonicalJson(state);
  const bytes = Buffer.byteLength(json);
  return bytes <= stateBytes ? state : { bytes, sha256: hash('sha256', json, 'hex') };
}

function marker(left: number): string {
  return `…[+${left}]`;
}

const markerBytes = 20;
const itemOverheadBytes = 3;
