import type { WitnessState } from '../audit/gather.ts';

/** What `GET /v1/audit/witnesses` tells. Times are serialised as RFC 3339. */
export type WitnessReport = {
  /** Who cosigns our log; null when nobody is configured to. */
  readonly cosigned: {
    /** Entries of the latest checkpoint that a quorum has cosigned; null for none. */
    readonly size: number | null;
    /** Since when there is a later one that has no quorum; null while there is none. */
    readonly behindSince: Date | null;
    readonly witnesses: readonly WitnessState[];
  } | null;
  /** Whose logs we cosign; null when there are none. */
  readonly witness: {
    /** The key that verifies our cosignatures, as text. */
    readonly verifierKey: string;
    readonly logs: readonly {
      readonly origin: string;
      /** Entries of the latest that we have cosigned; null while it has not come. */
      readonly size: number | null;
      readonly cosignedAt: Date | null;
      /** Two checkpoints of one size that the log has signed with two roots, as it was caught; null when it was not. */
      readonly fork: { readonly seenAt: Date; readonly held: string; readonly other: string } | null;
    }[];
  } | null;
};
