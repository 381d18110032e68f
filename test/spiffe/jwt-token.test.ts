import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { MeshError } from '../../src/errors.ts';
import { maxTokenBytes, readJwt } from '../../src/spiffe/jwt-token.ts';
import { at, ec, forge, goodClaims, goodHeader, leastMs, part, seconds, signatureOf } from './jwt-forge.ts';

/** What a token is refused with, or `read`. */
function outcome(token: string): string {
  try {
    readJwt(token);
    return 'read';
  } catch (error) {
    expect(error).toBeInstanceOf(MeshError);
    expect((error as MeshError).code).toBe('jwt_invalid');
    return (error as MeshError).message;
  }
}

test('a proper token is taken apart', () => {
  const token = forge({ claims: { ...goodClaims, nbf: seconds - 1, team: { name: 'shop' } } });
  const { header, payload, signingInput, signature } = readJwt(token);
  expect(header).toEqual({ alg: 'ES256', kid: 'ec', typ: 'JWT' });
  expect({ ...payload, claims: [...payload.claims.keys()] }).toEqual({
    subject: 'spiffe://example.org/web',
    audiences: ['orders'],
    expiresAt: new Date(at.getTime() + 60_000),
    issuedAt: at,
    notBefore: new Date(at.getTime() - 1_000),
    claims: ['sub', 'aud', 'exp', 'iat', 'nbf', 'team'],
  });
  expect(Buffer.from(signingInput).toString()).toBe(token.slice(0, token.lastIndexOf('.')));
  expect(signature).toHaveLength(64);
});

describe('what is read', () => {
  test.each<[string, object, object]>([
    ['no typ', { alg: 'ES256', kid: 'ec' }, {}],
    ['typ JOSE', { alg: 'ES256', kid: 'ec', typ: 'JOSE' }, {}],
    ['a kid of 256 characters', { alg: 'ES256', kid: 'k'.repeat(256) }, {}],
    ['a kid that looks like a path', { alg: 'ES256', kid: '../../dev/null' }, {}],
    ['a kid that looks like SQL', { alg: 'ES256', kid: "x' UNION SELECT 'key" }, {}],
    ['an aud that is one text', goodHeader, { aud: 'orders' }],
    ['16 audiences', goodHeader, { aud: Array.from({ length: 16 }, (_, i) => `a${i}`) }],
    ['the last time there is', goodHeader, { exp: 253_402_300_799 }],
    ['no iat', goodHeader, { iat: undefined }],
    ['a claim named constructor', goodHeader, { constructor: 'x', toString: 'y' }],
  ])('%s', (_, header, claims) => {
    expect(outcome(forge({ header, claims: { ...goodClaims, ...claims } }))).toBe('read');
  });
});

