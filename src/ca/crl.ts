import { MeshError } from '../errors.ts';
import { derTag } from '../spiffe/der.ts';
import {
  bitString,
  objectIdentifier,
  octetString,
  sequence,
  time,
  tlv,
  unsignedInteger,
} from './der-writer.ts';
import type { Issuer } from './issuer.ts';
import { verifyBytes } from './signature.ts';

/**
 * Why a certificate is revoked: `certificate_hold` is the one reason that may be taken back.
 * @see RFC 5280 section 5.3.1
 */
export type RevocationReason = 'key_compromise' | 'certificate_hold' | 'privilege_withdrawn';

/** One certificate that is not to be accepted. */
export type RevokedCertificate = {
  /** 1 to 20 octets, lower-case hex. */
  readonly serial: string;
  readonly revokedAt: Date;
  readonly reason: RevocationReason;
};

/** A certificate revocation list of one CA. Immutable. */
export type RevocationList = {
  /** Of the CA that signed it, lower-case hex. */
  readonly issuerKeyId: string;
  readonly number: number;
  readonly thisUpdate: Date;
  readonly nextUpdate: Date;
  /** In the order of their serials. */
  readonly entries: readonly RevokedCertificate[];
  readonly der: Uint8Array;
};

/** The most entries of a list: half a MiB, which every proxy reads again at every change. */
export const maxRevoked = 10_000;

/**
 * How far `thisUpdate` lies in the past. A list from the future is refused, and every handshake with it, so this is
 * longer than the 30 s of a leaf: a host whose clock is that far behind fails by the leaf, never by the list.
 */
export const listBackdateSeconds = 3_600;

/** From now to `nextUpdate`: three times the longest life of a leaf. Renewed after one, it outlives every leaf by far. */
export const listLifeSeconds = 259_200;

/**
 * Signs a complete v2 list of all that one CA has revoked. What was signed is verified with the CA's public key before
 * it is returned: a list that does not verify would fail every handshake.
 * @param options.number a whole number from 1, higher than that of every earlier list of the CA
 * @param options.entries at most {@link maxRevoked}, no serial twice
 * @throws MeshError `internal`
 * @see RFC 5280 section 5
 */
export async function signRevocationList(
  issuer: Issuer,
  options: { readonly number: number; readonly entries: readonly RevokedCertificate[]; readonly now: Date },
): Promise<RevocationList> {
  const { number, now } = options;
  // A proxy refuses such a list, and every handshake with it. A CA that somebody else signed may be so.
  if (!issuer.certificate.mayRevoke) refuse('would be signed by a CA that may not sign lists');
  if (!Number.isSafeInteger(number) || number < 1) refuse('has no number');
  if (options.entries.length > maxRevoked) refuse('is too long');
  const thisUpdate = new Date((wholeSeconds(now) - listBackdateSeconds) * 1_000);
  const nextUpdate = new Date((wholeSeconds(now) + listLifeSeconds) * 1_000);
  const entries = [...options.entries].sort((a, b) => (a.serial < b.serial ? -1 : 1));
  if (entries.some(({ serial }, i) => serial === entries[i - 1]?.serial)) refuse('has a serial twice');
  const algorithm = issuer.hash === 'sha256' ? ecdsaWithSha256 : ecdsaWithSha384;
  const tbs = sequence(
    version2,
    algorithm,
    issuer.certificate.subject,
    time(thisUpdate),
    time(nextUpdate),
    // An empty list of entries must be absent.
    ...(entries.length === 0 ? [] : [sequence(...entries.map(createEntryEncoder(thisUpdate)))]),
    tlv(
      extensionsTag,
      sequence(
        extension(
          oid.authorityKeyIdentifier,
          sequence(tlv(keyIdTag, Buffer.from(issuer.certificate.subjectKeyId ?? '', 'hex'))),
        ),
        extension(oid.crlNumber, unsignedInteger(octetsOf(number))),
      ),
    ),
  );
  const signature = await issuer.key.sign(tbs);
  if (!verifyBytes(issuer.hash, tbs, issuer.certificate.publicKey.key, signature)) refuse('does not verify');
  const der = sequence(tbs, algorithm, bitString(signature));
  return { issuerKeyId: issuer.certificate.keyId, number, thisUpdate, nextUpdate, entries, der };
}

/** Entries share few moments, mostly those of a handful of bans: each is written once. */
function createEntryEncoder(thisUpdate: Date): (entry: RevokedCertificate) => Uint8Array {
  const times = new Map<number, Uint8Array>();
  return ({ serial, revokedAt, reason }) => {
    if (!/^(?:[0-9a-f]{2}){1,20}$/.test(serial)) refuse('has an entry without a serial');
    // A list that says what held at `thisUpdate` names nothing revoked later.
    const at = revokedAt < thisUpdate ? revokedAt : thisUpdate;
    const encoded = times.get(at.getTime()) ?? time(at);
    times.set(at.getTime(), encoded);
    return sequence(unsignedInteger(Buffer.from(serial, 'hex')), encoded, reasonExtensions[reason]);
  };
}

function extension(id: Uint8Array, value: Uint8Array): Uint8Array {
  return sequence(id, octetString(value));
}

function reasonExtension(code: number): Uint8Array {
  return sequence(extension(oid.reasonCode, tlv(derTag.enumerated, Uint8Array.of(code))));
}

function octetsOf(number: number): Uint8Array {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64BE(BigInt(number));
  return bytes;
}

function wholeSeconds(instant: Date): number {
  const seconds = Math.floor(instant.getTime() / 1_000);
  if (!(seconds > listBackdateSeconds && seconds < lastSecond)) refuse('has a date out of bounds');
  return seconds;
}

function refuse(why: string): never {
  throw new MeshError('internal', `the revocation list ${why}`);
}

const oid = {
  authorityKeyIdentifier: objectIdentifier('2.5.29.35'),
  crlNumber: objectIdentifier('2.5.29.20'),
  reasonCode: objectIdentifier('2.5.29.21'),
};
const reasonExtensions: Readonly<Record<RevocationReason, Uint8Array>> = {
  key_compromise: reasonExtension(1),
  certificate_hold: reasonExtension(6),
  privilege_withdrawn: reasonExtension(9),
};
const version2 = unsignedInteger(Uint8Array.of(1));
const ecdsaWithSha256 = sequence(objectIdentifier('1.2.840.10045.4.3.2'));
const ecdsaWithSha384 = sequence(objectIdentifier('1.2.840.10045.4.3.3'));
const extensionsTag = 0xa0;
const keyIdTag = 0x80;
const lastSecond = Date.UTC(9998, 11, 31) / 1_000;
