import { sign } from 'node:crypto';
import { bitString, objectIdentifier, sequence, tlv, unsignedInteger } from '../../src/ca/der-writer.ts';
import { commonName } from '../spiffe/odd-certificate.ts';
import { makeKey, type TestKey } from './test-authority.ts';

/** The parts of a certificate request, DER, each of which a test may replace by something odd. */
export type CsrParts = {
  version: Uint8Array;
  subject: Uint8Array;
  spki: Uint8Array;
  attributes: Uint8Array;
  /** After the attributes, within what is signed. */
  extra: Uint8Array;
  algorithm: Uint8Array;
  /** Undefined: the true signature. */
  signature: Uint8Array | undefined;
  /** After the signature, within the request. */
  after: Uint8Array;
  /** After the request. */
  trailing: Uint8Array;
  /** What node:crypto hashes with. */
  hash: string;
};

export const signatureOid = {
  ecdsaSha1: '1.2.840.10045.4.1',
  ecdsaSha256: '1.2.840.10045.4.3.2',
  ecdsaSha384: '1.2.840.10045.4.3.3',
  ecdsaSha512: '1.2.840.10045.4.3.4',
  rsaMd5: '1.2.840.113549.1.1.4',
  rsaSha1: '1.2.840.113549.1.1.5',
  rsaPss: '1.2.840.113549.1.1.10',
  rsaSha256: '1.2.840.113549.1.1.11',
  rsaSha384: '1.2.840.113549.1.1.12',
  rsaSha512: '1.2.840.113549.1.1.13',
  ed25519: '1.3.101.112',
} as const;

export const ecdsa = (oid: string): Uint8Array => sequence(objectIdentifier(oid));
export const rsa = (oid: string): Uint8Array => sequence(objectIdentifier(oid), Uint8Array.of(5, 0));
export const attributes = (...parts: readonly Uint8Array[]): Uint8Array => tlv(0xa0, ...parts);

/** An attribute that asks for extensions. @see RFC 2985 section 5.4.2 */
export function extensionRequest(...extensions: readonly Uint8Array[]): Uint8Array {
  return sequence(objectIdentifier('1.2.840.113549.1.9.14'), tlv(0x31, sequence(...extensions)));
}

/** A request of the given parts, signed by `key`; without any, a proper one. */
export function makeCsr(key: TestKey = makeKey('ec-prime256v1'), parts: Partial<CsrParts> = {}): Uint8Array {
  const isRsa = key.privateKey.asymmetricKeyType === 'rsa';
  const p: CsrParts = {
    version: unsignedInteger(Uint8Array.of(0)),
    subject: commonName('web'),
    spki: key.spki,
    attributes: attributes(),
    extra: new Uint8Array(0),
    algorithm: isRsa ? rsa(signatureOid.rsaSha256) : ecdsa(signatureOid.ecdsaSha256),
    signature: undefined,
    after: new Uint8Array(0),
    trailing: new Uint8Array(0),
    hash: 'sha256',
    ...parts,
  };
  const info = sequence(p.version, p.subject, p.spki, p.attributes, p.extra);
  const signature = p.signature ?? bitString(sign(p.hash, info, key.privateKey));
  return Buffer.concat([sequence(info, p.algorithm, signature, p.after), p.trailing]);
}
