import { createHmac, createSecretKey, generateKeyPairSync } from 'node:crypto';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { type ErrorCode, MeshError } from '../../src/errors.ts';
import { leewaySeconds, validateJwtSvid } from '../../src/spiffe/jwt-svid.ts';
import {
  at,
  authorityOf,
  bundleOf,
  ec,
  ec384,
  ec521,
  type Forging,
  forge,
  goodClaims,
  goodHeader,
  otherEc,
  part,
  rsa,
  seconds,
  signatureOf,
} from './jwt-forge.ts';

const small = generateKeyPairSync('rsa', { modulusLength: 1_024 });
const ours = bundleOf('example.org', { ec, ec384, ec521, rsa, small });
const theirs = bundleOf('partner.example', { ec: otherEc });
const bundles = new Map([ours, theirs].map((bundle) => [bundle.trustDomain.name, bundle]));

type Case = { audience?: string; now?: Date; against?: typeof bundles };
const validate = (token: string, { audience = 'orders', now = at, against = bundles }: Case = {}) =>
  validateJwtSvid({ token, audience, bundles: against, now });

/** The code a token is refused with, or `valid`. */
async function outcome(token: string, how?: Case): Promise<ErrorCode | 'valid'> {
  try {
    await validate(token, how);
    return 'valid';
  } catch (error) {
    expect(error).toBeInstanceOf(MeshError);
    return (error as MeshError).code;
  }
}

test('a proper token proves what it says', async () => {
  const valid = await validate(forge({ claims: { ...goodClaims, team: 'shop' } }));
  expect({ ...valid, id: valid.id.text }).toEqual({
    id: 'spiffe://example.org/web',
    audiences: ['orders'],
    expiresAt: new Date(at.getTime() + 60_000),
    keyId: 'ec',
    claims: { ...goodClaims, team: 'shop' },
  });
});

