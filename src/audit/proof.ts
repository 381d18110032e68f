/** That an entry is in the log, under its latest checkpoint. Hashes have 32 bytes. */
export type EntryProof = {
  readonly index: number;
  /** The entry's exact bytes; null when they are kept no longer. */
  readonly leaf: Uint8Array | null;
  readonly leafHash: Uint8Array;
  /** Of the log under the checkpoint. */
  readonly size: number;
  /** The lowest first. */
  readonly path: readonly Uint8Array[];
  /** The signed note. */
  readonly checkpoint: string;
};

/** That the log under its latest checkpoint begins with what it was when it had `from` entries. */
export type ConsistencyProof = {
  readonly from: number;
  /** The root it had then. */
  readonly fromRoot: Uint8Array;
  readonly size: number;
  readonly path: readonly Uint8Array[];
  readonly checkpoint: string;
};
