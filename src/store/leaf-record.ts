import { encodeEvent } from '../audit/canonical.ts';
import { auditColumns, certificateColumns, tokenColumns } from '../audit/columns.ts';
import type { AuditEvent } from '../audit/event.ts';
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
  };
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