describe('algorithms and keys', () => {
  const pairs = { ec, ec384, ec521, rsa, small };
  const fitting = new Map<string, readonly string[]>([
    ['ec', ['ES256']],
    ['ec384', ['ES384']],
    ['ec521', ['ES512']],
    ['rsa', ['RS256', 'RS384', 'RS512', 'PS256', 'PS384', 'PS512']],
    ['small', []],
  ]);
  const all = [...fitting.values()].flat();
  const cases = Object.entries(pairs).flatMap(([kid, pair]) => all.map((alg) => ({ kid, alg, pair })));
  test.each(cases)('$alg with the key $kid', async ({ kid, alg, pair }) => {
    // A key of another kind signs as it can, under a header that says otherwise.
    const able = (alg.startsWith('ES') ? 'ec' : 'rsa') === pair.privateKey.asymmetricKeyType;
    const as = able ? alg : alg.startsWith('ES') ? 'RS256' : 'ES256';
    // PS512 does not fit into 1,024 bits at all.
    if (pair === small && alg === 'PS512') return;
    const token = forge({ header: { alg, kid }, key: pair.privateKey, as });
    expect(await outcome(token)).toBe(fitting.get(kid)!.includes(alg) ? 'valid' : 'jwt_invalid');
  });

  test.each<[string, Forging, ErrorCode]>([
    ['signed by another key', { key: otherEc.privateKey }, 'jwt_invalid'],
    ['a kid that is not in the bundle', { header: { alg: 'ES256', kid: 'old' } }, 'jwt_key_unknown'],
    ['a kid in other letters', { header: { alg: 'ES256', kid: 'EC' } }, 'jwt_key_unknown'],
    ['a kid of a prototype', { header: { alg: 'ES256', kid: '__proto__' } }, 'jwt_key_unknown'],
    ['a kid that is a path', { header: { alg: 'ES256', kid: '../../../dev/null' } }, 'jwt_key_unknown'],
    ['a kid that is SQL', { header: { alg: 'ES256', kid: "' OR 1=1 --" } }, 'jwt_key_unknown'],
    [
      'RS256 signed as PS256',
      { header: { alg: 'RS256', kid: 'rsa' }, key: rsa.privateKey, as: 'PS256' },
      'jwt_invalid',
    ],
    [
      'RS256 signed as RS512',
      { header: { alg: 'RS256', kid: 'rsa' }, key: rsa.privateKey, as: 'RS512' },
      'jwt_invalid',
    ],
    ['ES256 signed with SHA-384', { as: 'ES384' }, 'jwt_invalid'],
  ])('%s', async (_, forging, code) => {
    expect(await outcome(forge(forging))).toBe(code);
  });

  test.each(['HS256', 'hs256', 'none', 'RS256', 'ES256'])('a public key as the secret of %s', async (alg) => {
    for (const [kid, pair] of Object.entries({ ec, rsa })) {
      const signed = `${part({ alg, kid })}.${part(goodClaims)}`;
      for (const format of ['pem', 'der'] as const) {
        const exported = pair.publicKey.export({ format, type: 'spki' } as { format: 'der'; type: 'spki' });
        const secret = createSecretKey(Buffer.from(exported));
        const mac = createHmac('sha256', secret).update(signed).digest('base64url');
        expect(await outcome(`${signed}.${mac}`)).toBe('jwt_invalid');
      }
    }
  });

  test.each([
    ['zeros', Buffer.alloc(64)],
    ['ones', Buffer.alloc(64, 0xff)],
    [
      'r = s = n',
      Buffer.from('ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551'.repeat(2), 'hex'),
    ],
    [
      'r = 1, s = n - 1',
      Buffer.from(
        `${'00'.repeat(31)}01ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632550`,
        'hex',
      ),
    ],
  ])('an ECDSA signature of %s', async (_, signature) => {
    const signed = forge().split('.', 2).join('.');
    expect(await outcome(`${signed}.${signature.toString('base64url')}`)).toBe('jwt_invalid');
  });

  test('both signatures of an ECDSA pair (s, n - s) are valid: a token is no name of itself', async () => {
    const n = 0xffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551n;
    const signed = `${part(goodHeader)}.${part(goodClaims)}`;
    const signature = signatureOf(signed, ec.privateKey, 'ES256');
    const s = BigInt(`0x${signature.subarray(32).toString('hex')}`);
    const twin = Buffer.concat([
      signature.subarray(0, 32),
      Buffer.from((n - s).toString(16).padStart(64, '0'), 'hex'),
    ]);
    for (const one of [signature, twin])
      expect(await outcome(`${signed}.${one.toString('base64url')}`)).toBe('valid');
  });

  test.each<[string, Uint8Array]>([
    ['nothing', new Uint8Array()],
    ['rubbish', Uint8Array.from([0x30, 0x03, 1, 2, 3])],
    [
      'an Ed25519 key',
      new Uint8Array(generateKeyPairSync('ed25519').publicKey.export({ format: 'der', type: 'spki' })),
    ],
    ['a point that is not on the curve', Uint8Array.from(authorityOf('ec', ec).publicKey).fill(1, -64)],
  ])('an authority that holds %s', async (_, publicKey) => {
    const broken = { ...ours, authorities: [{ keyId: 'ec', publicKey }] };
    expect(await outcome(forge(), { against: new Map([['example.org', broken]]) })).toBe('jwt_invalid');
  });

  test('two authorities of one kid verify nothing', async () => {
    const twice = { ...ours, authorities: [authorityOf('ec', otherEc), authorityOf('ec', ec)] };
    expect(await outcome(forge(), { against: new Map([['example.org', twice]]) })).toBe('jwt_key_unknown');
  });
});

