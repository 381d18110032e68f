import { MeshError, quote } from '../errors.ts';
import { SpiffeId, type TrustDomain } from '../spiffe/id.ts';
import { reservedIds, reservedPath } from './entry-parse.ts';

/** How a node has proven which machine it is. */
export const attestationMethods = ['join_token', 'x509pop', 'k8s_psat'] as const;
export type AttestationMethod = (typeof attestationMethods)[number];

/** A machine that was attested. Immutable; each renewal makes the next value. */
export type AttestedNode = {
  /** The key: see {@link parseNodeName}. */
  readonly name: string;
  readonly method: AttestationMethod;
  /** What its attestor saw of it, as node-selector.ts has it: `k8s_psat:cluster:prod`. Sorted, without duplicates. */
  readonly selectors: readonly string[];
  readonly attestedAt: Date;
  /** When its latest certificate was made. */
  readonly renewedAt: Date;
  /** When that certificate ends. */
  readonly notAfter: Date;
  /**
   * The certificates it may show, two at most: the latest, and the one that was shown when the latest was made, for its
   * answer may have been lost. Empty while the first is being made.
   */
  readonly serials: readonly string[];
  /** From then on no certificate of it counts until it attests again; null when it was not evicted. */
  readonly evictedAt: Date | null;
};

/** A secret that lets one machine in, once. The secret itself is shown when it is made and never kept. */
export type JoinToken = {
  /** Public name, 16 lower-case hex digits. */
  readonly id: string;
  /** The name that the node will have. */
  readonly node: string;
  /** SHA-256 of the 32 bytes of the secret, lower-case hex. */
  readonly secretSha256: string;
  readonly createdAt: Date;
  readonly expiresAt: Date;
  readonly usedAt: Date | null;
};

/** The shortest, longest and usual life of a join token, in seconds. */
export const minJoinTokenSeconds = 60;
export const maxJoinTokenSeconds = 604_800;
export const defaultJoinTokenSeconds = 3_600;
/**
 * How long the certificate of a node lives; it is renewed at half of it. A node that comes by a join token cannot attest
 * again, so it survives an outage of half a day at least. Eviction and bans are judged at every call, whatever is left.
 */
export const nodeTtlSeconds = 86_400;

/**
 * Checks the name of a node: 1 to 128 of a-z 0-9 . - _, the first a letter or digit.
 * @throws MeshError `node_name_invalid`
 */
export function parseNodeName(text: string): string {
  if (!/^[a-z0-9][a-z0-9._-]{0,127}$/.test(text)) {
    throw new MeshError('node_name_invalid', `${quote(text)} is no name of a node`, {
      fix: 'use 1 to 128 of a-z 0-9 . - _ and begin with a letter or digit',
    });
  }
  return text;
}

/**
 * Checks a name that an operator chooses: those that attestors make are not for choosing.
 * @throws MeshError `node_name_invalid`
 */
export function parseChosenNodeName(text: string): string {
  const name = parseNodeName(text);
  if (attestorPrefixes.some((prefix) => name.startsWith(prefix))) {
    throw new MeshError('node_name_invalid', `names like ${quote(text)} are made by an attestor`, {
      fix: `choose one that does not begin with ${attestorPrefixes.join(' or ')}`,
    });
  }
  return name;
}

/** The name of the node whose machine certificate has this SHA-256, lower-case hex. */
export function x509popNodeName(certificateSha256: string): string {
  return parseNodeName(`x509pop-${certificateSha256}`);
}

/**
 * The name of a node of a Kubernetes cluster.
 * @param cluster what the server calls it, a DNS label
 * @param uid of the node object: always of one length, so that no two pairs have one name
 * @throws MeshError `node_name_invalid`
 */
export function kubernetesNodeName(cluster: string, uid: string): string {
  return parseNodeName(`k8s-${cluster}-${uid}`);
}

/** The SPIFFE ID of a node. */
export function nodeSpiffeId(trustDomain: TrustDomain, name: string): SpiffeId {
  return SpiffeId.parseWorkload(`${trustDomain.id}${nodePath}${parseNodeName(name)}`);
}

/** The name of the node that a SPIFFE ID belongs to; undefined when it is no node of the trust domain. */
export function nodeNameOf(trustDomain: TrustDomain, id: SpiffeId): string | undefined {
  if (!id.memberOf(trustDomain) || !id.path.startsWith(nodePath)) return undefined;
  const name = id.path.slice(nodePath.length);
  return /^[a-z0-9][a-z0-9._-]{0,127}$/.test(name) ? name : undefined;
}

/** Whether a certificate of this serial counts for the node. */
export function mayShow(node: AttestedNode | undefined, serial: string): boolean {
  return node !== undefined && node.evictedAt === null && node.serials.includes(serial);
}

/** SPIFFE IDs of nodes: below what is kept for Countersign itself, and yet subject to bans. */
export const nodePath = `${reservedPath}node/`;
/** How the ids begin under which certificates of nodes are issued; these entries are in no registry. */
export const nodeEntryPrefix = `${reservedIds}node.`;
const attestorPrefixes = ['x509pop-', 'k8s-'];
