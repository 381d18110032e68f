import { constants, generateKeyPairSync, type KeyObject, sign } from 'node:crypto';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { MeshError } from '../../src/errors.ts';
import { inspectJsonBundle } from '../../src/spiffe/inspect-bundle.ts';
import { inspectJwt } from '../../src/spiffe/inspect-jwt.ts';

const ec = generateKeyPairSync('ec', { namedCurve: 'P-256' });
const ec384 = generateKeyPairSync('ec', { namedCurve: 'P-384' });
const rsa = generateKeyPairSync('rsa', { modulusLength: 2_048 });
const small = generateKeyPairSync('rsa', { modulusLength: 1_024 });
const jwkOf = (key: KeyObject, kid: string) => ({ ...key.export({ format: 'jwk' }), kid, use: 'jwt-svid' });
const { usable } = inspectJsonBundle(
  JSON.stringify({
    keys: [
      jwkOf(ec.publicKey, 'ec'),
      jwkOf(ec384.publicKey, 'ec384'),
      jwkOf(rsa.publicKey, 'rsa'),
      jwkOf(small.publicKey, 'small'),
    ],
  }),
);
const keys = usable[0]!.jwtKeys;
const at = new Date('2026-11-21T12:00:00Z');
const seconds = at.getTime() / 1_000;
const goodHeader: object = { alg: 'ES256', kid: 'ec', typ: 'JWT' };
const goodClaims: object = {
  sub: 'spiffe://example.org/web',
  aud: ['orders'],
  exp: seconds + 60,
  iat: seconds,
};

const part = (value: object | string) =>
  Buffer.from(typeof value === 'string' ? value : JSON.stringify(value)).toString('base64url');
const options = { dsaEncoding: 'ieee-p1363' } as const;
function token(
  header = goodHeader,
  claims: object | string = goodClaims,
  key = ec.privateKey,
  hash = 'sha256',
  how: object = options,
) {
  const signed = `${part(header)}.${part(claims)}`;
  return `${signed}.${sign(hash, Buffer.from(signed), { key, ...how }).toString('base64url')}`;
}
const rules = (text: string, against: Parameters<typeof inspectJwt>[1] = {}) =>
  inspectJwt(text, against).broken.map(({ rule }) => rule);

test('a proper token says what it says, and that nobody has verified it', () => {
  expect(inspectJwt(token())).toEqual({
    facts: {
      header: { alg: 'ES256', kid: 'ec', typ: 'JWT' },
      subject: 'spiffe://example.org/web',
      audience: ['orders'],
      expiresAt: new Date('2026-11-21T12:01:00Z'),
      issuedAt: at,
      notBefore: null,
      otherClaims: [],
      signature: 'not verified',
    },
    broken: [],
  });
});

