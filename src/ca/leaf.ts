import { hash } from 'node:crypto';
import { MeshError, quote } from '../errors.ts';
import { hexOf } from '../spiffe/der.ts';
import type { SpiffeId } from '../spiffe/id.ts';
import type { Issuer } from './issuer.ts';
import type { LeafTemplate } from './leaf-template.ts';
import type { ExpectedLeaf, LintLeaf } from './lint.ts';
import type { Profile } from './profile.ts';
import { asPublicKey, type PublicKey } from './public-key.ts';
import { makeSerial, type RandomBytes } from './serial.ts';
import { leafValidity, type Validity } from './validity.ts';

/** What a certificate is asked for. Of a CSR, only the public key ever comes here. */
export type LeafRequest = {
  /** Of the issuer's trust domain, with a path. */
  readonly id: SpiffeId;
  /** DER SubjectPublicKeyInfo, or a key read before. Whoever asks has proven that they hold the private key. */
  readonly publicKey: Uint8Array | PublicKey;
  /** At most 64, lower case, no two the same, no wildcards. */
  readonly dnsNames: readonly string[];
  /** 20 to 86,400, and at most what the profile permits. */
  readonly ttlSeconds: number;
};

/**
 * A certificate that is decided but not signed: what goes into the record before the signature is made. Only
 * {@link prepareLeaf} makes one, and {@link signLeaf} takes it once.
 */
export type PreparedLeaf = {
  readonly id: SpiffeId;
  readonly dnsNames: readonly string[];
  /** 20 octets, lower-case hex. */
  readonly serial: string;
  readonly notBefore: Date;
  readonly notAfter: Date;
  /** SHA-256 of the TBSCertificate and of the SubjectPublicKeyInfo, lower-case hex. */
  readonly tbsSha256: string;
  readonly spkiSha256: string;
  /** The issuing CA's subject key identifier, lower-case hex. */
  readonly issuerKeyId: string;
};

/** A leaf as it was signed and read back. */
export type SignedLeaf = {
  /** DER. */
  readonly certificate: Uint8Array;
  /** Lower-case hex. */
  readonly serial: string;
  readonly notBefore: Date;
  readonly notAfter: Date;
};

/** Everything that signing depends on besides the request; one snapshot for preparing and for signing. */
export type LeafSigner = {
  readonly issuer: Issuer;
  readonly template: LeafTemplate;
  readonly profile: Profile;
  /** SHA-256 (lower-case hex) of every SubjectPublicKeyInfo no leaf may hold: the CAs' own. */
  readonly reservedKeys: ReadonlySet<string>;
  readonly randomBytes: RandomBytes;
  /** Judges every leaf before it leaves. */
  readonly lint: LintLeaf;
};

/**
 * Decides a leaf: proves the request, draws the serial, sets the dates, builds the bytes that will be signed. The
 * subject is empty, so that the SPIFFE ID is the one name there is, and the names are critical.
 * @throws MeshError `spiffe_id_foreign_trust_domain`, `spiffe_id_path_missing`, `public_key_unsupported`,
 *   `profile_invalid` (lifetime or DNS names), `issuer_expired`
 * @see X509-SVID sections 2 to 4; RFC 5280 section 4
 */
export function prepareLeaf(signer: LeafSigner, request: LeafRequest, now: Date): PreparedLeaf {
  const { issuer, profile } = signer;
  const { id, ttlSeconds } = request;
  const dnsNames = Object.freeze([...request.dnsNames]);
  checkId(id, issuer);
  checkDnsNames(dnsNames);
  const publicKey = asPublicKey(request.publicKey);
  if (!profile.leafKeys.has(publicKey.kind))
    refuseKey(`is ${publicKey.kind}, which the profile does not permit`);
  if (signer.reservedKeys.has(publicKey.spkiSha256)) refuseKey('is that of a CA');
  if (ttlSeconds > profile.maxLeafTtlSeconds) {
    refuse(`a certificate's lifetime is at most ${profile.maxLeafTtlSeconds} seconds`);
  }
  const validity = leafValidity(now, ttlSeconds, profile.backdateSeconds, issuer.certificate);
  const serial = makeSerial(signer.randomBytes);
  const tbs = signer.template.encode({ serial, validity, publicKey, id, dnsNames });
  const prepared: PreparedLeaf = Object.freeze({
    id,
    dnsNames,
    serial: hexOf(serial),
    ...validity,
    tbsSha256: hash('sha256', tbs, 'hex'),
    spkiSha256: publicKey.spkiSha256,
    issuerKeyId: issuer.certificate.keyId,
  });
  plans.set(prepared, {
    issuer,
    template: signer.template,
    expected: { id, dnsNames, serial: prepared.serial, ...copyOf(validity), publicKey, tbs },
  });
  return prepared;
}

