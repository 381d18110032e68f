import { createHash, generateKeyPairSync, type KeyObject } from 'node:crypto';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  defaultJwtTtlSeconds,
  jwtAlgorithmOf,
  type JwtRequest,
  jwtTtlBounds,
  parseAudiences,
  prepareJwtSvid,
  signJwtSvid,
} from '../../src/ca/jwt.ts';
import { type ErrorCode, MeshError } from '../../src/errors.ts';
import { SpiffeId, TrustDomain } from '../../src/spiffe/id.ts';
import { inspectJwt } from '../../src/spiffe/inspect-jwt.ts';
import { validateJwtSvid } from '../../src/spiffe/jwt-svid.ts';

const ec = generateKeyPairSync('ec', { namedCurve: 'P-256' });
const ec384 = generateKeyPairSync('ec', { namedCurve: 'P-384' });
const rsa = generateKeyPairSync('rsa', { modulusLength: 2_048 });
const now = new Date('2026-11-21T12:00:00.789Z');
const seconds = Math.floor(now.getTime() / 1_000);
const request: JwtRequest = {
  id: SpiffeId.parse('spiffe://example.org/ns/shop/sa/web'),
  audiences: ['orders'],
  issuer: null,
  ttlSeconds: 300,
  keyId: 'key-1',
  jwtId: 'id-1',
};
const prepare = (more: object = {}, at = now) => prepareJwtSvid({ ...request, ...more }, at);
const decode = (token: string, index: number) =>
  Buffer.from(token.split('.')[index]!, 'base64url').toString();
const bundles = (key: KeyObject, keyId = 'key-1') => {
  const trustDomain = TrustDomain.parse('example.org');
  const publicKey = new Uint8Array(key.export({ format: 'der', type: 'spki' }));
  return new Map([['example.org', { trustDomain, authorities: [{ keyId, publicKey }], sequence: 1 }]]);
};

function codeOf(run: () => unknown): ErrorCode | 'done' {
  try {
    run();
    return 'done';
  } catch (error) {
    expect(error).toBeInstanceOf(MeshError);
    return (error as MeshError).code;
  }
}

describe('a token', () => {
  test('is laid out byte for byte', () => {
    const { signingInput } = prepare({ audiences: ['orders', 'web'], issuer: 'https://oidc.example.org' });
    expect(decode(signingInput, 0)).toBe('{"alg":"ES256","kid":"key-1","typ":"JWT"}');
    expect(decode(signingInput, 1)).toBe(
      `{"sub":"spiffe://example.org/ns/shop/sa/web","aud":["orders","web"],"exp":${seconds + 300},"iat":${seconds},` +
        '"iss":"https://oidc.example.org","jti":"id-1"}',
    );
    expect(decode(prepare().signingInput, 1)).not.toContain('iss');
  });

  test('is prepared in whole seconds, with the hash of what will be signed', () => {
    const prepared = prepare();
    expect(prepared).toMatchObject({
      issuedAt: new Date(seconds * 1_000),
      expiresAt: new Date((seconds + 300) * 1_000),
      algorithm: 'ES256',
      keyId: 'key-1',
      jwtId: 'id-1',
      signingInputSha256: createHash('sha256').update(prepared.signingInput).digest('hex'),
    });
    expect(prepare().signingInput).toBe(prepared.signingInput);
    expect(Object.isFrozen(prepared)).toBe(true);
  });

  test.each([
    ['ES256', ec],
    ['ES384', ec384],
    ['RS256', rsa],
  ] as const)('signed with %s is valid, and breaks no rule that inspect knows', async (algorithm, pair) => {
    const prepared = prepare({ algorithm });
    const token = signJwtSvid(prepared, pair.privateKey);
    expect(token.startsWith(`${prepared.signingInput}.`)).toBe(true);
    expect(inspectJwt(token, { at: now }).broken).toEqual([]);
    const valid = await validateJwtSvid({ token, audience: 'orders', bundles: bundles(pair.publicKey), now });
    expect([valid.id.text, valid.keyId, valid.claims['jti'], valid.expiresAt]).toEqual([
      request.id.text,
      'key-1',
      'id-1',
      prepared.expiresAt,
    ]);
    expect([jwtAlgorithmOf(pair.privateKey), jwtAlgorithmOf(pair.publicKey)]).toEqual([algorithm, algorithm]);
  });

  test('is valid to its last second and no longer', async () => {
    const token = signJwtSvid(prepare(), ec.privateKey);
    const at = (ms: number) =>
      validateJwtSvid({ token, audience: 'orders', bundles: bundles(ec.publicKey), now: new Date(ms) });
    const end = (seconds + 300) * 1_000;
    await expect(at(end - 1)).resolves.toMatchObject({ keyId: 'key-1' });
    await expect(at(end)).rejects.toMatchObject({ code: 'jwt_expired' });
  });

  test('of any request that is prepared is valid for each of its audiences', async () => {
    const audience = fc.stringMatching(/^[!-~]([ -~]{0,254}[!-~])?$/);
    await fc.assert(
      fc.asyncProperty(
        fc.uniqueArray(audience, { minLength: 1, maxLength: 16 }),
        fc.stringMatching(/^[ -~]{1,256}$/),
        fc.integer({ min: 20, max: 86_400 }),
        async (audiences, keyId, ttlSeconds) => {
          const token = signJwtSvid(prepare({ audiences, keyId, ttlSeconds }), ec.privateKey);
          const known = bundles(ec.publicKey, keyId);
          for (const audience of audiences) {
            const valid = await validateJwtSvid({ token, audience, bundles: known, now });
            expect(valid.audiences).toEqual(audiences);
          }
        },
      ),
      { numRuns: 100 },
    );
  });
});

