import { generateKeyPairSync } from 'node:crypto';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { MeshError } from '../../src/errors.ts';
import { makeBundle } from '../../src/spiffe/bundle.ts';
import {
  maxBundleDocumentBytes,
  readBundleDocument,
  writeBundleDocument,
  writeJwtBundle,
  writeOidcDiscovery,
  writeOidcKeys,
} from '../../src/spiffe/bundle-document.ts';
import { TrustDomain } from '../../src/spiffe/id.ts';
import { inspectJsonBundle } from '../../src/spiffe/inspect-bundle.ts';
import { forge, forgeAuthority } from './inspect-forge.ts';
import { bundleOf, ec, ec384, ec521, leastMs, otherEc, rsa, spkiBytes } from './jwt-forge.ts';

const trustDomain = TrustDomain.parse('example.org');
const ca = forgeAuthority('one', { trustDomain: 'example.org' });
const [root, otherRoot] = [ca.der, forgeAuthority('two').der];
const foreign = forgeAuthority('three', { trustDomain: 'partner.example' }).der;
const x509 = makeBundle(trustDomain, [root, otherRoot], 3);
const jwt = { ...bundleOf('example.org', { ec, rsa }), sequence: 4 };
const document = writeBundleDocument({ x509, jwt, refreshHintSeconds: 300 });

type Json = Record<string, unknown>;
const parsed = JSON.parse(document) as { keys: Json[] } & Json;
const keysOf = (text: string) => (JSON.parse(text) as { keys: Json[] }).keys;
const bytesOf = (value: unknown) => Buffer.from(typeof value === 'string' ? value : JSON.stringify(value));
const read = (value: unknown) => readBundleDocument(bytesOf(value), trustDomain);
/** What a document is refused with, or `read`. */
const outcome = (value: unknown): string => outcomeOf(bytesOf(value));
function outcomeOf(bytes: Uint8Array): string {
  try {
    readBundleDocument(bytes, trustDomain);
    return 'read';
  } catch (error) {
    expect((error as MeshError).code).toBe('bundle_invalid');
    return (error as MeshError).message;
  }
}

