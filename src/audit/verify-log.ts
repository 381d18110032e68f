import { MeshError } from '../errors.ts';
import type { Checkpoint } from './checkpoint.ts';
import { decodeBundle } from './entry-bundle.ts';
import { leafHash } from './leaf.ts';
import { createGaps, type Gaps, invalidLog as invalid, type LogCensus } from './log-gaps.ts';
import { emptyEdge, growTree, hashBytes, tileWidth, widthOfTile } from './merkle-tree.ts';
import { formatTilePath, type TileName } from './tile-path.ts';

/** The bytes of a tile of a log, wherever it is kept; undefined when it is not there. */
export type ReadTile = (tile: TileName) => Promise<Uint8Array | undefined>;

/**
 * Proves that a log is what its checkpoint says: hashes every entry anew, compares each hash of each tile, and the root.
 * With an older checkpoint it proves besides that nothing of what that one covered was changed or taken away.
 * @param checkpoint one whose signature was verified, as that of `since`
 * @param onEntries told how many entries are proven so far
 * @param readRemains bundles that have lost contents as the log announced, by the names that they would have: nothing stands
 *   in the place of an entry that is gone. Default: there are none
 * @throws MeshError `audit_log_invalid` naming the first entry that is not right, or that is gone and was not announced;
 *   `audit_log_shorter` and `audit_log_forked` about `since`; whatever `read` throws
 */
export async function verifyLog(
  checkpoint: Checkpoint,
  read: ReadTile,
  since: Checkpoint | null = null,
  onEntries: (count: number) => void = () => undefined,
  readRemains: ReadTile = () => Promise.resolve(undefined),
): Promise<LogCensus> {
  const { size } = checkpoint;
  if (since !== null && since.size > size) throw shorter(since.size, size);
  // Of each level of tiles from 1 on: the hashes that wait for their tile to be full, and how many went before them.
  const upper = new Map<number, { first: number; hashes: Uint8Array[] }>();
  const tree = growTree(emptyEdge, (level, index, hash) => {
    const waiting = upper.get(level);
    if (waiting === undefined) upper.set(level, { first: index, hashes: [hash] });
    else waiting.hashes.push(hash);
  });
  const checkTiles = async (isDue: (count: number) => boolean): Promise<void> => {
    for (const [level, { first, hashes }] of upper) {
      if (!isDue(hashes.length)) continue;
      upper.delete(level);
      await checkUpper(read, level, first, hashes);
    }
  };
  const bundles = Math.ceil(size / tileWidth);
  const ahead: Promise<Bundle>[] = [];
  const gaps = createGaps();
  const fetchNext = (index: number): void => {
    if (index >= bundles) return;
    const bundle = readBundle(read, readRemains, size, index);
    // It is awaited in its turn.
    bundle.catch(() => undefined);
    ahead.push(bundle);
  };
  if (since?.size === 0) checkSince(since, tree.root());
  for (let index = 0; index < readAhead; index++) fetchNext(index);
  for (let index = 0; index < bundles; index++) {
    const bundle = await ahead.shift();
    fetchNext(index + readAhead);
    for (const hash of checkedHashes(size, index, bundle ?? noBundle, gaps)) {
      tree.append(hash);
      if (since !== null && tree.size() === since.size) checkSince(since, tree.root());
    }
    await checkTiles((count) => count === tileWidth);
    onEntries(tree.size());
  }
  await checkTiles(() => true);
  if (Buffer.compare(tree.root(), checkpoint.root) !== 0) {
    throw invalid(
      `the entries 0 to ${size - 1} do not have the root that the checkpoint was signed with: some of them were changed, and all hashes written anew`,
    );
  }
  return gaps.close();
}

type Bundle = {
  readonly entries: Uint8Array | undefined;
  readonly hashes: Uint8Array | undefined;
  /** `entries` may have nothing in the place of one. */
  readonly isRest: boolean;
};

async function readBundle(
  read: ReadTile,
  readRemains: ReadTile,
  size: number,
  index: number,
): Promise<Bundle> {
  const width = widthOfTile(size, 0, index);
  const name: TileName = { level: 'entries', index, width };
  const [whole, hashes] = await Promise.all([
    readEither(read, name),
    readEither(read, { level: 0, index, width }),
  ]);
  const entries = whole ?? (await readEither(readRemains, name));
  return { entries, hashes, isRest: whole === undefined };
}