describe('trust domains', () => {
  const claims = (sub: string) => ({ ...goodClaims, sub });
  test.each<[string, Forging, ErrorCode | 'valid']>([
    [
      'their subject, their key',
      { claims: claims('spiffe://partner.example/web'), key: otherEc.privateKey },
      'valid',
    ],
    [
      'their subject, our key of the same kid',
      { claims: claims('spiffe://partner.example/web') },
      'jwt_invalid',
    ],
    ['our subject, their key of the same kid', { key: otherEc.privateKey }, 'jwt_invalid'],
    ['a subject of nobody', { claims: claims('spiffe://nobody.example/web') }, 'jwt_key_unknown'],
    ['a trust domain of a prototype', { claims: claims('spiffe://constructor/web') }, 'jwt_key_unknown'],
    ['a subject that is the trust domain', { claims: claims('spiffe://example.org') }, 'jwt_invalid'],
    ['upper case', { claims: claims('spiffe://Example.org/web') }, 'jwt_invalid'],
    ['a user', { claims: claims('spiffe://example.org@partner.example/web') }, 'jwt_invalid'],
    ['a port', { claims: claims('spiffe://example.org:443/web') }, 'jwt_invalid'],
    ['a query', { claims: claims('spiffe://example.org/web?a') }, 'jwt_invalid'],
    ['dots', { claims: claims('spiffe://example.org/../web') }, 'jwt_invalid'],
    ['percent', { claims: claims('spiffe://example.org/%77eb') }, 'jwt_invalid'],
    ['NUL', { claims: claims('spiffe://example.org/web\0') }, 'jwt_invalid'],
    ['another scheme', { claims: claims('https://example.org/web') }, 'jwt_invalid'],
    ['2,049 bytes', { claims: claims(`spiffe://example.org/${'a'.repeat(2_028)}`) }, 'jwt_invalid'],
  ])('%s', async (_, forging, expected) => {
    expect(await outcome(forge(forging))).toBe(expected);
  });

  test('a bundle filed under the name of another verifies nothing', async () => {
    const swapped = new Map([['example.org', theirs]]);
    expect(await outcome(forge({ key: otherEc.privateKey }), { against: swapped })).toBe('jwt_key_unknown');
  });

  test('an empty bundle verifies nothing, and so do none', async () => {
    const empty = new Map([['example.org', { ...ours, authorities: [] }]]);
    expect(await outcome(forge(), { against: empty })).toBe('jwt_key_unknown');
    expect(await outcome(forge(), { against: new Map() })).toBe('jwt_key_unknown');
  });
});

describe('audience', () => {
  test.each<[unknown, string, ErrorCode | 'valid']>([
    [['orders'], 'orders', 'valid'],
    ['orders', 'orders', 'valid'],
    [['web', 'orders'], 'orders', 'valid'],
    [['web'], 'orders', 'jwt_audience_mismatch'],
    [['orders/'], 'orders', 'jwt_audience_mismatch'],
    [['Orders'], 'orders', 'jwt_audience_mismatch'],
    [['orders '], 'orders', 'jwt_audience_mismatch'],
    ['orders,web', 'orders', 'jwt_audience_mismatch'],
    ['xordersx', 'orders', 'jwt_audience_mismatch'],
    ['orders', 'order', 'jwt_audience_mismatch'],
    [['*'], 'orders', 'jwt_audience_mismatch'],
    [['orders'], '*', 'jwt_audience_mismatch'],
    [['orders'], '', 'jwt_audience_mismatch'],
    [['\u006frder\u017f'], 'orders', 'jwt_audience_mismatch'],
    [['spiffe://example.org/web'], 'orders', 'jwt_audience_mismatch'],
  ])('aud %j, audience %j', async (aud, audience, expected) => {
    expect(await outcome(forge({ claims: { ...goodClaims, aud } }), { audience })).toBe(expected);
  });
});

describe('times', () => {
  const leeway = leewaySeconds;
  test.each<[string, object, ErrorCode | 'valid']>([
    ['a second before the end', { exp: seconds + 1 }, 'valid'],
    ['at the end', { exp: seconds }, 'jwt_expired'],
    ['a second after', { exp: seconds - 1 }, 'jwt_expired'],
    ['exp 0', { exp: 0 }, 'jwt_expired'],
    ['issued as late as the leeway permits', { iat: seconds + leeway }, 'valid'],
    ['issued later', { iat: seconds + leeway + 1 }, 'jwt_invalid'],
    ['issued long ago', { iat: 0 }, 'valid'],
    ['valid as late as the leeway permits', { nbf: seconds + leeway }, 'valid'],
    ['valid later', { nbf: seconds + leeway + 1 }, 'jwt_invalid'],
    ['over before it begins', { nbf: seconds + 10, exp: seconds + 5 }, 'valid'],
  ])('%s', async (_, claims, expected) => {
    expect(await outcome(forge({ claims: { ...goodClaims, ...claims } }))).toBe(expected);
  });

  test('half a second before the end is before the end', async () => {
    const token = forge({ claims: { ...goodClaims, exp: seconds } });
    expect(await outcome(token, { now: new Date(at.getTime() - 500) })).toBe('valid');
  });

  test('a moment that is none believes nothing', async () => {
    expect(await outcome(forge(), { now: new Date(Number.NaN) })).toBe('jwt_expired');
  });
});

