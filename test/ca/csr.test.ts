import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { readCsr } from '../../src/ca/csr.ts';
import { ascii, booleanTrue, octetString, sequence } from '../../src/ca/der-writer.ts';
import { readPublicKey } from '../../src/ca/public-key.ts';
import { MeshError } from '../../src/errors.ts';
import { hexOf } from '../../src/spiffe/der.ts';
import { encodePem } from '../../src/spiffe/pem.ts';
import * as odd from '../spiffe/odd-certificate.ts';
import { attributes, ecdsa, extensionRequest, makeCsr, rsa, signatureOid } from './csr-writer.ts';
import { makeKey, type TestKey } from './test-authority.ts';

const key = makeKey('ec-prime256v1');
const p384 = makeKey('ec-secp384r1');
const rsa2048 = makeKey('rsa-2048');
const good = makeCsr(key);
const flipped = (from: Uint8Array, at: number, mask = 1) => {
  const copy = Uint8Array.from(from);
  copy[at] = (copy[at] ?? 0) ^ mask;
  return copy;
};

describe('a request is read:', () => {
  const ca = odd.basicConstraints(true, booleanTrue());
  const wishes = attributes(
    extensionRequest(
      ca,
      odd.keyUsage(true, 2, 0x86),
      odd.keyPurposes('2.5.29.37.0'),
      odd.altNames(
        true,
        odd.uri('spiffe://example.org/admin'),
        odd.uri('spiffe://evil.example/x'),
        odd.dns('*'),
      ),
    ),
  );
  test.each<[string, Uint8Array, TestKey]>([
    ['P-256', good, key],
    ['P-384', makeCsr(p384, { algorithm: ecdsa(signatureOid.ecdsaSha384), hash: 'sha384' }), p384],
    ['P-384 with SHA-256', makeCsr(p384), p384],
    ['P-256 with SHA-512', makeCsr(key, { algorithm: ecdsa(signatureOid.ecdsaSha512), hash: 'sha512' }), key],
    ['RSA', makeCsr(rsa2048), rsa2048],
    [
      'RSA with SHA-384',
      makeCsr(rsa2048, { algorithm: rsa(signatureOid.rsaSha384), hash: 'sha384' }),
      rsa2048,
    ],
    [
      'RSA with SHA-512',
      makeCsr(rsa2048, { algorithm: rsa(signatureOid.rsaSha512), hash: 'sha512' }),
      rsa2048,
    ],
    ['no subject', makeCsr(key, { subject: sequence() }), key],
    ['all wishes at once', makeCsr(key, { attributes: wishes }), key],
    ['PEM', ascii(encodePem('CERTIFICATE REQUEST', good)), key],
    ['PEM of keytool', ascii(encodePem('NEW CERTIFICATE REQUEST', good)), key],
    ['PEM with CRLF', ascii(encodePem('CERTIFICATE REQUEST', good).replaceAll('\n', '\r\n')), key],
    ['16 KiB', makeCsr(key, { attributes: attributes(octetString(new Uint8Array(16_100))) }), key],
  ])('%s', (_, input, by) => {
    // Whatever it wishes for, all that comes out is what reading the key alone gives.
    const { key: _key, ...read } = readCsr(input);
    const { key: _other, ...alone } = readPublicKey(by.spki);
    expect(read).toEqual(alone);
  });

  test('later changes of the input change nothing', () => {
    const input = Uint8Array.from(good);
    const read = readCsr(input);
    input.fill(0);
    expect(hexOf(read.spki)).toBe(hexOf(key.spki));
  });
});

const sameOrRefused = (input: Uint8Array): void => {
  try {
    expect(hexOf(readCsr(input).spki)).toBe(hexOf(key.spki));
  } catch (error) {
    expect(error).toBeInstanceOf(MeshError);
    expect(['csr_invalid', 'csr_proof_invalid', 'public_key_unsupported']).toContain(
      (error as MeshError).code,
    );
  }
};

test('each bit changed, each byte missing, each byte doubled: refused, and never another key', () => {
  for (let at = 0; at < good.length; at++) {
    for (let bit = 0; bit < 8; bit++) expect(() => readCsr(flipped(good, at, 1 << bit))).toThrow(MeshError);
    expect(() => readCsr(Buffer.concat([good.subarray(0, at), good.subarray(at + 1)]))).toThrow(MeshError);
    expect(() => readCsr(good.subarray(0, at))).toThrow(MeshError);
    sameOrRefused(Buffer.concat([good.subarray(0, at + 1), good.subarray(at)]));
  }
});

test('whatever the bytes: the key of the request, or one of three refusals', () => {
  const edit = fc.record({
    at: fc.nat(good.length),
    remove: fc.nat(8),
    insert: fc.uint8Array({ maxLength: 8 }),
  });
  fc.assert(
    fc.property(fc.array(edit, { minLength: 1, maxLength: 4 }), (edits) => {
      let input: Uint8Array = good;
      for (const { at, remove, insert } of edits) {
        input = Buffer.concat([input.subarray(0, at), insert, input.subarray(at + remove)]);
      }
      sameOrRefused(input);
    }),
    { numRuns: 1_000 },
  );
  fc.assert(fc.property(fc.uint8Array({ maxLength: 2_000 }), sameOrRefused), { numRuns: 500 });
});
