import { createHash } from 'node:crypto';
import type { WorkloadCredentials, X509Svid } from '../identity/credentials.ts';
import type { TrustBundle } from '../spiffe/bundle.ts';
import { encodePem } from '../spiffe/pem.ts';
import type { DataSource } from '../wire/core.ts';
import { type CertificateValidationContext, Secret, SPIFFECertValidatorConfig } from '../wire/tls.ts';
import type { Resource } from './resource.ts';

/** The type URL of the only resource that SDS carries. */
export const secretTypeUrl = 'type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret';

/** The names a proxy may use for what has no SPIFFE ID of its own; the same as SPIRE's and Istio's. */
export const defaultSvidName = 'default';
export const defaultBundleName = 'ROOTCA';
export const allBundlesName = 'ALL';

/** How one stream wants its secrets. */
export type SecretFormat = {
  /**
   * A plain `trusted_ca` for the bundle of one trust domain, in place of Envoy's SPIFFE validator; asked for with the
   * node metadata `disable_spiffe_cert_validation: true`. `ALL` stays with the validator: in one pool of roots a
   * federated CA could sign for our own trust domain.
   */
  readonly plainTrustedCa: boolean;
  /**
   * The proof that the issuance is in the audit log, as the timestamp of a certificate log; asked for with the node
   * metadata `issuance_proof: true` besides, for Envoy has no use for it.
   */
  readonly issuanceProof?: boolean;
};

/**
 * The secret of a name, or undefined when these credentials do not hold it:
 *
 * | name                | secret                                             |
 * | ------------------- | -------------------------------------------------- |
 * | `default`           | the first SVID with its key                        |
 * | `spiffe://td/path`  | the SVID of that ID with its key                   |
 * | `ROOTCA`            | validation context for our own trust domain        |
 * | `spiffe://td`       | validation context for that trust domain           |
 * | `ALL`               | validation context for every trust domain we know  |
 */
export function secretOf(
  credentials: WorkloadCredentials,
  name: string,
  format: SecretFormat,
): Resource | undefined {
  const svid = svidOf(credentials, name);
  if (svid !== undefined && svid.certificates.length > 0) {
    const proof = format.issuanceProof === true ? svid.proof : undefined;
    const key = proof === undefined ? name : `${name} proven`;
    return remember(svid, key, [], () => certificateResource(name, svid, proof));
  }
  const bundles = bundlesOf(credentials, name).filter((bundle) => bundle.x509Authorities.length > 0);
  const plain = format.plainTrustedCa && name !== allBundlesName;
  const [first] = bundles;
  // INVARIANT: a validation context is never empty; Envoy would take it, and trust nobody or everybody.
  if (first === undefined) return undefined;
  return remember(first, `${name} ${plain}`, [...bundles, credentials.crls], () =>
    bundleResource(name, bundles, plain, credentials),
  );
}

/** The names that may have a secret. */
export function offeredNames({ svids, bundles }: WorkloadCredentials): ReadonlySet<string> {
  return new Set([
    ...[defaultSvidName, defaultBundleName, allBundlesName],
    ...svids.map(({ id }) => id.text),
    ...[...bundles.values()].map(({ trustDomain }) => trustDomain.id),
  ]);
}

/** The SVID of a name, or undefined when these credentials do not hold it. */
export function svidOf({ svids, isDefaultBanned }: WorkloadCredentials, name: string): X509Svid | undefined {
  // INVARIANT: while the default is banned no other identity passes for it.
  if (name === defaultSvidName) return isDefaultBanned ? undefined : svids[0];
  return svids.find((svid) => svid.id.text === name);
}

/** Whether a name is withheld because of a ban, and would have a secret without it. */
export function isBannedName({ svids, banned, isDefaultBanned }: WorkloadCredentials, name: string): boolean {
  if (name === defaultSvidName) return isDefaultBanned;
  // Without any identity there are no bundles either.
  return banned.some(({ text }) => text === name) || (svids.length === 0 && banned.length > 0);
}

function bundlesOf({ bundles, trustDomain }: WorkloadCredentials, name: string): readonly TrustBundle[] {
  if (name === allBundlesName) {
    return [...bundles.values()].sort((a, b) => (a.trustDomain.name < b.trustDomain.name ? -1 : 1));
  }
  const wanted =
    name === defaultBundleName
      ? bundles.get(trustDomain.name)
      : [...bundles.values()].find((bundle) => bundle.trustDomain.id === name);
  return wanted === undefined ? [] : [wanted];
}