describe('the order of checks', () => {
  // Each of these is broken in everything that would be checked later, too.
  test.each<[ErrorCode, Forging]>([
    ['jwt_invalid', { header: { alg: 'none', kid: 'no' }, claims: { sub: 'x', aud: 'x', exp: 0 } }],
    ['jwt_invalid', { header: { alg: 'ES256', kid: 'no' }, claims: { sub: 'x', aud: 'x', exp: 0 } }],
    ['jwt_expired', { header: { alg: 'ES256', kid: 'no' }, claims: { ...goodClaims, aud: 'x', exp: 0 } }],
    ['jwt_audience_mismatch', { header: { alg: 'ES256', kid: 'no' }, claims: { ...goodClaims, aud: 'x' } }],
    ['jwt_key_unknown', { header: { alg: 'ES256', kid: 'no' }, key: otherEc.privateKey }],
    ['jwt_invalid', { key: otherEc.privateKey }],
  ])('%s', async (code, forging) => {
    expect(await outcome(forge(forging))).toBe(code);
  });

  test('nothing but the last tells an unsigned token of a known key from one of an unknown key', async () => {
    const known = forge({ claims: { ...goodClaims, exp: 1 }, key: otherEc.privateKey });
    const unknown = forge({ header: { alg: 'ES256', kid: 'no' }, claims: { ...goodClaims, exp: 1 } });
    expect([await outcome(known), await outcome(unknown)]).toEqual(['jwt_expired', 'jwt_expired']);
  });
});

describe('of anything at all', () => {
  const good = ['ES256', 'RS256'].map((as) => {
    const pair = as === 'ES256' ? { kid: 'ec', key: ec.privateKey } : { kid: 'rsa', key: rsa.privateKey };
    return forge({ header: { alg: as, kid: pair.kid }, key: pair.key, as });
  });
  const index = fc.nat({ max: 10_000 });

  test('a token with one byte changed is never valid', async () => {
    const change = fc.tuple(fc.constantFrom(...good), index, fc.nat({ max: 127 }));
    await fc.assert(
      fc.asyncProperty(change, async ([token, at, code]) => {
        const place = at % token.length;
        const mutated = token.slice(0, place) + String.fromCharCode(code) + token.slice(place + 1);
        expect((await outcome(mutated)) === 'valid').toBe(mutated === token);
      }),
      { numRuns: 1_000 },
    );
  });

  test('a token with a piece taken out, doubled or moved is never valid', async () => {
    await fc.assert(
      fc.asyncProperty(fc.constantFrom(...good), index, index, fc.boolean(), async (token, a, b, double) => {
        const [start, end] = [a % token.length, b % token.length].toSorted((x, y) => x - y) as [
          number,
          number,
        ];
        const piece = double ? token.slice(start, end).repeat(2) : '';
        const mutated = token.slice(0, start) + piece + token.slice(end);
        expect((await outcome(mutated)) === 'valid').toBe(mutated === token);
      }),
      { numRuns: 300 },
    );
  });

  test('claims that nobody signed are never believed, whatever they are', async () => {
    await fc.assert(
      fc.asyncProperty(fc.object({ maxDepth: 2 }), async (more) => {
        const [head, , tail] = good[0]!.split('.');
        const token = `${head}.${part({ ...more, ...goodClaims, sub: 'spiffe://example.org/admin' })}.${tail}`;
        expect(await outcome(token)).not.toBe('valid');
      }),
      { numRuns: 200 },
    );
  });
});