describe('form', () => {
  test.each<[string, object, object | string, string[]]>([
    ['a further header', { ...goodHeader, jku: 'https://evil' }, goodClaims, ['jwt-svid-2-header']],
    ['crit', { ...goodHeader, crit: ['x'] }, goodClaims, ['jwt-svid-2-header']],
    ['alg none', { alg: 'none' }, goodClaims, ['jwt-svid-2.1-alg']],
    ['alg HS256', { alg: 'HS256' }, goodClaims, ['jwt-svid-2.1-alg']],
    ['alg in lower case', { alg: 'es256' }, goodClaims, ['jwt-svid-2.1-alg']],
    ['no alg', {}, goodClaims, ['jwt-svid-2.1-alg']],
    ['alg of a prototype', { alg: 'constructor' }, goodClaims, ['jwt-svid-2.1-alg']],
    ['a kid that is a number', { alg: 'ES256', kid: 1 }, goodClaims, ['jwt-svid-2.2-kid']],
    ['another typ', { alg: 'ES256', typ: 'at+jwt' }, goodClaims, ['jwt-svid-2.3-typ']],
    ['no sub', goodHeader, { ...goodClaims, sub: undefined }, ['jwt-svid-3.1-sub']],
    ['a sub that is no text', goodHeader, { ...goodClaims, sub: 1 }, ['jwt-svid-3.1-sub']],
    ['a sub of a trust domain', goodHeader, { ...goodClaims, sub: 'spiffe://a' }, ['jwt-svid-3.1-sub']],
    ['a sub that is no ID', goodHeader, { ...goodClaims, sub: 'web' }, ['spiffe-id-2-scheme']],
    ['no aud', goodHeader, { ...goodClaims, aud: undefined }, ['jwt-svid-3.2-aud']],
    ['an empty aud', goodHeader, { ...goodClaims, aud: [] }, ['jwt-svid-3.2-aud']],
    ['an aud of one text', goodHeader, { ...goodClaims, aud: 'orders' }, []],
    ['an aud of empty text', goodHeader, { ...goodClaims, aud: '' }, ['jwt-svid-3.2-aud']],
    ['an aud with a number', goodHeader, { ...goodClaims, aud: ['a', 1] }, ['jwt-svid-3.2-aud']],
    ['no exp', goodHeader, { ...goodClaims, exp: undefined }, ['jwt-svid-3.3-exp']],
    ['an exp in text', goodHeader, { ...goodClaims, exp: '1' }, ['jwt-svid-3.3-exp']],
    ['an exp beyond all years', goodHeader, { ...goodClaims, exp: 1e300 }, ['jwt-svid-3.3-exp']],
    [
      'an exp of too many digits',
      goodHeader,
      '{"sub":"spiffe://a/b","aud":"x","exp":1e999}',
      ['jwt-svid-3.3-exp'],
    ],
    [
      'an nbf and an iat in text',
      goodHeader,
      { ...goodClaims, nbf: '', iat: '' },
      ['rfc7519-4.1-numeric-date', 'rfc7519-4.1-numeric-date'],
    ],
    [
      'a claim twice',
      goodHeader,
      '{"sub":"spiffe://a/b","aud":"x","exp":1,"\\u0073ub":"spiffe://a/c"}',
      ['rfc7519-4-unique-claims'],
    ],
    [
      'everything wrong',
      { alg: 'none', kid: 1, typ: 'x', jwk: {} },
      { sub: 'x', aud: 1, exp: 'x', nbf: 'x' },
      [
        'jwt-svid-2-header',
        'jwt-svid-2.1-alg',
        'jwt-svid-2.2-kid',
        'jwt-svid-2.3-typ',
        'spiffe-id-2-scheme',
        'jwt-svid-3.2-aud',
        'jwt-svid-3.3-exp',
        'rfc7519-4.1-numeric-date',
      ],
    ],
  ])('%s', (_, header, claims, expected) => {
    expect(rules(token(header, claims))).toEqual(expected);
  });

  test('a header member twice, and a token without a signature', () => {
    const doubled = `${part('{"alg":"ES256","alg":"none"}')}.${part(goodClaims)}.AAAA`;
    expect(rules(doubled)).toEqual(['rfc7515-4-unique-members', 'jwt-svid-2.1-alg']);
    expect(rules(token().replace(/[^.]+$/, ''))).toEqual(['jwt-svid-4-signature']);
    expect(rules(`${token()}=`)).toEqual(['jwt-svid-4-signature']);
  });

  test.each([
    ['nothing', ''],
    ['one part', 'abc'],
    ['two parts', 'e30.e30'],
    ['four parts', 'e30.e30.AAAA.AAAA'],
    ['five parts', 'e30.e30.e30.e30.e30'],
    ['JSON form', '{"payload":"","signatures":[]}'],
    ['padding', 'e30=.e30.AAAA'],
    ['base64', '-_+/.e30.AAAA'],
    ['stray bits', 'e31.e30.AAAA'],
    ['no JSON', `${part('x')}.e30.AAAA`],
    ['an array', `${part('[]')}.e30.AAAA`],
    ['null', `e30.${part('null')}.AAAA`],
    ['no UTF-8', `${Buffer.of(0x7b, 0x22, 0xff, 0x22, 0x7d).toString('base64url')}.e30.AAAA`],
    ['a byte order mark', `${part('\uFEFF{}')}.e30.AAAA`],
    ['deep nesting', `${part(`{"a":${'['.repeat(9_000)}${']'.repeat(9_000)}}`)}.e30.AAAA`],
    ['a newline before', `\n${token()}`],
    ['Bearer', `Bearer ${token()}`],
  ])('%s cannot be read', (_, text) => {
    expect(() => inspectJwt(text)).toThrow(expect.objectContaining({ code: 'input_unreadable' }));
  });

  test('a token over 64 KiB is not read', () => {
    expect(() => inspectJwt('a'.repeat(65_537))).toThrow(
      expect.objectContaining({ code: 'input_too_large' }),
    );
  });
});

