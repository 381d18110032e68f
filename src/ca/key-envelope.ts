import { createCipheriv, createDecipheriv, hkdfSync, scrypt } from 'node:crypto';
import { MeshError } from '../errors.ts';
import type { TrustDomain } from '../spiffe/id.ts';
import { type RandomBytes, takeRandom } from './serial.ts';

/**
 * What seals keys: a passphrase that somebody chose, or 32 random bytes. Stretching a passphrase costs whoever guesses;
 * random bytes nobody guesses, so stretching them would cost only us.
 */
export type SealingSecret = {
  readonly kind: 'passphrase' | 'random_key';
  readonly bytes: Uint8Array;
};

/**
 * A private key as it lies on disk: plain JSON, base64 in the byte fields. Version 1 is sealed under scrypt, version 2
 * under HKDF-SHA256 of a random key.
 */
export type KeyEnvelope = {
  readonly v: 1 | 2;
  /** The key's subject key identifier, lower-case hex, and the trust domain it serves: both are bound to the ciphertext. */
  readonly keyId: string;
  readonly trustDomain: string;
  readonly kdf: Scrypt | Hkdf;
  readonly cipher: 'aes-256-gcm';
  readonly nonce: string;
  readonly ciphertext: string;
  readonly tag: string;
};

type Scrypt = {
  readonly name: 'scrypt';
  /** A power of two, 2^17 to 2^19. */
  readonly N: number;
  readonly r: number;
  readonly p: number;
  readonly salt: string;
};
type Hkdf = { readonly name: 'hkdf-sha256'; readonly salt: string };

/** The scrypt cost we seal with: 2^17, r 8, p 1 is 128 MiB and about half a second. */
export const productionCost = 131_072;

/**
 * Seals a private key with AES-256-GCM, the whole header as associated data, under a key derived from the secret: by
 * scrypt from a passphrase, by HKDF-SHA256 from a random key.
 * @param options.pkcs8 1 to 16,384 bytes
 * @param options.secret a passphrase of 8 to 1,024 bytes, whose strength is the caller's affair, or 32 random bytes
 * @param options.cost scrypt's N; default {@link productionCost}. Lower values are for tests: {@link openKey} refuses
 *   them unless it is told the same.
 * @throws MeshError `key_envelope_invalid` when an argument is out of bounds
 * @see RFC 7914; RFC 5869; NIST SP 800-38D
 */
export async function sealKey(options: {
  readonly pkcs8: Uint8Array;
  readonly keyId: string;
  readonly trustDomain: TrustDomain;
  readonly secret: SealingSecret;
  readonly randomBytes: RandomBytes;
  readonly cost?: number;
}): Promise<KeyEnvelope> {
  const { pkcs8, keyId, trustDomain, secret, randomBytes, cost = productionCost } = options;
  if (pkcs8.length === 0 || pkcs8.length > maxKeyBytes) refuse('holds a key that is empty or too long');
  checkSecret(secret);
  const salt = takeRandom(randomBytes, saltBytes);
  const nonce = takeRandom(randomBytes, nonceBytes);
  const header: Header = {
    v: secret.kind === 'passphrase' ? 1 : 2,
    keyId,
    trustDomain: trustDomain.name,
    kdf:
      secret.kind === 'passphrase'
        ? { name: 'scrypt', N: cost, r: blockSize, p: 1, salt: toBase64(salt) }
        : { name: 'hkdf-sha256', salt: toBase64(salt) },
    cipher: 'aes-256-gcm',
  };
  checkHeader(header, keyId, trustDomain, Math.min(cost, productionCost));
  const key = await deriveKey(secret.bytes, salt, header.kdf);
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
  readonly secret: SealingSecret;
  readonly minCost?: number;
}): Promise<Uint8Array> {
  const { secret, minCost = productionCost } = options;
  const envelope = parseEnvelope(options.envelope);
  checkHeader(envelope, options.keyId, options.trustDomain, minCost);
  if (secret.bytes.length === 0 || secret.bytes.length > maxPassphraseBytes) wrongPassphrase();
  // INVARIANT: a passphrase never goes through a derivation that costs nothing. Version 1 takes both: the key files of
  // earlier versions were sealed as if they were passphrases.
  if (envelope.kdf.name !== 'scrypt' && secret.kind === 'passphrase') wrongPassphrase();
  const salt = fromBase64(envelope.kdf.salt, 'salt', saltBytes, saltBytes);
  const nonce = fromBase64(envelope.nonce, 'nonce', nonceBytes, nonceBytes);
  const ciphertext = fromBase64(envelope.ciphertext, 'ciphertext', 1, maxKeyBytes);
  const tag = fromBase64(envelope.tag, 'tag', tagBytes, tagBytes);
  const key = await deriveKey(secret.bytes, salt, envelope.kdf);
  try {
    const decipher = createDecipheriv('aes-256-gcm', key, nonce, { authTagLength: tagBytes });
    decipher.setAAD(associatedData(envelope));
    decipher.setAuthTag(tag);
    // GCM gives all at once: `final` adds nothing but the proof. INVARIANT: not copied, so that the caller can wipe it.
    const opened = decipher.update(ciphertext);
    decipher.final();
    return new Uint8Array(opened.buffer, opened.byteOffset, opened.length);
  } catch (cause) {
    return wrongPassphrase(cause);
  } finally {
    key.fill(0);
  }
}

