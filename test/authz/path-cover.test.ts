import fc from 'fast-check';
import { expect, test } from 'vitest';
import { compileTexts } from '../../src/authz/match.ts';
import { canonicalPath } from '../../src/authz/path.ts';
import { coverOf, parsePathPattern, pathLike } from '../../src/authz/path-cover.ts';

const pattern = (text: string) => {
  const found = parsePathPattern(text);
  if (found === undefined) throw new Error(`no pattern: ${text}`);
  return found;
};

test.each<[string, string[], 'all' | 'none' | 'some']>([
  ['/a', ['/a'], 'all'],
  ['/a', ['/b', '/a/*'], 'none'],
  ['/a', ['/b', '*'], 'all'],
  ['*', ['*'], 'all'],
  ['*', ['/*'], 'all'],
  ['*', ['/{**}'], 'all'],
  ['*', ['/a', '/b*'], 'some'],
  ['/a/*', ['/a/*'], 'all'],
  ['/a/*', ['/a*'], 'all'],
  ['/a/*', ['/a/{**}'], 'all'],
  ['/a/*', ['/a/b'], 'some'],
  ['/a/*', ['/a/b*'], 'some'],
  ['/a/*', ['/a/{*}'], 'some'],
  ['/a/*', ['*.json'], 'some'],
  ['/a/*', ['/a', '/b*', '/b/{*}'], 'none'],
  ['/a*', ['/a'], 'some'],
  ['*.json', ['*json'], 'all'],
  ['*.json', ['*x.json'], 'some'],
  ['*.json', ['*.xml'], 'none'],
  ['*.json', ['/a/{*}', '/a*'], 'some'],
  ['*.json', ['/a.json'], 'some'],
  ['*.json', ['/a.xml'], 'none'],
  ['/a/{*}', ['/a/{*}'], 'all'],
  ['/a/{*}', ['/a/*'], 'all'],
  ['/a/{*}', ['/a/{**}'], 'all'],
  ['/a/{*}', ['/a/b', '/{*}/b'], 'some'],
  ['/a/{*}', ['/a/b/c', '/b*'], 'none'],
  ['/a/{*}/c', ['*/c'], 'all'],
  ['/a/{*}/c', ['*/d'], 'none'],
  ['/a/{**}', ['/a/*'], 'all'],
])('the paths of %s are matched by %j: %s', (paths, values, cover) => {
  expect(coverOf(pattern(paths), values.map(pattern))).toBe(cover);
});

test.each(['', '/a…', 'a…[+9]', '/a*b', '**', '/{*}x', '/{**}/{*}', 'a/{*}', '/{*}*', 'a', 'a*'])(
  '%j of a record is no pattern',
  (text) => {
    expect(parsePathPattern(text)).toBeUndefined();
  },
);

const segment = fc.constantFrom('a', 'b', 'ab', 'a.json', '%20', '{*}', '{**}');
const written = fc
  .tuple(
    fc.constantFrom('', '*', '/'),
    fc.array(segment, { maxLength: 3 }),
    fc.constantFrom('', '/', '*', '/*'),
  )
  .map(([begin, parts, end]) => `${begin}${parts.join('/')}${end}`)
  .filter((text) => parsePathPattern(text) !== undefined);
const path = fc
  .array(fc.constantFrom('a', 'b', 'ab', 'a.json', '%20', 'x', 'a:@=,'), { maxLength: 4 })
  .chain((parts) => fc.constantFrom(`/${parts.join('/')}`, `/${parts.join('/')}/`))
  .filter((text) => canonicalPath(text) === text);

test('all and none hold of every path, and the one that stands for all fares as they do', () => {
  const seen = { all: 0, none: 0, some: 0 };
  fc.assert(
    fc.property(
      written,
      fc.array(written, { minLength: 1, maxLength: 3 }),
      fc.array(path, { minLength: 30, maxLength: 30 }),
      (one, values, tried) => {
        const paths = pattern(one);
        const matches = compileTexts(values.map(pattern));
        const cover = coverOf(paths, values.map(pattern));
        seen[cover] += 1;
        if (cover === 'some') return;
        for (const each of tried.filter(compileTexts([paths]))) expect(matches(each)).toBe(cover === 'all');
        expect(matches(pathLike(paths))).toBe(cover === 'all');
      },
    ),
    { numRuns: 2_000 },
  );
  expect(Math.min(seen.all, seen.none, seen.some)).toBeGreaterThan(50);
});
