import type { SealingSecret } from './ca/key-envelope.ts';
import type { Config } from './config.ts';
import { MeshError, quote } from './errors.ts';
import {
  ensureKeyEncryptionKey,
  readCredentialFile,
  readDescriptor,
  readPrivateFile,
} from './store/key-files.ts';

/** Where a passphrase may come from. Never from the command line or the environment: others can read those. */
export type SecretSources = Pick<Config, 'passphraseFile' | 'passphraseCredential' | 'passphraseFd'>;

/**
 * What seals the CA keys: the passphrase of the one source that is configured, or else the key file of this data
 * directory, which is made on the first start.
 * @throws MeshError `config_invalid` (two sources, or one that cannot be used), `file_missing`, `file_permissions`
 */
export function readSealingSecret(sources: SecretSources, keyDir: string): SealingSecret {
  return readPassphrase(sources) ?? { kind: 'random_key', bytes: ensureKeyEncryptionKey(keyDir) };
}

/**
 * The passphrase of the one source that is configured; undefined when none is.
 * @throws MeshError as {@link readSealingSecret}
 */
export function readPassphrase({
  passphraseFile,
  passphraseCredential,
  passphraseFd,
}: SecretSources): SealingSecret | undefined {
  const given = [passphraseFile, passphraseCredential, passphraseFd].filter((source) => source !== null);
  if (given.length > 1) {
    throw new MeshError('config_invalid', 'the passphrase is given from more than one source', {
      fix: 'set one of passphraseFile, passphraseCredential and passphraseFd',
    });
  }
  if (passphraseFile !== null) return passphraseOf(readPrivateFile(passphraseFile));
  if (passphraseFd !== null) return passphraseOf(readDescriptor(passphraseFd));
  if (passphraseCredential === null) return undefined;
  if (!passphraseCredential.startsWith('/')) {
    throw new MeshError(
      'config_invalid',
      `the credential ${quote(passphraseCredential)} cannot be found: CREDENTIALS_DIRECTORY is not set`,
      { fix: `run this as a systemd unit with LoadCredential=${passphraseCredential}:<file>` },
    );
  }
  return passphraseOf(readCredentialFile(passphraseCredential));
}

/** One sentence for the status: who keeps the keys, and what that is good for. */
export function custodyOf({ passphraseFile, passphraseCredential, passphraseFd }: SecretSources): string {
  const from = [
    passphraseFile === null ? [] : ['a file'],
    passphraseCredential === null ? [] : ['a systemd credential'],
    passphraseFd === null ? [] : ['a file descriptor'],
  ].flat();
  return from.length === 0
    ? 'CA keys are sealed with a key file on this same machine: fit for one machine, not for a fleet'
    : `CA keys are sealed with your passphrase, read from ${from.join(' and ')}`;
}

/**
 * An editor's last line break is no part of a passphrase. INVARIANT: every other byte is: Latin-1 keeps them apart, where
 * UTF-8 would let different ones collapse into U+FFFD.
 */
function passphraseOf(bytes: Uint8Array): SealingSecret {
  const text = Buffer.from(bytes).toString('latin1');
  return { kind: 'passphrase', bytes: Buffer.from(text.replace(/\r?\n$/, ''), 'latin1') };
}
