import type { ReadCalls } from '../audit/calls-question.ts';
import type { CountPage, CountQuery } from '../audit/count.ts';
import type { ConsistencyProof, EntryProof } from '../audit/proof.ts';
import type { AuditPage, AuditQuery } from '../audit/query.ts';
import type { ReadSample } from '../audit/sample.ts';
import type { TileName } from '../audit/tile-path.ts';
import { type LogRetention, logRetention } from './log-retention.ts';
import type { QuestionKind, Questions } from './protocol.ts';
import { type WitnessCalls, witnessCalls, type Write } from './witness-calls.ts';

/** What the log is asked, what others verify it with, who witnesses it, and what goes of it. All of it is under the latest checkpoint. */
export type LogReads = LogRetention &
  WitnessCalls & {
    /** One step of a search: see `collectPage`. @throws MeshError `audit_cursor_invalid` */
    readonly queryAudit: (query: AuditQuery) => Promise<AuditPage>;
    /** One step of counting: see `collectCounts`. @throws MeshError `audit_cursor_invalid` */
    readonly countAudit: (query: CountQuery) => Promise<CountPage>;
    /** One step of drawing a sample: see `collectSample`. */
    readonly sampleAudit: ReadSample;
    /** One step through recorded calls, from the newest to the oldest. */
    readonly readCalls: ReadCalls;
    /** As it was signed; null until somebody signs. */
    readonly auditCheckpoint: () => Promise<string | null>;
    /** Null for one that the checkpoint does not cover. */
    readonly auditTile: (tile: TileName) => Promise<Uint8Array | null>;
    /** What is left of a bundle that has lost contents: nothing stands for what is gone. Null for any other. */
    readonly auditRemains: (tile: TileName) => Promise<Uint8Array | null>;
    /** @param isWitnessed under the latest checkpoint that a quorum has cosigned; null too while there is none */
    readonly proveEntry: (index: number, isWitnessed?: boolean) => Promise<EntryProof | null>;
    readonly proveConsistency: (from: number) => Promise<ConsistencyProof | null>;
  };

export function logReads(
  ask: <K extends QuestionKind>(kind: K, about: Questions[K]['ask']) => Promise<Questions[K]['answer']>,
  write: Write,
  fold: () => Promise<unknown>,
): LogReads {
  return {
    ...logRetention(ask, write, fold),
    queryAudit: (query) => ask('auditPage', query),
    countAudit: (query) => ask('auditCount', query),
    sampleAudit: (query) => ask('auditSample', query),
    readCalls: (query) => ask('recordedCalls', query),
    auditCheckpoint: () => ask('auditCheckpoint', null),
    auditTile: (tile) => ask('auditTile', tile),
    auditRemains: (tile) => ask('auditRemains', tile),
    proveEntry: (index, isWitnessed = false) => ask('auditProof', { index, isWitnessed }),
    proveConsistency: (from) => ask('auditConsistency', from),
    ...witnessCalls(ask, write),
  };
}
