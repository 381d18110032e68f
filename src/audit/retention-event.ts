import type { Actor } from './event.ts';

/**
 * Contents that are kept no longer. Written before the first of them goes: what is missing without one was taken. Their
 * hashes stay, and with them every proof.
 */
export type RetentionEvent = {
  readonly type: 'retention';
  readonly time: Date;
  /** `pruned`: past the time they are kept. `shredded`: somebody asked for it. */
  readonly action: 'pruned' | 'shredded';
  /** `personal`: values beside the log; else entries of the log, of `types`. */
  readonly class: 'calls' | 'records' | 'personal';
  /** Indexes in the log, both included. Contents that are not of the class stay. */
  readonly first: number;
  readonly last: number;
  /** How many entries lose their contents, or values that they commit to. */
  readonly entries: number;
  /** How many values go; 0 for entries of the log. */
  readonly values: number;
  /** The types of events whose entries go; empty for personal values. */
  readonly types: readonly string[];
  /** What was pruned is older than this; null for what was shredded. */
  readonly olderThan: Date | null;
  /** What the shredded values were found by, never the value: `address`, `before`, `index`, `subject`. */
  readonly by: readonly string[];
  readonly reason: string;
  readonly actor: Actor;
};
