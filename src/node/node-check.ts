import type { Clock } from '../clock.ts';
import { MeshError } from '../errors.ts';
import { type CertificateFault, createCertificateJudge } from '../grpc/tls-certificate.ts';
import type { TlsPeer } from '../grpc/tls-connections.ts';
import type { BanList } from '../identity/ban-list.ts';
import { type AttestedNode, mayShow, nodeNameOf } from '../identity/node.ts';
import type { TrustBundle } from '../spiffe/bundle.ts';
import type { TrustDomain } from '../spiffe/id.ts';
import type { X509SvidLeaf } from '../spiffe/svid.ts';

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
  const judge = createCertificateJudge({ bundle, clock });
  return (peer) => {
    const now = clock.now();
    const leaf = judge(peer);
    if (typeof leaf === 'string') return { refused: faults[leaf] };
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

const faults: Record<CertificateFault, string> = {
  missing: 'the client shows no certificate',
  unreadable: 'the certificate cannot be read as that of a node',
  untrusted: 'the certificate is not one of ours',
  expired: 'the certificate has expired',
};
