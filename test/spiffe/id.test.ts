import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { MeshError } from '../../src/errors.ts';
import { kubernetesNames, SpiffeId, TrustDomain } from '../../src/spiffe/id.ts';

const trustDomainChars = 'abcdefghijklmnopqrstuvwxyz0123456789.-_';
const pathChars = `ABCDEFGHIJKLMNOPQRSTUVWXYZ${trustDomainChars}`;
const longest = `spiffe://td/${'a'.repeat(2_048 - 'spiffe://td/'.length)}`;

function codeOf(run: () => unknown): string {
  try {
    run();
  } catch (error) {
    return error instanceof MeshError ? error.code : `not ours: ${String(error)}`;
  }
  return 'accepted';
}

describe('SpiffeId.parse refuses', () => {
  test.each([
    ['', 'spiffe_id_empty'],
    [' ', 'spiffe_id_scheme'],
    ['example.org/a', 'spiffe_id_scheme'],
    ['spiffe:', 'spiffe_id_scheme'],
    ['spiffe:/example.org/a', 'spiffe_id_scheme'],
    ['spiffe:example.org/a', 'spiffe_id_scheme'],
    ['SPIFFE://example.org/a', 'spiffe_id_scheme'],
    ['Spiffe://example.org/a', 'spiffe_id_scheme'],
    ['https://example.org/a', 'spiffe_id_scheme'],
    [' spiffe://example.org/a', 'spiffe_id_scheme'],
    ['\uFEFFspiffe://example.org/a', 'spiffe_id_scheme'],
    ['spiffe://', 'spiffe_id_trust_domain_missing'],
    ['spiffe:///a', 'spiffe_id_trust_domain_missing'],
    ['spiffe:///', 'spiffe_id_trust_domain_missing'],
    ['spiffe://Example.org/a', 'spiffe_id_trust_domain_char'],
    ['spiffe://example.org:443/a', 'spiffe_id_trust_domain_char'],
    ['spiffe://user@example.org/a', 'spiffe_id_trust_domain_char'],
    ['spiffe://user:secret@example.org/a', 'spiffe_id_trust_domain_char'],
    ['spiffe://[::1]/a', 'spiffe_id_trust_domain_char'],
    ['spiffe://example%2eorg/a', 'spiffe_id_trust_domain_char'],
    ['spiffe://exämple.org/a', 'spiffe_id_trust_domain_char'],
    ['spiffe://example.org?q', 'spiffe_id_trust_domain_char'],
    ['spiffe://example.org#f', 'spiffe_id_trust_domain_char'],
    ['spiffe://example.org\\a', 'spiffe_id_trust_domain_char'],
    ['spiffe://example.org\0/a', 'spiffe_id_trust_domain_char'],
    [`spiffe://${'a'.repeat(256)}/a`, 'spiffe_id_trust_domain_too_long'],
    ['spiffe://example.org/', 'spiffe_id_trailing_slash'],
    ['spiffe://example.org/a/', 'spiffe_id_trailing_slash'],
    ['spiffe://example.org//', 'spiffe_id_segment_empty'],
    ['spiffe://example.org//a', 'spiffe_id_segment_empty'],
    ['spiffe://example.org/a//b', 'spiffe_id_segment_empty'],
    ['spiffe://example.org/.', 'spiffe_id_segment_dot'],
    ['spiffe://example.org/..', 'spiffe_id_segment_dot'],
    ['spiffe://example.org/a/./b', 'spiffe_id_segment_dot'],
    ['spiffe://example.org/a/../b', 'spiffe_id_segment_dot'],
    ['spiffe://example.org/a?q=1', 'spiffe_id_path_char'],
    ['spiffe://example.org/a#f', 'spiffe_id_path_char'],
    ['spiffe://example.org/a b', 'spiffe_id_path_char'],
    ['spiffe://example.org/a\tb', 'spiffe_id_path_char'],
    ['spiffe://example.org/a\n', 'spiffe_id_path_char'],
    ['spiffe://example.org/a\0', 'spiffe_id_path_char'],
    ['spiffe://example.org/%61', 'spiffe_id_path_char'],
    ['spiffe://example.org/a%2f..', 'spiffe_id_path_char'],
    ['spiffe://example.org/a;b', 'spiffe_id_path_char'],
    ['spiffe://example.org/a:b', 'spiffe_id_path_char'],
    ['spiffe://example.org/*', 'spiffe_id_path_char'],
    ['spiffe://example.org/ä', 'spiffe_id_path_char'],
    ['spiffe://example.org/a\u202E', 'spiffe_id_path_char'],
    [`${longest}a`, 'spiffe_id_too_long'],
    ['x'.repeat(1_000_000), 'spiffe_id_too_long'],
  ])('%j as %s', (text, code) => {
    expect(codeOf(() => SpiffeId.parse(text))).toBe(code);
    expect(codeOf(() => SpiffeId.parseWorkload(text))).toBe(code);
  });

  test('a trust domain where a workload belongs', () => {
    expect(codeOf(() => SpiffeId.parseWorkload('spiffe://example.org'))).toBe('spiffe_id_path_missing');
  });
});

test.each([
  ['spiffe://example.org', 'example.org', ''],
  ['spiffe://example.org/a', 'example.org', '/a'],
  ['spiffe://example.org/ns/shop/sa/web', 'example.org', '/ns/shop/sa/web'],
  ['spiffe://1.2.3.4/a', '1.2.3.4', '/a'],
  ['spiffe://__proto__/constructor', '__proto__', '/constructor'],
  ['spiffe://-._/...', '-._', '/...'],
  ['spiffe://td/.a/a./..a', 'td', '/.a/a./..a'],
  [`spiffe://${'a'.repeat(255)}`, 'a'.repeat(255), ''],
  [longest, 'td', longest.slice('spiffe://td'.length)],
])('SpiffeId.parse accepts %s', (text, trustDomain, path) => {
  const id = SpiffeId.parse(text);
  expect([id.trustDomain.name, id.path, id.text, String(id)]).toEqual([trustDomain, path, text, text]);
});

