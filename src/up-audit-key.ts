import { createPrivateKey, createPublicKey, type KeyObject } from 'node:crypto';
import { createNoteSigner } from './audit/note.ts';
import { MeshError, quote } from './errors.ts';
import { policyKeyId } from './identity/policy-signature.ts';
import type { Store } from './store/store.ts';
import { generateEd25519 } from './up-key-pair.ts';
import { type KeyParts, openStoredKey, sealNewKeys } from './up-keys.ts';

/**
 * Opens the key that signs the checkpoints of the audit log, or makes it at the first start, and has the log signed with it
 * from now on. INVARIANT: before anything is recorded.
 * @param parts.auditOrigin what the log is called; null for `<trust domain>/audit`. The first start fixes it.
 * @throws MeshError `config_invalid` when the log is called something else; `key_passphrase_wrong`,
 *   `key_envelope_invalid`, `file_missing`, `file_permissions`, `authority_invalid`, `audit_log_damaged`
 */
export async function signAuditLog(
  parts: KeyParts & {
    readonly store: Pick<Store, 'readMeta' | 'signLog'>;
    readonly auditOrigin: string | null;
  },
): Promise<void> {
  const { store, trustDomain } = parts;
  const known = await store.readMeta('audit_verifier_key');
  const origin = known?.slice(0, known.indexOf('+')) ?? `${trustDomain.name}/audit`;
  if (known !== null && parts.auditOrigin !== null && parts.auditOrigin !== origin) {
    throw new MeshError('config_invalid', `auditOrigin: the audit log is called ${quote(origin)}`, {
      fix: `leave auditOrigin out, or set it to ${origin}: whoever follows the log knows it by that name`,
    });
  }
  const name = known === null ? (parts.auditOrigin ?? origin) : origin;
  if (Buffer.byteLength(name) > maxNameBytes) {
    throw new MeshError(
      'config_invalid',
      'the trust domain is too long for the audit log to be called by it',
      {
        fix: 'set auditOrigin to 1 to 255 bytes without spaces and "+"',
      },
    );
  }
  const { key, keyId } = await openSealedEd25519(parts, await store.readMeta('audit_key'));
  const { verifierKey } = createNoteSigner(name, key);
  if (known !== null && verifierKey !== known) throw anotherKey(name);
  await store.signLog(name, key, known === null ? keyId : null);
}

/**
 * Opens a sealed Ed25519 key, or makes and seals a new one.
 * @param keyId null for a new one; whoever asks names it in a row afterwards
 * @throws MeshError `key_passphrase_wrong`, `key_envelope_invalid`, `file_missing`, `file_permissions`,
 *   `authority_invalid` when the file holds another key
 */
export async function openSealedEd25519(
  parts: KeyParts,
  keyId: string | null,
): Promise<{ readonly key: KeyObject; readonly keyId: string }> {
  const pkcs8 = keyId === null ? await generateEd25519() : await openStoredKey(parts, keyId);
  try {
    // INVARIANT: the same memory, not a copy, which nobody would wipe.
    const bytes = Buffer.from(pkcs8.buffer, pkcs8.byteOffset, pkcs8.length);
    const key = createPrivateKey({ key: bytes, format: 'der', type: 'pkcs8' });
    const ownId = policyKeyId(
      createPublicKey(key).export({ format: 'der', type: 'spki' }).toString('base64'),
    );
    if (keyId === null) {
      // Key first, then the rows that name it: a crash in between leaves a key that nobody uses.
      await sealNewKeys(parts, [{ keyId: ownId, privateKey: pkcs8 }]);
    } else if (ownId !== keyId) {
      throw anotherKey(keyId);
    }
    return { key, keyId: ownId };
  } finally {
    pkcs8.fill(0);
  }
}

function anotherKey(name: string): MeshError {
  return new MeshError('authority_invalid', `the sealed key of the audit log ${quote(name)} is another one`, {
    fix: 'restore it from a backup',
  });
}

const maxNameBytes = 255;
