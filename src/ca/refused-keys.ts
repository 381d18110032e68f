import { MeshError, quote } from '../errors.ts';
import { leakedKeys } from './leaked-keys.ts';
import type { PublicKey } from './public-key.ts';

/** Keys that no certificate is made for, all by the SHA-256 of their SubjectPublicKeyInfo, lower-case hex. */
export type RefusedKeys = {
  /** Keys of our own: of every CA that ever was, and of whatever else signs. */
  readonly own: () => ReadonlySet<string>;
  /** Those that an operator has listed. */
  readonly listed: ReadonlySet<string>;
};

/** The most keys in a list of refused ones. */
export const maxRefusedKeys = 1_000_000;

/**
 * Refuses a key that is ours, is listed, or is known to everybody: a test vector.
 * @throws MeshError `public_key_unsupported` for a key of ours, `public_key_leaked`
 */
export function checkRefused({ own, listed }: RefusedKeys, { spkiSha256 }: PublicKey): void {
  if (own().has(spkiSha256)) {
    throw new MeshError('public_key_unsupported', 'the public key is that of a CA', {
      fix: 'make an ECDSA P-256 key of its own',
    });
  }
  const known = leakedKeys.get(spkiSha256);
  if (known === undefined && !listed.has(spkiSha256)) return;
  const where =
    known === undefined ? 'is on the list of refused keys' : `is published, with its private half: ${known}`;
  throw new MeshError('public_key_leaked', `the public key ${where}`, {
    fix: 'make a new key, and find out where the old one came from',
  });
}

/**
 * Reads a list of refused keys: one SHA-256 of a SubjectPublicKeyInfo a line, 64 hex digits; what follows a `#` and
 * blank lines are passed over.
 * @throws MeshError `config_invalid` naming the line
 */
export function parseRefusedKeys(text: string, file: string): ReadonlySet<string> {
  const keys = new Set<string>();
  let number = 0;
  for (const line of text.split('\n')) {
    number++;
    const value = (line.split('#', 1)[0] ?? '').trim().toLowerCase();
    if (value === '') continue;
    if (!/^[0-9a-f]{64}$/.test(value)) {
      throw new MeshError('config_invalid', `the list of refused keys has ${quote(value)}`, {
        place: { file, line: number, column: 1 },
        fix: 'write the SHA-256 of the DER SubjectPublicKeyInfo, 64 hex digits',
      });
    }
    keys.add(value);
    if (keys.size > maxRefusedKeys) {
      throw new MeshError('config_invalid', `the list of refused keys has more than ${maxRefusedKeys} keys`, {
        place: { file, line: number, column: 1 },
        fix: 'keep those that may turn up here',
      });
    }
  }
  return keys;
}