describe('header', () => {
  const header = (more: object) => ({ ...goodHeader, ...more });
  test.each<[string, object | string, string]>([
    ['alg none', header({ alg: 'none' }), 'alg "none"'],
    ['alg None', header({ alg: 'None' }), 'alg "None"'],
    ['alg empty', header({ alg: '' }), 'alg ""'],
    ['alg array', header({ alg: ['ES256'] }), 'an alg'],
    ['alg object', header({ alg: { toString: 'ES256' } }), 'an alg'],
    ['alg null', header({ alg: null }), 'an alg'],
    ['alg missing', { kid: 'ec' }, 'an alg'],
    ['alg in lower case', header({ alg: 'es256' }), 'alg "es256"'],
    ['alg with a space', header({ alg: 'ES256 ' }), 'alg "ES256 "'],
    ['alg HS256', header({ alg: 'HS256' }), 'alg "HS256"'],
    ['alg EdDSA', header({ alg: 'EdDSA' }), 'alg "EdDSA"'],
    ['alg ES256K', header({ alg: 'ES256K' }), 'alg "ES256K"'],
    ['alg dir', header({ alg: 'dir', enc: 'A256GCM' }), '"enc"'],
    ['alg of a prototype', header({ alg: 'constructor' }), 'alg "constructor"'],
    ['jwk', header({ jwk: ec.publicKey.export({ format: 'jwk' }) }), '"jwk"'],
    ['jku', header({ jku: 'https://evil.example' }), '"jku"'],
    ['x5u', header({ x5u: 'https://evil.example' }), '"x5u"'],
    ['x5c', header({ x5c: ['MIIB'] }), '"x5c"'],
    ['x5t', header({ x5t: 'AAAA' }), '"x5t"'],
    ['crit', header({ crit: ['b64'] }), '"crit"'],
    ['b64', header({ b64: false }), '"b64"'],
    ['zip', header({ zip: 'DEF' }), '"zip"'],
    ['cty of a nested token', header({ cty: 'JWT' }), '"cty"'],
    ['claims in the header', header({ iss: 'https://evil.example' }), '"iss"'],
    ['kid missing', { alg: 'ES256' }, 'no kid'],
    ['kid empty', header({ kid: '' }), 'no kid'],
    ['kid of 257 characters', header({ kid: 'k'.repeat(257) }), 'no kid'],
    ['kid number', header({ kid: 1 }), 'no kid'],
    ['kid array', header({ kid: ['ec'] }), 'no kid'],
    ['kid with NUL', header({ kid: 'ec\0' }), 'no kid'],
    ['kid with a line break', header({ kid: 'ec\n' }), 'no kid'],
    ['kid with a reordering character', header({ kid: 'ec\u202e' }), 'no kid'],
    ['typ at+jwt', header({ typ: 'at+jwt' }), 'typ'],
    ['typ in lower case', header({ typ: 'jwt' }), 'typ'],
    ['typ null', header({ typ: null }), 'typ'],
    ['alg twice', '{"alg":"ES256","alg":"none","kid":"ec"}', '"alg" stands twice'],
    ['alg twice, once escaped', '{"alg":"ES256","\\u0061lg":"none","kid":"ec"}', '"alg" stands twice'],
    ['__proto__', '{"alg":"ES256","kid":"ec","__proto__":{"x":1}}', '"__proto__"'],
    ['an array', '[]', 'not a JSON object'],
    ['null', 'null', 'not a JSON object'],
    ['a text', '"ES256"', 'not a JSON object'],
    ['no JSON', '{alg:"ES256"}', 'not JSON'],
    ['a comment', '{"alg":"ES256","kid":"ec"}//', 'not JSON'],
    ['a byte order mark', '\ufeff{"alg":"ES256","kid":"ec"}', 'not JSON'],
    ['a trailing NUL', '{"alg":"ES256","kid":"ec"}\0', 'not JSON'],
  ])('%s', (_, header, message) => {
    expect(outcome(forge({ header }))).toContain(message);
  });
});

