import { createHash } from 'node:crypto';
import { MeshError, publicError, quote } from '../errors.ts';
import { type Certificate, readCertificate } from './certificate.ts';
import { hexOf } from './der.ts';
import {
  type AltNames,
  extensionOid,
  keyPurpose,
  readAltNames,
  readAuthorityKeyId,
  readBasicConstraints,
  readKeyPurposes,
  readKeyUsage,
  readSubjectKeyId,
} from './extensions.ts';
import { SpiffeId } from './id.ts';
import { describeKey, describeSignature } from './inspect-algorithms.ts';
import { checkIdText } from './inspect-id.ts';
import { describeName } from './inspect-name.ts';
import type { Findings } from './inspect-rules.ts';
import { authorityExtensions, leafExtensions } from './svid.ts';

/** What a certificate says, in words. Undefined members are null, so that JSON shows that they were looked for. */
export type CertificateFacts = {
  /** The first URI name, as it is written. */
  readonly spiffeId: string | null;
  /** Lower-case hex. */
  readonly serial: string;
  readonly notBefore: Date;
  readonly notAfter: Date;
  /** Such as `ECDSA P-256`. */
  readonly key: string;
  readonly signature: string;
  readonly subject: string;
  readonly issuer: string;
  /** Lower-case hex. */
  readonly subjectKeyId: string | null;
  readonly authorityKeyId: string | null;
  readonly uris: readonly string[];
  readonly dnsNames: readonly string[];
  /** How many names of other kinds there are. */
  readonly otherNames: number;
  readonly ca: boolean;
  readonly pathLength: number | null;
  /** Names of RFC 5280 section 4.2.1.3. */
  readonly keyUsage: readonly string[];
  /** `serverAuth`, `clientAuth`, or an object identifier. */
  readonly keyPurposes: readonly string[];
  /** SHA-256 of the whole certificate, lower-case hex. */
  readonly sha256: string;
  /** SHA-256 of the SubjectPublicKeyInfo, lower-case hex. */
  readonly spkiSha256: string;
};

/** A certificate that was read, its facts, and the parts that judging a chain needs. */
export type ReadCertificate = {
  readonly der: Uint8Array;
  readonly certificate: Certificate;
  readonly facts: CertificateFacts;
  readonly names: AltNames | undefined;
  /** The trust domain of the first URI name, when that is a SPIFFE ID. */
  readonly trustDomain: string | null;
};

/**
 * Reads a certificate for inspection. A malformed extension ends nothing: it is noted, and counts as absent.
 * @param der at most 32,768 bytes
 * @throws MeshError `der_invalid` when the outline of the certificate cannot be read
 */
export function readForInspection(der: Uint8Array, findings: Findings): ReadCertificate {
  const certificate = readCertificate(der);
  const read = <T>(oid: string, name: string, parse: (value: Uint8Array) => T): T | undefined => {
    const found = certificate.extensions.get(oid);
    if (found === undefined) return undefined;
    try {
      return parse(found.value);
    } catch (error) {
      if (!(error instanceof MeshError)) throw error;
      findings.of(name).add('rfc5280-4.2-extension', `${name} cannot be read: ${publicError(error).message}`);
      return undefined;
    }
  };
  const names = read(extensionOid.subjectAltName, 'subject alternative name', readAltNames);
  const constraints = read(extensionOid.basicConstraints, 'basic constraints', readBasicConstraints);
  const usage = read(extensionOid.keyUsage, 'key usage', readKeyUsage) ?? 0;
  const purposes = read(extensionOid.extendedKeyUsage, 'extended key usage', readKeyPurposes) ?? [];
  const [spiffeId = null] = names?.uris ?? [];
  const facts: CertificateFacts = {
    spiffeId,
    serial: certificate.serial,
    notBefore: certificate.notBefore,
    notAfter: certificate.notAfter,
    key: describeKey(certificate.spki).text,
    signature: describeSignature(certificate.signatureAlgorithm).text,
    subject: describeName(certificate.subject),
    issuer: describeName(certificate.issuer),
    subjectKeyId: read(extensionOid.subjectKeyIdentifier, 'subject key identifier', readSubjectKeyId) ?? null,
    authorityKeyId:
      read(extensionOid.authorityKeyIdentifier, 'authority key identifier', readAuthorityKeyId) ?? null,
    uris: names?.uris ?? [],
    dnsNames: names?.dnsNames ?? [],
    otherNames: names?.others ?? 0,
    ca: constraints?.ca === true,
    pathLength: constraints?.pathLength ?? null,
    keyUsage: usageNames.filter((_, bit) => (usage & (0x80 >> bit)) !== 0),
    keyPurposes: purposes.map((oid) => purposeNames.get(oid) ?? oid),
    sha256: createHash('sha256').update(der).digest('hex'),
    spkiSha256: createHash('sha256').update(certificate.spki).digest('hex'),
  };
  return { der, certificate, facts, names, trustDomain: trustDomainOf(spiffeId) };
}

