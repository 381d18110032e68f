import { createPublicKey, generateKeyPairSync } from 'node:crypto';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { bitString, objectIdentifier, sequence, tlv, unsignedInteger } from '../../src/ca/der-writer.ts';
import { readPublicKey } from '../../src/ca/public-key.ts';
import { hexOf } from '../../src/spiffe/der.ts';
import { startCpuWatch } from '../harness/cpu-watch.ts';
import { makeKey } from './test-authority.ts';

const unsupported = expect.objectContaining({ code: 'public_key_unsupported' });
const p256 = makeKey('ec-prime256v1').spki;
const rsa = makeKey('rsa-2048').spki;
const point = p256.subarray(-65);
const nullValue = Uint8Array.of(5, 0);
const none: Uint8Array = new Uint8Array(0);
const rsaModulus = Buffer.from(
  createPublicKey({ key: Buffer.from(rsa), format: 'der', type: 'spki' }).export({ format: 'jwk' }).n ?? '',
  'base64url',
);

function ecSpki(curve: string, octets: Uint8Array, more: Uint8Array = none): Uint8Array {
  return sequence(
    sequence(objectIdentifier('1.2.840.10045.2.1'), objectIdentifier(curve), more),
    bitString(octets),
  );
}
function rsaSpki(
  modulus: Uint8Array,
  exponent: Uint8Array,
  parameters: Uint8Array = nullValue,
  oid = '1.2.840.113549.1.1.1',
) {
  const key = sequence(unsignedInteger(modulus), unsignedInteger(exponent));
  return sequence(sequence(objectIdentifier(oid), parameters), bitString(key));
}
const changed = (bytes: Uint8Array, at: number, to: number) => {
  const copy = Uint8Array.from(bytes);
  copy[at < 0 ? copy.length + at : at] = to;
  return copy;
};
const spkiOf = (pair: { publicKey: { export: (o: { format: 'der'; type: 'spki' }) => Uint8Array } }) =>
  pair.publicKey.export({ format: 'der', type: 'spki' });
const p256Oid = '1.2.840.10045.3.1.7';
const f4 = Uint8Array.of(1, 0, 1);

describe('readPublicKey refuses', () => {
  test.each<[string, Uint8Array]>([
    ['nothing', none],
    ['noise', Uint8Array.of(1, 2, 3)],
    ['a key with bytes after it', Buffer.concat([p256, Uint8Array.of(0)])],
    ['a key cut short', p256.subarray(0, -1)],
    ['a length that is not minimal', Buffer.concat([Uint8Array.of(0x30, 0x81), p256.subarray(1)])],
    [
      'an indefinite length',
      Buffer.concat([Uint8Array.of(0x30, 0x80), p256.subarray(2), Uint8Array.of(0, 0)]),
    ],
    ['a compressed point', ecSpki(p256Oid, Buffer.concat([Uint8Array.of(2), point.subarray(1, 33)]))],
    ['a hybrid point', ecSpki(p256Oid, changed(point, 0, 6 + ((point[64] ?? 0) & 1)))],
    ['the point at infinity', ecSpki(p256Oid, Uint8Array.of(0))],
    ['a point off the curve', changed(p256, -1, (p256.at(-1) ?? 0) ^ 1)],
    ['the point (0, 0)', ecSpki(p256Oid, changed(new Uint8Array(65), 0, 4))],
    ['coordinates over the prime', ecSpki(p256Oid, changed(new Uint8Array(65).fill(0xff), 0, 4))],
    ['a P-256 point said to be on P-384', ecSpki('1.3.132.0.34', point)],
    ['parameters after the curve', ecSpki(p256Oid, point, nullValue)],
    [
      'explicit curve parameters',
      spkiOf(generateKeyPairSync('ec', { namedCurve: 'prime256v1', paramEncoding: 'explicit' })),
    ],
    ['P-224', spkiOf(generateKeyPairSync('ec', { namedCurve: 'secp224r1' }))],
    ['P-521', spkiOf(generateKeyPairSync('ec', { namedCurve: 'secp521r1' }))],
    ['secp256k1', spkiOf(generateKeyPairSync('ec', { namedCurve: 'secp256k1' }))],
    ['Ed25519', spkiOf(generateKeyPairSync('ed25519'))],
    ['X25519', spkiOf(generateKeyPairSync('x25519'))],
    ['RSA of 1024 bits', spkiOf(generateKeyPairSync('rsa', { modulusLength: 1_024 }))],
    ['RSA of 2056 bits', rsaSpki(changed(Buffer.concat([rsaModulus, Uint8Array.of(1)]), 0, 0x80), f4)],
    ['RSA of 2047 bits', rsaSpki(changed(rsaModulus, 0, 0x7f), f4)],
    ['RSA of 16384 bits', rsaSpki(new Uint8Array(2_048).fill(0xff), f4)],
    ['an even modulus', rsaSpki(changed(rsaModulus, -1, 0xfe), f4)],
    ['exponent 1', rsaSpki(rsaModulus, Uint8Array.of(1))],
    ['exponent 3', rsaSpki(rsaModulus, Uint8Array.of(3))],
    ['an exponent of 2040 bits', rsaSpki(rsaModulus, rsaModulus.subarray(1))],
    ['RSA without parameters', rsaSpki(rsaModulus, f4, none)],
    ['RSA with odd parameters', rsaSpki(rsaModulus, f4, tlv(5, Uint8Array.of(0)))],
    ['RSA-PSS', rsaSpki(rsaModulus, f4, none, '1.2.840.113549.1.1.10')],
    ['a private key', makeKey('ec-prime256v1').pkcs8],
    ['a megabyte', new Uint8Array(1_000_000).fill(0x30)],
  ])('%s', (_, spki) => {
    const usedMs = startCpuWatch();
    expect(() => readPublicKey(spki)).toThrow(unsupported);
    expect(usedMs()).toBeLessThan(1_000);
  });

  test('whatever bytes are changed: refused, or read as the key that stands there', () => {
    fc.assert(
      fc.property(
        fc.constantFrom(p256, rsa),
        fc.nat(),
        fc.integer({ min: 1, max: 255 }),
        (spki, at, flip) => {
          const bytes = changed(spki, at % spki.length, (spki[at % spki.length] ?? 0) ^ flip);
          try {
            expect(hexOf(readPublicKey(bytes).key.export({ format: 'der', type: 'spki' }))).toBe(
              hexOf(bytes),
            );
          } catch (error) {
            expect(error).toMatchObject({ code: 'public_key_unsupported' });
          }
        },
      ),
      { numRuns: 500 },
    );
  });
});

test.each([
  ['ec-prime256v1', 'ecdsa-p256'],
  ['ec-secp384r1', 'ecdsa-p384'],
  ['rsa-2048', 'rsa-2048'],
  ['rsa-3072', 'rsa-3072'],
])('readPublicKey reads %s', (made, kind) => {
  const { spki } = makeKey(made);
  const key = readPublicKey(spki);
  expect(key).toMatchObject({ kind, spki: Uint8Array.from(spki) });
  expect(key.keyId).toHaveLength(20);
});
