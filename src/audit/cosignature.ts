import { createPublicKey, type KeyObject, sign, verify } from 'node:crypto';
import { MeshError } from '../errors.ts';
import {
  checkKeyName,
  formatKeyText,
  keyIdOf,
  type NoteKey,
  parseKeyText,
  rawKey,
  readNote,
  wrongSignature,
} from './note.ts';

/** A key that verifies cosignatures of a witness. It is no key of a log: what it signs says another thing. */
export type WitnessKey = NoteKey & { readonly kind: 'witness' };

/** Cosigns checkpoints of others. Nothing gives the bytes of its key back. */
export type Cosigner = {
  /** The key that verifies them, as text: `name+keyId+base64`. */
  readonly verifierKey: string;
  readonly name: string;
  /**
   * @param text of the checkpoint, with its last line break
   * @param at whole seconds count
   * @returns the line that goes below the checkpoint, with its line break
   */
  readonly cosign: (text: string, at: Date) => string;
};

/** A cosignature that was verified. */
export type Cosignature = {
  readonly key: WitnessKey;
  /** When the witness says it looked. */
  readonly at: Date;
  /** As it stands below the checkpoint, without a line break. */
  readonly line: string;
};

/**
 * A cosigner. INVARIANT: its key signs nothing else, and has no other name: what is signed does not hold the name.
 * @throws MeshError `audit_note_invalid` when the name cannot be one, or the key is not Ed25519
 * @see https://c2sp.org/tlog-cosignature
 */
export function createCosigner(name: string, privateKey: KeyObject): Cosigner {
  checkKeyName(name);
  if (privateKey.type !== 'private' || privateKey.asymmetricKeyType !== 'ed25519') {
    throw new MeshError('audit_note_invalid', 'the key that cosigns is not Ed25519');
  }
  const raw = rawKey(createPublicKey(privateKey));
  const keyId = Buffer.from(keyIdOf(name, raw, cosignatureType), 'hex');
  return Object.freeze({
    verifierKey: formatKeyText(name, raw, cosignatureType),
    name,
    cosign: (text: string, at: Date) => {
      const seconds = BigInt(Math.floor(at.getTime() / 1_000));
      const time = Buffer.alloc(timeBytes);
      time.writeBigUInt64BE(seconds);
      const signature = sign(null, signedMessage(text, seconds), privateKey);
      return `— ${name} ${Buffer.concat([keyId, time, signature]).toString('base64')}\n`;
    },
  });
}

/**
 * Reads the key of a witness, `name+keyId+base64`, of type 0x04.
 * @throws MeshError `audit_note_invalid`
 */
export function parseWitnessKey(text: string): WitnessKey {
  return { ...parseKeyText(text, cosignatureType), kind: 'witness' };
}

/**
 * The cosignatures of known witnesses below a checkpoint: the latest of each. Those of others are passed over; a wrong
 * one under a known key refuses the whole note, whoever else has signed it.
 * @param note a checkpoint; whether its log has signed it is not looked at
 * @throws MeshError `audit_note_invalid`, `audit_signature_invalid`
 */
export function openCosignatures(note: string, keys: readonly WitnessKey[]): readonly Cosignature[] {
  const { text, signatures } = readNote(note);
  const found = new Map<WitnessKey, Cosignature>();
  for (const { name, keyId, signature, line } of signatures) {
    const key = keys.find((known) => known.name === name && known.keyId === keyId);
    if (key === undefined) continue;
    const seconds = Buffer.from(signature).subarray(0, timeBytes);
    const time = seconds.length === timeBytes ? seconds.readBigUInt64BE() : 0n;
    // Zero is for signatures that say no time; what no calendar has is no time either.
    if (
      signature.length !== timeBytes + signatureBytes ||
      time === 0n ||
      time > maxSeconds ||
      !verify(null, signedMessage(text, time), key.publicKey, signature.subarray(timeBytes))
    ) {
      throw wrongSignature(name, keyId);
    }
    const at = new Date(Number(time) * 1_000);
    if ((found.get(key)?.at.getTime() ?? 0) <= at.getTime()) found.set(key, { key, at, line });
  }
  return [...found.values()];
}

function signedMessage(text: string, seconds: bigint): Buffer {
  return Buffer.from(`cosignature/v1\ntime ${seconds}\n${text}`);
}

const cosignatureType = 0x04;
const timeBytes = 8;
const signatureBytes = 64;
// The last second that a Date can be.
const maxSeconds = 8_640_000_000_000n;