/** Thousands of streams are given the same secret: it is made once, and kept as long as what it was made of. */
function remember(owner: object, name: string, parts: readonly unknown[], make: () => Resource): Resource {
  const made = secrets.get(owner) ?? new Map<string, Made>();
  secrets.set(owner, made);
  const known = made.get(name);
  if (known?.parts.length === parts.length && parts.every((part, i) => part === known.parts[i])) {
    return known.resource;
  }
  const resource = make();
  made.set(name, { parts, resource });
  return resource;
}

type Made = { readonly parts: readonly unknown[]; readonly resource: Resource };
const secrets = new WeakMap<object, Map<string, Made>>();

function certificateResource(name: string, svid: X509Svid, proof: string | undefined): Resource {
  const tlsCertificate = {
    certificateChain: inline(pemOf('CERTIFICATE', svid.certificates)),
    privateKey: inline(pemOf('PRIVATE KEY', [svid.privateKey])),
    password: undefined,
    ocspStaple: undefined,
    signedCertificateTimestamp: proof === undefined ? [] : [inline(proof)],
  };
  return {
    name,
    // The certificates name the key: the key itself goes into no digest.
    version: digest('certificate', svid.certificates),
    holdsKey: true,
    value: encode({ name, type: { $case: 'tlsCertificate', tlsCertificate } }),
    content: {
      kind: 'svid',
      spiffeId: svid.id.text,
      serial: svid.serial,
      issuerKeyId: svid.issuerKeyId,
      notAfter: svid.notAfter,
    },
  };
}

function bundleResource(
  name: string,
  bundles: readonly TrustBundle[],
  plain: boolean,
  { trustDomain, crls = [] }: Pick<WorkloadCredentials, 'trustDomain' | 'crls'>,
): Resource {
  const own = bundles.find((bundle) => bundle.trustDomain.equals(trustDomain));
  const validationContext = plain
    ? {
        ...emptyContext,
        trustedCa: inline(authoritiesOf(bundles)),
        ...(own === undefined ? {} : revocations(crls)),
      }
    : { ...emptyContext, customValidatorConfig: spiffeValidator(bundles) };
  const value = encode({ name, type: { $case: 'validationContext', validationContext } });
  return {
    name,
    version: digest('bundle', [value]),
    holdsKey: false,
    value,
    ...(own === undefined ? {} : { content: { kind: 'bundle', sequence: own.sequence } }),
  };
}

/** Envoy's SPIFFE validator reads no list. The plain one demands a list of every CA in a chain, unless told to be content
 * with those that sign leaves. */
function revocations(crls: readonly Uint8Array[]): Partial<CertificateValidationContext> {
  return crls.length === 0 ? {} : { crl: inline(pemOf('X509 CRL', crls)), onlyVerifyLeafCertCrl: true };
}

function spiffeValidator(
  bundles: readonly TrustBundle[],
): CertificateValidationContext['customValidatorConfig'] {
  const trustDomains = bundles.map((bundle) => ({
    name: bundle.trustDomain.name,
    trustBundle: inline(authoritiesOf([bundle])),
  }));
  const value = SPIFFECertValidatorConfig.encode({ trustDomains, trustBundles: undefined }).finish();
  return {
    name: 'envoy.tls.cert_validator.spiffe',
    typedConfig: { typeUrl: validatorTypeUrl, value: Buffer.from(value) },
  };
}

function authoritiesOf(bundles: readonly TrustBundle[]): string {
  return bundles.map((bundle) => pemOf('CERTIFICATE', bundle.x509Authorities)).join('');
}

function pemOf(label: string, blocks: readonly Uint8Array[]): string {
  return blocks.map((der) => encodePem(label, der)).join('');
}

function inline(text: string): DataSource {
  return { specifier: { $case: 'inlineBytes', inlineBytes: Buffer.from(text) } };
}

function encode(secret: Secret): Buffer {
  return Buffer.from(Secret.encode(secret).finish());
}

/** A version that follows from the content alone, so that it means the same to the next process. */
function digest(kind: string, parts: readonly Uint8Array[]): string {
  const hash = createHash('sha256').update(kind);
  for (const part of parts) hash.update(`/${part.length}/`).update(part);
  return hash.digest('hex').slice(0, 32);
}

const validatorTypeUrl =
  'type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.SPIFFECertValidatorConfig';

// Envoy merges this context with the static one of its own configuration, where the SAN matchers belong.
const emptyContext: CertificateValidationContext = {
  trustedCa: undefined,
  verifyCertificateHash: [],
  verifyCertificateSpki: [],
  crl: undefined,
  allowExpiredCertificate: false,
  matchSubjectAltNames: [],
  trustChainVerification: 0,
  customValidatorConfig: undefined,
  onlyVerifyLeafCertCrl: false,
  matchTypedSubjectAltNames: [],
  maxVerifyDepth: undefined,
};
