import { createPublicKey, verify } from 'node:crypto';
import { MeshError, publicError, quote } from '../errors.ts';
import { bytesEqual, DerReader, derTag, hexOf } from './der.ts';
import { extensionOid } from './extensions.ts';
import { describeKey, describeSignature } from './inspect-algorithms.ts';
import {
  type CertificateFacts,
  checkAuthority,
  checkLeaf,
  type ReadCertificate,
  readForInspection,
} from './inspect-certificate.ts';
import { namesOutside } from './inspect-constraints.ts';
import { collectFindings, type Findings, type Inspection } from './inspect-rules.ts';

/** The most certificates of a chain that are read. */
export const maxChainLength = 16;

/** What a chain says, and what became of its verification; null when none was asked for. */
export type ChainFacts = {
  /** The leaf first. */
  readonly certificates: readonly CertificateFacts[];
  readonly trust: {
    readonly at: Date;
    /** The authority that the chain ends at, or null. */
    readonly anchor: CertificateFacts | null;
  } | null;
};

/** Against what, and for which moment, a chain is judged. */
export type ChainOptions = {
  /** CA certificates, DER, all of the trust domain of the leaf. Without them no trust is judged. */
  readonly authorities?: readonly Uint8Array[];
  /** Without it no dates are judged. */
  readonly at?: Date;
};

/**
 * Inspects a leaf and its intermediates, and with authorities verifies the chain: form and profile of each certificate,
 * issuer names, signatures, path lengths, name constraints and dates. Nothing is broken exactly when a validator that
 * follows X509-SVID section 5 takes it; only revocation is not looked at.
 * @param chain 1 to 16 certificates, DER, the leaf first
 * @throws MeshError `der_invalid` when a certificate cannot be read, `input_too_large` for a longer chain
 */
export function inspectChain(
  chain: readonly Uint8Array[],
  options: ChainOptions = {},
): Inspection<ChainFacts> {
  if (chain.length > maxChainLength) {
    throw new MeshError('input_too_large', `the chain has more than ${maxChainLength} certificates`, {
      fix: 'give the leaf and its intermediates only',
    });
  }
  const findings = collectFindings();
  const links = chain.map((der, i): Link => {
    const own = chain.length === 1 ? findings : findings.of(i === 0 ? 'leaf' : `certificate ${i + 1}`);
    const read = orNamed(i + 1, () => readForInspection(der, own));
    if (i === 0) checkLeaf(read, own);
    else checkAuthority(read, own);
    return { read, findings: own };
  });
  links.forEach((link, i) => {
    const issuer = links[i + 1];
    if (issuer !== undefined) checkIssued(link, issuer.read);
  });
  checkPath(links);
  const { at, authorities } = options;
  if (at !== undefined) for (const link of links) checkDates(link, at);
  const anchor = authorities === undefined ? undefined : findAnchor(links, authorities, at, findings);
  return {
    facts: {
      certificates: links.map(({ read }) => read.facts),
      trust:
        authorities === undefined || at === undefined ? null : { at, anchor: anchor?.read.facts ?? null },
    },
    broken: findings.list(),
  };
}

type Link = { readonly read: ReadCertificate; readonly findings: Findings };

function findAnchor(
  links: readonly Link[],
  authorities: readonly Uint8Array[],
  at: Date | undefined,
  findings: Findings,
): Link | undefined {
  const anchors = authorities.map((der, i): Link => {
    const own = findings.of(`trust bundle, authority ${i + 1}`);
    return { read: readForInspection(der, collectFindings()), findings: own };
  });
  for (const [i, { read }] of links.entries()) {
    const same = i === 0 ? undefined : anchors.find((anchor) => bytesEqual(anchor.read.der, read.der));
    const anchor = same ?? anchors.find((candidate) => isIssuedBy(read, candidate.read));
    if (anchor === undefined) continue;
    const below = links.slice(0, same === undefined ? i + 1 : i);
    checkAuthority(anchor.read, anchor.findings);
    checkPath([...below, anchor]);
    if (at !== undefined) checkDates(anchor, at);
    const own = links[0]?.read.trustDomain ?? null;
    const other = anchor.read.trustDomain;
    if (own !== null && other !== null && own !== other) {
      anchor.findings.add(
        'spiffe-bundle-3-one-trust-domain',
        `the authority is of the trust domain ${quote(other)}, the leaf of ${quote(own)}`,
      );
    }
    return anchor;
  }
  const named = links.some(({ read }) => anchors.some((anchor) => hasIssuer(read, anchor.read)));
  findings.add(
    'x509-svid-5.1-trust',
    named
      ? 'an authority of the trust bundle has the name of an issuer, but did not sign'
      : 'no authority of the trust bundle has issued any of the certificates',
  );
  return undefined;
}