describe('claims', () => {
  const json = (more: string) =>
    `{"sub":"spiffe://example.org/web","aud":["orders"]${more === '' ? '' : `,${more}`}}`;
  const exp = `"exp":${seconds + 60}`;
  const time = 'no whole number of seconds';
  test.each<[string, object | string, string]>([
    ['exp missing', json(''), 'no exp'],
    ['exp 1e999', json('"exp":1e999'), 'a number out of range'],
    ['exp 1e300', json('"exp":1e300'), time],
    ['exp of 2^53', json('"exp":9007199254740992'), time],
    ['exp in the year 10000', json('"exp":253402300800'), time],
    ['exp negative', json('"exp":-1'), time],
    ['exp with a fraction', json(`"exp":${seconds}.5`), time],
    ['exp text', json('"exp":"9999999999"'), time],
    ['exp null', json('"exp":null'), time],
    ['exp array', json('"exp":[9999999999]'), time],
    ['exp true', json('"exp":true'), time],
    ['exp NaN', json('"exp":NaN'), 'not JSON'],
    ['exp Infinity', json('"exp":Infinity'), 'not JSON'],
    ['exp hexadecimal', json('"exp":0xffffffff'), 'not JSON'],
    ['exp with a leading zero', json('"exp":01'), 'not JSON'],
    ['exp twice', json(`"exp":1,${exp}`), '"exp" stands twice'],
    ['exp twice, once escaped', json(`"\\u0065xp":1,${exp}`), '"exp" stands twice'],
    ['sub twice', json(`"sub":"spiffe://example.org/admin",${exp}`), '"sub" stands twice'],
    ['a member within a claim twice', json(`${exp},"a":{"b":1,"b":2}`), '"b" stands twice'],
    ['iat text', json(`${exp},"iat":"1"`), time],
    ['iat infinite', json(`${exp},"iat":1e999`), 'a number out of range'],
    ['nbf with a fraction', json(`${exp},"nbf":1.5`), time],
    ['an infinite number in another claim', json(`${exp},"a":[{"b":-1e999}]`), 'a number out of range'],
    ['sub missing', { aud: 'orders', exp: seconds + 60 }, 'no sub'],
    ['sub empty', { ...goodClaims, sub: '' }, 'no sub'],
    ['sub number', { ...goodClaims, sub: 1 }, 'no sub'],
    ['sub array', { ...goodClaims, sub: ['spiffe://example.org/web'] }, 'no sub'],
    ['iss instead of sub', { ...goodClaims, sub: undefined, iss: 'spiffe://example.org/web' }, 'no sub'],
    ['aud missing', { ...goodClaims, aud: undefined }, 'no aud'],
    ['aud empty', { ...goodClaims, aud: '' }, 'no aud'],
    ['aud of none', { ...goodClaims, aud: [] }, 'no aud'],
    ['aud null', { ...goodClaims, aud: null }, 'no aud'],
    ['aud object', { ...goodClaims, aud: { 0: 'orders' } }, 'no aud'],
    ['aud nested', { ...goodClaims, aud: [['orders']] }, 'no aud'],
    ['aud with a number', { ...goodClaims, aud: ['orders', 1] }, 'no aud'],
    ['aud with an empty text', { ...goodClaims, aud: ['orders', ''] }, 'no aud'],
    ['17 audiences', { ...goodClaims, aud: Array.from({ length: 17 }, (_, i) => `a${i}`) }, 'no aud'],
    ['__proto__', json(`${exp},"__proto__":{"admin":true}`), '"__proto__"'],
    ['__proto__ within', json(`${exp},"a":[{"__proto__":1}]`), '"__proto__"'],
    ['a lone surrogate', json(`${exp},"a":"\\ud800"`), 'half a character'],
    ['a lone surrogate within', json(`${exp},"a":[["\\udc00"]]`), 'half a character'],
    ['a lone surrogate in a name', json(`${exp},"\\ud800":1`), 'half a character'],
    ['33 levels', json(`${exp},"a":${'['.repeat(32)}${']'.repeat(32)}`), 'nested deeper than 32'],
    ['5,000 levels', json(`${exp},"a":${'['.repeat(5_000)}${']'.repeat(5_000)}`), 'nested deeper than 32'],
    ['JSON twice', `${JSON.stringify(goodClaims)}{}`, 'not JSON'],
    ['an array of claims', `[${JSON.stringify(goodClaims)}]`, 'not a JSON object'],
    ['a token', forge(), 'not JSON'],
  ])('%s', (_, claims, message) => {
    expect(outcome(forge({ claims }))).toContain(message);
  });

  test('bytes that are no UTF-8', () => {
    for (const bytes of [[0x7b, 0xff, 0x7d], [0xc0, 0xaf], [0xed, 0xa0, 0x80], [0xf8]]) {
      expect(outcome(forge({ claims: Uint8Array.from(bytes) }))).toContain('not UTF-8');
    }
  });

  test('31 levels are read', () => {
    const claims = json(`${exp},"a":${'['.repeat(31)}${']'.repeat(31)}`);
    expect(outcome(forge({ claims }))).toBe('read');
  });
});

