import type { ConsistencyProof, EntryProof } from '../audit/proof.ts';
import type { TileName } from '../audit/tile-path.ts';
import type { QuestionKind, Questions } from './protocol.ts';
import { type Write, type WitnessCalls, witnessCalls } from './witness-calls.ts';

/** What others verify the log with. All of it is under the latest checkpoint. */
export type LogReads = WitnessCalls & {
  /** As it was signed; null until somebody signs. */
  readonly auditCheckpoint: () => Promise<string | null>;
  /** Null for one that the checkpoint does not cover. */
  readonly auditTile: (tile: TileName) => Promise<Uint8Array | null>;
  /** @param isWitnessed under the latest checkpoint that a quorum has cosigned; null too while there is none */
  readonly proveEntry: (index: number, isWitnessed?: boolean) => Promise<EntryProof | null>;
  readonly proveConsistency: (from: number) => Promise<ConsistencyProof | null>;
};

export function logReads(
  ask: <K extends QuestionKind>(kind: K, about: Questions[K]['ask']) => Promise<Questions[K]['answer']>,
  write: Write,
): LogReads {
  return {
    auditCheckpoint: () => ask('auditCheckpoint', null),
    auditTile: (tile) => ask('auditTile', tile),
    proveEntry: (index, isWitnessed = false) => ask('auditProof', { index, isWitnessed }),
    proveConsistency: (from) => ask('auditConsistency', from),
    ...witnessCalls(ask, write),
  };
}