/** Notes what is wrong between a certificate and the next one of its chain. */
function checkIssued({ read, findings }: Link, issuer: ReadCertificate): void {
  if (!hasIssuer(read, issuer)) {
    const { issuer: named } = read.facts;
    findings.add(
      'rfc5280-6.1.3-issuer',
      `the issuer ${quote(named)} is not the next certificate, ${quote(issuer.facts.subject)}`,
    );
  }
  const { authorityKeyId } = read.facts;
  const { subjectKeyId } = issuer.facts;
  if (authorityKeyId !== null && subjectKeyId !== null && authorityKeyId !== subjectKeyId) {
    findings.add(
      'rfc5280-6.1.3-issuer',
      `the issuer's key is ${authorityKeyId}, that of the next is ${subjectKeyId}`,
    );
  }
  const why = whyNotSigned(read, issuer);
  if (why !== undefined) findings.add('rfc5280-6.1.3-signature', why);
}

/** Notes every CA of a path that permits less than what stands below it. */
function checkPath(path: readonly Link[]): void {
  path.forEach(({ read, findings }, i) => {
    if (i === 0) return;
    const below = path.slice(0, i);
    const { pathLength } = read.facts;
    const cas = below.slice(1).filter((link) => !isSelfIssued(link.read)).length;
    if (pathLength !== null && cas > pathLength) {
      findings.add(
        'rfc5280-6.1.4-path-length',
        `it permits ${pathLength} CAs below it, and ${cas} stand there`,
      );
    }
    const constraints = read.certificate.extensions.get(extensionOid.nameConstraints);
    if (constraints === undefined) return;
    for (const [at, link] of below.entries()) {
      // A CA that renews its own name is not judged by it (RFC 5280 section 6.1.3).
      if (at > 0 && isSelfIssued(link.read)) continue;
      try {
        const hasSubject = link.read.facts.subject !== '';
        const [why] = namesOutside(constraints.value, { names: link.read.names, hasSubject });
        if (why !== undefined) {
          link.findings.add('x509-svid-4.2-name-constraints', `${why} by ${quote(read.facts.subject)}`);
        }
      } catch (error) {
        findings.of('name constraints').add('rfc5280-4.2-extension', publicError(error).message);
      }
    }
  });
}

function checkDates({ read: { facts }, findings }: Link, at: Date): void {
  const { notBefore, notAfter } = facts;
  if (at < notBefore)
    findings.add('rfc5280-6.1.3-validity', `it is valid only from ${notBefore.toISOString()}`);
  if (at > notAfter) findings.add('rfc5280-6.1.3-validity', `it expired at ${notAfter.toISOString()}`);
}

function isIssuedBy(read: ReadCertificate, issuer: ReadCertificate): boolean {
  return hasIssuer(read, issuer) && whyNotSigned(read, issuer) === undefined;
}

function hasIssuer({ certificate }: ReadCertificate, issuer: ReadCertificate): boolean {
  return bytesEqual(certificate.issuer, issuer.certificate.subject);
}

function isSelfIssued({ certificate }: ReadCertificate): boolean {
  return hexOf(certificate.subject) === hexOf(certificate.issuer);
}

function whyNotSigned({ der, certificate }: ReadCertificate, issuer: ReadCertificate): string | undefined {
  const outer = DerReader.over(der).enter(derTag.sequence);
  outer.element();
  outer.element();
  const { octets } = outer.bitString();
  return whyUnsigned(certificate.tbs, certificate.signatureAlgorithm, octets, issuer.certificate.spki);
}

/**
 * Why a signature over DER does not hold, or undefined when it does. Keys and algorithms out of the ordinary are not
 * tried, and do not hold.
 * @param algorithm AlgorithmIdentifier, DER
 * @param spki of the key that should have signed, DER
 */
export function whyUnsigned(
  signed: Uint8Array,
  algorithm: Uint8Array,
  signature: Uint8Array,
  spki: Uint8Array,
): string | undefined {
  const { text, digest, family } = describeSignature(algorithm);
  const kind = describeKey(spki);
  if (family === 'unknown') return `the signature algorithm ${quote(text)} cannot be checked`;
  if (kind.family === 'unknown') return `the key of the signer, ${quote(kind.text)}, cannot be used`;
  if (kind.family !== family) return `the signature is ${text}, the key of the signer ${kind.text}`;
  try {
    const key = createPublicKey({ key: Buffer.from(spki), format: 'der', type: 'spki' });
    return verify(digest, signed, key, signature) ? undefined : 'the signature does not verify';
  } catch {
    return 'the key of the signer cannot be loaded';
  }
}

function orNamed<T>(number: number, read: () => T): T {
  try {
    return read();
  } catch (cause) {
    if (!(cause instanceof MeshError)) throw cause;
    throw new MeshError(cause.code, `certificate ${number}: ${cause.message}`, { cause });
  }
}