describe('what is not prepared', () => {
  test.each<[string, object, ErrorCode]>([
    ['a trust domain', { id: SpiffeId.parse('spiffe://example.org') }, 'spiffe_id_path_missing'],
    ['19 seconds', { ttlSeconds: jwtTtlBounds.minSeconds - 1 }, 'profile_invalid'],
    ['a day and a second', { ttlSeconds: jwtTtlBounds.maxSeconds + 1 }, 'profile_invalid'],
    ['no time', { ttlSeconds: 0 }, 'profile_invalid'],
    ['negative time', { ttlSeconds: -300 }, 'profile_invalid'],
    ['half a second', { ttlSeconds: 300.5 }, 'profile_invalid'],
    ['2^53 seconds', { ttlSeconds: 2 ** 53 }, 'profile_invalid'],
    ['infinite time', { ttlSeconds: Number.POSITIVE_INFINITY }, 'profile_invalid'],
    ['a time that is none', { ttlSeconds: Number.NaN }, 'profile_invalid'],
    ['no kid', { keyId: '' }, 'profile_invalid'],
    ['a kid of 257 characters', { keyId: 'k'.repeat(257) }, 'profile_invalid'],
    ['a kid with a line break', { keyId: 'k\n' }, 'profile_invalid'],
    ['no jti', { jwtId: '' }, 'profile_invalid'],
    ['a jti of 129 characters', { jwtId: 'j'.repeat(129) }, 'profile_invalid'],
    ['a jti with a space', { jwtId: 'a b' }, 'profile_invalid'],
    ['an issuer that is no URL', { issuer: 'example.org' }, 'config_invalid'],
    ['an issuer with a slash at its end', { issuer: 'https://oidc.example.org/' }, 'config_invalid'],
    ['an issuer without TLS', { issuer: 'http://oidc.example.org' }, 'config_invalid'],
    ['no audience', { audiences: [] }, 'jwt_audience_invalid'],
  ])('%s', (_, more, code) => {
    expect(codeOf(() => prepare(more))).toBe(code);
  });

  test.each([
    ['no moment', new Date(Number.NaN)],
    ['before 1970', new Date(-1)],
    ['after 9999', new Date(253_402_300_799_000)],
    ['at the end of time', new Date(8_640_000_000_000_000)],
  ])('%s', (_, at) => {
    expect(codeOf(() => prepare({}, at))).toBe('profile_invalid');
  });

  test('what is too long to be read back', () => {
    // The longest of everything makes 9 KiB of plain letters. JSON writes a quotation mark in two characters.
    const id = SpiffeId.parse(`spiffe://example.org/${'a'.repeat(2_027)}`);
    const audiences = Array.from({ length: 16 }, (_, i) => `${String(i).padStart(2, '0')}${'"'.repeat(254)}`);
    expect(codeOf(() => prepare({ id, audiences: audiences.map((text) => text.replaceAll('"', 'a')) }))).toBe(
      'done',
    );
    const issuer = `https://oidc.example.org/${'a'.repeat(480)}`;
    expect(codeOf(() => prepare({ id, audiences, issuer, keyId: '"'.repeat(256) }))).toBe('profile_invalid');
  });

  test('the default lifetime is within bounds', () => {
    expect(codeOf(() => prepare({ ttlSeconds: defaultJwtTtlSeconds }))).toBe('done');
  });
});

