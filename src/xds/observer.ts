import type { SecretContent } from '../identity/coverage.ts';
import type { Peer } from '../identity/evidence.ts';

/** Which stream something happened on. `nodeId` is what the proxy calls itself: for the record, never for a decision. */
export type StreamIdentity = { readonly peer: Peer; readonly nodeId: string };

/** A secret that a proxy has taken into use. */
export type Acknowledgement = StreamIdentity & {
  readonly name: string;
  /** The version of this one resource: follows from its content. */
  readonly version: string;
  readonly content?: SecretContent;
  readonly at: Date;
};

/** A secret that is about to leave for a proxy. */
export type Delivery = StreamIdentity & {
  readonly name: string;
  readonly content?: SecretContent;
  readonly at: Date;
};

/** Told what the streams do, as it happens; must not throw and must not wait. */
export type SdsObserver = {
  readonly opened?: (peer: Peer) => void;
  readonly closed?: (peer: Peer) => void;
  /** Before the first byte of it is written, so that what arrives was told of. */
  readonly delivering?: (delivery: Delivery) => void;
  readonly pushed?: (
    push: StreamIdentity & { readonly names: readonly string[]; readonly version: string },
  ) => void;
  readonly acknowledged?: (acknowledgement: Acknowledgement) => void;
  /** A proxy that refuses what it is sent keeps its last good secret, which will expire. `message` is its own text. */
  readonly rejected?: (
    rejection: StreamIdentity & { readonly names: readonly string[]; readonly message: string },
  ) => void;
};
