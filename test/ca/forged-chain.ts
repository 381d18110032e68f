import { createHash, sign } from 'node:crypto';
import {
  bitString,
  booleanTrue,
  objectIdentifier,
  octetString,
  sequence,
  time,
  tlv,
  unsignedInteger,
} from '../../src/ca/der-writer.ts';
import { readCertificate } from '../../src/spiffe/certificate.ts';
import { encodePem } from '../../src/spiffe/pem.ts';
import * as odd from '../spiffe/odd-certificate.ts';
import { makeKey, type TestKey } from './test-authority.ts';

/** A CA of somebody else, in any shape. */
export type ForgedCa = {
  readonly name: string;
  readonly key: TestKey;
  readonly der: Uint8Array;
  readonly pem: string;
};

/** What a forged CA may be made with; without anything, a root that signs itself, for a year around `now`. */
export type ForgeOptions = {
  readonly key?: TestKey;
  readonly issuer?: ForgedCa;
  /** Signs in place of the issuer's key. */
  readonly signedBy?: TestKey;
  readonly hash?: 'sha1' | 'sha256' | 'sha384';
  readonly from?: Date;
  readonly until?: Date;
  /** Null: none is given. */
  readonly pathLength?: number | null;
  readonly uris?: readonly string[];
  readonly subjectKeyId?: Uint8Array | null;
  readonly authorityKeyId?: Uint8Array;
  /** In place of basic constraints and key usage. */
  readonly usage?: readonly Uint8Array[];
  readonly more?: readonly Uint8Array[];
};

export const now = new Date('2026-11-21T12:00:00Z');
export const days = (count: number): Date => new Date(now.getTime() + count * 86_400_000);

export function forgeCa(name: string, options: ForgeOptions = {}): ForgedCa {
  const {
    key = makeKey('ec-prime256v1'),
    issuer,
    hash = 'sha256',
    pathLength = issuer === undefined ? null : 0,
  } = options;
  const signer = options.signedBy ?? issuer?.key ?? key;
  const algorithm = algorithms[signer.privateKey.asymmetricKeyType === 'rsa' ? 'rsa' : 'ec'][hash];
  const keyId = options.subjectKeyId === undefined ? sha1KeyId(key) : options.subjectKeyId;
  const limit = pathLength === null ? [] : [unsignedInteger(Uint8Array.of(pathLength))];
  const { tbs, signatureAlgorithm } = readCertificate(
    odd.oddCertificate({
      innerAlgorithm: algorithm,
      outerAlgorithm: algorithm,
      issuer: odd.commonName(issuer?.name ?? name),
      subject: odd.commonName(name),
      notBefore: time(options.from ?? days(-1)),
      notAfter: time(options.until ?? days(issuer === undefined ? 365 : 30)),
      spki: key.spki,
      extensions: [
        ...(options.usage ?? [
          odd.basicConstraints(true, booleanTrue(), ...limit),
          odd.keyUsage(true, 1, 0x06),
        ]),
        ...(keyId === null ? [] : [odd.extension('2.5.29.14', false, octetString(keyId))]),
        ...(options.authorityKeyId === undefined
          ? []
          : [odd.extension('2.5.29.35', false, sequence(tlv(0x80, options.authorityKeyId)))]),
        ...(options.uris ?? []).map((uri) => odd.altNames(false, odd.uri(uri))),
        ...(options.more ?? []),
      ],
    }),
  );
  const der = sequence(tbs, signatureAlgorithm, bitString(sign(hash, tbs, signer.privateKey)));
  return { name, key, der, pem: encodePem('CERTIFICATE', der) };
}

/** Name constraints that permit or exclude bases, tag first. */
export function nameConstraints(
  permitted: readonly Uint8Array[],
  excluded: readonly Uint8Array[] = [],
): Uint8Array {
  const list = (tag: number, bases: readonly Uint8Array[]) =>
    bases.length === 0 ? [] : [tlv(tag, ...bases.map((base) => sequence(base)))];
  return odd.extension('2.5.29.30', true, sequence(...list(0xa0, permitted), ...list(0xa1, excluded)));
}

/** Not how we count it: other CAs use other digests. */
function sha1KeyId({ spki }: TestKey): Uint8Array {
  return createHash('sha1').update(spki).digest();
}

const oid = (dotted: string, ...more: Uint8Array[]) => sequence(objectIdentifier(dotted), ...more);
const none = Uint8Array.of(5, 0);
const algorithms = {
  ec: {
    sha1: oid('1.2.840.10045.4.1'),
    sha256: oid('1.2.840.10045.4.3.2'),
    sha384: oid('1.2.840.10045.4.3.3'),
  },
  rsa: {
    sha1: oid('1.2.840.113549.1.1.5', none),
    sha256: oid('1.2.840.113549.1.1.11', none),
    sha384: oid('1.2.840.113549.1.1.12', none),
  },
};
