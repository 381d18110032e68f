import { MeshError } from '../errors.ts';
import type { SpiffeId } from '../spiffe/id.ts';
import type { Selector } from './selector.ts';

/** A process at the other end of a Unix connection, as the kernel described it when it connected. */
export type UnixPeer = {
  readonly kind: 'unix';
  /** Unique per connection within this process; names the connection in logs and events. */
  readonly connectionId: string;
  readonly pid: number;
  readonly uid: number;
  readonly gid: number;
  /** False once the process that connected has ended, even when its pid has been given to another process. */
  readonly isAlive: () => boolean;
};

/** A certificate of ours that somebody has shown, with the proof that they hold its key. */
export type PresentedCertificate = {
  readonly id: SpiffeId;
  /** Lower-case hex. */
  readonly serial: string;
  /** SHA-256 of its SubjectPublicKeyInfo, lower-case hex. */
  readonly spkiSha256: string;
  /** DER, the one that was shown first, then what issued it. */
  readonly certificates: readonly Uint8Array[];
};

/** Whoever is at the other end of a TLS connection. Nobody has seen its process: pid, uid and gid are zero. */
export type CertifiedPeer = {
  readonly kind: 'certified';
  /** As {@link UnixPeer.connectionId}. */
  readonly connectionId: string;
  readonly pid: 0;
  readonly uid: 0;
  readonly gid: 0;
  /** False once what it has shown does not count any more. */
  readonly isAlive: () => boolean;
  readonly presented: PresentedCertificate;
};

/** A caller of a door that serves both. */
export type Peer = UnixPeer | CertifiedPeer;

/** On whose account a caller's streams and noise go. */
export function accountOf(peer: Peer): string {
  return peer.kind === 'unix' ? `uid ${peer.uid}` : peer.presented.id.text;
}

/** Who a caller was, for the record: what the kernel said, and no more. */
export type CallerEvidence = {
  readonly pid: number;
  readonly uid: number;
  readonly gid: number;
  /** The node it runs on, when that is not the machine of the authority itself. */
  readonly node?: string;
  /** The serial of the certificate that the agent of that node showed, lower-case hex. */
  readonly nodeCertificate?: string;
  /** The serial of the certificate it has shown, lower-case hex, where nobody has seen its process. */
  readonly certificate?: string;
};

/** What attestation yields. A missing attestor adds no selectors; it never guesses. */
export type Attestation = {
  /** Sorted by text, without duplicates. */
  readonly selectors: readonly Selector[];
  readonly caller: CallerEvidence;
  /** What it is known by in place of selectors, which are none then. */
  readonly presented?: PresentedCertificate;
  /** Whether, by now, some entry names a kind of selector that nobody looked for when this was made. */
  readonly lacks?: () => boolean;
  /** When a source that did not answer is worth another question; null, or not there, when all answered. */
  readonly retryAt?: Date | null;
};

/**
 * Whether all that was attested of a caller is attested still. What has been found besides takes nothing back: more
 * selectors never match less.
 */
export function stillHolds(before: Attestation, now: Attestation): boolean {
  if (before.presented?.serial !== now.presented?.serial) return false;
  const texts = new Set(now.selectors.map(({ text }) => text));
  return before.selectors.every(({ text }) => texts.has(text));
}

/**
 * Evidence to selectors; owned by the doors, implemented in attest/.
 * @throws MeshError `attestation_failed` when the process is gone or its pid now belongs to another
 */
export type Attest = (peer: UnixPeer) => Promise<Attestation>;

/** The same for callers that have shown a certificate. @throws MeshError as whoever judges it says */
export type AttestCertified = (peer: CertifiedPeer) => Promise<Attestation>;

/** One for both kinds of callers; whoever no attestor is given for is refused. */
export function attestEither(attest: Attest, attestCertified: AttestCertified | undefined) {
  return async (peer: Peer): Promise<Attestation> => {
    if (peer.kind === 'unix') return attest(peer);
    if (attestCertified !== undefined) return attestCertified(peer);
    throw new MeshError('attestation_failed', 'no process is known at the other end');
  };
}