describe('what is written', () => {
  test('is the SPIFFE bundle format', () => {
    expect(parsed['spiffe_sequence']).toBe(7);
    expect(parsed['spiffe_refresh_hint']).toBe(300);
    expect(parsed.keys.map((key) => Object.keys(key))).toEqual([
      ['use', 'kty', 'crv', 'x', 'y', 'x5c'],
      ['use', 'kty', 'crv', 'x', 'y', 'x5c'],
      ['use', 'kid', 'kty', 'crv', 'x', 'y'],
      ['use', 'kid', 'kty', 'n', 'e'],
    ]);
    expect(parsed.keys.map(({ use, kid }) => [use, kid])).toEqual([
      ['x509-svid', undefined],
      ['x509-svid', undefined],
      ['jwt-svid', 'ec'],
      ['jwt-svid', 'rsa'],
    ]);
    expect(parsed.keys[0]!['x5c']).toEqual([Buffer.from(root).toString('base64')]);
  });

  test('breaks no rule that inspect knows, and is the same each time', () => {
    expect(inspectJsonBundle(document).broken).toEqual([]);
    expect(inspectJsonBundle(writeJwtBundle(jwt)).broken).toEqual([]);
    expect(writeBundleDocument({ x509, jwt, refreshHintSeconds: 300 })).toBe(document);
  });

  test('changes its sequence with either half', () => {
    const sequence = (a: number, b: number) =>
      read(
        writeBundleDocument({
          x509: { ...x509, sequence: a },
          jwt: { ...jwt, sequence: b },
          refreshHintSeconds: 1,
        }),
      ).sequence;
    expect([sequence(0, 0), sequence(1, 0), sequence(1, 1), sequence(2, 1)]).toEqual([0, 1, 2, 3]);
  });

  test.each<[string, object]>([
    ['halves of two trust domains', { jwt: bundleOf('partner.example', { ec }) }],
    ['a refresh hint of 0', { refreshHintSeconds: 0 }],
    ['a refresh hint with a fraction', { refreshHintSeconds: 1.5 }],
    ['a refresh hint of more than a week', { refreshHintSeconds: 604_801 }],
    ['a refresh hint that is none', { refreshHintSeconds: Number.NaN }],
    ['a sequence beyond 2^53', { jwt: { ...jwt, sequence: Number.MAX_SAFE_INTEGER } }],
    ['a negative sequence', { jwt: { ...jwt, sequence: -5 } }],
  ])('%s is refused', (_, other) => {
    expect(() => writeBundleDocument({ x509, jwt, refreshHintSeconds: 300, ...other })).toThrow(
      expect.objectContaining({ code: 'bundle_invalid' }),
    );
  });

  test('the JWT bundle of the Workload API', () => {
    expect(keysOf(writeJwtBundle(jwt))).toEqual(parsed.keys.slice(2));
    expect(writeJwtBundle({ ...jwt, authorities: [] })).toBe('{"keys":[]}');
  });

  test('the keys of an OpenID provider', () => {
    const all = bundleOf('example.org', { ec, ec384, ec521, rsa });
    expect(keysOf(writeOidcKeys(all)).map(({ use, alg, kid, kty }) => [use, alg, kid, kty])).toEqual([
      ['sig', 'ES256', 'ec', 'EC'],
      ['sig', 'ES384', 'ec384', 'EC'],
      ['sig', 'ES512', 'ec521', 'EC'],
      ['sig', 'RS256', 'rsa', 'RSA'],
    ]);
    for (const text of [document, writeJwtBundle(all), writeOidcKeys(all)]) {
      for (const key of keysOf(text)) expect(Object.keys(key)).not.toContain('d');
    }
  });

  test('the metadata of an OpenID provider', () => {
    expect(JSON.parse(writeOidcDiscovery('https://oidc.example.org/mesh'))).toEqual({
      issuer: 'https://oidc.example.org/mesh',
      jwks_uri: 'https://oidc.example.org/mesh/keys',
      authorization_endpoint: 'urn:countersign:no-authorization-endpoint',
      response_types_supported: ['id_token'],
      subject_types_supported: ['public'],
      id_token_signing_alg_values_supported: ['RS256', 'ES256', 'ES384'],
      claims_supported: ['sub', 'aud', 'exp', 'iat', 'iss', 'jti'],
    });
  });

  test.each(['https://a.example', 'https://localhost:8443', 'https://a.example/b/c.d~e', 'https://1.2.3.4'])(
    'issuer %s',
    (issuer) => expect(JSON.parse(writeOidcDiscovery(issuer))).toMatchObject({ issuer }),
  );

  test.each([
    '',
    'https://',
    'http://a.example',
    'HTTPS://a.example',
    'https://A.example',
    'https://a.example/',
    'https://a.example//b',
    'https://a.example/../b',
    'https://a.example/./b',
    'https://a.example/b/',
    'https://a.example?x',
    'https://a.example#x',
    'https://user@a.example',
    'https://a.example:0',
    'https://a.example:65536',
    'https://a.example:',
    'https://-a.example',
    'https://a..example',
    'https://a.example.',
    'https://a.example/%62',
    'https://a.example/b c',
    'https://a.example\n',
    ' https://a.example',
    'https://a.example\\b',
    'https://[::1]',
    'https://ä.example',
    `https://a.example/${'b'.repeat(500)}`,
    `https://${'a.'.repeat(127)}aa`,
    'spiffe://example.org',
    'javascript:alert(1)',
  ])('issuer %j is refused', (issuer) => {
    expect(() => writeOidcDiscovery(issuer)).toThrow(expect.objectContaining({ code: 'config_invalid' }));
  });
});

