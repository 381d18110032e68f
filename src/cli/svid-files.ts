import { createPrivateKey, X509Certificate } from 'node:crypto';
import { resolve } from 'node:path';
import { MeshError } from '../errors.ts';
import { encodePem } from '../spiffe/pem.ts';
import { claimDirectory } from './files-directory.ts';
import { keepVersions, writeVersion } from './files-version.ts';
import type { FetchedSvid } from './svid-stream.ts';

/** What a file can hold; `combined` is the chain and then the key, as HAProxy reads it. */
export const fileContents = ['certificate', 'key', 'bundle', 'combined'] as const;
export type FileContent = (typeof fileContents)[number];

/**
 * Writes `svid.pem`, `key.pem` (0600), `bundle.pem`, and `svid.tlog-proof` when there is one, all at once: see
 * {@link writeVersion}. What the files were before is removed.
 * @param into is made, 0700, when it is missing; it must belong to this user, and nobody else may write it
 * @throws MeshError `file_permissions`, `directory_in_use`, `store_unavailable`, `svid_invalid` when key and certificate
 *   are no pair
 */
export function writeSvidFiles(into: string, svid: FetchedSvid): void {
  demandPair(svid);
  const directory = claimDirectory(resolve(into), null);
  try {
    const files = defaultFiles.map(([content, name]) => ({
      name,
      text: textOf(svid, content),
      mode: holdsKey(content) ? 0o600 : 0o644,
      uid: null,
      gid: null,
    }));
    const proof =
      svid.proof === undefined
        ? []
        : [{ name: 'svid.tlog-proof', text: svid.proof, mode: 0o644, uid: null, gid: null }];
    keepVersions(directory, [writeVersion(directory, [...files, ...proof])]);
  } finally {
    directory.release();
  }
}

/** The PEM text of a file. */
export function textOf(svid: FetchedSvid, content: FileContent): string {
  const pem = (certificates: readonly Uint8Array[]): string =>
    certificates.map((der) => encodePem('CERTIFICATE', der)).join('');
  switch (content) {
    case 'certificate':
      return pem(svid.certificates);
    case 'key':
      return svid.privateKeyPem;
    case 'bundle':
      return pem(svid.authorities);
    case 'combined':
      return `${pem(svid.certificates)}${svid.privateKeyPem}`;
    default:
      return content satisfies never;
  }
}

export function holdsKey(content: FileContent): boolean {
  return content === 'key' || content === 'combined';
}

/** @throws MeshError `svid_invalid` when the key is not that of the leaf */
export function demandPair({ certificates, privateKeyPem }: FetchedSvid): void {
  let pair = false;
  try {
    const [leaf = new Uint8Array()] = certificates;
    pair = new X509Certificate(leaf).checkPrivateKey(createPrivateKey(privateKeyPem));
  } catch {
    // Whatever cannot be loaded is no pair either; its text stays out of every message.
  }
  if (!pair) throw new MeshError('svid_invalid', 'the server sent a certificate with the key of another');
}

/** What is written where nothing else is said. */
export const defaultFiles: readonly (readonly [FileContent, string])[] = [
  ['certificate', 'svid.pem'],
  ['key', 'key.pem'],
  ['bundle', 'bundle.pem'],
];
