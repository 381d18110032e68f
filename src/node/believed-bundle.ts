import type { TrustBundle } from '../spiffe/bundle.ts';

/** The bundle that an agent verifies its server with. */
export type BelievedBundle = {
  /** Null before the server has said anything. */
  readonly current: () => TrustBundle | null;
  /** One came with a certificate. */
  readonly withCertificate: (bundle: TrustBundle) => void;
  /** One is in the view that is in force from now on. @param isFirst of its stream */
  readonly withView: (bundle: TrustBundle, isFirst: boolean) => void;
};

/**
 * INVARIANT: while one server answers, it only ever gets newer: an answer that was overtaken on its way takes nothing
 * back. The first view of a stream is the server's word, whatever it said before: it may have been restored.
 * @param kept of an earlier process
 */
export function createBelievedBundle(kept: TrustBundle | null): BelievedBundle {
  let current = kept;
  const sequence = (): number => current?.sequence ?? -1;
  return {
    current: () => current,
    withCertificate: (bundle) => {
      if (bundle.sequence > sequence()) current = bundle;
    },
    withView: (bundle, isFirst) => {
      if (isFirst || bundle.sequence >= sequence()) current = bundle;
    },
  };
}
