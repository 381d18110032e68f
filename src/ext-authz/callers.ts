import type { Clock } from '../clock.ts';
import { MeshError } from '../errors.ts';
import type { Attest, Attestation, UnixPeer } from '../identity/evidence.ts';

/** The attestation of the process at the other end of a connection. */
export type Callers = {
  /**
   * What the caller was attested as, at most {@link CallersOptions.maxAgeMs} ago. Answers without waiting once a
   * connection is known.
   * @throws MeshError `attestation_failed` (also as a rejection) when the process has ended or cannot be attested
   */
  readonly attested: (peer: UnixPeer) => Attestation | Promise<Attestation>;
};

/** How connections are attested and how long that holds. */
export type CallersOptions = {
  readonly attest: Attest;
  readonly clock: Clock;
  /** From this age on an attestation is renewed behind the calls that use it. */
  readonly refreshMs?: number;
  /** From this age on it is not used any more: the next call waits for a new one. */
  readonly maxAgeMs?: number;
  /** Connections remembered at most, the longest unused forgotten first. */
  readonly capacity?: number;
};

type Known = { attestation: Attestation | undefined; at: number; pending: Promise<Attestation> | undefined };

/**
 * Attests once for each connection and again every `refreshMs`, so that a process that has become another (exec) loses
 * what it was. Whether the process still lives is asked before the first call of each turn of the event loop: the others of
 * that turn were sent before.
 */
export function createCallers(options: CallersOptions): Callers {
  const { attest, clock, refreshMs = 10_000, maxAgeMs = 30_000, capacity = 4_096 } = options;
  const known = new Map<string, Known>();
  /** Connections whose process lived in this turn. */
  const alive = new Set<string>();

  return {
    attested: (peer) => {
      if (!isAlive(peer)) {
        known.delete(peer.connectionId);
        throw new MeshError('attestation_failed', 'the process that opened the connection has ended');
      }
      const entry = recall(peer.connectionId);
      const age = clock.now().getTime() - entry.at;
      // A clock that went backwards makes the age negative: as good as too old.
      if (entry.attestation === undefined || age < 0 || age >= maxAgeMs) return renew(peer, entry);
      if (age >= refreshMs) renew(peer, entry).catch(() => {});
      return entry.attestation;
    },
  };

  function isAlive({ connectionId, isAlive }: UnixPeer): boolean {
    if (alive.has(connectionId)) return true;
    if (!isAlive()) return false;
    if (alive.size === 0) setImmediate(() => alive.clear());
    alive.add(connectionId);
    return true;
  }

  function recall(connectionId: string): Known {
    const entry = known.get(connectionId) ?? { attestation: undefined, at: 0, pending: undefined };
    known.delete(connectionId);
    known.set(connectionId, entry);
    if (known.size > capacity) {
      for (const oldest of known.keys()) {
        known.delete(oldest);
        break;
      }
    }
    return entry;
  }

  function renew(peer: UnixPeer, entry: Known): Promise<Attestation> {
    entry.pending ??= attestNow(peer, entry).finally(() => {
      entry.pending = undefined;
    });
    return entry.pending;
  }

  async function attestNow(peer: UnixPeer, entry: Known): Promise<Attestation> {
    const at = clock.now().getTime();
    try {
      entry.attestation = await attest(peer);
      entry.at = at;
      return entry.attestation;
    } catch (error) {
      // What could not be confirmed is not used on.
      entry.attestation = undefined;
      throw error;
    }
  }
}
