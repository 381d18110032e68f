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

/** Who a caller was, for the record: what the kernel said, and no more. */
export type CallerEvidence = {
  readonly pid: number;
  readonly uid: number;
  readonly gid: number;
  /** The node it runs on, when that is not the machine of the authority itself. */
  readonly node?: string;
};

/** What attestation yields. A missing attestor adds no selectors; it never guesses. */
export type Attestation = {
  /** Sorted by text, without duplicates. */
  readonly selectors: readonly Selector[];
  readonly caller: CallerEvidence;
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
  const texts = new Set(now.selectors.map(({ text }) => text));
  return before.selectors.every(({ text }) => texts.has(text));
}

/**
 * Evidence to selectors; owned by the doors, implemented in attest/.
 * @throws MeshError `attestation_failed` when the process is gone or its pid now belongs to another
 */
export type Attest = (peer: UnixPeer) => Promise<Attestation>;
