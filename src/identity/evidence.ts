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
export type CallerEvidence = { readonly pid: number; readonly uid: number; readonly gid: number };

/** What attestation yields. A missing attestor adds no selectors; it never guesses. */
export type Attestation = {
  /** Sorted by text, without duplicates. */
  readonly selectors: readonly Selector[];
  readonly caller: CallerEvidence;
};

/**
 * Evidence to selectors; owned by the doors, implemented in attest/.
 * @throws MeshError `attestation_failed` when the process is gone or its pid now belongs to another
 */
export type Attest = (peer: UnixPeer) => Promise<Attestation>;
