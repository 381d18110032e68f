import { setImmediate } from 'node:timers/promises';
import { encodeEvent } from '../audit/canonical.ts';
import { auditColumns, certificateColumns, tokenColumns } from '../audit/columns.ts';
import type { AuditEvent } from '../audit/event.ts';
import { rollupOf } from '../audit/rollup.ts';
import { hashBytes } from '../audit/merkle-tree.ts';
import { formatTlogProof } from '../audit/tlog-proof.ts';
import type { LeafRecord, WriteKept } from './protocol.ts';

/** An event as the writer takes it. @param randomBytes as `encodeEvent` takes it, also for what that throws */
export function leafRecord(event: AuditEvent, randomBytes: (count: number) => Uint8Array): LeafRecord {
  const { fitted, leaf, personal } = encodeEvent(event, randomBytes);
  // The columns are those of what is stored, not of what was said.
  return {
    leaf,
    personal,
    columns: auditColumns(fitted),
    certificate: certificateColumns(fitted),
    token: tokenColumns(fitted),
    rollup: rollupOf(fitted),
  };
}

/**
 * The same for many, in their order, and with a rest between some and the next: each takes some 30 µs, and calls that wait for
 * a decision must not wait for hundreds.
 */
export async function leafRecords(
  events: readonly AuditEvent[],
  randomBytes: (count: number) => Uint8Array,
): Promise<readonly LeafRecord[]> {
  const records: LeafRecord[] = [];
  for (const [at, event] of events.entries()) {
    if (at > 0 && at % eventsOfTurn === 0) await setImmediate();
    records.push(leafRecord(event, randomBytes));
  }
  return records;
}

/** The proof of a leaf that was alone in its request, with the leaf in it; null when the log is not signed. */
export function formatLeafProof({ leaf }: LeafRecord, { firstIndex, proofs }: WriteKept): string | null {
  const [proof] = proofs ?? [];
  if (proof === undefined) return null;
  const path = Array.from({ length: proof.path.length / hashBytes }, (_, at) =>
    proof.path.subarray(at * hashBytes, (at + 1) * hashBytes),
  );
  return formatTlogProof({ index: firstIndex, path, checkpoint: proof.checkpoint, extra: leaf });
}

const eventsOfTurn = 32;
