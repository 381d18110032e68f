import { type TrustBundle, makeBundle } from '../spiffe/bundle.ts';
import { bytesEqual } from '../spiffe/der.ts';
import type { TrustDomain } from '../spiffe/id.ts';
import {
  type AuthorityCertificate,
  type Issuer,
  openAuthorityCertificate,
  openIssuer,
  refuseAuthority,
} from './issuer.ts';
import { createLeafTemplate } from './leaf-template.ts';
import { type LeafRequest, type LeafSigner, type PreparedLeaf, prepareLeaf, signLeaf } from './leaf.ts';
import type { Profile } from './profile.ts';
import type { RandomBytes } from './serial.ts';

/** A certificate as it is handed out. */
export type IssuedSvid = {
  /** DER: the leaf, then the intermediate; never the root. */
  readonly certificates: readonly Uint8Array[];
  /** Lower-case hex. */
  readonly serial: string;
  readonly notBefore: Date;
  readonly notAfter: Date;
};

/** An issuing CA, proven and ready. It keeps no record: who calls it writes one between `prepare` and `sign`. */
export type Authority = {
  readonly trustDomain: TrustDomain;
  /** Decides a leaf at `now`: see {@link prepareLeaf}, also for what it throws. */
  readonly prepare: (request: LeafRequest, now: Date) => PreparedLeaf;
  /** Signs a leaf that this authority prepared, once: see {@link signLeaf}, also for what it throws. */
  readonly sign: (prepared: PreparedLeaf) => Promise<IssuedSvid>;
  /** What verifies the leaves: the root. */
  readonly bundle: TrustBundle;
  /** The intermediate's subject key identifier, lower-case hex. */
  readonly issuerKeyId: string;
  /** When the intermediate ends, and every leaf at the latest. */
  readonly notAfter: Date;
};

/**
 * Opens an issuing CA and proves it first: both certificates are CAs of `trustDomain`, the root is signed by itself, the
 * intermediate by the root, within its path length and its dates, and the private key is the intermediate's.
 * @param options.intermediate.privateKey PKCS#8 DER
 * @param options.bundleSequence of the bundle; default 1
 * @throws MeshError `authority_invalid`
 * @see RFC 5280 section 6.1
 */
export function createAuthority(options: {
  readonly trustDomain: TrustDomain;
  readonly root: { readonly certificate: Uint8Array };
  readonly intermediate: { readonly certificate: Uint8Array; readonly privateKey: Uint8Array };
  readonly profile: Profile;
  readonly randomBytes: RandomBytes;
  readonly bundleSequence?: number;
}): Authority {
  const { trustDomain, profile, randomBytes } = options;
  const root = openAuthorityCertificate(options.root.certificate);
  const issuer = openIssuer(options.intermediate.certificate, options.intermediate.privateKey);
  checkChain(trustDomain, root, issuer);
  const signer: LeafSigner = {
    issuer,
    template: createLeafTemplate(issuer),
    profile,
    reservedKeys: new Set([root.publicKey.spkiSha256, issuer.certificate.publicKey.spkiSha256]),
    randomBytes,
  };
  return {
    trustDomain,
    prepare: (request, now) => prepareLeaf(signer, request, now),
    sign: async (prepared) => {
      const { certificate, ...signed } = signLeaf(signer, prepared);
      return { certificates: [certificate, new Uint8Array(issuer.certificate.der)], ...signed };
    },
    bundle: makeBundle(trustDomain, [root.der], options.bundleSequence ?? 1),
    issuerKeyId: issuer.certificate.keyId,
    notAfter: new Date(issuer.certificate.notAfter),
  };
}

/** Proves that `issuer` is an intermediate of `root`; node's own checks compare names and keys, not dates or limits. */
function checkChain(trustDomain: TrustDomain, root: AuthorityCertificate, issuer: Issuer): void {
  const { certificate } = issuer;
  for (const authority of [root, certificate]) {
    if (authority.trustDomain?.equals(trustDomain) !== true) {
      refuseAuthority(`is not of the trust domain ${trustDomain.name}`);
    }
  }
  if (!bytesEqual(root.issuer, root.subject)) refuseAuthority('is given as a root and names another issuer');
  if (!root.x509.verify(root.publicKey.key))
    refuseAuthority('is given as a root and is not signed by itself');
  if (bytesEqual(root.spki, certificate.spki)) refuseAuthority('is given as root and as intermediate');
  if (root.pathLength === 0) refuseAuthority('is a root that permits no intermediate');
  if (!bytesEqual(certificate.issuer, root.subject)) refuseAuthority('is an intermediate of another root');
  if (certificate.authorityKeyId !== root.keyId) refuseAuthority("is an intermediate of another root's key");
  if (!certificate.x509.checkIssued(root.x509) || !certificate.x509.verify(root.publicKey.key)) {
    refuseAuthority('is an intermediate that its root did not sign');
  }
  if (certificate.notBefore < root.notBefore || certificate.notAfter > root.notAfter) {
    refuseAuthority('is an intermediate that outlives its root');
  }
}
