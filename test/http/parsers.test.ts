import { randomBytes } from 'node:crypto';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { MeshError } from '../../src/errors.ts';
import { mintToken, parseAuthorization, provesToken, secretSha256 } from '../../src/http/bearer-token.ts';
import { maxBodyCommas, maxBodyDepth, parseJsonBody } from '../../src/http/json-body.ts';
import { pageOf } from '../../src/http/page.ts';
import { statusOf } from '../../src/http/problem.ts';

test('any bytes are a value or body_invalid, never anything else', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
      try {
        parseJsonBody(Buffer.from(bytes));
      } catch (error) {
        expect(error).toBeInstanceOf(MeshError);
        expect((error as MeshError).code).toBe('body_invalid');
      }
    }),
  );
});

test('JSON that is not too deep reads as JSON.parse reads it', () => {
  fc.assert(
    fc.property(fc.jsonValue({ maxDepth: maxBodyDepth - 2 }), (value) => {
      const text = JSON.stringify(value);
      fc.pre(!text.includes('__proto__'));
      expect(parseJsonBody(Buffer.from(text))).toEqual(JSON.parse(text));
    }),
  );
});

test.each([
  [maxBodyDepth, true],
  [maxBodyDepth + 1, false],
])('%i levels are read: %s', (levels, isRead) => {
  const text = Buffer.from(`${'['.repeat(levels)}${']'.repeat(levels)}`);
  if (isRead) expect(parseJsonBody(text)).toBeInstanceOf(Array);
  else expect(() => parseJsonBody(text)).toThrowError(expect.objectContaining({ code: 'body_invalid' }));
});

test.each([
  [maxBodyCommas, true],
  [maxBodyCommas + 1, false],
])('%i commas are read: %s', (commas, isRead) => {
  const text = Buffer.from(`["${','.repeat(maxBodyCommas)}"${',0'.repeat(commas)}]`);
  if (isRead) expect(parseJsonBody(text)).toHaveLength(commas + 1);
  else expect(() => parseJsonBody(text)).toThrowError(expect.objectContaining({ code: 'body_invalid' }));
});

test('pages of any size hold every key once, in order', () => {
  fc.assert(
    fc.property(fc.uniqueArray(fc.string()), fc.integer({ min: 1, max: 7 }), (keys, limit) => {
      const values = new Map(keys.map((key) => [key, key]));
      const seen: string[] = [];
      let cursor: string | undefined;
      do {
        const page = pageOf(values, cursor === undefined ? { limit } : { limit, cursor });
        expect(page.items.length).toBeLessThanOrEqual(limit);
        seen.push(...page.items);
        cursor = page.next ?? undefined;
      } while (cursor !== undefined);
      expect(seen).toEqual([...keys].sort());
    }),
  );
});

test('a minted token proves itself, and no token near it does', () => {
  const grants = [{ role: 'viewer', namespaces: null }] as const;
  const wish = { grants, label: '', lifeSeconds: 60 };
  const { stored, text } = mintToken(wish, new Date(0), randomBytes);
  const presented = parseAuthorization(`Bearer ${text}`)!;
  expect(secretSha256(presented)).toBe(stored.secretSha256);
  expect(JSON.stringify(stored)).not.toContain(presented.secret);
  expect(provesToken(presented, stored)).toBe(true);
  expect(provesToken(presented, null)).toBe(false);
  expect(provesToken({ ...presented, id: '0'.repeat(16) }, stored)).toBe(false);
  fc.assert(
    fc.property(fc.integer({ min: 0, max: 63 }), (at) => {
      const flipped = presented.secret[at] === '0' ? '1' : '0';
      const secret = presented.secret.slice(0, at) + flipped + presented.secret.slice(at + 1);
      expect(provesToken({ ...presented, secret }, stored)).toBe(false);
    }),
  );
});

test.each([
  [undefined],
  [''],
  ['Bearer'],
  [`bearer  ctk_${'0'.repeat(16)}_${'0'.repeat(64)}`],
  [`Bearer ctk_${'0'.repeat(16)}_${'A'.repeat(64)}`],
  [`Bearer ctk_${'0'.repeat(16)}_${'0'.repeat(65)}`],
  [`Bearer ctk_${'0'.repeat(16)}_${'0'.repeat(64)}\n`],
  [`Basic ctk_${'0'.repeat(16)}_${'0'.repeat(64)}`],
])('%j is no bearer token', (header) => {
  expect(parseAuthorization(header)).toBeUndefined();
});

test.each([
  ['entry_invalid', 400],
  ['unauthenticated', 401],
  ['forbidden', 403],
  ['origin_not_allowed', 403],
  ['host_not_allowed', 421],
  ['entry_not_found', 404],
  ['entry_exists', 409],
  ['store_locked', 409],
  ['body_too_large', 413],
  ['media_type_unsupported', 415],
  ['stream_limit', 429],
  ['store_unavailable', 503],
  ['internal', 500],
] as const)('%s is answered with %i', (code, status) => {
  expect(statusOf(code)).toBe(status);
});