type Header = Pick<KeyEnvelope, 'v' | 'keyId' | 'trustDomain' | 'kdf' | 'cipher'>;

function parseEnvelope(value: unknown): KeyEnvelope {
  const fields = record(value, ['v', 'keyId', 'trustDomain', 'kdf', 'cipher', 'nonce', 'ciphertext', 'tag']);
  const v = fields.get('v');
  if (v !== 1 && v !== 2) refuse('is of an unknown version');
  const kdf = record(fields.get('kdf'), v === 1 ? ['name', 'N', 'r', 'p', 'salt'] : ['name', 'salt']);
  if (kdf.get('name') !== (v === 1 ? 'scrypt' : 'hkdf-sha256')) refuse('has an unknown key derivation');
  if (fields.get('cipher') !== 'aes-256-gcm') refuse('has an unknown cipher');
  return {
    v,
    keyId: text(fields, 'keyId'),
    trustDomain: text(fields, 'trustDomain'),
    kdf:
      v === 1
        ? {
            name: 'scrypt',
            N: whole(kdf, 'N'),
            r: whole(kdf, 'r'),
            p: whole(kdf, 'p'),
            salt: text(kdf, 'salt'),
          }
        : { name: 'hkdf-sha256', salt: text(kdf, 'salt') },
    cipher: 'aes-256-gcm',
    nonce: text(fields, 'nonce'),
    ciphertext: text(fields, 'ciphertext'),
    tag: text(fields, 'tag'),
  };
}

function checkHeader(header: Header, keyId: string, trustDomain: TrustDomain, minCost: number): void {
  if (!/^[0-9a-f]{40}$/.test(header.keyId)) refuse('has a malformed key id');
  if (header.keyId !== keyId || header.trustDomain !== trustDomain.name) refuse('is that of another key');
  if (header.kdf.name !== 'scrypt') return;
  const { N, r, p } = header.kdf;
  if (N < minCost) refuse(`has a key derivation that is too cheap: N is ${N}, less than ${minCost}`);
  if (N > maxCost || N < 2 || (N & (N - 1)) !== 0) refuse('has a key derivation whose N is out of bounds');
  if (r !== blockSize || p !== 1) refuse('has a key derivation whose r or p is out of bounds');
}

/** INVARIANT: different headers have different bytes; no field may hold a line feed. */
function associatedData(header: Header): Uint8Array {
  const { kdf } = header;
  const cost = kdf.name === 'scrypt' ? [kdf.N, kdf.r, kdf.p] : [];
  return Buffer.from(
    [
      'countersign key envelope',
      header.v,
      header.keyId,
      header.trustDomain,
      kdf.name,
      ...cost,
      kdf.salt,
      header.cipher,
    ].join('\n'),
  );
}

function deriveKey(passphrase: Uint8Array, salt: Uint8Array, kdf: KeyEnvelope['kdf']): Promise<Uint8Array> {
  if (kdf.name === 'hkdf-sha256') {
    return Promise.resolve(new Uint8Array(hkdfSync('sha256', passphrase, salt, hkdfInfo, 32)));
  }
  const { N, r, p } = kdf;
  const maxmem = 128 * N * r + 1_048_576;
  return new Promise((resolve, reject) => {
    scrypt(passphrase, salt, 32, { N, r, p, maxmem }, (error, key) => {
      if (error === null) resolve(key);
      else reject(new MeshError('internal', 'the key derivation failed', { cause: error }));
    });
  });
}

function checkSecret({ kind, bytes }: SealingSecret): void {
  if (kind === 'random_key') {
    if (bytes.length !== randomKeyBytes) refuse(`needs a random key of ${randomKeyBytes} bytes`);
  } else if (bytes.length < 8 || bytes.length > maxPassphraseBytes) {
    refuse(`needs a passphrase of 8 to ${maxPassphraseBytes} bytes`);
  }
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
const randomKeyBytes = 32;
const hkdfInfo = 'countersign key envelope v2';
const maxTextLength = 32_768;
