import { createPublicKey, generateKeyPairSync } from 'node:crypto';
import fc from 'fast-check';
import { beforeAll, expect, test } from 'vitest';
import { MeshError } from '../../src/errors.ts';
import { inspectCertificateBundle, inspectJsonBundle } from '../../src/spiffe/inspect-bundle.ts';
import { makeTestAuthority, type TestAuthority } from '../ca/test-authority.ts';
import { readCertificate } from '../../src/spiffe/certificate.ts';
import { oddCertificate } from './odd-certificate.ts';

const now = new Date('2026-11-21T12:00:00Z');
let ca: TestAuthority;
let other: TestAuthority;
beforeAll(async () => {
  ca = await makeTestAuthority(now);
  other = await makeTestAuthority(now, {}, 'example.com');
});

const ec = generateKeyPairSync('ec', { namedCurve: 'P-256' });
const publicJwk = ec.publicKey.export({ format: 'jwk' });
const jwtKey: object = { ...publicJwk, use: 'jwt-svid', kid: 'a' };
const x5c = (der: Uint8Array) => Buffer.from(der).toString('base64');
const x509Key = (of = ca): Record<string, unknown> => {
  const der = of.root.certificate;
  const key = createPublicKey({ key: Buffer.from(readCertificate(der).spki), format: 'der', type: 'spki' });
  return { ...key.export({ format: 'jwk' }), use: 'x509-svid', x5c: [x5c(der)] };
};
const inspect = (bundle: unknown) => inspectJsonBundle(JSON.stringify(bundle));
const rules = (bundle: unknown) => inspect(bundle).broken.map(({ rule }) => rule);

test('a proper bundle tells its authorities and keys', () => {
  const report = inspect({ keys: [x509Key(), jwtKey], spiffe_sequence: 7, spiffe_refresh_hint: 300 });
  expect(report.broken).toEqual([]);
  expect(report.facts).toMatchObject({
    format: 'jwks',
    bundles: [
      {
        trustDomain: 'example.org',
        sequence: 7,
        refreshHintSeconds: 300,
        authorities: [{ serial: ca.root.serial, ca: true, pathLength: 1 }],
        jwtKeys: [{ kid: 'a', key: 'ECDSA P-256' }],
        ignoredKeys: 0,
      },
    ],
  });
  expect(report.usable[0]?.authorities).toEqual([ca.root.certificate]);
});

