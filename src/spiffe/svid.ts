import { hash } from 'node:crypto';
import { MeshError, publicError } from '../errors.ts';
import { type Certificate, findExtension, readCertificate } from './certificate.ts';
import {
  type AltNames,
  extensionOid,
  keyPurpose,
  keyUsageBit,
  readAltNames,
  readAuthorityKeyId,
  readBasicConstraints,
  readKeyPurposes,
  readKeyUsage,
  readSubjectKeyId,
} from './extensions.ts';
import { SpiffeId, type TrustDomain } from './id.ts';

/** What a leaf certificate says, its form and its profile proven. Its signature is not checked here. */
export type X509SvidLeaf = {
  readonly id: SpiffeId;
  readonly dnsNames: readonly string[];
  /** Lower-case hex. */
  readonly serial: string;
  readonly notBefore: Date;
  readonly notAfter: Date;
  /** SHA-256 of the SubjectPublicKeyInfo, lower-case hex. */
  readonly spkiSha256: string;
  /** Lower-case hex, or undefined when the certificate has none. */
  readonly subjectKeyId: string | undefined;
  readonly authorityKeyId: string | undefined;
};

/** What a CA certificate says, its form and its profile proven. Its signature is not checked here. */
export type X509Authority = {
  /** Undefined when the authority carries no SPIFFE ID. */
  readonly trustDomain: TrustDomain | undefined;
  /** DER Names. */
  readonly subject: Uint8Array;
  readonly issuer: Uint8Array;
  /** Lower-case hex. */
  readonly serial: string;
  readonly notBefore: Date;
  readonly notAfter: Date;
  /** DER SubjectPublicKeyInfo. */
  readonly spki: Uint8Array;
  /** How many CAs may stand between this one and a leaf; undefined for any number. */
  readonly pathLength: number | undefined;
  /** Whether its key usage has cRLSign. */
  readonly mayRevoke: boolean;
  /** Lower-case hex, or undefined when the certificate has none. */
  readonly subjectKeyId: string | undefined;
  readonly authorityKeyId: string | undefined;
};

/**
 * Reads a leaf and applies the leaf rules of the X509-SVID specification: exactly one URI SAN, which is the SPIFFE ID of
 * a workload; not a CA; key usage critical with digitalSignature and without keyCertSign and cRLSign; extended key
 * usage, if present, with both serverAuth and clientAuth; SAN critical when the subject is empty; no critical
 * extension we do not know. The signature and the dates are for the caller to judge.
 * @param der at most 32,768 bytes
 * @throws MeshError `svid_invalid`
 * @see X509-SVID sections 2 to 5
 */
export function checkX509SvidLeaf(der: Uint8Array): X509SvidLeaf {
  return checkLeafCertificate(orSvidInvalid(() => readCertificate(der)));
}

/** The same for a certificate that was read already. @throws MeshError `svid_invalid` */
export function checkLeafCertificate(certificate: Certificate): X509SvidLeaf {
  return orSvidInvalid(() => {
    refuseUnknownCritical(certificate, leafExtensions);
    const names = altNames(certificate);
    const [uri] = names?.uris ?? [];
    if (names === undefined || uri === undefined) refuse('has no URI name');
    if (names.uris.length > 1) refuse('has more than one URI name');
    if (isEmptyName(certificate.subject) && !isCritical(certificate, extensionOid.subjectAltName)) {
      refuse('has an empty subject and names that are not critical');
    }
    const constraints = extension(certificate, extensionOid.basicConstraints, readBasicConstraints);
    if (constraints?.ca === true) refuse('is a CA');
    const usage = requireKeyUsage(certificate);
    if ((usage & keyUsageBit.digitalSignature) === 0) refuse('has a key usage without digitalSignature');
    if ((usage & keyUsageBit.keyCertSign) !== 0) refuse('has a key usage with keyCertSign');
    if ((usage & keyUsageBit.crlSign) !== 0) refuse('has a key usage with cRLSign');
    const purposes = extension(certificate, extensionOid.extendedKeyUsage, readKeyPurposes);
    if (purposes !== undefined) {
      if (!purposes.includes(keyPurpose.serverAuth)) refuse('has key purposes without serverAuth');
      if (!purposes.includes(keyPurpose.clientAuth)) refuse('has key purposes without clientAuth');
    }
    return {
      id: SpiffeId.parseWorkload(uri),
      dnsNames: names.dnsNames,
      serial: certificate.serial,
      notBefore: certificate.notBefore,
      notAfter: certificate.notAfter,
      spkiSha256: hash('sha256', certificate.spki, 'hex'),
      ...keyIds(certificate),
    };
  });
}

/**
 * Reads a CA certificate and applies the rules for signing certificates: a CA, critically so; key usage critical with
 * keyCertSign; a SPIFFE ID, if it has one, without a path. Self-signed or not, expired or not: the caller judges.
 * @param der at most 32,768 bytes
 * @throws MeshError `svid_invalid`
 * @see X509-SVID sections 2, 4 and 5; RFC 5280 section 4.2.1.9
 */
