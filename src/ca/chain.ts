import { type ErrorCode, MeshError, type Place, publicError, quote } from '../errors.ts';
import { bytesEqual } from '../spiffe/der.ts';
import { extensionOid, keyPurpose, readKeyPurposes } from '../spiffe/extensions.ts';
import type { TrustDomain } from '../spiffe/id.ts';
import { describeSignature } from '../spiffe/inspect-algorithms.ts';
import { constrainsCommonNames, namesOutside } from '../spiffe/inspect-constraints.ts';
import { describeName } from '../spiffe/inspect-name.ts';
import { decodePem } from '../spiffe/pem.ts';
import { maxCertificateBytes, readCertificate } from '../spiffe/certificate.ts';
import { type AuthorityCertificate, openAuthorityCertificate } from './issuer.ts';
import type { PublicKey } from './public-key.ts';

/** The most certificates of a chain: ours, at most two above it that are somebody else's, and the root. */
export const maxIssuerChain = 4;
/** The most bytes of a chain as PEM. */
export const maxChainBytes = 131_072;

/** A certificate of a chain as it was handed in. */
export type ChainPart = { readonly der: Uint8Array; readonly place: Place };

/** The way from the CA that signs leaves up to the root, each proven. */
export type IssuerChain = {
  readonly signer: AuthorityCertificate;
  /** What stands between the two, the lower one first. Usually nothing. */
  readonly upstream: readonly AuthorityCertificate[];
  readonly root: AuthorityCertificate;
};

/**
 * Takes a chain in PEM apart: the intermediate first, the root last.
 * @param file what the place in an error calls it
 * @throws MeshError `chain_malformed`
 */
export function readChain(text: string, file: string): readonly ChainPart[] {
  const lines: number[] = [];
  let number = 0;
  for (const line of text.slice(0, maxChainBytes).split('\n')) {
    number++;
    if (line.startsWith('-----BEGIN ')) lines.push(number);
  }
  const place = (at: number): Place => ({ file, line: lines[at] ?? 1, column: 1 });
  let ders: readonly Uint8Array[];
  try {
    ders = decodePem(text, 'CERTIFICATE', { maxBytes: maxChainBytes });
  } catch (cause) {
    const why = cause instanceof MeshError ? publicError(cause).message : 'it cannot be read';
    throw new MeshError('chain_malformed', `the chain is refused: ${why}`, {
      place: place(0),
      fix: 'give certificates in PEM and nothing else: the intermediate first, then up to the root',
      cause,
    });
  }
  if (ders.length > maxIssuerChain) {
    throw new MeshError(
      'chain_malformed',
      `the chain has ${ders.length} certificates, more than ${maxIssuerChain}`,
      {
        place: place(maxIssuerChain),
        fix: 'give the intermediate, at most two CAs above it, and the root',
      },
    );
  }
  return ders.map((der, at) => ({ der, place: place(at) }));
}

/**
 * Proves a chain from the CA that signs our leaves up to a root signed by itself: every one a CA with keyCertSign, of no
 * other trust domain, with keys and algorithms we take, within its issuer's dates and path length, and signed by it; the
 * first one with path length 0 exactly and a subject key identifier. Name constraints on the way must let our SPIFFE IDs pass and judge nothing else
 * that leaves carry.
 *
 * INVARIANT: whoever passes this can be verified by every peer that trusts the root, with the certificates in between.
 * @param parts the intermediate first, the root last: at least two
 * @throws MeshError `chain_malformed`, `chain_not_ca`, `chain_algorithm`, `chain_trust_domain`, `chain_path_length`,
 *   `chain_broken`, `chain_root_missing`, `chain_dates`, `chain_constraints`; each names the certificate and its place
 * @see RFC 5280 section 6.1; X509-SVID sections 2 to 5
 */
export function checkIssuerChain(parts: readonly ChainPart[], trustDomain: TrustDomain): IssuerChain {
  const links = parts.map((part, at): Link => ({
    ...openPart(part, at + 1),
    number: at + 1,
    place: part.place,
  }));
  const [signer, ...above] = links;
  const root = above.pop();
  if (signer === undefined || root === undefined) {
    throw new MeshError('chain_root_missing', 'the chain is not one of an intermediate and its root', {
      place: parts[0]?.place ?? { file: 'chain', line: 1, column: 1 },
      fix: 'put the certificates of all CAs above it behind the intermediate, the root last',
    });
  }
  for (const link of links) checkNames(link, trustDomain);
  // Leaves must name the key that signed them as this certificate does.
  if (signer.certificate.subjectKeyId === undefined) {
    refuse('chain_not_ca', signer, 'has no subject key identifier', {
      fix: 'sign it with subjectKeyIdentifier=hash',
    });
  }
  checkOrder(links, root);
  checkPath(links, signer);
  for (const link of links) checkConstraints(link, trustDomain);
  return {
    signer: signer.certificate,
    upstream: above.map(({ certificate }) => certificate),
    root: root.certificate,
  };
}

