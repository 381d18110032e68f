import { createHash, createPublicKey, type KeyObject, sign, verify } from 'node:crypto';
import { MeshError, quote } from '../errors.ts';
import { decodeBase64 } from '../spiffe/base64.ts';

/** A key that verifies notes: whose it is, and what it is. */
export type NoteKey = {
  /** 1 to 255 bytes of UTF-8 without spaces and without `+`. */
  readonly name: string;
  /** 8 lower-case hex digits: the first 4 bytes of SHA-256(name || 0x0A || 0x01 || key). */
  readonly keyId: string;
  readonly publicKey: KeyObject;
};

/** Signs notes. Nothing gives the bytes of its key back. */
export type NoteSigner = {
  /** The key that verifies them, as text: `name+keyId+base64`. */
  readonly verifierKey: string;
  readonly name: string;
  /**
   * @param text UTF-8 that ends with a line break and has no other control character
   * @returns the note: the text, an empty line and the signature
   */
  readonly sign: (text: string) => string;
};

/**
 * A signer of notes.
 * @throws MeshError `audit_note_invalid` when the name cannot be one, or the key is not Ed25519
 * @see https://c2sp.org/signed-note
 */
export function createNoteSigner(name: string, privateKey: KeyObject): NoteSigner {
  checkKeyName(name);
  if (privateKey.type !== 'private' || privateKey.asymmetricKeyType !== 'ed25519') {
    throw invalid('the key that signs notes is not Ed25519');
  }
  const raw = rawKey(createPublicKey(privateKey));
  const head = Buffer.from(keyIdOf(name, raw, ed25519Type), 'hex');
  return Object.freeze({
    verifierKey: formatKeyText(name, raw, ed25519Type),
    name,
    sign: (text: string) => {
      if (!isText(text)) throw new MeshError('internal', 'the text of a note is none');
      const signature = sign(null, Buffer.from(text), privateKey);
      return `${text}\n${mark}${name} ${Buffer.concat([head, signature]).toString('base64')}\n`;
    },
  });
}

/**
 * Reads a verifier key, `name+keyId+base64`. Its name and key must give the ID it states.
 * @throws MeshError `audit_note_invalid`
 */
export function parseVerifierKey(text: string): NoteKey {
  return parseKeyText(text, ed25519Type);
}

/**
 * Reads the text of a key of one type.
 * @param type 0x01 of Ed25519 that signs notes, 0x04 of Ed25519 that cosigns checkpoints
 * @throws MeshError `audit_note_invalid`
 */
export function parseKeyText(text: string, type: KeyType): NoteKey {
  // The base64 may hold a plus sign too.
  const match = /^(?<name>[^+]+)\+(?<keyId>[0-9a-f]{8})\+(?<key>[A-Za-z0-9+/]+=*)$/.exec(text)?.groups;
  if (match === undefined || text.length > maxKeyText) throw notAKey('it is not name+keyId+base64');
  const { name = '', keyId = '', key = '' } = match;
  checkKeyName(name);
  const bytes = decodeBase64(key, 'base64');
  if (bytes === undefined || bytes.length !== 1 + rawKeyBytes || bytes[0] !== type) {
    throw notAKey(`it holds no Ed25519 key of type ${type}`);
  }
  const raw = bytes.subarray(1);
  if (keyIdOf(name, raw, type) !== keyId) throw notAKey('its ID is that of another name or key');
  const publicKey = createPublicKey({
    key: Buffer.concat([spkiHead, raw]),
    format: 'der',
    type: 'spki',
  });
  return { name, keyId, publicKey };
}

/** A note that somebody known has signed. */
export type OpenedNote = {
  /** With its last line break. */
  readonly text: string;
  /** Those of the given keys that have signed it: one at least. */
  readonly signedBy: readonly NoteKey[];
};

/**
 * Opens a note: at least one of the keys has signed it. Signatures of others are passed over; a wrong one under a given
 * key refuses the whole note, whoever else signed it.
 * @param note at most 65,536 bytes
 * @throws MeshError `audit_note_invalid` when it is none, `audit_signature_invalid` when no key has signed it, or a
 *   signature is wrong
 * @see https://c2sp.org/signed-note
 */
export function openNote(note: string, keys: readonly NoteKey[]): OpenedNote {
  const { text, signatures } = readNote(note);
  const signedBy = new Set<NoteKey>();
  const lines = new Set<string>();
  for (const { name, keyId, signature, line } of signatures) {
    const key = keys.find((known) => known.name === name && known.keyId === keyId);
    // Whoever repeats a line that is right makes nobody verify it again.
    if (key === undefined || lines.has(line)) continue;
    lines.add(line);
    if (signature.length !== signatureBytes || !verify(null, Buffer.from(text), key.publicKey, signature)) {
      throw wrongSignature(name, keyId);
    }
    signedBy.add(key);
  }
  if (signedBy.size === 0) {
    const names = signatures.map(({ name, keyId }) => quote(`${name}+${keyId}`)).slice(0, 3);
    throw new MeshError(
      'audit_signature_invalid',
      `the note is signed by ${names.join(', ')} and by no known key`,
      {
        fix: 'give the verifier key of the log that it is from: countersign audit key prints it',
      },
    );
  }
  return { text, signedBy: [...signedBy] };
}

