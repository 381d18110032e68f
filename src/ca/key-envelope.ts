import { createCipheriv, createDecipheriv, scrypt } from 'node:crypto';
import { MeshError } from '../errors.ts';
import type { TrustDomain } from '../spiffe/id.ts';
import { type RandomBytes, takeRandom } from './serial.ts';

/** A private key as it lies on disk: plain JSON, base64 in the byte fields. */
export type KeyEnvelope = {
  readonly v: 1;
  /** The key's subject key identifier, lower-case hex, and the trust domain it serves: both are bound to the ciphertext. */
  readonly keyId: string;
  readonly trustDomain: string;
  readonly kdf: {
    readonly name: 'scrypt';
    /** A power of two, 2^17 to 2^19. */
    readonly N: number;
    readonly r: number;
    readonly p: number;
    readonly salt: string;
  };
  readonly cipher: 'aes-256-gcm';
  readonly nonce: string;
  readonly ciphertext: string;
  readonly tag: string;
};

/** The scrypt cost we seal with: 2^17, r 8, p 1 is 128 MiB and about half a second. */
export const productionCost = 131_072;

/**
 * Seals a private key under a passphrase: scrypt, then AES-256-GCM with the whole header as associated data.
 * @param options.pkcs8 1 to 16,384 bytes
 * @param options.passphrase 8 to 1,024 bytes; its strength is the caller's affair
 * @param options.cost scrypt's N; default {@link productionCost}. Lower values are for tests: {@link openKey} refuses
 *   them unless it is told the same.
 * @throws MeshError `key_envelope_invalid` when an argument is out of bounds
 * @see RFC 7914; NIST SP 800-38D
 */
export async function sealKey(options: {
  readonly pkcs8: Uint8Array;
  readonly keyId: string;
  readonly trustDomain: TrustDomain;
  readonly passphrase: Uint8Array;
  readonly randomBytes: RandomBytes;
  readonly cost?: number;
}): Promise<KeyEnvelope> {
  const { pkcs8, keyId, trustDomain, passphrase, randomBytes, cost = productionCost } = options;
  if (pkcs8.length === 0 || pkcs8.length > maxKeyBytes) refuse('holds a key that is empty or too long');
  if (passphrase.length < 8 || passphrase.length > maxPassphraseBytes) {
    refuse(`needs a passphrase of 8 to ${maxPassphraseBytes} bytes`);
  }
  const salt = takeRandom(randomBytes, saltBytes);
  const nonce = takeRandom(randomBytes, nonceBytes);
  const header = {
    v: 1 as const,
    keyId,
    trustDomain: trustDomain.name,
    kdf: { name: 'scrypt' as const, N: cost, r: blockSize, p: 1, salt: toBase64(salt) },
    cipher: 'aes-256-gcm' as const,
  };
  checkHeader(header, keyId, trustDomain, Math.min(cost, productionCost));
  const key = await deriveKey(passphrase, salt, header.kdf);
  try {
    const cipher = createCipheriv('aes-256-gcm', key, nonce, { authTagLength: tagBytes });
    cipher.setAAD(associatedData(header));
    const ciphertext = Buffer.concat([cipher.update(pkcs8), cipher.final()]);
    return {
      ...header,
      nonce: toBase64(nonce),
      ciphertext: toBase64(ciphertext),
      tag: toBase64(cipher.getAuthTag()),
    };
  } finally {
    key.fill(0);
  }
}

/**
 * Opens an envelope. Every field is proven before any work is done, so that a hostile file can ask neither for much
 * memory nor for a weak derivation, and a file put in the place of another is refused.
 * @param options.envelope parsed JSON of unknown origin
 * @param options.keyId the key that is expected there
 * @param options.trustDomain the trust domain that is expected there
 * @param options.minCost the lowest scrypt N accepted, at least 2; default {@link productionCost}, lower in tests only
 * @returns PKCS#8 DER
 * @throws MeshError `key_envelope_invalid` when it is malformed, too cheap, too dear, or another key's;
 *   `key_passphrase_wrong` when it does not open: the passphrase is wrong, or a byte was changed
 */
export async function openKey(options: {
  readonly envelope: unknown;
  readonly keyId: string;
  readonly trustDomain: TrustDomain;
  readonly passphrase: Uint8Array;
  readonly minCost?: number;
}): Promise<Uint8Array> {
  const { passphrase, minCost = productionCost } = options;
  const envelope = parseEnvelope(options.envelope);
  checkHeader(envelope, options.keyId, options.trustDomain, minCost);
  if (passphrase.length === 0 || passphrase.length > maxPassphraseBytes) wrongPassphrase();
  const salt = fromBase64(envelope.kdf.salt, 'salt', saltBytes, saltBytes);
  const nonce = fromBase64(envelope.nonce, 'nonce', nonceBytes, nonceBytes);
  const ciphertext = fromBase64(envelope.ciphertext, 'ciphertext', 1, maxKeyBytes);
  const tag = fromBase64(envelope.tag, 'tag', tagBytes, tagBytes);
  const key = await deriveKey(passphrase, salt, envelope.kdf);
  try {
    const decipher = createDecipheriv('aes-256-gcm', key, nonce, { authTagLength: tagBytes });
    decipher.setAAD(associatedData(envelope));
    decipher.setAuthTag(tag);
    return new Uint8Array(Buffer.concat([decipher.update(ciphertext), decipher.final()]));
  } catch (cause) {
    return wrongPassphrase(cause);
  } finally {
    key.fill(0);
  }
}

