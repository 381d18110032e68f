import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { type ErrorCode, errorKinds, MeshError, publicError, quote } from '../src/errors.ts';
import { statusOf } from '../src/grpc/status.ts';

const documented = [...readFileSync('docs/errors.md', 'utf8').matchAll(/^\| `([a-z_]+)` /gm)].map(
  (match) => match[1],
);
const kinds = new Set(Object.values(errorKinds));

test('docs/errors.md has every kind and every code, and no others', () => {
  expect(documented.toSorted()).toEqual([...kinds, ...Object.keys(errorKinds)].toSorted());
});

test('every kind has a gRPC status of its own meaning, none of them OK', () => {
  for (const kind of kinds) expect(statusOf(kind)).toBeGreaterThan(0);
});

test.each<[string, unknown, string]>([
  ['an error of ours', new MeshError('entry_not_found', 'no entry "x"'), 'no entry "x"'],
  ['an internal error of ours', new MeshError('lint_failed', 'the serial differs'), 'internal error'],
  ['any other error', new Error('SQLITE_BUSY: /var/lib'), 'internal error'],
  ['something that is no error', 'secret', 'internal error'],
])('%s shows only what may leave', (_, error, message) => {
  const shown = publicError(error);
  expect(shown.message).toBe(message);
  expect(Object.keys(errorKinds)).toContain(shown.code satisfies ErrorCode);
});

test.each([
  ['a\nb', '"a\\nb"'],
  ['\u001b[31m', '"\\u001b[31m"'],
  ['a\u202eb', '"a\\u202eb"'],
  ['\u009b', '"\\u009b"'],
  ['x'.repeat(201), `"${'x'.repeat(200)}…"`],
])('quote makes %j harmless', (text, quoted) => {
  expect(quote(text)).toBe(quoted);
});
