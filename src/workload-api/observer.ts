import type { ErrorCode } from '../errors.ts';
import type { SecretContent } from '../identity/coverage.ts';
import type { UnixPeer } from '../identity/evidence.ts';

/** The calls of the Workload API. */
export type WorkloadCall = (typeof workloadCalls)[number];

/** Every call there is. */
export const workloadCalls = [
  'x509_svid',
  'x509_bundles',
  'jwt_svid',
  'jwt_bundles',
  'validate_jwt_svid',
] as const;

/** A certificate that is about to leave for a process, with the bundle that goes with it. */
export type X509Delivery = {
  readonly peer: UnixPeer;
  /** `workload-api` and the SPIFFE ID. */
  readonly name: string;
  readonly content: SecretContent;
  readonly at: Date;
};

/** Told what the door does, as it happens; must not throw and must not wait. */
export type WorkloadApiObserver = {
  readonly opened?: (call: WorkloadCall, peer: UnixPeer) => void;
  readonly closed?: (call: WorkloadCall, peer: UnixPeer) => void;
  /** Before the first byte of it is written, so that what arrives was told of. */
  readonly delivering?: (delivery: X509Delivery) => void;
  /** A message of a stream was written, or a call answered. */
  readonly answered?: (call: WorkloadCall) => void;
  /** A call was refused, or a stream ended with an error. */
  readonly failed?: (call: WorkloadCall, code: ErrorCode) => void;
};