describe('audiences', () => {
  test.each<[readonly string[], ErrorCode | 'done']>([
    [['orders'], 'done'],
    [['spiffe://example.org/ns/shop/sa/orders', 'https://sts.amazonaws.com', 'a b'], 'done'],
    [['a'.repeat(256)], 'done'],
    [Array.from({ length: 16 }, (_, i) => `a${i}`), 'done'],
    [['__proto__'], 'done'],
    [['orders', 'Orders'], 'done'],
    [[], 'jwt_audience_invalid'],
    [Array.from({ length: 17 }, (_, i) => `a${i}`), 'jwt_audience_invalid'],
    [[''], 'jwt_audience_invalid'],
    [['orders', ''], 'jwt_audience_invalid'],
    [['a'.repeat(257)], 'jwt_audience_invalid'],
    [['orders', 'orders'], 'jwt_audience_invalid'],
    [[' orders'], 'jwt_audience_invalid'],
    [['orders '], 'jwt_audience_invalid'],
    [[' '], 'jwt_audience_invalid'],
    [['or\nders'], 'jwt_audience_invalid'],
    [['orders\n'], 'jwt_audience_invalid'],
    [['orders\0'], 'jwt_audience_invalid'],
    [['\u001b[31m'], 'jwt_audience_invalid'],
    [['ord\u202eers'], 'jwt_audience_invalid'],
    [['оrders'], 'jwt_audience_invalid'],
    [['\ud800'], 'jwt_audience_invalid'],
    [['ä'], 'jwt_audience_invalid'],
  ])('%j: %s', (audiences, expected) => {
    expect(codeOf(() => parseAudiences(audiences))).toBe(expected);
  });

  test('are not shared with who gave them', () => {
    const given = ['orders'];
    const audiences = parseAudiences(given);
    given.push('admin');
    expect(audiences).toEqual(['orders']);
    expect(Object.isFrozen(audiences)).toBe(true);
  });
});

describe('what is not signed', () => {
  test('what was signed before', () => {
    const prepared = prepare();
    signJwtSvid(prepared, ec.privateKey);
    expect(codeOf(() => signJwtSvid(prepared, ec.privateKey))).toBe('internal');
  });

  test('what was not prepared, however much it looks like it', () => {
    expect(codeOf(() => signJwtSvid({ ...prepare() }, ec.privateKey))).toBe('internal');
  });

  test.each([
    ['ES256', ec384],
    ['ES256', rsa],
    ['RS256', ec],
    ['ES384', ec],
  ] as const)('%s with a key of another kind, and the token is spent', (algorithm, pair) => {
    const prepared = prepare({ algorithm });
    expect(codeOf(() => signJwtSvid(prepared, pair.privateKey))).toBe('internal');
    expect(codeOf(() => signJwtSvid(prepared, ec.privateKey))).toBe('internal');
  });

  test.each([
    ['Ed25519', generateKeyPairSync('ed25519')],
    ['P-521', generateKeyPairSync('ec', { namedCurve: 'P-521' })],
    ['secp256k1', generateKeyPairSync('ec', { namedCurve: 'secp256k1' })],
    ['RSA 1024', generateKeyPairSync('rsa', { modulusLength: 1_024 })],
  ])('anything with %s', (_, { privateKey }) => {
    expect(codeOf(() => jwtAlgorithmOf(privateKey))).toBe('authority_invalid');
  });
});
