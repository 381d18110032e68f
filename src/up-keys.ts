import { openKey, sealKey, type SealingSecret } from './ca/key-envelope.ts';
import type { KeyCustody } from './ca/key-port.ts';
import { generatePkcs8, openMemoryKey } from './ca/memory-key.ts';
import type { RandomBytes } from './ca/serial.ts';
import { MeshError, quote } from './errors.ts';
import type { TrustDomain } from './spiffe/id.ts';
import { readKeyFile, removeKeyFile, writeKeyFile } from './store/key-files.ts';

export type KeyParts = {
  readonly keyDir: string;
  readonly trustDomain: TrustDomain;
  /** What seals the keys. */
  readonly secret: SealingSecret;
  readonly randomBytes: RandomBytes;
};

/** Keeps CA keys in sealed files of a directory, and opens them in this process. */
export function createFileCustody(parts: KeyParts): KeyCustody {
  return {
    create: async (kind) => {
      const pkcs8 = await generatePkcs8(kind);
      try {
        const key = openMemoryKey(pkcs8);
        await sealNewKeys(parts, [{ keyId: key.keyId, privateKey: pkcs8 }]);
        return key;
      } finally {
        pkcs8.fill(0);
      }
    },
    open: async (keyId) => {
      const pkcs8 = await openStoredKey(parts, keyId);
      try {
        return openMemoryKey(pkcs8);
      } finally {
        pkcs8.fill(0);
      }
    },
    forget: (keyId) => forgetKey(parts.keyDir, keyId),
  };
}

/**
 * Seals new keys, each in a file of its own, durably.
 * @param keys private keys as PKCS#8 DER
 */
export async function sealNewKeys(
  { keyDir, trustDomain, secret, randomBytes }: KeyParts,
  keys: readonly { readonly keyId: string; readonly privateKey: Uint8Array }[],
): Promise<void> {
  // Under a passphrase each costs half a second of another thread.
  const envelopes = await Promise.all(
    keys.map(({ keyId, privateKey }) =>
      sealKey({ pkcs8: privateKey, keyId, trustDomain, secret, randomBytes }),
    ),
  );
  for (const envelope of envelopes) {
    writeKeyFile(keyDir, keyFile(envelope.keyId), Buffer.from(`${JSON.stringify(envelope, null, 2)}\n`));
  }
}

/**
 * Opens a sealed key.
 * @returns PKCS#8 DER
 * @throws MeshError `key_passphrase_wrong`, `key_envelope_invalid`, `file_missing`, `file_permissions`
 */
export async function openStoredKey(parts: KeyParts, keyId: string): Promise<Uint8Array> {
  const { keyDir, trustDomain, secret } = parts;
  let envelope: unknown;
  try {
    envelope = JSON.parse(Buffer.from(readKeyFile(keyDir, keyFile(keyId))).toString('utf8'));
  } catch (cause) {
    if (cause instanceof MeshError) throw cause;
    throw new MeshError('key_envelope_invalid', `the key file of ${quote(keyId)} is not JSON`, {
      cause,
      fix: 'restore it from a backup',
    });
  }
  return openKey({ envelope, keyId, trustDomain, secret });
}

/** Deletes a sealed key, if it is still there. */
export function forgetKey(keyDir: string, keyId: string): void {
  removeKeyFile(keyDir, keyFile(keyId));
}

function keyFile(keyId: string): string {
  return `${keyId}.json`;
}
