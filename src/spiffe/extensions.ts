import { MeshError } from '../errors.ts';
import { DerReader, derTag, hexOf, latin1 } from './der.ts';

/** Object identifiers of the extensions we know. @see RFC 5280 section 4.2.1 */
export const extensionOid = {
  subjectKeyIdentifier: '2.5.29.14',
  keyUsage: '2.5.29.15',
  subjectAltName: '2.5.29.17',
  basicConstraints: '2.5.29.19',
  nameConstraints: '2.5.29.30',
  authorityKeyIdentifier: '2.5.29.35',
  extendedKeyUsage: '2.5.29.37',
} as const;

/** Object identifiers of the two key purposes an X.509-SVID has. */
export const keyPurpose = { serverAuth: '1.3.6.1.5.5.7.3.1', clientAuth: '1.3.6.1.5.5.7.3.2' } as const;

/** The key usage bits of RFC 5280 section 4.2.1.3 that matter here, as they stand in the first octet. */
export const keyUsageBit = { digitalSignature: 0x80, keyCertSign: 0x04, crlSign: 0x02 } as const;

/** The names of a certificate: URI and DNS ones as text, the rest only counted. */
export type AltNames = {
  readonly uris: readonly string[];
  readonly dnsNames: readonly string[];
  readonly others: number;
};

/** @throws MeshError `der_invalid` */
export function readAltNames(value: Uint8Array): AltNames {
  const outer = DerReader.over(value);
  const names = outer.enter(derTag.sequence);
  outer.finish();
  const uris: string[] = [];
  const dnsNames: string[] = [];
  let others = 0;
  for (let tag = names.peek(); tag !== undefined; tag = names.peek()) {
    const content = names.content(tag);
    if (tag === uriTag) uris.push(ia5(content));
    else if (tag === dnsTag) dnsNames.push(ia5(content));
    else if (otherNameTags.has(tag)) others++;
    else refuse('has a name of an unknown kind');
  }
  if (uris.length + dnsNames.length + others === 0) refuse('has an empty list of names');
  return { uris, dnsNames, others };
}

/** The first octet of the key usage: see {@link keyUsageBit}. @throws MeshError `der_invalid` */
export function readKeyUsage(value: Uint8Array): number {
  const reader = DerReader.over(value);
  const { unusedBits, octets } = reader.bitString();
  reader.finish();
  // A named bit list ends with a set bit (X.690 section 11.2.2), and there are nine of them.
  const last = octets.at(-1);
  if (last === undefined || octets.length > 2 || (last & (1 << unusedBits)) === 0) {
    refuse('has a malformed key usage');
  }
  return octets[0] ?? 0;
}

/** The key purposes, dotted. @throws MeshError `der_invalid` */
export function readKeyPurposes(value: Uint8Array): readonly string[] {
  const outer = DerReader.over(value);
  const list = outer.enter(derTag.sequence);
  outer.finish();
  const purposes: string[] = [];
  while (list.peek() !== undefined) purposes.push(list.oid());
  if (purposes.length === 0) refuse('has an empty list of key purposes');
  return purposes;
}

/** @throws MeshError `der_invalid` */
export function readBasicConstraints(value: Uint8Array): { ca: boolean; pathLength: number | undefined } {
  const outer = DerReader.over(value);
  const fields = outer.enter(derTag.sequence);
  outer.finish();
  let ca = false;
  if (fields.peek() === derTag.boolean) {
    ca = fields.boolean();
    if (!ca) refuse('writes out a default value');
  }
  const pathLength = fields.peek() === derTag.integer ? fields.smallInteger() : undefined;
  fields.finish();
  if (!ca && pathLength !== undefined) refuse('has a path length without being a CA');
  return { ca, pathLength };
}

/** Lower-case hex. @throws MeshError `der_invalid` */
export function readSubjectKeyId(value: Uint8Array): string {
  const reader = DerReader.over(value);
  const keyId = reader.content(derTag.octetString);
  reader.finish();
  if (keyId.length === 0) refuse('has an empty key identifier');
  return hexOf(keyId);
}

/** Lower-case hex, or undefined when it names its issuer in another way. @throws MeshError `der_invalid` */
export function readAuthorityKeyId(value: Uint8Array): string | undefined {
  const outer = DerReader.over(value);
  const fields = outer.enter(derTag.sequence);
  outer.finish();
  const keyId = fields.peek() === keyIdTag ? fields.content(keyIdTag) : undefined;
  while (fields.peek() !== undefined) fields.element();
  return keyId === undefined ? undefined : hexOf(keyId);
}

function ia5(content: Uint8Array): string {
  for (const octet of content) if (octet > 0x7f) refuse('has a name with other characters than ASCII');
  return latin1(content);
}

function refuse(why: string): never {
  throw new MeshError('der_invalid', `the certificate ${why}`);
}

const dnsTag = 0x82;
const uriTag = 0x86;
const keyIdTag = 0x80;
// otherName, rfc822Name, x400Address, directoryName, ediPartyName, iPAddress, registeredID
const otherNameTags: ReadonlySet<number> = new Set([0xa0, 0x81, 0xa3, 0xa4, 0xa5, 0x87, 0x88]);