describe('verification', () => {
  const pss = { padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: constants.RSA_PSS_SALTLEN_DIGEST };
  test.each([
    ['ES256', 'ec', ec, 'sha256', options],
    ['ES384', 'ec384', ec384, 'sha384', options],
    ['RS256', 'rsa', rsa, 'sha256', {}],
    ['RS512', 'rsa', rsa, 'sha512', {}],
    ['PS384', 'rsa', rsa, 'sha384', pss],
  ])('%s verifies with and without a kid', (alg, kid, pair, hash, how) => {
    for (const header of [{ alg, kid }, { alg }]) {
      const { facts, broken } = inspectJwt(token(header, goodClaims, pair.privateKey, hash, how), {
        keys,
        at,
      });
      expect([facts.signature, broken]).toEqual(['verified', []]);
    }
  });

  test.each<[string, () => string]>([
    [
      'a stranger',
      () => token(goodHeader, goodClaims, generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey),
    ],
    ['an unknown kid', () => token({ alg: 'ES256', kid: 'x' })],
    ['the kid of another kind', () => token({ alg: 'ES256', kid: 'rsa' })],
    ['the kid of another curve', () => token({ alg: 'ES256', kid: 'ec384' })],
    ['a DER signature', () => token(goodHeader, goodClaims, ec.privateKey, 'sha256', {})],
    ['another digest', () => token(goodHeader, goodClaims, ec.privateKey, 'sha384')],
    [
      'an RSA key of 1,024 bits',
      () => token({ alg: 'RS256', kid: 'small' }, goodClaims, small.privateKey, 'sha256', {}),
    ],
    [
      'other claims',
      () => token().replace(/\.[^.]+\./, `.${part({ ...goodClaims, sub: 'spiffe://example.org/admin' })}.`),
    ],
  ])('by %s fails', (_, make) => {
    const { facts, broken } = inspectJwt(make(), { keys, at });
    expect(facts.signature).toBe('invalid');
    expect(broken.map(({ rule }) => rule)).toEqual(['jwt-svid-4-signature']);
  });

  test.each([
    ['at its end', goodClaims, new Date((seconds + 60) * 1_000), ['jwt-svid-4-time']],
    ['just before its end', goodClaims, new Date((seconds + 60) * 1_000 - 1), []],
    ['before nbf', { ...goodClaims, nbf: seconds + 10 }, at, ['jwt-svid-4-time']],
  ])('%s', (_, claims, moment, expected) => {
    expect(rules(token(goodHeader, claims), { keys, at: moment })).toEqual(expected);
  });

  test('an ambiguous header is verified by no key', () => {
    const head = Buffer.from('{"alg":"ES256","kid":"x","kid":"ec"}').toString('base64url');
    const signed = `${head}.${part(goodClaims)}`;
    const signature = sign('sha256', Buffer.from(signed), { key: ec.privateKey, ...options });
    expect(inspectJwt(`${signed}.${signature.toString('base64url')}`, { keys, at }).facts.signature).toBe(
      'invalid',
    );
  });
});

test('whatever is bent is read or refused, and never verified', () => {
  const good = token();
  fc.assert(
    fc.property(fc.nat(good.length - 1), fc.string({ unit: 'binary', maxLength: 3 }), (where, put) => {
      const bent = good.slice(0, where) + put + good.slice(where + 1);
      try {
        expect(inspectJwt(bent, { keys, at }).facts.signature === 'verified').toBe(bent === good);
      } catch (error) {
        expect(error).toBeInstanceOf(MeshError);
      }
    }),
    { numRuns: 2_000 },
  );
});
