import { extensionOid, keyPurpose, keyUsageBit } from '../spiffe/extensions.ts';
import type { SpiffeId } from '../spiffe/id.ts';
import {
  bitString,
  booleanTrue,
  elementSize,
  objectIdentifier,
  octetString,
  sequence,
  time,
  tlv,
  unsignedInteger,
  writeHeader,
} from './der-writer.ts';
import { derTag } from '../spiffe/der.ts';
import type { Issuer } from './issuer.ts';
import type { PublicKey } from './public-key.ts';
import type { Validity } from './validity.ts';

/** What differs from leaf to leaf; all of it proven by who fills it in. */
export type LeafFields = {
  /** 20 octets, the first 0x40 to 0x7f. */
  readonly serial: Uint8Array;
  readonly validity: Validity;
  readonly publicKey: PublicKey;
  readonly id: SpiffeId;
  /** ASCII. */
  readonly dnsNames: readonly string[];
};

/**
 * The leaves of one issuer, with all that never changes written out beforehand: a leaf is a few copies into one buffer.
 * test/ca/leaf.test.ts holds the result against the encoder of `@peculiar/x509`, byte for byte.
 */
export type LeafTemplate = {
  /** The TBSCertificate, in bytes of its own. The subject is empty, so that the SPIFFE ID is the one name there is. */
  readonly encode: (fields: LeafFields) => Uint8Array;
  /** The certificate of a TBSCertificate and its signature (DER). */
  readonly join: (tbs: Uint8Array, signature: Uint8Array) => Uint8Array;
};

/** @see X509-SVID sections 2 to 4; RFC 5280 section 4 */
export function createLeafTemplate({ hash, certificate }: Issuer): LeafTemplate {
  const algorithm = hash === 'sha256' ? ecdsaWithSha256 : ecdsaWithSha384;
  const beforeSerial = Buffer.concat([version3, Uint8Array.of(derTag.integer, serialBytes)]);
  const afterSerial = Buffer.concat([algorithm, certificate.subject]);
  // As the issuer's certificate has it: whoever signed that may count it in another way than we do.
  const authorityKeyId = sequence(tlv(keyIdTag, Buffer.from(certificate.subjectKeyId ?? '', 'hex')));
  const afterKeyId = extension(objectIdentifier(extensionOid.authorityKeyIdentifier), authorityKeyId);

  return {
    encode: ({ serial, validity, publicKey, id, dnsNames }) => {
      const [notBefore, notAfter] = [time(validity.notBefore), time(validity.notAfter)];
      const datesSize = notBefore.length + notAfter.length;
      let namesSize = elementSize(id.text.length);
      for (const name of dnsNames) namesSize += elementSize(name.length);
      const namesValueSize = elementSize(namesSize);
      const altNameSize = altNameHead.length + elementSize(namesValueSize);
      const listSize = beforeKeyId.length + keyIdBytes + afterKeyId.length + elementSize(altNameSize);
      const extensionsSize = elementSize(listSize);
      const tbsSize =
        beforeSerial.length +
        serialBytes +
        afterSerial.length +
        elementSize(datesSize) +
        emptyName.length +
        publicKey.spki.length +
        elementSize(extensionsSize);

      // Bytes of their own: they outlive this call, and a pooled buffer would keep its neighbours alive.
      const tbs = new Uint8Array(elementSize(tbsSize));
      let at = writeHeader(tbs, 0, derTag.sequence, tbsSize);
      const header = (tag: number, size: number): void => {
        at = writeHeader(tbs, at, tag, size);
      };
      const copy = (bytes: Uint8Array): void => {
        tbs.set(bytes, at);
        at += bytes.length;
      };
      const text = (tag: number, ascii: string): void => {
        header(tag, ascii.length);
        for (let i = 0; i < ascii.length; i++) tbs[at++] = ascii.charCodeAt(i);
      };
      copy(beforeSerial);
      copy(serial);
      copy(afterSerial);
      header(derTag.sequence, datesSize);
      copy(notBefore);
      copy(notAfter);
      copy(emptyName);
      copy(publicKey.spki);
      header(extensionsTag, extensionsSize);
      header(derTag.sequence, listSize);
      copy(beforeKeyId);
      copy(publicKey.keyId);
      copy(afterKeyId);
      header(derTag.sequence, altNameSize);
      copy(altNameHead);
      header(derTag.octetString, namesValueSize);
      header(derTag.sequence, namesSize);
      text(uriTag, id.text);
      for (const name of dnsNames) text(dnsTag, name);
      return tbs;
    },
    join: (tbs, signature) => sequence(tbs, algorithm, bitString(signature)),
  };
}

function extension(oid: Uint8Array, value: Uint8Array): Uint8Array {
  return sequence(oid, octetString(value));
}

function criticalExtension(oid: Uint8Array, value: Uint8Array): Uint8Array {
  return sequence(oid, booleanTrue(), octetString(value));
}

const serialBytes = 20;
const keyIdBytes = 20;
const dnsTag = 0x82;
const uriTag = 0x86;
const keyIdTag = 0x80;
const extensionsTag = 0xa3;
const version3 = tlv(0xa0, unsignedInteger(Uint8Array.of(2)));
const emptyName = sequence();
const ecdsaWithSha256 = sequence(objectIdentifier('1.2.840.10045.4.3.2'));
const ecdsaWithSha384 = sequence(objectIdentifier('1.2.840.10045.4.3.3'));

/** Key usage, key purposes, basic constraints, then the subject key identifier up to its last 20 octets. */
const beforeKeyId = Buffer.concat([
  criticalExtension(
    objectIdentifier(extensionOid.keyUsage),
    bitString(Uint8Array.of(keyUsageBit.digitalSignature), 7),
  ),
  extension(
    objectIdentifier(extensionOid.extendedKeyUsage),
    sequence(objectIdentifier(keyPurpose.serverAuth), objectIdentifier(keyPurpose.clientAuth)),
  ),
  criticalExtension(objectIdentifier(extensionOid.basicConstraints), sequence()),
  extension(
    objectIdentifier(extensionOid.subjectKeyIdentifier),
    octetString(new Uint8Array(keyIdBytes)),
  ).subarray(0, -keyIdBytes),
]);
/** The names are critical, as the subject is empty. */
const altNameHead = Buffer.concat([objectIdentifier(extensionOid.subjectAltName), booleanTrue()]);
