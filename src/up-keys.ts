import { openKey, sealKey } from './ca/key-envelope.ts';
import type { RandomBytes } from './ca/serial.ts';
import type { CreatedAuthority } from './ca/x509.ts';
import { MeshError, quote } from './errors.ts';
import type { TrustDomain } from './spiffe/id.ts';
import { readKeyFile, removeKeyFile, writeKeyFile } from './store/key-files.ts';

export type KeyParts = {
  readonly keyDir: string;
  readonly trustDomain: TrustDomain;
  readonly passphrase: Uint8Array;
  readonly randomBytes: RandomBytes;
};

/** Seals new keys, each in a file of its own, durably. */
export async function sealNewKeys(
  { keyDir, trustDomain, passphrase, randomBytes }: KeyParts,
  created: readonly CreatedAuthority[],
): Promise<void> {
  // Sealing costs half a second of another thread for each key.
  const envelopes = await Promise.all(
    created.map(({ keyId, privateKey }) =>
      sealKey({ pkcs8: privateKey, keyId, trustDomain, passphrase, randomBytes }),
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
  const { keyDir, trustDomain, passphrase } = parts;
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
  return openKey({ envelope, keyId, trustDomain, passphrase });
}

/** Deletes a sealed key, if it is still there. */
export function forgetKey(keyDir: string, keyId: string): void {
  removeKeyFile(keyDir, keyFile(keyId));
}

function keyFile(keyId: string): string {
  return `${keyId}.json`;
}
