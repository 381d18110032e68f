import { createHash, X509Certificate } from 'node:crypto';
import { MeshError } from '../errors.ts';
import { readCertificate } from '../spiffe/certificate.ts';
import { bytesEqual, hexOf } from '../spiffe/der.ts';
import { extensionOid, keyPurpose } from '../spiffe/extensions.ts';
import { checkX509SvidLeaf } from '../spiffe/svid.ts';
import type { SpiffeId } from '../spiffe/id.ts';
import type { AuthorityCertificate } from './issuer.ts';
import type { PublicKey } from './public-key.ts';

/** What a leaf must say: what was prepared and recorded before it was signed. */
export type ExpectedLeaf = {
  readonly id: SpiffeId;
  readonly dnsNames: readonly string[];
  /** Lower-case hex. */
  readonly serial: string;
  readonly notBefore: Date;
  readonly notAfter: Date;
  readonly publicKey: PublicKey;
  /** SHA-256 of the TBSCertificate, lower-case hex. */
  readonly tbsSha256: string;
};

/**
 * Reads a signed leaf back, with two parsers that share nothing with the writer, and demands that it is exactly the one
 * that was prepared: OpenSSL judges names, dates, key, purposes, issuer and signature; our strict reader judges the
 * X509-SVID profile, the criticality and set of extensions, and that the signed bytes are the recorded ones.
 * @param der the leaf, DER
 * @throws MeshError `lint_failed`: the certificate must not leave the authority
 */
export function lintLeaf(der: Uint8Array, expected: ExpectedLeaf, issuer: AuthorityCertificate): void {
  try {
    lintWithOpenssl(der, expected, issuer);
    lintStrictly(der, expected, issuer);
  } catch (cause) {
    if (cause instanceof MeshError && cause.code === 'lint_failed') throw cause;
    throw new MeshError('lint_failed', 'the new certificate cannot be read back', { cause });
  }
}

function lintWithOpenssl(der: Uint8Array, expected: ExpectedLeaf, issuer: AuthorityCertificate): void {
  const leaf = new X509Certificate(der);
  const names = [`URI:${expected.id.text}`, ...expected.dnsNames.map((name) => `DNS:${name}`)].join(', ');
  const purposes = leaf.keyUsage;
  demand(bytesEqual(leaf.raw, der), 'has bytes that OpenSSL passes over');
  demand(leaf.subject === undefined || leaf.subject === '', 'has a subject');
  demand(leaf.issuer === issuer.x509.subject, 'names another issuer');
  demand(leaf.subjectAltName === names, 'has other names');
  demand(leaf.serialNumber.toLowerCase() === expected.serial, 'has another serial');
  demand(leaf.validFromDate.getTime() === expected.notBefore.getTime(), 'begins at another time');
  demand(leaf.validToDate.getTime() === expected.notAfter.getTime(), 'ends at another time');
  demand(!leaf.ca, 'is a CA');
  demand(
    purposes?.length === 2 && purposes[0] === keyPurpose.serverAuth && purposes[1] === keyPurpose.clientAuth,
    'has other key purposes',
  );
  demand(leaf.publicKey.equals(expected.publicKey.key), 'holds another key');
  demand(leaf.checkIssued(issuer.x509), 'does not chain to its issuer');
  demand(leaf.verify(issuer.publicKey.key), 'has a signature that does not verify');
}

function lintStrictly(der: Uint8Array, expected: ExpectedLeaf, issuer: AuthorityCertificate): void {
  const leaf = checkX509SvidLeaf(der);
  const { tbs, spki, extensions, issuer: issuerName } = readCertificate(der);
  demand(leaf.id.equals(expected.id), 'has another SPIFFE ID');
  demand(
    issuer.trustDomain !== undefined && leaf.id.memberOf(issuer.trustDomain),
    'is of another trust domain',
  );
  demand(leaf.dnsNames.join() === expected.dnsNames.join(), 'has other DNS names');
  demand(leaf.serial === expected.serial, 'has another serial');
  demand(leaf.notBefore.getTime() === expected.notBefore.getTime(), 'begins at another time');
  demand(leaf.notAfter.getTime() === expected.notAfter.getTime(), 'ends at another time');
  demand(leaf.notBefore >= issuer.notBefore && leaf.notAfter <= issuer.notAfter, 'outlives its issuer');
  demand(bytesEqual(spki, expected.publicKey.spki), 'holds another key');
  demand(leaf.subjectKeyId === hexOf(expected.publicKey.keyId), 'names another key');
  demand(leaf.authorityKeyId === issuer.keyId, 'names another issuer key');
  demand(bytesEqual(issuerName, issuer.subject), 'names another issuer');
  demand(
    createHash('sha256').update(tbs).digest('hex') === expected.tbsSha256,
    'is not the one that was prepared',
  );
  for (const [oid, critical] of extensionProfile) {
    demand(extensions.get(oid)?.critical === critical, `has the extension ${oid} in another way`);
  }
  demand(extensions.size === extensionProfile.length, 'has an extension too many');
}

function demand(holds: boolean, otherwise: string): asserts holds {
  if (!holds) throw new MeshError('lint_failed', `the new certificate ${otherwise}`);
}

/** Every extension of a leaf, and whether it is critical. */
const extensionProfile = [
  [extensionOid.keyUsage, true],
  [extensionOid.extendedKeyUsage, false],
  [extensionOid.basicConstraints, true],
  [extensionOid.subjectKeyIdentifier, false],
  [extensionOid.authorityKeyIdentifier, false],
  [extensionOid.subjectAltName, true],
] as const;