export function checkX509Authority(der: Uint8Array): X509Authority {
  return orSvidInvalid(() => {
    const certificate = readCertificate(der);
    refuseUnknownCritical(certificate, authorityExtensions);
    const constraints = extension(certificate, extensionOid.basicConstraints, readBasicConstraints);
    if (constraints?.ca !== true) refuse('is not a CA');
    if (!isCritical(certificate, extensionOid.basicConstraints))
      refuse('has basic constraints that are not critical');
    const usage = requireKeyUsage(certificate);
    if ((usage & keyUsageBit.keyCertSign) === 0) refuse('has a key usage without keyCertSign');
    if (isEmptyName(certificate.subject)) refuse('is a CA without a subject');
    const uris = altNames(certificate)?.uris ?? [];
    if (uris.length > 1) refuse('has more than one URI name');
    const id = uris[0] === undefined ? undefined : SpiffeId.parse(uris[0]);
    if (id !== undefined && id.path !== '') refuse('is a CA whose SPIFFE ID has a path');
    return {
      trustDomain: id?.trustDomain,
      subject: certificate.subject,
      issuer: certificate.issuer,
      serial: certificate.serial,
      notBefore: certificate.notBefore,
      notAfter: certificate.notAfter,
      spki: certificate.spki,
      pathLength: constraints.pathLength,
      mayRevoke: (usage & keyUsageBit.crlSign) !== 0,
      ...keyIds(certificate),
    };
  });
}

/**
 * All URI names (raw text, in order, possibly none, not yet parsed as SPIFFE IDs), the serial and the SHA-256 of the
 * SubjectPublicKeyInfo (both lower-case hex) of a peer certificate that TLS has verified. It passes over the rest, in a
 * few microseconds.
 * @param der at most 32,768 bytes
 * @throws MeshError `svid_invalid`
 */
export function peerCertificateIds(der: Uint8Array): {
  readonly uriSans: readonly string[];
  readonly serial: string;
  readonly spkiSha256: string;
  readonly tbsSha256: string;
} {
  return orSvidInvalid(() => {
    const { serial, spki, tbs, value } = findExtension(der, subjectAltNameOid);
    return {
      serial,
      spkiSha256: hash('sha256', spki, 'hex'),
      tbsSha256: hash('sha256', tbs, 'hex'),
      uriSans: value === undefined ? [] : readAltNames(value).uris,
    };
  });
}

function orSvidInvalid<T>(read: () => T): T {
  try {
    return read();
  } catch (cause) {
    if (!(cause instanceof MeshError)) throw cause;
    if (cause.code === 'svid_invalid') throw cause;
    throw new MeshError('svid_invalid', `the certificate is refused: ${publicError(cause).message}`, {
      cause,
    });
  }
}

function refuseUnknownCritical(certificate: Certificate, known: ReadonlySet<string>): void {
  for (const [oid, { critical }] of certificate.extensions) {
    if (critical && !known.has(oid)) refuse(`has the critical extension ${oid}, which is not known`);
  }
}

function altNames(certificate: Certificate): AltNames | undefined {
  return extension(certificate, extensionOid.subjectAltName, readAltNames);
}

function requireKeyUsage(certificate: Certificate): number {
  const usage = extension(certificate, extensionOid.keyUsage, readKeyUsage);
  if (usage === undefined) refuse('has no key usage');
  if (!isCritical(certificate, extensionOid.keyUsage)) refuse('has a key usage that is not critical');
  return usage;
}

function keyIds(certificate: Certificate): Pick<X509SvidLeaf, 'subjectKeyId' | 'authorityKeyId'> {
  return {
    subjectKeyId: extension(certificate, extensionOid.subjectKeyIdentifier, readSubjectKeyId),
    authorityKeyId: extension(certificate, extensionOid.authorityKeyIdentifier, readAuthorityKeyId),
  };
}

function extension<T>(certificate: Certificate, oid: string, read: (value: Uint8Array) => T): T | undefined {
  const found = certificate.extensions.get(oid);
  return found === undefined ? undefined : read(found.value);
}

function isCritical(certificate: Certificate, oid: string): boolean {
  return certificate.extensions.get(oid)?.critical === true;
}

function isEmptyName(name: Uint8Array): boolean {
  return name.length === 2;
}

function refuse(why: string): never {
  throw new MeshError('svid_invalid', `the certificate ${why}`);
}

const subjectAltNameOid = Uint8Array.of(0x55, 0x1d, 0x11);
/** The extensions that may be critical in a leaf. */
export const leafExtensions: ReadonlySet<string> = new Set([
  extensionOid.keyUsage,
  extensionOid.subjectAltName,
  extensionOid.basicConstraints,
  extensionOid.extendedKeyUsage,
]);
/** The extensions that may be critical in a signing certificate. */
export const authorityExtensions: ReadonlySet<string> = new Set([
  ...leafExtensions,
  extensionOid.nameConstraints,
]);