/** Notes every rule for leaves that a certificate breaks. Dates and signature are for the chain. */
export function checkLeaf(read: ReadCertificate, findings: Findings): void {
  const { certificate, facts } = read;
  checkCommon(read, leafExtensions, findings);
  if (facts.uris.length === 0) findings.add('x509-svid-2-one-uri-san', 'the leaf has no URI name');
  for (const [uri, where] of urisOf(read, findings)) {
    const id = checkIdText(uri, where);
    if (id.path === '')
      where.add('x509-svid-3.1-path', `the ID ${quote(uri)} names a trust domain, no workload`);
  }
  if (isEmptyName(certificate.subject) && !isCritical(certificate, extensionOid.subjectAltName)) {
    findings.add('x509-svid-3.1-san-critical', 'the subject is empty and the names are not critical');
  }
  if (facts.ca) findings.add('x509-svid-4.1-leaf-not-ca', 'the leaf is a CA');
  if (certificate.extensions.has(extensionOid.keyUsage)) {
    const has = (name: string): boolean => facts.keyUsage.includes(name);
    if (!has('digitalSignature')) {
      findings.add('x509-svid-4.3-digital-signature', 'key usage has no digitalSignature');
    }
    if (has('keyCertSign')) findings.add('x509-svid-4.3-leaf-no-key-cert-sign', 'key usage has keyCertSign');
    if (has('cRLSign')) findings.add('x509-svid-4.3-leaf-no-crl-sign', 'key usage has cRLSign');
  }
  if (facts.keyPurposes.length > 0) {
    for (const [purpose, rule] of [
      ['serverAuth', 'x509-svid-4.4-server-auth'],
      ['clientAuth', 'x509-svid-4.4-client-auth'],
    ] as const) {
      if (!facts.keyPurposes.includes(purpose)) findings.add(rule, `the key purposes lack ${purpose}`);
    }
  }
}

/** Notes every rule for signing certificates that a certificate breaks. Dates and signature are for the chain. */
export function checkAuthority(read: ReadCertificate, findings: Findings): void {
  const { certificate, facts } = read;
  checkCommon(read, authorityExtensions, findings);
  for (const [uri, where] of urisOf(read, findings)) {
    const id = checkIdText(uri, where);
    if (id.path !== null && id.path !== '') {
      where.add('x509-svid-3.2-no-path', `the ID ${quote(uri)} of a signing certificate has a path`);
    }
  }
  if (!facts.ca) findings.add('x509-svid-4.1-ca', 'the signing certificate is not a CA');
  if (!isCritical(certificate, extensionOid.basicConstraints)) {
    findings.add('rfc5280-4.2.1.9-ca-critical', 'basic constraints are not there, or not critical');
  }
  if (certificate.extensions.has(extensionOid.keyUsage) && !facts.keyUsage.includes('keyCertSign')) {
    findings.add('x509-svid-4.3-key-cert-sign', 'key usage has no keyCertSign');
  }
  if (isEmptyName(certificate.subject)) findings.add('rfc5280-4.1.2.6-ca-subject', 'the CA has no subject');
}

function checkCommon(
  { certificate, facts }: ReadCertificate,
  known: ReadonlySet<string>,
  findings: Findings,
): void {
  for (const [oid, { critical }] of certificate.extensions) {
    if (critical && !known.has(oid)) {
      findings
        .of(`extension ${oid}`)
        .add('rfc5280-4.2-unknown-critical', `the critical extension ${oid} is not known`);
    }
  }
  if (facts.uris.length > 1) {
    findings.add('x509-svid-2-one-uri-san', `the certificate has ${facts.uris.length} URI names`);
  }
  if (!certificate.extensions.has(extensionOid.keyUsage)) {
    findings.add('x509-svid-4.3-key-usage', 'the certificate has no key usage');
  } else if (!isCritical(certificate, extensionOid.keyUsage)) {
    findings.add('x509-svid-4.3-key-usage-critical', 'key usage is not critical');
  }
}

/** The first URI names, each with a place of its own for findings when there are several. */
function urisOf({ facts }: ReadCertificate, findings: Findings): readonly (readonly [string, Findings])[] {
  return facts.uris
    .slice(0, maxJudgedUris)
    .map((uri, i, { length }) => [uri, length === 1 ? findings : findings.of(`URI name ${i + 1}`)] as const);
}

function trustDomainOf(uri: string | null): string | null {
  if (uri === null) return null;
  try {
    return SpiffeId.parse(uri).trustDomain.name;
  } catch (error) {
    if (!(error instanceof MeshError)) throw error;
    return null;
  }
}

function isCritical(certificate: Certificate, oid: string): boolean {
  return certificate.extensions.get(oid)?.critical === true;
}

function isEmptyName(name: Uint8Array): boolean {
  return hexOf(name) === '3000';
}

const maxJudgedUris = 8;
// In the order of the bits; decipherOnly, the ninth, stands in a second octet and means nothing here.
const usageNames = [
  'digitalSignature',
  'nonRepudiation',
  'keyEncipherment',
  'dataEncipherment',
  'keyAgreement',
  'keyCertSign',
  'cRLSign',
  'encipherOnly',
] as const;
const purposeNames: ReadonlyMap<string, string> = new Map([
  [keyPurpose.serverAuth, 'serverAuth'],
  [keyPurpose.clientAuth, 'clientAuth'],
]);
