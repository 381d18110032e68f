import { hash } from 'node:crypto';
import { type PublicKey, readPublicKey } from '../ca/public-key.ts';
import { MeshError } from '../errors.ts';
import { type Certificate, readCertificate } from '../spiffe/certificate.ts';
import { bytesEqual, DerReader, derTag } from '../spiffe/der.ts';
import {
  extensionOid,
  keyPurpose,
  keyUsageBit,
  readBasicConstraints,
  readKeyPurposes,
  readKeyUsage,
} from '../spiffe/extensions.ts';
import { whyUnsigned } from '../spiffe/inspect-chain.ts';

/** A machine as its certificate has it, once the chain is proven. That somebody holds the key is for a challenge to show. */
export type Machine = {
  readonly publicKey: PublicKey;
  /** SHA-256 of the certificate, lower-case hex. */
  readonly certificateSha256: string;
  /** The one common name of its subject; empty when it has none, or several. */
  readonly commonName: string;
  /** SHA-256 of the CA certificate that the chain ends at, lower-case hex. */
  readonly caSha256: string;
};

/** The most certificates of a chain, the machine's own included. */
export const maxMachineChain = 5;

/**
 * Proves the chain of a machine's own certificate: form, dates, issuer names, signatures, CA marks, path lengths and key
 * usage, up to one of the CAs. Certificates with a critical extension that is not known here, name constraints among
 * them, are refused. What it returns is what was proven: nothing else of the chain is to be used.
 * @param chain DER, the machine's own first
 * @param cas DER
 * @throws MeshError `node_evidence_invalid`
 * @see RFC 5280 section 6.1
 */
export function proveMachine(chain: readonly Uint8Array[], cas: readonly Uint8Array[], now: Date): Machine {
  if (chain.length === 0 || chain.length > maxMachineChain) refuse('is no chain of certificates');
  return orRefused(() => {
    const links = chain.map(readLink);
    const [own] = links;
    if (own === undefined) return refuse('is no chain of certificates');
    checkMachine(own);
    const anchors = cas.map(readLink);
    let current = own;
    for (let below = 0; below < maxMachineChain; below++) {
      checkDates(current, now);
      // INVARIANT: it ends at a CA that the operator named, never at what the machine sent.
      const anchor = anchors.find((candidate) => isIssuedBy(current, candidate));
      if (anchor !== undefined) {
        checkDates(anchor, now);
        checkCa(anchor, below);
        return {
          publicKey: readPublicKey(own.certificate.spki),
          certificateSha256: hash('sha256', own.der, 'hex'),
          commonName: commonNameOf(own.certificate.subject),
          caSha256: hash('sha256', anchor.der, 'hex'),
        };
      }
      const next = links[below + 1];
      if (next === undefined || !isIssuedBy(current, next)) break;
      checkCa(next, below);
      current = next;
    }
    return refuse('does not lead to a CA for machines');
  });
}

type Link = { readonly der: Uint8Array; readonly certificate: Certificate };

function readLink(bytes: Uint8Array): Link {
  // What is judged must not change under us.
  const der = new Uint8Array(bytes);
  const certificate = readCertificate(der);
  for (const [oid, { critical }] of certificate.extensions) {
    if (critical && !known.has(oid)) refuse(`has the critical extension ${oid}, which is not known`);
  }
  return { der, certificate };
}

function checkMachine({ certificate }: Link): void {
  const constraints = read(certificate, extensionOid.basicConstraints, readBasicConstraints);
  if (constraints?.ca === true) refuse('begins with a CA');
  const usage = read(certificate, extensionOid.keyUsage, readKeyUsage);
  if (usage !== undefined && (usage & keyUsageBit.digitalSignature) === 0)
    refuse('begins with a certificate that may not sign');
  const purposes = read(certificate, extensionOid.extendedKeyUsage, readKeyPurposes);
  if (purposes !== undefined && !purposes.includes(keyPurpose.clientAuth))
    refuse('begins with a certificate that is not for clients');
}

function checkCa({ certificate }: Link, below: number): void {
  const constraints = read(certificate, extensionOid.basicConstraints, readBasicConstraints);
  if (constraints?.ca !== true) refuse('has an issuer that is no CA');
  if (constraints.pathLength !== undefined && below > constraints.pathLength)
    refuse('has more CAs than one of them permits');
  const usage = read(certificate, extensionOid.keyUsage, readKeyUsage);
  if (usage !== undefined && (usage & keyUsageBit.keyCertSign) === 0)
    refuse('has a CA that may not sign certificates');
}

function checkDates({ certificate: { notBefore, notAfter } }: Link, now: Date): void {
  if (now < notBefore || now > notAfter) refuse('has a certificate that is not valid now');
}

function isIssuedBy({ der, certificate }: Link, issuer: Link): boolean {
  if (!bytesEqual(certificate.issuer, issuer.certificate.subject)) return false;
  const outer = DerReader.over(der).enter(derTag.sequence);
  outer.element();
  outer.element();
  const { octets } = outer.bitString();
  const { tbs, signatureAlgorithm } = certificate;
  return whyUnsigned(tbs, signatureAlgorithm, octets, issuer.certificate.spki) === undefined;
}

function read<T>(certificate: Certificate, oid: string, parse: (value: Uint8Array) => T): T | undefined {
  const extension = certificate.extensions.get(oid);
  return extension === undefined ? undefined : parse(extension.value);
}

/** INVARIANT: of two names that a CA let through none counts: it may have looked at one of them only. */
function commonNameOf(name: Uint8Array): string {
  const found = orRefused(() => commonNames(name));
  return found.length === 1 ? (found[0] ?? '') : '';
}

function commonNames(name: Uint8Array): readonly string[] {
  const found: string[] = [];
  const outer = DerReader.over(name).enter(derTag.sequence);
  while (outer.peek() !== undefined) {
    const set = outer.enter(derTag.set);
    while (set.peek() !== undefined) {
      const attribute = set.enter(derTag.sequence);
      const oid = attribute.oid();
      const text = Buffer.from(attribute.content(attribute.peek() ?? 0)).toString('utf8');
      if (oid === commonNameOid) found.push(text);
    }
  }
  return found;
}

function orRefused<T>(prove: () => T): T {
  try {
    return prove();
  } catch (cause) {
    if (!(cause instanceof MeshError)) throw cause;
    if (cause.code === 'node_evidence_invalid') throw cause;
    throw new MeshError('node_evidence_invalid', `the evidence is refused: ${cause.message}`, { cause });
  }
}

function refuse(why: string): never {
  throw new MeshError('node_evidence_invalid', `the evidence ${why}`);
}

// RFC 5280 appendix A.1, id-at-commonName.
const commonNameOid = '2.5.4.3';
const known: ReadonlySet<string> = new Set([
  extensionOid.keyUsage,
  extensionOid.subjectAltName,
  extensionOid.basicConstraints,
  extensionOid.extendedKeyUsage,
]);