type Header = Pick<KeyEnvelope, 'v' | 'keyId' | 'trustDomain' | 'kdf' | 'cipher'>;

function parseEnvelope(value: unknown): KeyEnvelope {
  const fields = record(value, ['v', 'keyId', 'trustDomain', 'kdf', 'cipher', 'nonce', 'ciphertext', 'tag']);
  const kdf = record(fields.get('kdf'), ['name', 'N', 'r', 'p', 'salt']);
  if (fields.get('v') !== 1) refuse('is of an unknown version');
  if (kdf.get('name') !== 'scrypt') refuse('has an unknown key derivation');
  if (fields.get('cipher') !== 'aes-256-gcm') refuse('has an unknown cipher');
  return {
    v: 1,
    keyId: text(fields, 'keyId'),
    trustDomain: text(fields, 'trustDomain'),
    kdf: {
      name: 'scrypt',
      N: whole(kdf, 'N'),
      r: whole(kdf, 'r'),
      p: whole(kdf, 'p'),
      salt: text(kdf, 'salt'),
    },
    cipher: 'aes-256-gcm',
    nonce: text(fields, 'nonce'),
    ciphertext: text(fields, 'ciphertext'),
    tag: text(fields, 'tag'),
  };
}

function checkHeader(header: Header, keyId: string, trustDomain: TrustDomain, minCost: number): void {
  const { N, r, p } = header.kdf;
  if (!/^[0-9a-f]{40}$/.test(header.keyId)) refuse('has a malformed key id');
  if (header.keyId !== keyId || header.trustDomain !== trustDomain.name) refuse('is that of another key');
  if (N < minCost) refuse(`has a key derivation that is too cheap: N is ${N}, less than ${minCost}`);
  if (N > maxCost || N < 2 || (N & (N - 1)) !== 0) refuse('has a key derivation whose N is out of bounds');
  if (r !== blockSize || p !== 1) refuse('has a key derivation whose r or p is out of bounds');
}

/** INVARIANT: different headers have different bytes; no field may hold a line feed. */
function associatedData(header: Header): Uint8Array {
  const { name, N, r, p, salt } = header.kdf;
  return Buffer.from(
    [
      'countersign key envelope',
      header.v,
      header.keyId,
      header.trustDomain,
      name,
      N,
      r,
      p,
      salt,
      header.cipher,
    ].join('\n'),
  );
}

function deriveKey(passphrase: Uint8Array, salt: Uint8Array, kdf: KeyEnvelope['kdf']): Promise<Uint8Array> {
  const { N, r, p } = kdf;
  const maxmem = 128 * N * r + 1_048_576;
  return new Promise((resolve, reject) => {
    scrypt(passphrase, salt, 32, { N, r, p, maxmem }, (error, key) => {
      if (error === null) resolve(key);
      else reject(new MeshError('internal', 'the key derivation failed', { cause: error }));
    });
  });
}

function record(value: unknown, keys: readonly string[]): ReadonlyMap<string, unknown> {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) refuse('is not an object');
  const fields = new Map<string, unknown>(Object.entries(value));
  if (fields.size !== keys.length || !keys.every((key) => fields.has(key)))
    refuse('has other fields than it must have');
  return fields;
}

function text(fields: ReadonlyMap<string, unknown>, key: string): string {
  const value = fields.get(key);
  if (typeof value !== 'string' || value.length > maxTextLength || value.includes('\n')) {
    refuse(`has a malformed ${key}`);
  }
  return value;
}

function whole(fields: ReadonlyMap<string, unknown>, key: string): number {
  const value = fields.get(key);
  if (typeof value !== 'number' || !Number.isSafeInteger(value) || value < 1 || value > 2 ** 30) {
    refuse(`has a malformed ${key}`);
  }
  return value;
}

function fromBase64(value: string, field: string, minBytes: number, maxBytes: number): Uint8Array {
  const bytes = Buffer.from(value, 'base64');
  if (bytes.toString('base64') !== value || bytes.length < minBytes || bytes.length > maxBytes) {
    refuse(`has a malformed ${field}`);
  }
  return bytes;
}

function toBase64(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('base64');
}

function wrongPassphrase(cause?: unknown): never {
  throw new MeshError(
    'key_passphrase_wrong',
    'the sealed key does not open: the passphrase is wrong or the file was changed',
    {
      fix: 'give the passphrase the key was sealed with, or restore the file from a backup',
      cause,
    },
  );
}

function refuse(why: string): never {
  throw new MeshError('key_envelope_invalid', `the key envelope ${why}`);
}

const maxCost = 524_288;
const blockSize = 8;
const saltBytes = 32;
const nonceBytes = 12;
const tagBytes = 16;
const maxKeyBytes = 16_384;
const maxPassphraseBytes = 1_024;
const maxTextLength = 32_768;
