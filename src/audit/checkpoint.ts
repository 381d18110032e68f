import { MeshError } from '../errors.ts';
import { decodeBase64 } from '../spiffe/base64.ts';
import { hashBytes } from './merkle-tree.ts';
import { checkKeyName, type NoteKey, type NoteSigner, openNote } from './note.ts';

/** What a log says of itself: so many entries, with this root. */
export type Checkpoint = {
  /** Which log: the name of its key. */
  readonly origin: string;
  /** A safe integer. */
  readonly size: number;
  /** 32 bytes. */
  readonly root: Uint8Array;
};

/**
 * A checkpoint as a signed note.
 * @see https://c2sp.org/tlog-checkpoint
 */
export function signCheckpoint(head: Omit<Checkpoint, 'origin'>, signer: NoteSigner): string {
  return signer.sign(`${signer.name}\n${head.size}\n${Buffer.from(head.root).toString('base64')}\n`);
}

/**
 * Opens a checkpoint that a log has signed. Others may have signed it too.
 * @param note as text
 * @throws MeshError `audit_note_invalid`, `audit_signature_invalid`
 */
export function openCheckpoint(note: string, key: NoteKey): Checkpoint {
  const checkpoint = parseCheckpoint(openNote(note, [key]).text);
  if (checkpoint.origin !== key.name) throw invalid('is of another log');
  return checkpoint;
}

/**
 * Reads the text of a checkpoint, of which one value has exactly one text. Our logs have no extension lines, so there
 * are none.
 * @throws MeshError `audit_note_invalid`
 */
export function parseCheckpoint(text: string): Checkpoint {
  const [, , , end, ...more] = text.split('\n');
  if (end !== '' || more.length > 0) throw invalid('does not have three lines');
  return parseForeignCheckpoint(text);
}

/**
 * The same of a log of others, which may have said more below the three lines: that is passed over.
 * @see https://c2sp.org/tlog-checkpoint
 * @throws MeshError `audit_note_invalid`
 */
export function parseForeignCheckpoint(text: string): Checkpoint {
  const [origin = '', size = '', root = '', ...more] = text.split('\n');
  if (more.pop() !== '' || more.includes('')) throw invalid('does not have three lines or more');
  checkKeyName(origin);
  if (!/^(0|[1-9][0-9]{0,15})$/.test(size) || !Number.isSafeInteger(Number(size))) {
    throw invalid('has a size that is none');
  }
  const bytes = decodeBase64(root, 'base64');
  if (bytes?.length !== hashBytes) throw invalid('has a root that is no hash');
  return { origin, size: Number(size), root: bytes };
}

function invalid(why: string): MeshError {
  return new MeshError('audit_note_invalid', `the checkpoint ${why}`, {
    fix: 'take it as the server gave it',
  });
}