describe('every byte value', () => {
  const bytes = Array.from({ length: 256 }, (_, code) => String.fromCharCode(code));

  test('in the trust domain', () => {
    for (const c of bytes) {
      // A slash ends the trust domain: what follows is then judged as a path.
      const code = trustDomainChars.includes(c) || c === '/' ? 'accepted' : 'spiffe_id_trust_domain_char';
      expect([c, codeOf(() => SpiffeId.parse(`spiffe://a${c}b/p`))]).toEqual([c, code]);
      const alone = trustDomainChars.includes(c) ? 'accepted' : 'spiffe_id_trust_domain_char';
      expect([c, codeOf(() => TrustDomain.parse(`a${c}b`))]).toEqual([c, alone]);
    }
  });

  test('in the path', () => {
    for (const c of bytes) {
      const code = pathChars.includes(c) || c === '/' ? 'accepted' : 'spiffe_id_path_char';
      expect([c, codeOf(() => SpiffeId.parse(`spiffe://td/a${c}b`))]).toEqual([c, code]);
    }
  });
});

test.each([
  ['', 'spiffe_id_trust_domain_missing'],
  ['spiffe://example.org', 'spiffe_id_trust_domain_char'],
  ['example.org/a', 'spiffe_id_trust_domain_char'],
  ['Example.org', 'spiffe_id_trust_domain_char'],
  ['a'.repeat(256), 'spiffe_id_trust_domain_too_long'],
])('TrustDomain.parse refuses %j as %s', (text, code) => {
  expect(codeOf(() => TrustDomain.parse(text))).toBe(code);
});

test('TrustDomain is equal by name and has an ID', () => {
  const td = TrustDomain.parse('example.org');
  expect(td.id).toBe('spiffe://example.org');
  expect(td.equals(TrustDomain.parse('example.org'))).toBe(true);
  expect(td.equals(TrustDomain.parse('example.com'))).toBe(false);
  expect(SpiffeId.parse('spiffe://example.org/a').memberOf(td)).toBe(true);
  expect(SpiffeId.parse('spiffe://example.org.evil/a').memberOf(td)).toBe(false);
});

test.each([
  ['/ns/shop/sa/web', { namespace: 'shop', serviceAccount: 'web' }],
  ['/ns/a.b/sa/c_d', { namespace: 'a.b', serviceAccount: 'c_d' }],
  ['', undefined],
  ['/ns/shop', undefined],
  ['/ns/shop/sa', undefined],
  ['/ns/shop/sa/web/more', undefined],
  ['/x/ns/shop/sa/web', undefined],
  ['/NS/shop/sa/web', undefined],
  ['/ns/shop/SA/web', undefined],
])('kubernetesNames of %j', (path, names) => {
  expect(kubernetesNames(SpiffeId.parse(`spiffe://td${path}`))).toEqual(names);
});

const segment = fc
  .string({ unit: fc.constantFrom(...pathChars.split('')), minLength: 1, maxLength: 20 })
  .filter((text) => text !== '.' && text !== '..');
const validId = fc
  .tuple(
    fc.string({ unit: fc.constantFrom(...trustDomainChars.split('')), minLength: 1, maxLength: 60 }),
    fc.array(segment, { maxLength: 6 }),
  )
  .map(([name, segments]) => `spiffe://${name}${segments.map((s) => `/${s}`).join('')}`);

test('every valid ID comes back as it was', () => {
  fc.assert(
    fc.property(validId, (text) => {
      const id = SpiffeId.parse(text);
      expect(id.text).toBe(text);
      for (let i = 0; i < 2; i++) expect(`spiffe://${id.principal}`).toBe(text);
      expect(id.trustDomain.id + id.path).toBe(text);
      expect(SpiffeId.parse(id.text).equals(id)).toBe(true);
    }),
    { numRuns: 1_000 },
  );
});

test('nothing is laundered: what is accepted is of the grammar, and unchanged', () => {
  const grammar = /^spiffe:\/\/[a-z0-9._-]{1,255}(\/(?!\.{1,2}(\/|$))[A-Za-z0-9._-]+)*$/;
  const piece = fc.constantFrom(
    ...[
      'spiffe://',
      'td',
      '/',
      '..',
      '.',
      'a',
      'A',
      '%2e',
      '?',
      '#',
      '@',
      ':',
      ';',
      ' ',
      '\t',
      '\n',
      '\0',
      '\\',
      'é',
      '_',
    ],
  );
  const hostile = fc.oneof(
    fc.array(piece, { maxLength: 12 }).map((pieces) => pieces.join('')),
    fc.array(piece, { maxLength: 12 }).map((pieces) => `spiffe://${pieces.join('')}`),
    fc.tuple(validId, fc.nat(), fc.string({ unit: 'binary', maxLength: 2 })).map(([text, at, extra]) => {
      const cut = at % (text.length + 1);
      return text.slice(0, cut) + extra + text.slice(cut);
    }),
  );
  fc.assert(
    fc.property(hostile, (text) => {
      const code = codeOf(() => SpiffeId.parse(text));
      expect(code === 'accepted').toBe(grammar.test(text) && text.length <= 2_048);
      if (code === 'accepted') expect(SpiffeId.parse(text).text).toBe(text);
      else expect(code).toMatch(/^spiffe_id_/);
    }),
    { numRuns: 5_000 },
  );
});
