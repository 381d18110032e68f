import type { Clock } from '../clock.ts';
import { MeshError } from '../errors.ts';
import { decodeBase64 } from '../spiffe/base64.ts';
import { type Checkpoint, parseForeignCheckpoint } from './checkpoint.ts';
import type { Cosigner } from './cosignature.ts';
import { verifyConsistency } from './merkle-proof.ts';
import { emptyRoot, hashBytes } from './merkle-tree.ts';
import { type NoteKey, openNote, readNote } from './note.ts';

/** What a witness remembers of a log: the latest checkpoint that it has cosigned. */
export type HeldCheckpoint = Checkpoint & {
  /** Signed by the log, then cosigned by us. */
  readonly note: string;
  readonly cosignedAt: Date;
};

/** What a witness answers; a refusal is a value. */
export type WitnessAnswer =
  /** Lines that go below the checkpoint. */
  | { readonly kind: 'cosigned'; readonly lines: string }
  /** It is no request, or its old size is larger than that of the checkpoint. */
  | { readonly kind: 'malformed'; readonly why: string }
  /** A log that we do not witness. */
  | { readonly kind: 'unknown_log' }
  /** The log has not signed it, or its signature is wrong. */
  | { readonly kind: 'unsigned' }
  /** The old size is not that of the latest that we have cosigned. */
  | { readonly kind: 'conflict'; readonly size: number }
  /** It does not go on from what we have cosigned, or nothing shows that it does. */
  | { readonly kind: 'inconsistent' };

/** Two checkpoints of one size with two roots, both signed by their log: proof that it shows two histories. */
export type Fork = { readonly origin: string; readonly held: string; readonly other: string };

/** What a witness needs of the house. */
export type WitnessPorts = {
  /** The keys of the logs that are witnessed; the name of each is the origin of its log. */
  readonly logs: readonly NoteKey[];
  readonly cosigner: Cosigner;
  /** Null for a log that has not come yet. */
  readonly held: (origin: string) => Promise<HeldCheckpoint | null>;
  /**
   * Keeps a checkpoint durably, in one step with the check that `from` is still the size that is held (null: none).
   * @returns false when it is not; then nothing is kept
   */
  readonly keep: (next: HeldCheckpoint, from: number | null) => Promise<boolean>;
  readonly reportFork: (fork: Fork) => void;
  readonly clock: Clock;
};

/** A witness: cosigns checkpoints of logs, each of which goes on from the one before. */
export type Witness = {
  /** @param body of an add-checkpoint request */
  readonly addCheckpoint: (body: Uint8Array) => Promise<WitnessAnswer>;
};

/**
 * A witness of logs. INVARIANT: of one log it cosigns one root for a size, and no size that is smaller than one before:
 * `keep` holds that, whatever comes at once. What was not kept is not answered.
 * @see https://c2sp.org/tlog-witness
 */
export function createWitness({ logs, cosigner, held, keep, reportFork, clock }: WitnessPorts): Witness {
  return {
    addCheckpoint: async (body) => {
      const request = readRequest(body);
      if ('kind' in request) return request;
      const { oldSize, proof, text, next } = request;
      const keys = logs.filter(({ name }) => name === next.origin);
      if (keys.length === 0) return { kind: 'unknown_log' };
      const signed = signedBy(request.note, keys);
      if (signed === undefined) return { kind: 'unsigned' };
      if (oldSize > next.size) return malformed('the old size is larger than that of the checkpoint');
      const last = await held(next.origin);
      const isSame = last?.size === next.size && isEqual(last.root, next.root);
      report(last, next, signed);
      if (oldSize !== (last?.size ?? 0)) return { kind: 'conflict', size: last?.size ?? 0 };
      if (!goesOn(last, next, proof)) return { kind: 'inconsistent' };
      const now = clock.now();
      if (isSame && isRecent(last, now) && last.note.startsWith(`${text}\n`)) {
        // Whoever repeats what anybody can read makes us neither sign nor write.
        return { kind: 'cosigned', lines: lastLine(last.note) };
      }
      const lines = cosigner.cosign(text, now);
      const kept = { ...next, note: `${signed}${lines}`, cosignedAt: now };
      if (await keep(kept, last?.size ?? null)) return { kind: 'cosigned', lines };
      const other = await held(next.origin);
      report(other, next, signed);
      return { kind: 'conflict', size: other?.size ?? 0 };
    },
  };

  function report(known: HeldCheckpoint | null, next: Checkpoint, other: string): void {
    if (known?.size !== next.size || isEqual(known.root, next.root)) return;
    reportFork({ origin: next.origin, held: known.note, other });
  }
}

