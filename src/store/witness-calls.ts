import type { AuditEvent } from '../audit/event.ts';
import type { Fork, HeldCheckpoint } from '../audit/witness.ts';
import { MeshError } from '../errors.ts';
import type { QuestionKind, Questions, StoreChange } from './protocol.ts';
import type { StoredFork } from './witness-table.ts';

/** What witnesses have cosigned: of our log, and we of others. */
export type WitnessCalls = {
  /** The latest checkpoint that we have cosigned for a log; null while there is none. */
  readonly heldCheckpoint: (origin: string) => Promise<HeldCheckpoint | null>;
  readonly heldCheckpoints: () => Promise<readonly HeldCheckpoint[]>;
  /**
   * Keeps the latest that we cosign, in one transaction with the check that one of `from` entries is held (null: none).
   * @returns false when it is not; then nothing is kept
   */
  readonly keepHeld: (next: HeldCheckpoint, from: number | null) => Promise<boolean>;
  /** Of each log that was caught with two histories, the first proof. */
  readonly forks: () => Promise<readonly StoredFork[]>;
  readonly keepFork: (fork: Fork, now: Date) => Promise<void>;
  /** The latest checkpoint of our log that a quorum has cosigned; null while there is none. */
  readonly witnessedCheckpoint: () => Promise<string | null>;
  readonly keepWitnessed: (size: number, note: string) => Promise<void>;
  /** The hashes that show that our log of `to` entries begins with its first `from`; null when it has not as many. */
  readonly proveGrowth: (from: number, to: number) => Promise<readonly Uint8Array[] | null>;
};

/** Writes a change and its events in one transaction. */
export type Write = (change: StoreChange, events: readonly AuditEvent[]) => Promise<number>;

export function witnessCalls(
  ask: <K extends QuestionKind>(kind: K, about: Questions[K]['ask']) => Promise<Questions[K]['answer']>,
  write: Write,
): WitnessCalls {
  return {
    heldCheckpoint: (origin) => ask('held', origin),
    heldCheckpoints: () => ask('allHeld', null),
    keepHeld: async (next, from) => {
      try {
        await write({ kind: 'held', next, from }, []);
        return true;
      } catch (error) {
        if (error instanceof MeshError && error.code === 'revision_conflict') return false;
        throw error;
      }
    },
    forks: () => ask('forks', null),
    keepFork: async (fork, now) => {
      await write({ kind: 'fork', fork, seenMs: now.getTime() }, []);
    },
    witnessedCheckpoint: () => ask('witnessed', null),
    keepWitnessed: async (size, note) => {
      await write({ kind: 'witnessed', size, note }, []);
    },
    proveGrowth: (from, to) => ask('growth', { from, to }),
  };
}