/** A log that has grown may have nothing but the full tile. */
async function readEither(read: ReadTile, tile: TileName): Promise<Uint8Array | undefined> {
  const bytes = await read(tile);
  return bytes ?? (tile.width < tileWidth ? read({ ...tile, width: tileWidth }) : undefined);
}

/** The hashes of the entries of a bundle, each compared with what the tile says. */
function checkedHashes(
  size: number,
  index: number,
  { entries, hashes, isRest }: Bundle,
  gaps: Gaps,
): readonly Uint8Array[] {
  const width = widthOfTile(size, 0, index);
  const first = index * tileWidth;
  const bundlePath = formatTilePath({ level: 'entries', index, width });
  const tilePath = formatTilePath({ level: 0, index, width });
  if (entries === undefined) throw invalid(`entry ${first} is missing: there is no ${bundlePath}`);
  if (hashes === undefined) throw invalid(`the hash of entry ${first} is missing: there is no ${tilePath}`);
  const decoded = decodeBundle(entries);
  const made = decoded.entries.slice(0, width).map((entry, at) => {
    if (isRest && entry.length === 0 && hashAt(hashes, at).length === hashBytes) {
      gaps.noteGone(first + at);
      return hashAt(hashes, at);
    }
    const hash = leafHash(entry);
    gaps.noteEntry(first + at, entry);
    if (Buffer.compare(hash, hashAt(hashes, at)) === 0) return hash;
    throw invalid(
      `entry ${first + at} is not what its hash was made of: ${bundlePath} and ${tilePath} differ`,
    );
  });
  if (made.length < width) {
    throw invalid(`entry ${first + made.length} is missing: ${bundlePath} ends before it`);
  }
  checkEnd(
    decoded.entries.length,
    decoded.rest,
    width,
    `${bundlePath} goes on behind entry ${first + width - 1}`,
  );
  checkEnd(
    Math.floor(hashes.length / hashBytes),
    hashes.length % hashBytes,
    width,
    `${tilePath} goes on behind the hash of entry ${first + width - 1}`,
  );
  return made;
}

/** A full tile in the place of a narrower one is more, but whole. */
function checkEnd(count: number, rest: number, width: number, message: string): void {
  if (rest === 0 && (count === width || count === tileWidth)) return;
  throw invalid(message);
}

/** @param first the index of the first of `hashes` in its level: where a tile begins */
async function checkUpper(
  read: ReadTile,
  level: number,
  first: number,
  hashes: readonly Uint8Array[],
): Promise<void> {
  const width = hashes.length;
  const tile = { level, index: first / tileWidth, width };
  const path = formatTilePath(tile);
  const stored = await readEither(read, tile);
  const entriesOf = (at: number): string =>
    `entries ${(first + at) * tileWidth ** level} to ${(first + at + 1) * tileWidth ** level - 1}`;
  if (stored === undefined) throw invalid(`the hash of the ${entriesOf(0)} is missing: there is no ${path}`);
  for (const [at, hash] of hashes.entries()) {
    if (Buffer.compare(hash, hashAt(stored, at)) !== 0) {
      throw invalid(`the ${entriesOf(at)} are not what their hash in ${path} was made of`);
    }
  }
  const count = Math.floor(stored.length / hashBytes);
  checkEnd(
    count,
    stored.length % hashBytes,
    width,
    `${path} goes on behind the hash of the ${entriesOf(width - 1)}`,
  );
}

function hashAt(tile: Uint8Array, at: number): Uint8Array {
  return tile.subarray(at * hashBytes, (at + 1) * hashBytes);
}

function checkSince(since: Checkpoint, root: Uint8Array): void {
  if (Buffer.compare(root, since.root) === 0) return;
  throw new MeshError(
    'audit_log_forked',
    `the first ${since.size} entries are not those that the older checkpoint was signed over`,
    { fix: 'keep both checkpoints and the log: together they prove that history was rewritten' },
  );
}

function shorter(before: number, now: number): MeshError {
  return new MeshError('audit_log_shorter', `the log has ${now} entries, and had ${before}`, {
    fix: 'the server was set back to an older state: entries from there on are lost unless somebody has an export',
  });
}

const noBundle: Bundle = { entries: undefined, hashes: undefined, isRest: false };
const readAhead = 8;
