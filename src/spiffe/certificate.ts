import { MeshError } from '../errors.ts';
import { bytesEqual, checkDer, DerReader, derTag, hexOf } from './der.ts';

/** The largest certificate read, DER. RSA-4096 with a hundred names is about 6 KiB. */
export const maxCertificateBytes = 32_768;

/** An X.509 v3 certificate taken apart, its DER proven. Byte fields are views into the given DER. */
export type Certificate = {
  /** The TBSCertificate, header included: what is signed. */
  readonly tbs: Uint8Array;
  /** Positive, 1 to 20 octets, lower-case hex without a leading zero octet. */
  readonly serial: string;
  /** The content octets of the serial, as they stand. */
  readonly serialOctets: Uint8Array;
  /** The AlgorithmIdentifier, header included. */
  readonly signatureAlgorithm: Uint8Array;
  /** The Name, header included; an empty one is `30 00`. */
  readonly issuer: Uint8Array;
  readonly subject: Uint8Array;
  /** The Validity, header included. */
  readonly validity: Uint8Array;
  readonly notBefore: Date;
  readonly notAfter: Date;
  /** The SubjectPublicKeyInfo, header included. Only its outline is proven here. */
  readonly spki: Uint8Array;
  /** By object identifier, dotted. Their values are proven by who reads them. */
  readonly extensions: ReadonlyMap<string, Extension>;
  readonly signature: { readonly unusedBits: number; readonly octets: Uint8Array };
};

export type Extension = { readonly critical: boolean; readonly value: Uint8Array };

/**
 * Takes a certificate apart and proves its DER. It checks the form, not the signature and no profile.
 * @param der at most {@link maxCertificateBytes}
 * @throws MeshError `der_invalid`
 * @see RFC 5280 section 4.1
 */
export function readCertificate(der: Uint8Array): Certificate {
  if (der.length > maxCertificateBytes) refuse(`is longer than ${maxCertificateBytes} bytes`);
  const file = DerReader.over(der);
  const certificate = file.enter(derTag.sequence);
  file.finish();
  const tbs = certificate.element(derTag.sequence);
  const signatureAlgorithm = certificate.element(derTag.sequence);
  const signature = certificate.bitString();
  certificate.finish();

  const fields = DerReader.over(tbs).enter(derTag.sequence);
  readVersion(fields);
  const serialOctets = fields.integer();
  const serial = serialHex(serialOctets);
  if (!bytesEqual(fields.element(derTag.sequence), signatureAlgorithm)) {
    refuse('names two signature algorithms');
  }
  const issuer = fields.element(derTag.sequence);
  const validity = fields.element(derTag.sequence);
  const dates = DerReader.over(validity).enter(derTag.sequence);
  const notBefore = dates.time();
  const notAfter = dates.time();
  dates.finish();
  const subject = fields.element(derTag.sequence);
  const spki = fields.element(derTag.sequence);
  const extensions = readExtensions(fields);
  fields.finish();

  if (notAfter < notBefore) refuse('ends before it begins');
  for (const part of [signatureAlgorithm, issuer, subject, spki]) checkDer(part);
  return {
    tbs,
    serial,
    serialOctets,
    signatureAlgorithm,
    issuer,
    subject,
    validity,
    notBefore,
    notAfter,
    spki,
    extensions,
    signature,
  };
}

/**
 * The value of one extension, the serial and the SubjectPublicKeyInfo (header included, only its outline proven),
 * passing over everything else: for doors that ask at every request about a certificate which TLS has verified already.
 * @throws MeshError `der_invalid`
 */
export function findExtension(
  der: Uint8Array,
  oidContent: Uint8Array,
): {
  readonly serial: string;
  readonly spki: Uint8Array;
  readonly tbs: Uint8Array;
  readonly value: Uint8Array | undefined;
} {
  if (der.length > maxCertificateBytes) refuse(`is longer than ${maxCertificateBytes} bytes`);
  const file = DerReader.over(der);
  const certificate = file.enter(derTag.sequence);
  file.finish();
  const tbs = certificate.element(derTag.sequence);
  const fields = DerReader.over(tbs).enter(derTag.sequence);
  certificate.element(derTag.sequence);
  certificate.element(derTag.bitString);
  certificate.finish();
  readVersion(fields);
  const serial = serialHex(fields.integer());
  // Signature algorithm, issuer, validity and subject.
  for (let i = 0; i < 4; i++) fields.element(derTag.sequence);
  const spki = fields.element(derTag.sequence);
  const wrapper = fields.enter(extensionsTag);
  fields.finish();
  const list = wrapper.enter(derTag.sequence);
  wrapper.finish();
  let value: Uint8Array | undefined;
  while (list.peek() !== undefined) {
    const extension = list.enter(derTag.sequence);
    const oid = extension.content(derTag.oid);
    if (extension.peek() === derTag.boolean) extension.boolean();
    const octets = extension.content(derTag.octetString);
    extension.finish();
    if (!bytesEqual(oid, oidContent)) continue;
    if (value !== undefined) refuse('has an extension twice');
    value = octets;
  }
  return { serial, spki, tbs, value };
}

function readVersion(fields: DerReader): void {
  const version = fields.enter(versionTag);
  if (version.smallInteger() !== 2) refuse('is not of version 3');
  version.finish();
}

/** INVARIANT: one serial has one text, so that texts may be compared, stored and searched. */
function serialHex(content: Uint8Array): string {
  const [first] = content;
  if (first === undefined || first >= 0x80 || content.length > maxSerialBytes)
    refuse('has a serial out of range');
  if (content.length === 1 && first === 0) refuse('has the serial zero');
  return hexOf(first === 0 ? content.subarray(1) : content);
}

function readExtensions(fields: DerReader): ReadonlyMap<string, Extension> {
  const extensions = new Map<string, Extension>();
  if (fields.peek() !== extensionsTag) refuse('has no extensions, or unique identifiers');
  const wrapper = fields.enter(extensionsTag);
  const list = wrapper.enter(derTag.sequence);
  wrapper.finish();
  while (list.peek() !== undefined) {
    const extension = list.enter(derTag.sequence);
    const oid = extension.oid();
    let critical = false;
    if (extension.peek() === derTag.boolean) {
      critical = extension.boolean();
      if (!critical) refuse('writes out a default value');
    }
    const value = extension.content(derTag.octetString);
    extension.finish();
    if (extensions.has(oid)) refuse(`has the extension ${oid} twice`);
    extensions.set(oid, { critical, value });
  }
  if (extensions.size === 0) refuse('has an empty list of extensions');
  return extensions;
}

function refuse(why: string): never {
  throw new MeshError('der_invalid', `the certificate ${why}`);
}

const versionTag = 0xa0;
const extensionsTag = 0xa3;
const maxSerialBytes = 20;
