import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { canonicalJson, jsonBytes } from '../../src/audit/canonical-json.ts';
import { commitment, encodeEvent, maxLeafBytes } from '../../src/audit/canonical.ts';
import type { AuditEvent, IssuanceEvent } from '../../src/audit/event.ts';
import { cutText, fitEvent } from '../../src/audit/fit.ts';
import { leafHash } from '../../src/audit/leaf.ts';
import { decision, noon, oneOfEach } from './events.ts';
import { hostileEvents } from './hostile-events.ts';

const zeroes = (count: number) => new Uint8Array(count);
const text = (bytes: Uint8Array) => Buffer.from(bytes).toString('utf8');
const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString('hex');
const internal = expect.objectContaining({ code: 'internal' });

describe('canonical JSON', () => {
  test.each([
    [null, 'null'],
    [-0, '0'],
    [Number.MAX_SAFE_INTEGER, '9007199254740991'],
    ['\u20ac$\u000f\nA\'B"\\\\"/', String.raw`"€$\u000f\nA'B\"\\\\\"/"`],
    ['\u007f\u2028', '"\u007f\u2028"'],
    ['a\ud800b', '"a\ufffdb"'],
    [[], '[]'],
    [{}, '{}'],
    // The sorting example of RFC 8785 section 3.2.3.
    [
      { '\u20ac': 1, '\r': 2, '\ufb33': 3, '1': 4, '\ud83d\ude00': 5, '\u0080': 6, '\u00f6': 7 },
      '{"\\r":2,"1":4,"\u0080":6,"\u00f6":7,"\u20ac":1,"\ud83d\ude00":5,"\ufb33":3}',
    ],
    [
      JSON.parse('{"__proto__":1,"constructor":{"b":[2,1],"a":null}}'),
      '{"__proto__":1,"constructor":{"a":null,"b":[2,1]}}',
    ],
  ])('%j', (value, expected) => {
    expect(canonicalJson(value)).toBe(expected);
  });

  test.each([
    ['a float', 0.5],
    ['NaN', Number.NaN],
    ['infinity', Number.POSITIVE_INFINITY],
    ['an unsafe integer', 2 ** 53],
    ['undefined', undefined],
    ['a member that is undefined', { a: undefined }],
    ['a bigint', 1n],
    ['a function', () => 1],
    ['a date', noon],
    ['a map', new Map()],
    ['keys that become equal', { '\ud800': 1, '\ud801': 2 }],
    ['33 levels', JSON.parse(`${'['.repeat(33)}${']'.repeat(33)}`)],
  ])('refuses %s', (_, value) => {
    expect(() => canonicalJson(value)).toThrow(internal);
  });

  test('what is parsed back is what was written, whatever the order of the keys', () => {
    const wellFormed = fc.string({ unit: 'grapheme' });
    const value = fc.letrec((tie) => ({
      any: fc.oneof(
        { maxDepth: 4 },
        fc.constant(null),
        fc.boolean(),
        fc.maxSafeInteger().map((n) => (n === 0 ? 0 : n)),
        wellFormed,
        fc.array(tie('any'), { maxLength: 4 }),
        fc.dictionary(wellFormed, tie('any'), { maxKeys: 4, noNullPrototype: true }),
      ),
    })).any;
    fc.assert(
      fc.property(value, (original) => {
        const json = canonicalJson(original);
        expect(JSON.parse(json)).toEqual(original);
        expect(canonicalJson(reversed(original))).toBe(json);
      }),
    );
  });

  test('the length of a string is known before it is written', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary' }), (s) => {
        expect(jsonBytes(s)).toBe(Buffer.byteLength(canonicalJson(s)) - 2);
      }),
    );
    const units = String.fromCharCode(...Array.from({ length: 65_536 }, (_, i) => i));
    expect(jsonBytes(units)).toBe(Buffer.byteLength(canonicalJson(units)) - 2);
  });
});

