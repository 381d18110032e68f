import { createPublicKey, hash, type KeyObject } from 'node:crypto';
import { MeshError } from '../errors.ts';
import { DerReader, derTag, hexOf } from '../spiffe/der.ts';
import { encodePem } from '../spiffe/pem.ts';

/** The kinds of public key we certify. Envoy loads all of them. */
export const publicKeyKinds = ['ecdsa-p256', 'ecdsa-p384', 'rsa-2048', 'rsa-3072', 'rsa-4096'] as const;
export type PublicKeyKind = (typeof publicKeyKinds)[number];

/** A public key whose form and size are proven: only {@link readPublicKey} makes one. */
export type PublicKey = {
  readonly [proven]: true;
  readonly kind: PublicKeyKind;
  /** DER SubjectPublicKeyInfo. */
  readonly spki: Uint8Array;
  /** Subject key identifier: the leftmost 160 bits of the SHA-256 of the key. @see RFC 7093 section 2, method 1 */
  readonly keyId: Uint8Array;
  /** Lower-case hex. */
  readonly spkiSha256: string;
  readonly key: KeyObject;
};

/**
 * Reads a SubjectPublicKeyInfo: ECDSA P-256 or P-384 as an uncompressed point on the curve, RSA of exactly 2048, 3072
 * or 4096 bits with exponent 65537. Sizes are checked before any arithmetic. One key has one accepted encoding.
 * @param spki DER
 * @throws MeshError `public_key_unsupported`
 */
export function readPublicKey(spki: Uint8Array): PublicKey {
  if (spki.length > maxSpkiBytes) refuse('is too long');
  const own = new Uint8Array(spki);
  const { kind, bits } = orUnsupported(() => outline(own));
  // INVARIANT: the outline leaves no choice in any byte, so exporting this key gives `own` again.
  const key = orUnsupported(() => importKey(own));
  return Object.freeze({
    [proven]: true as const,
    kind,
    spki: own,
    keyId: new Uint8Array(hash('sha256', bits, 'buffer').subarray(0, 20)),
    spkiSha256: hash('sha256', own, 'hex'),
    key,
  });
}

/** What is known of a key that was read, as plain data: {@link adoptPublicKey} makes it a key again. */
export type PublicKeyFacts = Pick<PublicKey, 'kind' | 'spki' | 'keyId' | 'spkiSha256'>;

/**
 * Takes over a key that {@link readPublicKey} has read on another thread of this process.
 * INVARIANT: the facts come from there and nowhere else; nothing is proven again.
 */
export function adoptPublicKey({ kind, spki, keyId, spkiSha256 }: PublicKeyFacts): PublicKey {
  let key: KeyObject | undefined;
  return Object.freeze({
    [proven]: true as const,
    kind,
    spki,
    keyId,
    spkiSha256,
    get key() {
      return (key ??= importKey(spki));
    },
  });
}

/** A key that was read already, or bytes, which are read now. @throws MeshError `public_key_unsupported` */
export function asPublicKey(key: PublicKey | Uint8Array): PublicKey {
  return key instanceof Uint8Array ? readPublicKey(key) : key;
}

/** As text, because Node 24 spends as much time again on finding out what an object with DER in it is. */
function importKey(spki: Uint8Array): KeyObject {
  return createPublicKey(encodePem('PUBLIC KEY', spki));
}

/** The kind of key a SubjectPublicKeyInfo holds, from its bytes alone, and the octets of its BIT STRING. */
function outline(spki: Uint8Array): { kind: PublicKeyKind; bits: Uint8Array } {
  const file = DerReader.over(spki);
  const fields = file.enter(derTag.sequence);
  file.finish();
  const algorithm = fields.enter(derTag.sequence);
  const { unusedBits, octets: bits } = fields.bitString();
  fields.finish();
  if (unusedBits !== 0) refuse('is not a whole number of octets');
  switch (algorithm.oid()) {
    case ecPublicKeyOid: {
      const curve = curves.get(algorithm.oid());
      algorithm.finish();
      if (curve === undefined) refuse('is on a curve other than P-256 and P-384');
      if (bits.length !== curve.pointBytes || bits[0] !== 0x04) refuse('is not an uncompressed point');
      return { kind: curve.kind, bits };
    }
    case rsaEncryptionOid: {
      if (algorithm.content(derTag.null).length !== 0) refuse('has parameters that are not null');
      algorithm.finish();
      return { kind: rsaKind(bits), bits };
    }
    default:
      return refuse('is neither ECDSA nor RSA');
  }
}

function rsaKind(bits: Uint8Array): PublicKeyKind {
  const file = DerReader.over(bits);
  const fields = file.enter(derTag.sequence);
  file.finish();
  const modulus = fields.integer();
  const exponent = fields.integer();
  fields.finish();
  // A positive number whose top bit is set carries one zero octet in front.
  const size = (modulus.length - 1) * 8;
  if (modulus[0] !== 0 || ((modulus[1] ?? 0) & 0x80) === 0) refuse('has a modulus of an unusual size');
  if (((modulus.at(-1) ?? 0) & 1) === 0) refuse('has an even modulus');
  if (hexOf(exponent) !== '010001') refuse('has an exponent other than 65537');
  const kind = rsaKinds.get(size);
  if (kind === undefined) refuse('has a modulus other than 2048, 3072 or 4096 bits');
  return kind;
}

function orUnsupported<T>(read: () => T): T {
  try {
    return read();
  } catch (cause) {
    if (cause instanceof MeshError && cause.code === 'public_key_unsupported') throw cause;
    throw new MeshError('public_key_unsupported', 'the public key cannot be read', { fix, cause });
  }
}

function refuse(why: string): never {
  throw new MeshError('public_key_unsupported', `the public key ${why}`, { fix });
}

const proven = Symbol('proven');
const fix = 'make an ECDSA P-256 key';
const maxSpkiBytes = 1_024;
const ecPublicKeyOid = '1.2.840.10045.2.1';
const rsaEncryptionOid = '1.2.840.113549.1.1.1';
const curves: ReadonlyMap<string, { kind: PublicKeyKind; pointBytes: number }> = new Map([
  ['1.2.840.10045.3.1.7', { kind: 'ecdsa-p256', pointBytes: 65 }],
  ['1.3.132.0.34', { kind: 'ecdsa-p384', pointBytes: 97 }],
]);
const rsaKinds: ReadonlyMap<number, PublicKeyKind> = new Map([
  [2_048, 'rsa-2048'],
  [3_072, 'rsa-3072'],
  [4_096, 'rsa-4096'],
]);