/**
 * Signs what {@link prepareLeaf} decided, then reads the result back and compares. A prepared leaf
 * is spent by the attempt, whether it succeeds or not.
 * @throws MeshError `internal` when it was signed before or by another issuer, `lint_failed` when what came out is not
 *   what was prepared
 */
export async function signLeaf(signer: LeafSigner, prepared: PreparedLeaf): Promise<SignedLeaf> {
  const plan = plans.get(prepared);
  if (plan === undefined)
    throw new MeshError('internal', 'the certificate was not prepared, or was signed before');
  if (plan.issuer !== signer.issuer)
    throw new MeshError('internal', 'the certificate was prepared by another issuer');
  // INVARIANT: the plan is gone before the key is used, so no two signatures are ever made for one record.
  plans.delete(prepared);
  const signing = plan.issuer.key.sign(plan.expected.tbs);
  // A key in this process has answered already: most leaves wait for nothing.
  const signature = signing instanceof Uint8Array ? signing : await signing;
  const certificate = plan.template.join(plan.expected.tbs, signature);
  const judging = signer.lint(certificate, plan.expected, plan.issuer);
  if (judging !== undefined) await judging;
  const { serial, notBefore, notAfter } = plan.expected;
  return { certificate, serial, notBefore, notAfter };
}

/** What a prepared leaf stands for. Owned by prepareLeaf and signLeaf; out of reach of who holds the prepared value. */
type Plan = {
  readonly issuer: Issuer;
  readonly template: LeafTemplate;
  readonly expected: ExpectedLeaf;
};
const plans = new WeakMap<PreparedLeaf, Plan>();

function checkId(id: SpiffeId, issuer: Issuer): void {
  const { trustDomain } = issuer.certificate;
  if (trustDomain === undefined || !id.memberOf(trustDomain)) {
    throw new MeshError(
      'spiffe_id_foreign_trust_domain',
      `SPIFFE ID ${quote(id.text)} is not of the trust domain ${trustDomain?.name ?? 'of this CA'}`,
    );
  }
  if (id.path === '') {
    throw new MeshError(
      'spiffe_id_path_missing',
      `SPIFFE ID ${quote(id.text)} names a trust domain, not a workload`,
    );
  }
}

function checkDnsNames(names: readonly string[]): void {
  if (names.length > maxDnsNames) refuse(`a certificate has at most ${maxDnsNames} DNS names`);
  if (new Set(names).size !== names.length) refuse('a DNS name is given twice');
  for (const name of names) {
    if (
      name.length > 253 ||
      !name.split('.').every((label) => dnsLabel.test(label)) ||
      /(^|\.)[0-9]+$/.test(name)
    ) {
      refuse(
        `the DNS name ${quote(name)} is not lower-case letters, digits and hyphens in labels joined by dots`,
      );
    }
  }
}

function copyOf(validity: Validity): Validity {
  return { notBefore: new Date(validity.notBefore), notAfter: new Date(validity.notAfter) };
}

function refuseKey(why: string): never {
  throw new MeshError('public_key_unsupported', `the public key ${why}`, {
    fix: 'make an ECDSA P-256 key of its own',
  });
}

function refuse(why: string): never {
  throw new MeshError('profile_invalid', why);
}

const maxDnsNames = 64;
const dnsLabel = /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/;
