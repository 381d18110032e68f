import { MeshError } from '../errors.ts';
import type { Attestation, Peer } from '../identity/evidence.ts';

/** What is known of callers in one turn of the event loop: as good as what would be seen again. */
export type Turn = {
  /**
   * Attests a caller that is alive. The streams of one process, over whatever connections, share what was seen of it in
   * this turn: who asks after it was seen has it at once.
   * @throws MeshError `attestation_failed`, and whatever attestation ends with; or the promise rejects with it
   */
  readonly attest: (peer: Peer) => Attestation | Promise<Attestation>;
  /** Whether a caller is alive: asked once in this turn for each connection, and after the attestation was made. */
  readonly isAlive: (peer: Peer, attestation: Attestation) => boolean;
};

/** @param attest asked once in a turn for each process, and finds out itself whether that is alive */
export function createTurn(attest: (peer: Peer) => Promise<Attestation>): Turn {
  const seen = new Map<Peer | string, Seen>();
  const alive = new Map<Attestation, Set<Peer>>();
  const forget = (): void => {
    seen.clear();
    alive.clear();
  };
  const plan = (): void => {
    if (seen.size === 0 && alive.size === 0) setImmediate(forget);
  };
  const isAlive = (peer: Peer, attestation: Attestation): boolean => {
    const known = alive.get(attestation);
    if (known?.has(peer) === true) return true;
    // INVARIANT: asked after it was seen. Whoever is alive now has had the pid all along, so that it was this one that was
    // seen.
    if (!peer.isAlive()) return false;
    plan();
    if (known === undefined) alive.set(attestation, new Set([peer]));
    else known.add(peer);
    return true;
  };
  const share = (peer: Peer, attestation: Attestation): Attestation => {
    if (!isAlive(peer, attestation)) throw new MeshError('attestation_failed', 'the caller has ended');
    return attestation;
  };
  const see = (peer: Peer, process: Peer | string): Promise<Attestation> => {
    const made = attest(peer);
    const one: Seen = { made, attestation: undefined };
    plan();
    seen.set(process, one);
    return made.then((attestation) => (one.attestation = attestation));
  };
  return {
    attest: (peer) => {
      const process = processOf(peer);
      const known = seen.get(process);
      if (known === undefined) return see(peer, process);
      if (known.attestation !== undefined) return share(peer, known.attestation);
      return known.made.then((attestation) => share(peer, attestation));
    },
    isAlive,
  };
}

type Seen = { readonly made: Promise<Attestation>; attestation: Attestation | undefined };

function processOf(peer: Peer): Peer | string {
  return peer.kind === 'unix' ? `${peer.pid} ${peer.uid} ${peer.gid}` : peer;
}