/**
 * Proves what matters when a chain is handed in: that it is for the key that waits, and that now is its time.
 * @throws MeshError `chain_key_mismatch`, `chain_dates`
 */
export function checkImport(
  chain: IssuerChain,
  parts: readonly ChainPart[],
  waiting: PublicKey,
  now: Date,
): void {
  const all = [chain.signer, ...chain.upstream, chain.root];
  if (!bytesEqual(chain.signer.spki, waiting.spki)) {
    const elsewhere = all.findIndex(({ spki }) => bytesEqual(spki, waiting.spki));
    const link = { certificate: chain.signer, number: 1, place: placeOf(parts, 0) };
    refuse('chain_key_mismatch', link, 'holds another key than the one that waits', {
      fix:
        elsewhere === -1
          ? 'have the request that `countersign ca csr` prints signed; an older request is of no use any more'
          : 'put the intermediate first, then up to the root',
    });
  }
  for (const [at, certificate] of all.entries()) {
    const link = { certificate, number: at + 1, place: placeOf(parts, at) };
    if (certificate.notBefore > now) {
      refuse('chain_dates', link, `is not valid before ${certificate.notBefore.toISOString()}`, {
        fix: 'check the clocks of both machines, or wait',
      });
    }
    if (certificate.notAfter.getTime() - now.getTime() < leastLifeMs) {
      refuse('chain_dates', link, `ends at ${certificate.notAfter.toISOString()}, in less than an hour`, {
        fix: 'have the request signed again, for a month for example',
      });
    }
  }
}

type Link = { readonly certificate: AuthorityCertificate; readonly number: number; readonly place: Place };

function openPart({ der, place }: ChainPart, number: number): Pick<Link, 'certificate'> {
  try {
    if (der.length > maxCertificateBytes) throw new MeshError('der_invalid', 'the certificate is too long');
    const { signatureAlgorithm } = readCertificate(der);
    const { family, text } = describeSignature(signatureAlgorithm);
    if (family !== 'ec' && family !== 'rsa') {
      throw new MeshError(
        'chain_algorithm',
        `certificate ${number} of the chain is signed with ${quote(text)}`,
        { place, fix: algorithmFix },
      );
    }
    return { certificate: openAuthorityCertificate(der) };
  } catch (cause) {
    if (cause instanceof MeshError && cause.code === 'chain_algorithm') throw cause;
    throw refusedPart(cause, number, place);
  }
}

/** What our readers say about a certificate, under the code that says what to do about it. */
function refusedPart(cause: unknown, number: number, place: Place): MeshError {
  const code = firstCode(cause);
  const why = cause instanceof MeshError ? publicError(cause).message : 'it cannot be read';
  const text = `certificate ${number} of the chain is refused: ${why}`;
  if (code === 'der_invalid') {
    return new MeshError('chain_malformed', text, {
      place,
      fix: 'export the certificate again, as PEM',
      cause,
    });
  }
  if (code === 'public_key_unsupported') {
    return new MeshError('chain_algorithm', text, { place, fix: algorithmFix, cause });
  }
  if (code.startsWith('spiffe_id')) {
    return new MeshError('chain_trust_domain', text, {
      place,
      fix: 'sign it with the one URI name spiffe://<trust domain>, or with none',
      cause,
    });
  }
  return new MeshError('chain_not_ca', text, {
    place,
    fix:
      'sign it with basicConstraints=critical,CA:true and keyUsage=critical,keyCertSign,cRLSign, ' +
      'and no URI name but spiffe://<trust domain>',
    cause,
  });
}

/** The code of what went wrong first, beneath what was said about it. */
function firstCode(error: unknown): string {
  let code = 'internal';
  for (let at = error; at instanceof MeshError; at = at.cause) code = at.code;
  return code;
}

function checkNames(link: Link, trustDomain: TrustDomain): void {
  const own = link.certificate.trustDomain;
  if (own !== undefined && !own.equals(trustDomain)) {
    refuse(
      'chain_trust_domain',
      link,
      `is of the trust domain ${quote(own.name)}, not ${quote(trustDomain.name)}`,
      {
        fix: `sign it with the URI name ${trustDomain.id}, or with none`,
      },
    );
  }
}

