import { expect, test } from 'vitest';
import { normalizedPath, type PathNormalization } from '../../src/authz/normalized-path.ts';
import { canonicalizeHttp } from '../../src/authz/request.ts';
import { ledger, web } from './mesh.ts';

const read = (path: string) =>
  canonicalizeHttp({ source: web, destination: ledger, method: 'GET', path, authority: 'a', port: 80 });

// Whoever is denied for a path has to be told which of its characters to look for.
test.each<[string, string]>([
  ['/a b', 'has a space or a control character'],
  ['/a\u0001', 'has a space or a control character'],
  ['/a\u007f', 'has a space or a control character'],
  ['/a\u0080', 'has characters outside ASCII that are not percent-encoded'],
  ['/caf\u00e9', 'has characters outside ASCII that are not percent-encoded'],
  ['/a"b', 'has a character that no path may have'],
  ['/a{b}', 'has a character that no path may have'],
  ['/a\\b', 'has a backslash'],
  ['/a;b', 'has a ; in a segment'],
  ['/a#b', 'has a fragment'],
  ['a', 'does not begin with /'],
  ['/a//b', 'has an empty segment (//)'],
  ['/a/./b', 'has a dot segment (/./)'],
  ['/a/../b', 'has a dot segment (/../)'],
  ['/a%1fb', 'has a percent-encoded control character'],
  ['/a%2Fb', 'has a percent-encoded slash'],
  ['/a%80', 'has percent-encoded bytes that are not UTF-8'],
  ['/a%f', 'has a % that begins no percent-encoding'],
])('of %j the caller is told that it %s', (path, why) => {
  expect(read(path)).toMatchObject({ why: `the path ${why}` });
});

test.each(['/a.', '/.a', '/a./b', '/.a/b', '/..a', '/a..', '/a.b', '/.../b'])(
  'dots that are not all of a segment of one or two stand for themselves: %s',
  (path) => {
    expect(read(path)).toMatchObject({ path });
  },
);

test.each<[PathNormalization, string, string | null]>([
  ['NONE', '/a/../%2f//b?c', '/a/../%2f//b'],
  ['BASE', '/a|b', '/a%7Cb'],
  ['BASE', '/a b\u007f', '/a%20b%7F'],
  ['BASE', '/caf\u00e9', '/caf%C3%A9'],
  // Two units of UTF-16 and four bytes: taken apart it would be two characters that nobody knows.
  ['BASE', '/\u{1f600}', '/%F0%9F%98%80'],
  ['MERGE_SLASHES', '/a%2f/\\b', '/a%2f/b'],
  ['DECODE_AND_MERGE_SLASHES', '/a%5C%5cb', '/a/b'],
])('under %s Envoy compares %j as %j', (normalization, path, compared) => {
  expect(normalizedPath(path, normalization)).toBe(compared);
});
