import type { Clock } from '../clock.ts';
import { MeshError } from '../errors.ts';
import type { TlsPeer } from '../grpc/tls-connections.ts';
import type { BanList } from '../identity/ban-list.ts';
import { type AttestedNode, mayShow, nodeNameOf } from '../identity/node.ts';
import type { TrustBundle } from '../spiffe/bundle.ts';
import type { TrustDomain } from '../spiffe/id.ts';
import { inspectChain } from '../spiffe/inspect-chain.ts';
import { checkX509SvidLeaf, type X509SvidLeaf } from '../spiffe/svid.ts';

/** A node that may be served, at this moment. */
export type NodePeer = {
  readonly node: AttestedNode;
  readonly leaf: X509SvidLeaf;
  readonly peer: TlsPeer;
};

/** Why a peer is not served; for the log, and for the peer itself, which holds the certificate. */
export type PeerRefusal = { readonly refused: string };

/** Judges a peer as of now: at every call, and again and again while a stream is open. */
export type CheckPeer = (peer: TlsPeer) => NodePeer | PeerRefusal;

export type CheckPeerParts = {
  readonly trustDomain: TrustDomain;
  readonly bundle: () => TrustBundle;
  readonly bans: () => BanList;
  readonly node: (name: string) => AttestedNode | undefined;
  readonly clock: Clock;
};

/**
 * A peer is a live node when its certificate chains to the bundle of this moment, is within its dates, names a node of
 * the trust domain, is one of those that the node may show, and neither node, serial nor key is banned.
 */
export function createCheckPeer({ trustDomain, bundle, bans, node: find, clock }: CheckPeerParts): CheckPeer {
  const judged = new WeakMap<TlsPeer, Judged>();
  return (peer) => {
    const now = clock.now();
    if (peer.certificates.length === 0) return { refused: 'the client shows no certificate' };
    let known = judged.get(peer);
    // Signatures are the costly part: proven once for each connection and bundle. Dates are looked at every time.
    if (known === undefined || known.bundle !== bundle()) {
      known = judge(peer, bundle(), now);
      judged.set(peer, known);
    }
    if ('refused' in known) return known;
    const { leaf } = known;
    if (now < known.from || now > known.until) return { refused: 'the certificate has expired' };
    const name = nodeNameOf(trustDomain, leaf.id);
    if (name === undefined) return { refused: 'the certificate is not that of a node' };
    const node = find(name);
    if (node === undefined || !mayShow(node, leaf.serial)) {
      return { refused: 'the node was evicted, or attested anew with another certificate' };
    }
    if (bans().find({ id: leaf.id, serial: leaf.serial, spkiSha256: leaf.spkiSha256 }, now) !== undefined) {
      return { refused: 'the node is banned' };
    }
    return { node, leaf, peer };
  };
}

/** @throws MeshError `node_refused` */
export function demandNode(judgement: NodePeer | PeerRefusal): NodePeer {
  if (!('refused' in judgement)) return judgement;
  throw new MeshError('node_refused', judgement.refused, {
    fix: 'attest the node again, for example with a new join token',
  });
}

type Judged =
  | {
      readonly bundle: TrustBundle;
      readonly leaf: X509SvidLeaf;
      readonly from: Date;
      readonly until: Date;
    }
  | { readonly bundle: TrustBundle; readonly refused: string };

function judge({ certificates }: TlsPeer, bundle: TrustBundle, now: Date): Judged {
  try {
    const [first] = certificates;
    const leaf = checkX509SvidLeaf(first ?? new Uint8Array(0));
    const { facts, broken } = inspectChain(certificates, { authorities: bundle.x509Authorities, at: now });
    if (broken.length > 0) {
      const isOver = facts.certificates.some(({ notAfter }) => notAfter < now);
      return {
        bundle,
        refused: isOver ? 'the certificate has expired' : 'the certificate is not one of ours',
      };
    }
    const path = [...facts.certificates, ...[facts.trust?.anchor ?? []].flat()];
    return {
      bundle,
      leaf,
      from: new Date(Math.max(...path.map(({ notBefore }) => notBefore.getTime()))),
      until: new Date(Math.min(...path.map(({ notAfter }) => notAfter.getTime()))),
    };
  } catch (error) {
    if (!(error instanceof MeshError)) throw error;
    return { bundle, refused: 'the certificate cannot be read as that of a node' };
  }
}
