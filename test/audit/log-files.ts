import { createPrivateKey } from 'node:crypto';
import { type Checkpoint, openCheckpoint, signCheckpoint } from '../../src/audit/checkpoint.ts';
import { encodeBundle } from '../../src/audit/entry-bundle.ts';
import { leafHash } from '../../src/audit/leaf.ts';
import { emptyEdge, growTree, hashesOfLevel, tileWidth, widthOfTile } from '../../src/audit/merkle-tree.ts';
import { createNoteSigner, parseVerifierKey } from '../../src/audit/note.ts';
import { formatTilePath } from '../../src/audit/tile-path.ts';

/** A signer whose key is the same in every run. */
export function makeNoteSigner(name = 'example.org/audit', seed = 1) {
  const pkcs8 = Buffer.concat([
    Buffer.from('302e020100300506032b657004220420', 'hex'),
    Buffer.alloc(32, seed),
  ]);
  const privateKey = createPrivateKey({ key: pkcs8, format: 'der', type: 'pkcs8' });
  return { privateKey, ...createNoteSigner(name, privateKey) };
}

export const logSigner = makeNoteSigner();
export const logKey = parseVerifierKey(logSigner.verifierKey);

/** A log as its files, by their paths, and its checkpoint: made without the store. */
export function makeLogFiles(entries: readonly Uint8Array[], signer = logSigner) {
  const levels: Uint8Array[][] = [entries.map(leafHash)];
  const tree = growTree(emptyEdge, (level, _index, hash) => (levels[level] ??= []).push(hash));
  for (const hash of levels[0]!) tree.append(hash);
  const size = entries.length;
  const files = new Map<string, Uint8Array>();
  for (let level = 0; hashesOfLevel(size, level) > 0; level++) {
    for (let index = 0; widthOfTile(size, level, index) > 0; index++) {
      const width = widthOfTile(size, level, index);
      const first = index * tileWidth;
      const hashes = levels[level]!.slice(first, first + width);
      files.set(formatTilePath({ level, index, width }), Buffer.concat(hashes));
      if (level > 0) continue;
      const bundle = encodeBundle(entries.slice(first, first + width));
      files.set(formatTilePath({ level: 'entries', index, width }), bundle);
    }
  }
  const note = signCheckpoint({ size, root: tree.root() }, signer);
  const checkpoint: Checkpoint = openCheckpoint(note, parseVerifierKey(signer.verifierKey));
  return { files, note, checkpoint };
}

export function someEntries(count: number, word = 'entry'): Uint8Array[] {
  return Array.from({ length: count }, (_, at) => Buffer.from(`{"${word}":${at}}`));
}

export function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('hex');
}
