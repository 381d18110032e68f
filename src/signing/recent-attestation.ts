import type { Clock } from '../clock.ts';
import type { Attest, Attestation, UnixPeer } from '../identity/evidence.ts';

/**
 * An attestor that answers with what it found on the same connection within the last second, as long as the process
 * lives. A process that has become another one since gains nothing by it: what it was could have handed it a certificate
 * with its key in that very second.
 */
export function attestRecently(attest: Attest, clock: Clock): Attest {
  const known = new WeakMap<UnixPeer, { readonly atMs: number; readonly attestation: Attestation }>();
  return async (peer) => {
    const nowMs = clock.now().getTime();
    const last = known.get(peer);
    // A clock that was put back makes the age negative: as good as too old.
    const ageMs = last === undefined ? maxAgeMs : nowMs - last.atMs;
    if (last !== undefined && ageMs >= 0 && ageMs < maxAgeMs && peer.isAlive()) return last.attestation;
    known.delete(peer);
    const attestation = await attest(peer);
    known.set(peer, { atMs: nowMs, attestation });
    return attestation;
  };
}

const maxAgeMs = 1_000;