test.each<[string, () => unknown, string[]]>([
  ['no keys', () => ({}), ['spiffe-bundle-4.1.3-keys']],
  ['keys that are an object', () => ({ keys: {} }), ['spiffe-bundle-4.1.3-keys']],
  ['no key', () => ({ keys: [] }), []],
  ['a key that is text', () => ({ keys: ['x'] }), ['spiffe-bundle-4.1.3-keys']],
  ['a sequence in text', () => ({ keys: [], spiffe_sequence: '1' }), ['spiffe-bundle-4.1.1-sequence']],
  ['half a sequence', () => ({ keys: [], spiffe_sequence: 1.5 }), ['spiffe-bundle-4.1.1-sequence']],
  ['a negative hint', () => ({ keys: [], spiffe_refresh_hint: -1 }), ['spiffe-bundle-4.1.2-refresh-hint']],
  ['a null hint', () => ({ keys: [], spiffe_refresh_hint: null }), ['spiffe-bundle-4.1.2-refresh-hint']],
  ['a key without kty', () => ({ keys: [{ use: 'new-svid' }] }), ['spiffe-bundle-4.2.1-kty']],
  ['a key without use', () => ({ keys: [{ kty: 'EC' }] }), ['spiffe-bundle-4.2.2-use']],
  ['a key of another use', () => ({ keys: [{ kty: 'EC', use: 'sig' }] }), []],
  ['a key of another type', () => ({ keys: [{ kty: 'XY', use: 'jwt-svid', kid: 'a' }] }), []],
  ['an authority with a kid', () => ({ keys: [{ ...x509Key(), kid: 'a' }] }), ['x509-svid-6.1-no-kid']],
  [
    'an authority without x5c',
    () => ({ keys: [{ ...x509Key(), x5c: undefined }] }),
    ['x509-svid-6.1-one-x5c'],
  ],
  ['an authority with empty x5c', () => ({ keys: [{ ...x509Key(), x5c: [] }] }), ['x509-svid-6.1-one-x5c']],
  [
    'an authority with two certificates',
    () => ({ keys: [{ ...x509Key(), x5c: [x5c(ca.root.certificate), x5c(ca.root.certificate)] }] }),
    ['x509-svid-6.1-one-x5c'],
  ],
  [
    'an authority that is no base64',
    () => ({ keys: [{ ...x509Key(), x5c: ['-_'] }] }),
    ['x509-svid-6.1-one-x5c'],
  ],
  [
    'an authority that is no certificate',
    () => ({ keys: [{ ...x509Key(), x5c: ['AAAA'] }] }),
    ['x509-svid-6.1-one-x5c'],
  ],
  [
    'an authority of another key',
    () => ({ keys: [{ ...x509Key(), ...publicJwk }] }),
    ['rfc7517-4.7-x5c-key'],
  ],
  [
    'an authority that is a leaf',
    () => ({ keys: [{ kty: 'XY', use: 'x509-svid', x5c: [x5c(oddCertificate())] }] }),
    [
      'x509-svid-3.2-no-path',
      'x509-svid-4.1-ca',
      'x509-svid-4.3-key-cert-sign',
      'rfc5280-4.1.2.6-ca-subject',
    ],
  ],
  ['an authority twice', () => ({ keys: [x509Key(), x509Key()] }), ['spiffe-bundle-3-no-duplicate']],
  [
    'authorities of two trust domains',
    () => ({ keys: [x509Key(), x509Key(other)] }),
    ['spiffe-bundle-3-one-trust-domain'],
  ],
  ['a JWT key without kid', () => ({ keys: [{ ...jwtKey, kid: undefined }] }), ['jwt-svid-6.1-kid']],
  ['a kid twice', () => ({ keys: [jwtKey, jwtKey] }), ['rfc7517-4.5-distinct-kid']],
  [
    'a private key',
    () => ({ keys: [{ ...ec.privateKey.export({ format: 'jwk' }), use: 'jwt-svid', kid: 'a' }] }),
    ['rfc7517-9.2-no-private-key'],
  ],
  [
    'a secret',
    () => ({ keys: [{ kty: 'oct', k: 'AAAA', use: 'jwt-svid', kid: 'a' }] }),
    ['rfc7517-9.2-no-private-key'],
  ],
  ['a point that is on no curve', () => ({ keys: [{ ...jwtKey, x: 'AAAA' }] }), ['rfc7517-4-public-key']],
  ['a curve of another world', () => ({ keys: [{ ...jwtKey, crv: 'secp256k1' }] }), ['rfc7517-4-public-key']],
  ['a key without its point', () => ({ keys: [{ ...jwtKey, y: undefined }] }), ['rfc7517-4-public-key']],
  [
    'an RSA key of a million bits',
    () => ({ keys: [{ kty: 'RSA', n: 'A'.repeat(200_000), e: 'AQAB', use: 'jwt-svid', kid: 'a' }] }),
    ['rfc7517-4-public-key'],
  ],
  ['a map', () => ({ trust_domains: { 'example.org': { keys: [x509Key()] } } }), []],
  [
    'a map with a name that is none',
    () => ({ trust_domains: { 'Example.org': { keys: [] } } }),
    ['spiffe-bundle-4.1-trust-domains'],
  ],
  [
    'a map with the bundle of another',
    () => ({ trust_domains: { 'example.net': { keys: [x509Key()] } } }),
    ['spiffe-bundle-3-one-trust-domain'],
  ],
  ['a map that is a list', () => ({ trust_domains: [] }), ['spiffe-bundle-4.1-trust-domains']],
  ['a map of text', () => ({ trust_domains: { 'example.org': 'x' } }), ['spiffe-bundle-4.1-trust-domains']],
  [
    'several wrong keys',
    () => ({ keys: [{}, { ...jwtKey, kid: 1 }], spiffe_sequence: -1 }),
    [
      'spiffe-bundle-4.1.1-sequence',
      'spiffe-bundle-4.2.1-kty',
      'spiffe-bundle-4.2.2-use',
      'jwt-svid-6.1-kid',
    ],
  ],
])('%s breaks exactly its rules', (_, make, expected) => {
  expect(rules(make())).toEqual(expected);
});

test('what stands twice is told, and keys of a prototype are only keys', () => {
  const twice = inspectJsonBundle('{"keys":[],"k\\u0065ys":[{}],"__proto__":{"keys":1}}');
  expect(twice.broken.map(({ rule }) => rule)).toContain('rfc7517-4-unique-members');
  expect(rules(JSON.parse('{"__proto__":{"keys":[]}}'))).toEqual(['spiffe-bundle-4.1.3-keys']);
});

test.each([
  ['no JSON', '{'],
  ['an array', '[]'],
  ['text', '"x"'],
  ['deep nesting', `{"keys":${'['.repeat(100_000)}${']'.repeat(100_000)}}`],
])('%s cannot be read', (_, text) => {
  expect(() => inspectJsonBundle(text)).toThrow(expect.objectContaining({ code: 'input_unreadable' }));
});

test('more than can be meant is not read', () => {
  const refused = expect.objectContaining({ code: 'input_too_large' });
  expect(() => inspect({ keys: Array.from({ length: 257 }, () => ({})) })).toThrow(refused);
  expect(() => inspectCertificateBundle(Array.from({ length: 65 }, () => ca.root.certificate))).toThrow(
    refused,
  );
});

test('whatever is in a key, it is judged', () => {
  const member = fc.oneof(
    fc.string(),
    fc.integer(),
    fc.constant(null),
    fc.array(fc.string(), { maxLength: 2 }),
  );
  const names = fc.constantFrom('kty', 'use', 'kid', 'x5c', 'crv', 'x', 'y', 'n', 'e', 'd', '__proto__');
  const mutated = fc.dictionary(names, member).map((changes) => ({ ...jwtKey, ...changes }));
  fc.assert(
    fc.property(fc.array(fc.oneof(mutated, fc.jsonValue()), { maxLength: 4 }), (keys) => {
      try {
        inspect({ keys });
      } catch (error) {
        expect(error).toBeInstanceOf(MeshError);
      }
    }),
    { numRuns: 1_000 },
  );
});
