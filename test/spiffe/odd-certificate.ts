import {
  ascii,
  bitString,
  booleanTrue,
  objectIdentifier,
  octetString,
  sequence,
  time,
  tlv,
  unsignedInteger,
} from '../../src/ca/der-writer.ts';
import { extensionOid } from '../../src/spiffe/extensions.ts';

/** The parts of a certificate, DER, each of which a test may replace by something odd. The signature is none. */
export type Parts = {
  version: Uint8Array;
  serial: Uint8Array;
  innerAlgorithm: Uint8Array;
  outerAlgorithm: Uint8Array;
  issuer: Uint8Array;
  notBefore: Uint8Array;
  notAfter: Uint8Array;
  subject: Uint8Array;
  spki: Uint8Array;
  /** After the key: unique identifiers and the like. */
  extra: Uint8Array;
  extensions: readonly Uint8Array[];
  trailing: Uint8Array;
};

export const leafUri = 'spiffe://example.org/ns/shop/sa/web';

/** A certificate of the given parts; without any, a proper leaf in form. */
export function oddCertificate(parts: Partial<Parts> = {}): Uint8Array {
  const p: Parts = { ...leafParts, ...parts };
  const tbs = sequence(
    p.version,
    p.serial,
    p.innerAlgorithm,
    p.issuer,
    sequence(p.notBefore, p.notAfter),
    p.subject,
    p.spki,
    p.extra,
    ...(p.extensions.length === 0 ? [] : [tlv(0xa3, sequence(...p.extensions))]),
  );
  return Buffer.concat([sequence(tbs, p.outerAlgorithm, bitString(Uint8Array.of(1, 2, 3))), p.trailing]);
}

export function extension(oid: string, critical: boolean, value: Uint8Array): Uint8Array {
  const parts = [objectIdentifier(oid), ...(critical ? [booleanTrue()] : []), octetString(value)];
  return sequence(...parts);
}

export function altNames(critical: boolean, ...names: readonly Uint8Array[]): Uint8Array {
  return extension(extensionOid.subjectAltName, critical, sequence(...names));
}

export const uri = (text: string): Uint8Array => tlv(0x86, ascii(text));
export const dns = (text: string): Uint8Array => tlv(0x82, ascii(text));

/** Key usage from its content octets: unused bits first. */
export function keyUsage(critical: boolean, ...content: readonly number[]): Uint8Array {
  return extension(extensionOid.keyUsage, critical, tlv(0x03, Uint8Array.from(content)));
}

export function keyPurposes(...oids: readonly string[]): Uint8Array {
  return extension(extensionOid.extendedKeyUsage, false, sequence(...oids.map(objectIdentifier)));
}

export function basicConstraints(critical: boolean, ...fields: readonly Uint8Array[]): Uint8Array {
  return extension(extensionOid.basicConstraints, critical, sequence(...fields));
}

export function commonName(text: string): Uint8Array {
  const attribute = sequence(objectIdentifier('2.5.4.3'), tlv(0x0c, Buffer.from(text)));
  return sequence(tlv(0x31, attribute));
}

export const server = '1.3.6.1.5.5.7.3.1';
export const client = '1.3.6.1.5.5.7.3.2';

/** The extensions of a proper leaf, by name, so that a test can leave one out or replace it. */
export const leafExtensions = {
  names: altNames(true, uri(leafUri)),
  usage: keyUsage(true, 7, 0x80),
  purposes: keyPurposes(server, client),
  constraints: basicConstraints(true),
};

const algorithm = sequence(objectIdentifier('1.2.840.10045.4.3.2'));
const leafParts: Parts = {
  version: tlv(0xa0, unsignedInteger(Uint8Array.of(2))),
  serial: unsignedInteger(Uint8Array.of(0x40, 0xab)),
  innerAlgorithm: algorithm,
  outerAlgorithm: algorithm,
  issuer: commonName('issuer'),
  notBefore: time(new Date('2026-11-21T00:00:00Z')),
  notAfter: time(new Date('2026-11-21T01:00:00Z')),
  subject: sequence(),
  spki: sequence(sequence(objectIdentifier('1.2.840.10045.2.1')), bitString(Uint8Array.of(4, 5))),
  extra: new Uint8Array(0),
  extensions: Object.values(leafExtensions),
  trailing: new Uint8Array(0),
};
