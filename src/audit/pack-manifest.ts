/**
 * What an evidence pack says of itself. Nothing here is signed: whoever verifies a pack computes it again, and takes only
 * what is marked "stated" on the word of the server.
 */
export type PackManifest = {
  readonly format: typeof packFormat;
  /** The log, and the key that signs its checkpoints, `name+keyId+base64`. */
  readonly origin: string;
  readonly key: string;
  /** RFC 3339, by the clock of who made the pack; stated. */
  readonly madeAt: string;
  /** Records from `from` on and before `until`, by their own times; RFC 3339 in UTC with milliseconds. */
  readonly window: { readonly from: string; readonly until: string };
  /** The entries under the checkpoint; `root` is base64. */
  readonly log: { readonly size: number; readonly root: string };
  /** The entries that an older checkpoint covered, when one was given. */
  readonly since: { readonly size: number } | null;
  readonly population: {
    /** The types that were asked for. */
    readonly types: readonly string[];
    readonly records: number;
    readonly byType: Readonly<Record<string, number>>;
  };
  /** Calls that are counted and not listed; stated. Null when they are listed, or may not be read. */
  readonly calls: {
    /** By decisions. */
    readonly allowed: number;
    readonly denied: number;
    /** Those that proxies decided by themselves, as they tell; packs of earlier versions do not have them. */
    readonly byProxies?: { readonly allowed: number; readonly denied: number };
  } | null;
  readonly sample: {
    readonly algorithm: typeof sampleAlgorithm;
    /** 1 to 64 letters, digits, `.`, `_` and `-`. */
    readonly seed: string;
    readonly size: number;
    /** In the order in which they were drawn. */
    readonly indexes: readonly number[];
  };
  readonly coverage: {
    /** Records that tell of losses, and how many records they say were lost. */
    readonly losses: number;
    readonly lost: number;
    readonly starts: number;
    readonly stops: number;
  };
  /** SHA-256 of each file of the pack but this one and the page, lower-case hex. */
  readonly files: Readonly<Record<string, string>>;
};

/** Version 1 of the layout. */
export const packFormat = 'countersign-audit-pack/1';
/** A record's ticket is SHA-256 of the text `<seed>:<index>`; the lowest tickets are drawn. */
export const sampleAlgorithm = 'sha256(seed:index), lowest first';

/** The files of a pack by their names, as text. Proofs are `proofs/<index>.tlog-proof`. */
export type PackFiles = ReadonlyMap<string, string>;

/** The names of the files that every pack has, or may have. */
export const packNames = {
  manifest: 'manifest.json',
  checkpoint: 'checkpoint',
  population: 'population.jsonl',
  coverage: 'coverage.jsonl',
  since: 'since.checkpoint',
  consistency: 'since.proof',
  page: 'verify.html',
} as const;

/** One record of the log as a line of a pack has it. */
export type PackRecord = {
  readonly index: number;
  /** Lower-case hex. */
  readonly leafHash: string;
  /** The exact text of the leaf. */
  readonly leaf: string;
};

/** What one check of a pack found, in words for people. */
export type PackCheck = { readonly name: string; readonly ok: boolean; readonly words: string };

/** What a verifier says of a pack. */
export type PackReport = {
  /** `unkeyed`: all is as it should be, under a key that nobody has compared. */
  readonly verdict: 'proven' | 'unkeyed' | 'wrong';
  readonly checks: readonly PackCheck[];
  /** Null when it cannot be read. */
  readonly manifest: PackManifest | null;
  /** Those that were drawn, in that order. */
  readonly sample: readonly PackRecord[];
  /** Losses, starts and stops. */
  readonly coverage: readonly PackRecord[];
};