type Request = {
  readonly oldSize: number;
  readonly proof: readonly Uint8Array[];
  readonly note: string;
  /** Of the note: what is cosigned. */
  readonly text: string;
  readonly next: Checkpoint;
};

function readRequest(body: Uint8Array): Request | WitnessAnswer {
  let text: string;
  try {
    text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(body);
  } catch {
    return malformed('the body is not UTF-8');
  }
  const end = text.indexOf('\n\n');
  const [first = '', ...lines] = text.slice(0, Math.max(0, end)).split('\n');
  const size = /^old (?<size>0|[1-9][0-9]{0,15})$/.exec(first)?.groups?.['size'];
  if (end < 0 || size === undefined || !Number.isSafeInteger(Number(size))) {
    return malformed('the body does not begin with a line of the old size');
  }
  if (lines.length > maxProofLines) return malformed(`the proof has more than ${maxProofLines} lines`);
  const proof: Uint8Array[] = [];
  for (const line of lines) {
    const hash = decodeBase64(line, 'base64');
    if (hash?.length !== hashBytes) return malformed('a line of the proof is no hash');
    proof.push(hash);
  }
  const note = text.slice(end + 2);
  try {
    const { text: signed } = readNote(note);
    return { oldSize: Number(size), proof, note, text: signed, next: parseForeignCheckpoint(signed) };
  } catch (error) {
    if (error instanceof MeshError) return malformed(error.message);
    throw error;
  }
}

/** The note with the signatures of its log and no others; undefined when there is none, or a wrong one. */
function signedBy(note: string, keys: readonly NoteKey[]): string | undefined {
  try {
    const lines = readNote(note)
      .signatures.filter(({ name, keyId }) => keys.some((key) => key.name === name && key.keyId === keyId))
      .map(({ line }) => `${line}\n`);
    const own = [...new Set(lines)];
    // Each is verified on the thread that decides about calls. A log signs once with each of its keys.
    if (own.length > keys.length) return undefined;
    return `${openNote(note, keys).text}\n${own.join('')}`;
  } catch (error) {
    if (error instanceof MeshError) return undefined;
    throw error;
  }
}

function goesOn(last: Checkpoint | null, next: Checkpoint, path: readonly Uint8Array[]): boolean {
  if (next.size === 0 && !isEqual(next.root, emptyRoot)) return false;
  const from = last ?? { size: 0, root: emptyRoot };
  return verifyConsistency({
    from: from.size,
    to: next.size,
    fromRoot: from.root,
    toRoot: next.root,
    path,
  });
}

/** A clock that was put back makes it not recent: then it is signed anew. */
function isRecent({ cosignedAt }: HeldCheckpoint, now: Date): boolean {
  const ageMs = now.getTime() - cosignedAt.getTime();
  return ageMs >= 0 && ageMs < repeatMs;
}

function lastLine(note: string): string {
  return note.slice(note.lastIndexOf('\n', note.length - 2) + 1);
}

function isEqual(a: Uint8Array, b: Uint8Array): boolean {
  return Buffer.compare(a, b) === 0;
}

function malformed(why: string): WitnessAnswer {
  return { kind: 'malformed', why };
}

const maxProofLines = 63;
const repeatMs = 60_000;