function checkOrder(links: readonly Link[], root: Link): void {
  if (!bytesEqual(root.certificate.issuer, root.certificate.subject)) {
    refuse('chain_root_missing', root, 'is the last one and is not signed by itself', {
      fix: `put the certificate of ${quote(describeName(root.certificate.issuer))} behind it`,
    });
  }
  for (const [at, link] of links.entries()) {
    const above = links[at + 1] ?? root;
    const { certificate } = link;
    const issuer = above.certificate;
    const self = link === root;
    if (
      !self &&
      links.some((other) => other !== link && bytesEqual(other.certificate.spki, certificate.spki))
    ) {
      refuse('chain_broken', link, 'holds a key that another one of the chain holds too', {
        fix: 'give each CA once, and a key of its own',
      });
    }
    if (!bytesEqual(certificate.issuer, issuer.subject)) {
      refuse(
        'chain_broken',
        link,
        `names the issuer ${quote(describeName(certificate.issuer))}, not the next one`,
        {
          fix: 'put the certificates in order: the intermediate first, each followed by its issuer',
        },
      );
    }
    const names = certificate.authorityKeyId;
    if (names !== undefined && issuer.subjectKeyId !== undefined && names !== issuer.subjectKeyId) {
      refuse('chain_broken', link, 'names another key of its issuer than the next one holds', {
        fix: 'put the certificate that signed it behind it: an issuer may have several of one name',
      });
    }
    if (!certificate.x509.verify(issuer.publicKey.key)) {
      refuse('chain_broken', link, self ? 'is not signed by itself' : 'is not signed by the next one', {
        fix: 'put the certificate that signed it behind it',
      });
    }
    if (certificate.notBefore < issuer.notBefore || certificate.notAfter > issuer.notAfter) {
      refuse(
        'chain_dates',
        link,
        `is not valid within the dates of its issuer, which ends at ${issuer.notAfter.toISOString()}`,
        {
          fix: 'sign it for a shorter time',
        },
      );
    }
  }
}

function checkPath(links: readonly Link[], signer: Link): void {
  if (signer.certificate.pathLength !== 0) {
    refuse('chain_path_length', signer, 'permits CAs below it', {
      fix: 'sign it with basicConstraints=critical,CA:true,pathlen:0',
    });
  }
  for (const [below, link] of links.entries()) {
    const { pathLength } = link.certificate;
    if (pathLength !== undefined && pathLength < below) {
      refuse('chain_path_length', link, `permits ${pathLength} CAs below it, and ${below} stand there`, {
        fix: 'have the request signed by a CA that permits one more below it',
      });
    }
  }
}

function checkConstraints(link: Link, trustDomain: TrustDomain): void {
  const { extensions } = readCertificate(link.certificate.der);
  checkPurposes(link, extensions.get(extensionOid.extendedKeyUsage)?.value);
  const constraints = extensions.get(extensionOid.nameConstraints);
  if (constraints === undefined) return;
  let outside: readonly string[];
  try {
    if (constrainsCommonNames(constraints.value)) {
      refuse(
        'chain_constraints',
        link,
        'constrains DNS or directory names, which certificates below it have',
        {
          fix: 'use a CA that constrains URI names only, or nothing',
        },
      );
    }
    const uris = [`${trustDomain.id}/workload`, trustDomain.id];
    outside = namesOutside(constraints.value, {
      names: { uris, dnsNames: [], others: 0 },
      hasSubject: false,
    });
  } catch (cause) {
    if (cause instanceof MeshError && cause.code === 'chain_constraints') throw cause;
    return refuse('chain_malformed', link, 'has name constraints that cannot be read', {
      fix: 'use another CA',
      cause,
    });
  }
  const [why] = outside;
  if (why !== undefined) {
    refuse('chain_constraints', link, `does not let our identities pass: ${why}`, {
      fix: `use a CA that permits the URI host ${trustDomain.name}`,
    });
  }
}

/** OpenSSL, Go and BoringSSL hold the purposes of a CA against what it signs. */
function checkPurposes(link: Link, value: Uint8Array | undefined): void {
  if (value === undefined) return;
  let purposes: readonly string[];
  try {
    purposes = readKeyPurposes(value);
  } catch (cause) {
    return refuse('chain_malformed', link, 'has key purposes that cannot be read', {
      fix: 'use another CA',
      cause,
    });
  }
  const missing = ['serverAuth', 'clientAuth'].filter(
    (purpose) => !purposes.includes(keyPurpose[purpose as keyof typeof keyPurpose]),
  );
  if (missing.length > 0 && !purposes.includes(anyPurposeOid)) {
    refuse('chain_constraints', link, `has key purposes without ${missing.join(' and ')}`, {
      fix: 'sign it without extendedKeyUsage',
    });
  }
}

function refuse(code: ErrorCode, link: Link, why: string, options: { fix: string; cause?: unknown }): never {
  const name = quote(describeName(link.certificate.subject));
  throw new MeshError(code, `certificate ${link.number} of the chain (${name}) ${why}`, {
    place: link.place,
    ...options,
  });
}

function placeOf(parts: readonly ChainPart[], at: number): Place {
  return parts[at]?.place ?? { file: 'chain', line: 1, column: 1 };
}

const algorithmFix = 'use ECDSA P-256 or P-384, or RSA 2048, 3072 or 4096, with SHA-256, SHA-384 or SHA-512';
const anyPurposeOid = '2.5.29.37.0';
const leastLifeMs = 3_600_000;