/** A line below a note, of whatever kind. Nothing of it is proven. */
export type NoteSignature = {
  readonly name: string;
  /** 8 lower-case hex digits. */
  readonly keyId: string;
  /** What follows the ID; one byte at least. */
  readonly signature: Uint8Array;
  /** The line as it stood there, without its line break. */
  readonly line: string;
};

/**
 * Reads a note without proving anything of it.
 * @param note at most 65,536 bytes, with at most 100 signatures
 * @throws MeshError `audit_note_invalid`
 */
export function readNote(note: string): {
  readonly text: string;
  readonly signatures: readonly NoteSignature[];
} {
  if (note.length > maxNoteLength) throw invalid(`the note is longer than ${maxNoteLength} characters`);
  const end = note.lastIndexOf('\n\n');
  const text = note.slice(0, end + 1);
  const lines = note.slice(end + 2);
  if (end < 0 || !isText(text)) throw invalid('the note is not text, an empty line and signatures');
  if (!lines.endsWith('\n')) throw invalid('the note does not end with a line of a signature');
  const signatures = lines.slice(0, -1).split('\n').map(parseSignature);
  if (signatures.length > maxSignatures) throw invalid(`the note has more than ${maxSignatures} signatures`);
  return { text, signatures };
}

/** The error for a signature of a known key that is not right. */
export function wrongSignature(name: string, keyId: string): MeshError {
  return new MeshError('audit_signature_invalid', `the signature of ${quote(`${name}+${keyId}`)} is wrong`, {
    fix: 'the text was changed after it was signed: keep it for the auditor',
  });
}

/**
 * Checks the name of a key, which is also the origin of a log.
 * @throws MeshError `audit_note_invalid`
 */
export function checkKeyName(name: string): void {
  if (/^[^\p{White_Space}\p{Cc}\p{Cs}+]+$/u.test(name) && Buffer.byteLength(name) <= maxNameBytes) return;
  throw invalid(
    `${quote(name)} cannot name a key: 1 to 255 bytes without spaces, control characters and "+"`,
  );
}

/** A key as text: `name+keyId+base64`. */
export function formatKeyText(name: string, raw: Uint8Array, type: KeyType): string {
  const key = Buffer.concat([Buffer.from([type]), raw]).toString('base64');
  return `${name}+${keyIdOf(name, raw, type)}+${key}`;
}

/** The ID of a key, 8 lower-case hex digits: who has the name, the type and the key has the ID. */
export function keyIdOf(name: string, raw: Uint8Array, type: KeyType): string {
  const digest = createHash('sha256')
    .update(`${name}\n`)
    .update(Buffer.from([type]))
    .update(raw);
  return digest.digest('hex').slice(0, 2 * keyIdBytes);
}

/** The 32 bytes of an Ed25519 key. */
export function rawKey(publicKey: KeyObject): Uint8Array {
  return publicKey.export({ format: 'der', type: 'spki' }).subarray(spkiHead.length);
}

function parseSignature(line: string): NoteSignature {
  const match = /^— (?<name>[^ ]+) (?<bytes>[A-Za-z0-9+/]+=*)$/.exec(line)?.groups;
  const bytes = decodeBase64(match?.['bytes'] ?? '', 'base64');
  if (match === undefined || bytes === undefined || bytes.length <= keyIdBytes) {
    throw invalid(`the line ${quote(line)} is no signature`);
  }
  const name = match['name'] ?? '';
  checkKeyName(name);
  return {
    name,
    keyId: Buffer.from(bytes.subarray(0, keyIdBytes)).toString('hex'),
    signature: bytes.subarray(keyIdBytes),
    line,
  };
}

/** Well-formed, and no control character but line breaks: the last character is one. */
function isText(text: string): boolean {
  return text.isWellFormed() && text.endsWith('\n') && !/[^\n\P{Cc}]/u.test(text);
}

function notAKey(why: string): MeshError {
  return invalid(
    `the text is no verifier key: ${why}`,
    'copy the whole line that countersign audit key prints',
  );
}

function invalid(message: string, fix = 'take the file as the server gave it'): MeshError {
  return new MeshError('audit_note_invalid', message, { fix });
}

/** What the byte before a key says that it is for. */
export type KeyType = 0x01 | 0x04;

const mark = '— ';
const ed25519Type = 0x01;
const rawKeyBytes = 32;
const keyIdBytes = 4;
const signatureBytes = 64;
const maxSignatures = 100;
const maxNoteLength = 65_536;
const maxNameBytes = 255;
const maxKeyText = 512;
// RFC 8410 section 4: SEQUENCE { SEQUENCE { 1.3.101.112 } BIT STRING (32 bytes) }
const spkiHead = Buffer.from('302a300506032b6570032100', 'hex');
