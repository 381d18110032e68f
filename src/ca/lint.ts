import { hash as hashOf, X509Certificate } from 'node:crypto';
import { MeshError } from '../errors.ts';
import { type Certificate, readCertificate } from '../spiffe/certificate.ts';
import { bytesEqual, DerReader, derTag, hexOf } from '../spiffe/der.ts';
import { extensionOid, keyPurpose } from '../spiffe/extensions.ts';
import { checkLeafCertificate } from '../spiffe/svid.ts';
import type { SpiffeId } from '../spiffe/id.ts';
import type { AuthorityCertificate, Issuer } from './issuer.ts';
import type { PublicKey } from './public-key.ts';
import { verifyBytes } from './signature.ts';

/** What a leaf must say: what was prepared and recorded before it was signed. */
export type ExpectedLeaf = {
  readonly id: SpiffeId;
  readonly dnsNames: readonly string[];
  /** Lower-case hex. */
  readonly serial: string;
  readonly notBefore: Date;
  readonly notAfter: Date;
  readonly publicKey: PublicKey;
  /** The TBSCertificate whose hash was recorded. */
  readonly tbs: Uint8Array;
};

/** What of an issuer is public: nothing else is needed to judge a leaf. */
export type LeafIssuer = Pick<Issuer, 'certificate' | 'hash'>;

/** Judges a leaf that was signed, here or on another thread; see {@link lintLeaf}. */
export type LintLeaf = (der: Uint8Array, expected: ExpectedLeaf, issuer: LeafIssuer) => void | Promise<void>;

/**
 * Reads a signed leaf back, with parsers that share nothing with the writer, and demands that it is exactly the one
 * that was prepared. Our strict reader judges every leaf: names, dates, key, issuer, the X509-SVID profile, the
 * algorithm, the criticality and set of extensions, and that the signed bytes are the recorded ones. OpenSSL judges the
 * first leaf of each form, that is of all bytes but those the strict reader has compared one by one (see `formOf`).
 * The signature of every leaf is verified last.
 * @param der the leaf, DER
 * @throws MeshError `lint_failed`: the certificate must not leave the authority
 */
export function lintLeaf(der: Uint8Array, expected: ExpectedLeaf, issuer: LeafIssuer): void {
  try {
    const certificate = readCertificate(der);
    lintStrictly(certificate, expected, issuer);
    const forms = formsOf(issuer.certificate);
    const form = formOf(certificate);
    const isNew = !forms.has(form);
    if (isNew) lintWithOpenssl(der, expected, issuer.certificate);
    lintSignature(certificate, issuer);
    if (!isNew) return;
    if (forms.size >= maxForms) forms.clear();
    forms.add(form);
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
}

function lintStrictly(
  certificate: Certificate,
  expected: ExpectedLeaf,
  { hash, certificate: issuer }: LeafIssuer,
): void {
  const { tbs, spki, extensions, signatureAlgorithm, issuer: issuerName } = certificate;
  const leaf = checkLeafCertificate(certificate);
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
  demand(leaf.authorityKeyId === issuer.subjectKeyId, 'names another issuer key');
  demand(bytesEqual(issuerName, issuer.subject), 'names another issuer');
  demand(hexOf(signatureAlgorithm) === signatureAlgorithms[hash], 'names another signature algorithm');
  demand(bytesEqual(tbs, expected.tbs), 'is not the one that was prepared');
  for (const [oid, critical] of extensionProfile) {
    demand(extensions.get(oid)?.critical === critical, `has the extension ${oid} in another way`);
  }
  demand(extensions.size === extensionProfile.length, 'has an extension too many');
}

/**
 * The signature over the bytes that the strict reader has read. A fault in the arithmetic of ECDSA can give the key
 * away: a signature that does not verify must never be seen by anybody.
 */
function lintSignature({ tbs, signature }: Certificate, { certificate, hash }: LeafIssuer): void {
  const { unusedBits, octets } = signature;
  const holds = unusedBits === 0 && verifyBytes(hash, tbs, certificate.publicKey.key, octets);
  demand(holds, 'has a signature that does not verify');
}

/**
 * The bytes of a leaf that are the same in every leaf of its kind: serial, dates, the bits of the key, its identifier
 * and the characters of the names are blanked, tags, lengths, algorithms, extensions and issuer are not. The strict
 * reader has compared what is blanked with what was prepared.
 */
function formOf({ tbs, serialOctets, validity, spki, extensions }: Certificate): string {
  const form = new Uint8Array(tbs);
  const blank = (part: Uint8Array): void => {
    const at = part.byteOffset - tbs.byteOffset;
    form.fill(0, at, at + part.length);
  };
  blank(serialOctets);
  const dates = DerReader.over(validity).enter(derTag.sequence);
  while (dates.peek() !== undefined) blank(dates.content(dates.peek() ?? 0));
  const key = DerReader.over(spki).enter(derTag.sequence);
  key.element(derTag.sequence);
  blank(key.bitString().octets);
  const keyId = extensions.get(extensionOid.subjectKeyIdentifier)?.value ?? empty;
  blank(DerReader.over(keyId).content(derTag.octetString));
  const names = DerReader.over(extensions.get(extensionOid.subjectAltName)?.value ?? empty);
  const list = names.enter(derTag.sequence);
  while (list.peek() !== undefined) blank(list.content(list.peek() ?? 0));
  return hashOf('sha256', form, 'base64');
}

function formsOf(issuer: AuthorityCertificate): Set<string> {
  const known = knownForms.get(issuer);
  if (known !== undefined) return known;
  const forms = new Set<string>();
  knownForms.set(issuer, forms);
  return forms;
}

function demand(holds: boolean, otherwise: string): asserts holds {
  if (!holds) throw new MeshError('lint_failed', `the new certificate ${otherwise}`);
}

/** The forms that OpenSSL has found good, by issuer. One is made of how long the names are; few are in use. */
const knownForms = new WeakMap<AuthorityCertificate, Set<string>>();
const maxForms = 4_096;
const empty = new Uint8Array(0);

/** Every extension of a leaf, and whether it is critical. */
const extensionProfile = [
  [extensionOid.keyUsage, true],
  [extensionOid.extendedKeyUsage, false],
  [extensionOid.basicConstraints, true],
  [extensionOid.subjectKeyIdentifier, false],
  [extensionOid.authorityKeyIdentifier, false],
  [extensionOid.subjectAltName, true],
] as const;

/** ecdsa-with-SHA256 and -SHA384, without parameters. @see RFC 5758 section 3.2 */
const signatureAlgorithms: Record<Issuer['hash'], string> = {
  sha256: '300a06082a8648ce3d040302',
  sha384: '300a06082a8648ce3d040303',
};
