import { MeshError } from '../errors.ts';
import { decodeBase64 } from '../spiffe/base64.ts';
import { type Checkpoint, openCheckpoint } from './checkpoint.ts';
import { verifyInclusion } from './merkle-proof.ts';
import { hashBytes } from './merkle-tree.ts';
import type { NoteKey } from './note.ts';

/** That an entry is in a log, for whoever has the log's key and nothing else. */
export type TlogProof = {
  readonly index: number;
  /** From the leaf to the root: at most 63 hashes of 32 bytes. */
  readonly path: readonly Uint8Array[];
  /** The signed note that has the root. */
  readonly checkpoint: string;
  /** What the log wants to say besides; ours gives the entry itself. Null for nothing. */
  readonly extra: Uint8Array | null;
};

/**
 * A proof as text, for a file that is called `.tlog-proof`.
 * @see https://c2sp.org/tlog-proof
 */
export function formatTlogProof({ index, path, checkpoint, extra }: TlogProof): string {
  const lines = [
    header,
    ...(extra === null ? [] : [`extra ${toBase64(extra)}`]),
    `index ${index}`,
    ...path.map(toBase64),
  ];
  return `${lines.join('\n')}\n\n${checkpoint}`;
}

/**
 * Reads such a file. Nothing of it is proven yet.
 * @throws MeshError `audit_note_invalid`
 */
export function parseTlogProof(text: string): TlogProof {
  if (text.length > maxLength) throw invalid(`is longer than ${maxLength} characters`);
  const end = text.indexOf('\n\n');
  const [first, ...lines] = text.slice(0, Math.max(0, end)).split('\n');
  if (end < 0 || first !== header) throw invalid(`does not begin with ${header}`);
  let extra: Uint8Array | null = null;
  if (lines[0]?.startsWith('extra ') === true) {
    extra = decodeBase64(lines.shift()?.slice('extra '.length) ?? '', 'base64') ?? null;
    if (extra === null) throw invalid('has extra data that is not base64');
  }
  const index = /^index (?<index>0|[1-9][0-9]{0,15})$/.exec(lines.shift() ?? '')?.groups?.['index'];
  if (index === undefined || !Number.isSafeInteger(Number(index))) throw invalid('names no index');
  if (lines.length > maxPath) throw invalid(`has more than ${maxPath} hashes`);
  const path = lines.map((line) => {
    const hash = decodeBase64(line, 'base64');
    if (hash?.length !== hashBytes) throw invalid('has a line that is no hash');
    return hash;
  });
  return { index: Number(index), path, checkpoint: text.slice(end + 2), extra };
}

/**
 * Proves that an entry is in the log that signs with a key.
 * @param leafHash of the entry
 * @returns the checkpoint it is proven under
 * @throws MeshError `audit_note_invalid`, `audit_signature_invalid`, `audit_proof_invalid`
 */
export function verifyTlogProof(proof: TlogProof, leafHash: Uint8Array, key: NoteKey): Checkpoint {
  const checkpoint = openCheckpoint(proof.checkpoint, key);
  const { index, path } = proof;
  if (verifyInclusion({ index, size: checkpoint.size, leafHash, path, root: checkpoint.root }))
    return checkpoint;
  throw new MeshError(
    'audit_proof_invalid',
    `the entry is not entry ${index} of the log of ${checkpoint.size} entries that the checkpoint is of`,
    { fix: 'compare the entry with what the log holds there: countersign audit prove' },
  );
}

function toBase64(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('base64');
}

function invalid(why: string): MeshError {
  return new MeshError('audit_note_invalid', `the proof ${why}`, {
    fix: 'take the file as countersign audit prove wrote it',
  });
}

const header = 'c2sp.org/tlog-proof@v1';
const maxPath = 63;
// An entry of 65,535 bytes in base64, the path, and a note.
const maxLength = 262_144;