describe('form', () => {
  const good = forge();
  const [head = '', body = '', tail = ''] = good.split('.');
  const signed = `${head}.${body}`;
  const form = 'not of the form';
  const length = 'of a length that ES256 does not make';
  // The last of 86 characters holds four stray bits: 0000 in ours, 0001 in this one.
  const alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_';
  const stray = tail.slice(0, -1) + alphabet[alphabet.indexOf(tail.at(-1)!) + 1];
  const der = (key = ec.privateKey) => {
    const p1363 = signatureOf(signed, key, 'ES256');
    const integer = (bytes: Buffer) => {
      const whole = Buffer.concat([Buffer.of(0), bytes]);
      const start = whole.findIndex((octet, i) => octet !== 0 || whole[i + 1]! >= 0x80);
      return Buffer.concat([Buffer.of(2, whole.length - start), whole.subarray(start)]);
    };
    const both = [integer(p1363.subarray(0, 32)), integer(p1363.subarray(32))];
    return Buffer.concat([Buffer.of(0x30, both[0]!.length + both[1]!.length), ...both]);
  };
  test.each<[string, string, string]>([
    ['nothing', '', form],
    ['dots alone', '..', form],
    ['two parts', signed, form],
    ['no signature', `${signed}.`, form],
    ['no header', `.${body}.${tail}`, form],
    ['no payload, as if detached', `${head}..${tail}`, form],
    ['four parts', `${good}.${tail}`, form],
    ['five parts, as of a JWE', `${head}.${body}.${tail}.${tail}.${tail}`, form],
    ['a dot at the end', `${good}.`, form],
    ['JSON serialization', JSON.stringify({ payload: body, protected: head, signature: tail }), form],
    ['padding', `${signed}.${tail}==`, 'not base64url'],
    ['padding of the header', `${head}=.${body}.${tail}`, 'not base64url'],
    ['stray bits', `${signed}.${stray}`, 'not base64url'],
    ['the other alphabet', `${signed}.${'+/'.repeat(43)}`, 'not base64url'],
    ['a space', `${signed}.${tail} `, 'not base64url'],
    ['a space in front', ` ${good}`, 'not base64url'],
    ['a line break', `${head}.${body}\n.${tail}`, 'not base64url'],
    ['NUL', `${good}\0`, 'not base64url'],
    ['letters of another script', `${signed}.${tail.slice(1)}Ａ`, 'not base64url'],
    ['one character more', `${signed}.${tail}A`, length],
    ['two characters less', `${signed}.${tail.slice(0, -2)}`, length],
    ['Bearer in front', `Bearer ${good}`, 'not base64url'],
    ['a DER signature', `${signed}.${der().toString('base64url')}`, length],
    ['a signature of 63 octets', `${signed}.${'A'.repeat(84)}`, length],
    ['a signature of 65 octets', `${signed}.${Buffer.alloc(65).toString('base64url')}`, length],
    ['a signature of one octet', `${signed}.AA`, length],
    ['an RSA signature of 255 octets', rsaSigned(255), 'RS256 does not make'],
    ['an RSA signature of 1,025 octets', rsaSigned(1_025), 'RS256 does not make'],
    ['17 KiB', forge({ claims: { ...goodClaims, a: 'x'.repeat(13_000) } }), `longer than ${maxTokenBytes}`],
    ['a megabyte of dots', '.'.repeat(1_048_576), `longer than ${maxTokenBytes}`],
  ])('%s', (_, token, message) => {
    expect(outcome(token)).toContain(message);
  });

  function rsaSigned(octets: number): string {
    const header = { ...goodHeader, alg: 'RS256' };
    return `${part(header)}.${body}.${Buffer.alloc(octets).toString('base64url')}`;
  }

  test('a token of the greatest length is read, one character more is not', () => {
    const padded = (count: number) => forge({ claims: { ...goodClaims, a: 'x'.repeat(count) } });
    const room = Math.floor(((maxTokenBytes - padded(0).length) * 3) / 4);
    const lengths = [-2, -1, 0, 1, 2, 3].map((more) => padded(room + more));
    for (const token of lengths) expect(outcome(token) === 'read').toBe(token.length <= maxTokenBytes);
    expect(lengths.some((token) => token.length > maxTokenBytes)).toBe(true);
  });

  test('a message repeats nothing of claims and signature', () => {
    const secret = 'Zm9vYmFyc2VjcmV0';
    for (const claims of [`{"a":"${secret}"`, `{"${secret}`, `"${secret}"`, `[${secret}]`]) {
      const message = outcome(forge({ claims }));
      expect(message).not.toContain(secret);
      expect(message).not.toContain(tail.slice(0, 8));
    }
  });
});

describe('of anything at all', () => {
  const anything = fc.oneof(
    fc.string({ unit: 'binary', maxLength: 200 }),
    fc.uint8Array({ maxLength: 400 }).map((bytes) => Buffer.from(bytes).toString('latin1')),
    fc
      .tuple(fc.json(), fc.json(), fc.uint8Array({ minLength: 64, maxLength: 64 }))
      .map(([head, body, tail]) => `${part(head)}.${part(body)}.${part(tail)}`),
    fc.json().map((claims) => forge({ claims })),
    fc.json({ maxDepth: 50 }).map((header) => forge({ header })),
    fc.constantFrom('.', 'a.', 'e30.', '[', '{"a":', 'A').map((text) => text.repeat(16_384)),
  );

  test('only our refusals come out, and soon', () => {
    fc.assert(
      fc.property(anything, (token) => {
        expect(leastMs(() => outcome(token))).toBeLessThan(50);
      }),
      { numRuns: 500 },
    );
  });
});