describe('what is read', () => {
  test('is what was written', () => {
    expect(read(document)).toEqual({
      x509: { ...x509, sequence: 7 },
      jwt: { ...jwt, sequence: 7 },
      sequence: 7,
      refreshHintSeconds: 300,
    });
  });

  test('any bundle comes back as it was', () => {
    const pairs = { ec, ec384, ec521, rsa, otherEc };
    const sequence = fc.nat({ max: 2 ** 40 });
    const kid = fc.stringMatching(/^[ -~]{1,256}$/);
    fc.assert(
      fc.property(
        fc.subarray([root, otherRoot], { minLength: 1 }),
        fc.uniqueArray(fc.tuple(kid, fc.constantFrom(...Object.values(pairs))), {
          maxLength: 8,
          selector: ([name]) => name,
        }),
        sequence,
        sequence,
        fc.integer({ min: 1, max: 604_800 }),
        (ders, keys, a, b, refreshHintSeconds) => {
          const written = {
            x509: makeBundle(trustDomain, ders, a),
            jwt: { ...bundleOf('example.org', {}), sequence: b },
            refreshHintSeconds,
          };
          // An array and not an object, in which names that are numbers would move to the front.
          const authorities = keys.flatMap(
            ([name, pair]) => bundleOf('example.org', { [name]: pair }).authorities,
          );
          const jwt = { ...written.jwt, authorities };
          expect(read(writeBundleDocument({ ...written, jwt }))).toEqual({
            x509: { ...written.x509, sequence: a + b },
            jwt: { ...jwt, sequence: a + b },
            sequence: a + b,
            refreshHintSeconds,
          });
        },
      ),
      { numRuns: 50 },
    );
  });

  test('no keys at all: nothing of the trust domain is to be believed', () => {
    const empty = read({ keys: [] });
    expect(empty).toEqual({
      x509: null,
      jwt: { trustDomain, authorities: [], sequence: 0 },
      sequence: null,
      refreshHintSeconds: null,
    });
  });

  const [x509Key, , jwtKey] = parsed.keys as [Json, Json, Json];
  const ed25519 = generateKeyPairSync('ed25519').publicKey.export({ format: 'jwk' }) as Json;
  const small = generateKeyPairSync('rsa', { modulusLength: 1_024 }).publicKey.export({
    format: 'jwk',
  }) as Json;
  const k256 = generateKeyPairSync('ec', { namedCurve: 'secp256k1' }).publicKey.export({
    format: 'jwk',
  }) as Json;
  const withX5c = (...ders: Uint8Array[]) => ders.map((der) => Buffer.from(der).toString('base64'));
  const with2 = (more: Json, key = jwtKey) => ({ ...parsed, keys: [{ ...key, ...more }] });

  test.each<[string, Json]>([
    ['an unknown use', { use: 'wit-svid' }],
    ['no use', { use: undefined }],
    ['a use that is no text', { use: 1 }],
    ['an unknown key type', { kty: 'AKP' }],
    ['no key type', { kty: undefined }],
    ['a key type of a prototype', { kty: 'constructor' }],
    ['a kind of key that tokens do not know yet', { ...ed25519, y: undefined }],
  ])('an element with %s is passed over', (_, more) => {
    expect(read({ keys: [{ ...jwtKey, ...more }, jwtKey] }).jwt.authorities).toHaveLength(1);
  });

  test('members that nobody knows are passed over', () => {
    expect(outcome({ ...parsed, spiffe_later: { a: 1 } })).toBe('read');
    expect(outcome(with2({ alg: 'ES256', key_ops: ['verify'], x: jwtKey['x'] }))).toBe('read');
  });

  test.each<[string, unknown, string]>([
    ['nothing', '', 'not JSON'],
    ['an array', '[]', 'not a JSON object'],
    ['no JSON', '{keys:[]}', 'not JSON'],
    ['a byte order mark', `\ufeff${document}`, 'not JSON'],
    ['no keys', {}, 'no list of keys'],
    ['keys null', { keys: null }, 'no list of keys'],
    ['keys object', { keys: { 0: jwtKey } }, 'no list of keys'],
    ['keys twice', '{"keys":[],"keys":[]}', 'stand twice: "keys"'],
    ['a member of a key twice', `{"keys":[{"use":"x","use":"jwt-svid"}]}`, 'stand twice: "use"'],
    ['deep nesting', `{"keys":${'['.repeat(40)}${']'.repeat(40)}}`, 'nested deeper'],
    ['a key that is no object', { keys: ['x'] }, 'keys[0], that is no object'],
    ['a key that is an array', { keys: [[]] }, 'is no object'],
    ['257 keys', { keys: Array.from({ length: 257 }, () => ({})) }, 'more than 256 keys'],
    [
      '65 keys for tokens',
      { keys: Array.from({ length: 65 }, (_, i) => ({ ...jwtKey, kid: `k${i}` })) },
      'more than 64 keys for tokens',
    ],
    ['sequence with a fraction', { ...parsed, spiffe_sequence: 1.5 }, 'spiffe_sequence'],
    ['sequence negative', { ...parsed, spiffe_sequence: -1 }, 'spiffe_sequence'],
    ['sequence text', { ...parsed, spiffe_sequence: '1' }, 'spiffe_sequence'],
    ['sequence null', { ...parsed, spiffe_sequence: null }, 'spiffe_sequence'],
    ['sequence infinite', `{"keys":[],"spiffe_sequence":1e999}`, 'spiffe_sequence'],
    ['sequence of 2^53', { ...parsed, spiffe_sequence: 2 ** 53 }, 'spiffe_sequence'],
    ['refresh hint text', { ...parsed, spiffe_refresh_hint: '300' }, 'spiffe_refresh_hint'],
    ['refresh hint negative', { ...parsed, spiffe_refresh_hint: -300 }, 'spiffe_refresh_hint'],
    ['no kid', with2({ kid: undefined }), 'no kid'],
    ['an empty kid', with2({ kid: '' }), 'no kid'],
    ['a kid of 257 characters', with2({ kid: 'k'.repeat(257) }), 'no kid'],
    ['a kid that is a number', with2({ kid: 1 }), 'no kid'],
    ['a kid with a line break', with2({ kid: 'a\nb' }), 'no kid'],
    ['a kid twice', { keys: [jwtKey, jwtKey] }, '"ec" twice'],
    ['a private key', with2({ d: 'AAAA' }), '"d"'],
    ['a private key of another use', with2({ d: 'AAAA', use: 'sig' }), '"d"'],
    ['a secret', { keys: [{ kty: 'oct', k: 'AAAA', use: 'jwt-svid', kid: 'a' }] }, '"k"'],
    ['a key without x', with2({ x: undefined }), 'member x'],
    ['a key off the curve', with2({ x: jwtKey['y'], y: jwtKey['x'] }), 'do not make a key'],
    ['a key of another curve', with2({ ...k256 }), 'out of the ordinary'],
    ['RSA of 1,024 bits', with2({ ...small }), 'RSA 1024'],
    ['RSA of 16,384 bits', with2({ kty: 'RSA', n: 'w'.repeat(2_730), e: 'AQAB' }), 'too long'],
    [
      'RSA with a huge exponent',
      with2({ kty: 'RSA', n: parsed.keys[3]!['n'], e: '_'.repeat(300) }),
      'keys[0]',
    ],
    ['a certificate with kid', with2({ kid: 'a' }, x509Key), 'has a kid'],
    ['no x5c', with2({ x5c: undefined }, x509Key), 'no x5c'],
    ['x5c text', with2({ x5c: withX5c(root)[0] }, x509Key), 'no x5c'],
    ['x5c of none', with2({ x5c: [] }, x509Key), 'no x5c'],
    ['x5c of two', with2({ x5c: withX5c(root, otherRoot) }, x509Key), 'no x5c'],
    ['x5c in base64url', with2({ x5c: [Buffer.from(root).toString('base64url')] }, x509Key), 'x5c'],
    ['x5c with a line break', with2({ x5c: [`${withX5c(root)[0]}\n`] }, x509Key), 'not base64'],
    ['x5c rubbish', with2({ x5c: ['AAAA'] }, x509Key), 'is refused'],
    ['x5c of another key', with2({ x5c: withX5c(otherRoot) }, x509Key), 'other members'],
    [
      'x5c of a CA of another trust domain',
      { keys: keysOf(writeBundleDocument(ofForeign())).slice(0, 1) },
      'partner.example',
    ],
    ['a CA twice', { keys: [x509Key, x509Key] }, 'twice'],
    [
      'bytes after the certificate',
      with2({ x5c: [withX5c(Buffer.concat([root, Buffer.of(0)]))[0]] }, x509Key),
      'is refused',
    ],
  ])('%s is refused', (_, value, message) => {
    expect(outcome(value)).toContain(message);
  });

  function ofForeign() {
    const domain = TrustDomain.parse('partner.example');
    return {
      x509: makeBundle(domain, [foreign], 1),
      jwt: bundleOf('partner.example', {}),
      refreshHintSeconds: 1,
    };
  }

  test('a certificate that is no CA is refused', () => {
    const jwk = ec.publicKey.export({ format: 'jwk' }) as Json;
    const leaf = forge({ spki: spkiBytes(ec.publicKey) }, ca);
    expect(outcome({ keys: [{ ...jwk, use: 'x509-svid', x5c: withX5c(leaf) }] })).toContain('is not a CA');
  });

  test('bytes that are no UTF-8, and too many of them, are refused', () => {
    const refused = expect.objectContaining({ code: 'bundle_invalid' });
    expect(() => readBundleDocument(Uint8Array.of(0x7b, 0xff, 0x7d), trustDomain)).toThrow(refused);
    const padded = Buffer.from(document.padEnd(maxBundleDocumentBytes + 1, ' '));
    expect(readBundleDocument(padded.subarray(0, -1), trustDomain).sequence).toBe(7);
    expect(() => readBundleDocument(padded, trustDomain)).toThrow(refused);
  });

  test('of any bytes, and of any change to a document, only our refusals come out', () => {
    const bytes = fc.oneof(
      fc.uint8Array({ maxLength: 400 }),
      fc.json().map((text) => Buffer.from(text)),
      fc.json().map((text) => Buffer.from(`{"keys":[${text}]}`)),
      fc.tuple(fc.nat({ max: document.length - 1 }), fc.nat({ max: 255 })).map(([place, octet]) => {
        const changed = Buffer.from(document);
        changed[place] = octet;
        return changed;
      }),
    );
    fc.assert(
      fc.property(bytes, (value) => {
        expect(leastMs(() => outcomeOf(value))).toBeLessThan(50);
      }),
      { numRuns: 500 },
    );
  });
});
