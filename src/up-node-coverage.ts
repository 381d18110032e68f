import type { Clock } from './clock.ts';
import type { IssuedCertificate, SecretContent } from './identity/coverage.ts';
import type { IssuedX509 } from './identity/issuer.ts';
import { type AttestedNode, nodePath, nodeSpiffeId } from './identity/node.ts';
import type { KeptTrust } from './identity/node-presence.ts';
import type { NodePeer } from './node/node-check.ts';
import type { NodeRegistry } from './node/node-registry.ts';
import { bundleSha256, type TrustBundle } from './spiffe/bundle.ts';
import type { TrustDomain } from './spiffe/id.ts';
import { checkX509Authority, type X509SvidLeaf } from './spiffe/svid.ts';
import type { KeptAuthority } from './up-authority.ts';
import type { Rotation } from './up-rotation.ts';

/** What the agents themselves count for in a rotation, each as one process beside those of its node. */
export type NodeCoverage = {
  /** A certificate leaves for a node that has attested: whoever had its name before is not spoken for any more. */
  readonly attested: (node: AttestedNode, issued: IssuedX509) => void;
  /** A certificate leaves for a node that has another. */
  readonly renewed: (node: AttestedNode, issued: IssuedX509) => void;
  /** An agent says what it goes by. Its latest word counts, and only as far as it fits what the server knows itself. */
  readonly keeps: (peer: NodePeer, kept: KeptTrust) => void;
};

export function createNodeCoverage(parts: {
  readonly note: Rotation['note'];
  readonly authority: Pick<KeptAuthority, 'bundle' | 'stored'>;
  readonly clock: Clock;
}): NodeCoverage {
  const { note, authority, clock } = parts;
  const digestOf = createDigest();
  // What each has said last, so that saying it again is no work. Bounded by the nodes there are.
  const last = new Map<string, { readonly what: string; readonly atMs: number }>();
  const sent = (node: AttestedNode, issued: IssuedX509): void => {
    const { serial, issuerKeyId, notAfter } = issued;
    const { trustDomain } = authority.bundle();
    const spiffeId = nodeSpiffeId(trustDomain, node.name).text;
    last.delete(node.name);
    note(
      false,
      clientOf(node.name),
      certificateName,
      { kind: 'svid', spiffeId, serial, issuerKeyId, notAfter },
      clock.now(),
    );
  };
  /** 0, which is before the first, unless it is ours. */
  const sequenceOf = ({ bundleSequence, bundleSha256: said }: KeptTrust): number => {
    const bundle = authority.bundle();
    if (bundleSequence > bundle.sequence) return 0;
    return bundleSequence < bundle.sequence || said === digestOf(bundle) ? bundleSequence : 0;
  };
  return {
    attested: (node, issued) => {
      note(true, clientOf(node.name), trustName, { kind: 'bundle', sequence: 0 }, clock.now());
      sent(node, issued);
    },
    renewed: sent,
    keeps: ({ node, leaf }, kept) => {
      const [at, sequence] = [clock.now(), sequenceOf(kept)];
      // INVARIANT: a certificate takes the place of all others only when it is the latest, is shown on this very
      // connection, and the one before it can come back from no cache.
      const isInUse = kept.serial === leaf.serial && node.serials[0] === leaf.serial;
      const what = `${sequence} ${isInUse ? leaf.serial : ''}`;
      const before = last.get(node.name);
      if (before?.what === what && Math.abs(at.getTime() - before.atMs) < sameAgainMs) return;
      last.set(node.name, { what, atMs: at.getTime() });
      note(true, clientOf(node.name), trustName, { kind: 'bundle', sequence }, at);
      if (isInUse) note(true, clientOf(node.name), certificateName, contentOf(leaf, authority), at);
    },
  };
}

/**
 * Whether a certificate is one of a node that nobody can use any more, though it has not ended: the node was evicted, or
 * has a later one and may not show this one. One that is just being made is none.
 */
export function isOverForNode(
  trustDomain: TrustDomain,
  find: NodeRegistry['find'],
  { spiffeId, serial, notAfter }: Pick<IssuedCertificate, 'spiffeId' | 'serial' | 'notAfter'>,
): boolean {
  const path = `${trustDomain.id}${nodePath}`;
  const node = spiffeId.startsWith(path) ? find(spiffeId.slice(path.length)) : undefined;
  if (node === undefined) return false;
  return node.evictedAt !== null || (notAfter < node.notAfter && !node.serials.includes(serial));
}

/** Nobody else can be this process: what agents tell of others has a pid that is none of below 0. */
function clientOf(host: string) {
  return { uid: 0, pid: -1, node: 'agent', host };
}

function contentOf(leaf: X509SvidLeaf, authority: Pick<KeptAuthority, 'stored'>): SecretContent {
  const issuers = authority
    .stored()
    .filter(
      ({ kind, certificate }) =>
        kind === 'intermediate' && checkX509Authority(certificate).subjectKeyId === leaf.authorityKeyId,
    );
  return {
    kind: 'svid',
    spiffeId: leaf.id.text,
    serial: leaf.serial,
    // That of nobody known may be any.
    issuerKeyId: (issuers.length === 1 && leaf.authorityKeyId !== undefined && issuers[0]?.keyId) || '',
    notAfter: leaf.notAfter,
  };
}

/** Of a bundle that thousands ask for. */
function createDigest(): (bundle: TrustBundle) => string {
  const known = new WeakMap<TrustBundle, string>();
  return (bundle) => {
    let digest = known.get(bundle);
    if (digest === undefined) known.set(bundle, (digest = bundleSha256(bundle)));
    return digest;
  };
}

const certificateName = 'node';
const trustName = 'trust';
// Said again, it only tells that the node is still there.
const sameAgainMs = 600_000;