describe('an event as a leaf', () => {
  test('has its version, times in UTC and commitments in place of personal values', () => {
    const { leaf, personal } = encodeEvent(decision(), zeroes);
    const fields = JSON.parse(text(leaf));
    expect(fields).toMatchObject({ v: 1, time: '2026-01-31T12:00:00.000Z', caller: { pid: 4_711 } });
    const sha256 = createHash('sha256').update(zeroes(32)).update('/accounts/7').digest('hex');
    expect(fields.path).toEqual({ commitment: sha256 });
    expect(personal).toEqual([
      { field: 'path', salt: '00'.repeat(32), value: '/accounts/7' },
      { field: 'sourceAddress', salt: '00'.repeat(32), value: '127.0.0.1:40000' },
    ]);
    expect(text(leaf)).not.toContain('accounts');
    expect(text(leaf)).not.toContain('127.0.0.1');
  });

  test('takes no administered data for a personal value', () => {
    const event: AuditEvent = { ...entryChange(), after: { personal: 'kept' } };
    const { leaf, personal } = encodeEvent(event, zeroes);
    expect(personal).toEqual([]);
    expect(JSON.parse(text(leaf)).after).toEqual({ personal: 'kept' });
  });

  test.each([
    ['a time that is none', { time: new Date(Number.NaN) }],
    ['the year 10000', { time: new Date(253_402_300_800_000) }],
    ['the year -1', { time: new Date(-62_198_755_200_000) }],
    ['a port that is no integer', { port: 0.5 }],
  ])('refuses %s', (_, change) => {
    expect(() => encodeEvent(decision(change), zeroes)).toThrow(internal);
  });

  test('refuses a short salt, and a leaf over 65,535 bytes', () => {
    expect(() => encodeEvent(decision(), () => zeroes(16))).toThrow(internal);
    const swollen = Object.fromEntries(Array.from({ length: 70 }, (_, i) => [`more${i}`, 'x'.repeat(1_000)]));
    expect(() => encodeEvent({ ...decision(), ...swollen }, zeroes)).toThrow(
      expect.objectContaining({ code: 'audit_event_too_large' }),
    );
  });

  test('always fits, whatever a stranger sends', () => {
    fc.assert(
      fc.property(hostileEvents, (event) => {
        const { leaf, personal } = encodeEvent(event, zeroes);
        expect(leaf.length).toBeLessThanOrEqual(maxLeafBytes);
        const fields = JSON.parse(text(leaf));
        expect(canonicalJson(fields)).toBe(text(leaf));
        for (const { field, salt, value } of personal) {
          expect(fields[field]).toEqual({ commitment: commitment(Buffer.from(salt, 'hex'), value) });
          expect(Buffer.byteLength(value)).toBeLessThanOrEqual(8_192);
        }
        const fitted = fitEvent(event);
        expect(fitEvent(fitted)).toEqual(fitted);
      }),
      { numRuns: 150 },
    );
  });

  test('with the worst text in every field at once still fits', () => {
    for (const event of oneOfEach) {
      const worst = Object.entries(event).map(([name, value]) => {
        if (name === 'type') return [name, value];
        if (name === 'before' || name === 'after') return [name, '\u0001'.repeat(3_413)];
        if (name === 'document') return [name, '\n'.repeat(20_480)];
        if (Array.isArray(value)) return [name, Array.from({ length: 9_999 }, () => '\u0001')];
        return [name, typeof value === 'string' ? '\u0001'.repeat(70_000) : value];
      });
      const { leaf } = encodeEvent(Object.fromEntries(worst) as AuditEvent, zeroes);
      expect(leaf.length).toBeLessThanOrEqual(maxLeafBytes);
    }
  });
});

describe('fitting', () => {
  test.each([
    ['a'.repeat(64), 64, 'a'.repeat(64)],
    ['a'.repeat(65), 64, `${'a'.repeat(44)}…[+21]`],
    ['😀'.repeat(40), 64, `${'😀'.repeat(11)}…[+58]`],
    ['\u0001'.repeat(11), 64, `${'\u0001'.repeat(7)}…[+4]`],
    ['a\ud800'.repeat(40), 64, `${'a\ud800'.repeat(11)}…[+58]`],
  ])('cuts %j to %d bytes', (whole, bytes, expected) => {
    expect(cutText(whole, bytes)).toBe(expected);
  });

  test('leaves out a policy over its limit and digests a state over its limit', () => {
    const change = { ...policyChange(), document: '"'.repeat(32_768) };
    expect(fitEvent(change)).toEqual({ ...change, document: '' });
    const state = { big: 'x'.repeat(30_000) };
    const sha256 = createHash('sha256').update(canonicalJson(state)).digest('hex');
    expect(fitEvent({ ...entryChange(), after: state })).toMatchObject({ after: { bytes: 30_010, sha256 } });
  });

  test('says how many selectors are missing', () => {
    const selectors = Array.from({ length: 2_000 }, (_, i) => `unix:gid:${i}`);
    const fitted = fitEvent({ ...oneOfEach[0], selectors } as IssuanceEvent);
    expect(fitted.selectors.at(-1)).toBe(`…[+${2_000 - fitted.selectors.length + 1}]`);
  });
});

describe('vectors', () => {
  const vectors = JSON.parse(readFileSync(new URL('../vectors/audit-leaves.json', import.meta.url), 'utf8'));

  test.each<LeafVector>(vectors.leaves)('$name', (vector) => {
    const salts = [...vector.salts];
    const encoded = encodeEvent(revive(vector.event), () => Buffer.from(salts.shift() ?? '', 'hex'));
    expect(text(encoded.leaf)).toBe(vector.leaf);
    expect(hex(leafHash(encoded.leaf))).toBe(vector.leafHash);
    expect(encoded.personal.map(({ salt }) => salt)).toEqual(vector.salts);
  });

  test.each<{ bytes: string; hash: string }>(vectors.rfc6962)('RFC 6962 leaf "$bytes"', ({ bytes, hash }) => {
    expect(hex(leafHash(Buffer.from(bytes, 'hex')))).toBe(hash);
  });
});

type LeafVector = { name: string; event: object; salts: string[]; leaf: string; leafHash: string };

function revive(event: object): AuditEvent {
  const times = new Set(['time', 'notBefore', 'notAfter', 'issuedAt', 'from', 'to', 'until']);
  return Object.fromEntries(
    Object.entries(event).map(([name, value]) => [
      name,
      times.has(name) && value !== null ? new Date(value) : value,
    ]),
  ) as AuditEvent;
}

function reversed(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(reversed);
  if (typeof value !== 'object' || value === null) return value;
  const entries: [string, unknown][] = Object.entries(value).map(([key, inner]) => [key, reversed(inner)]);
  return Object.fromEntries(entries.reverse());
}

function entryChange() {
  return oneOfEach.find((event) => event.type === 'entry_change')!;
}

function policyChange() {
  return oneOfEach.find((event) => event.type === 'policy_change')!;
}
