import { MeshError } from '../errors.ts';
import { hashBytes, type ReadHashes, tileWidth, widthOfTile } from './merkle-tree.ts';
import { formatTilePath, type TileName } from './tile-path.ts';
import type { ReadTile } from './verify-log.ts';

/**
 * Brings the hashes that some work will read, so that proofs can be made away from the log. The work is done once with hashes
 * of zeros, which tells what it reads: it must read the same whatever the hashes are, as proofs do.
 * @param size of the log: a tile that is not full is asked for as wide as it is in a log of this size
 * @throws MeshError `audit_log_invalid` for a tile that is missing or too short; whatever `read` throws
 */
export async function fetchHashes(
  read: ReadTile,
  size: number,
  work: (read: ReadHashes) => void,
): Promise<ReadHashes> {
  const wanted = new Map<string, TileName>();
  work((level, first, count) => {
    const index = Math.floor(first / tileWidth);
    const tile = { level, index, width: widthOfTile(size, level, index) };
    wanted.set(formatTilePath(tile), tile);
    return Array.from({ length: count }, () => new Uint8Array(hashBytes));
  });
  const tiles = new Map<string, Uint8Array>();
  for (const [path, tile] of wanted) {
    const bytes = await read(tile);
    if (bytes?.length !== tile.width * hashBytes) {
      throw new MeshError('audit_log_invalid', `${path} is missing, or is not as long as it should be`, {
        fix: 'see what countersign audit verify says',
      });
    }
    tiles.set(`${tile.level}/${tile.index}`, bytes);
  }
  return (level, first, count) => {
    const tile = tiles.get(`${level}/${Math.floor(first / tileWidth)}`) ?? new Uint8Array();
    const begin = (first % tileWidth) * hashBytes;
    return Array.from({ length: count }, (_, at) =>
      tile.subarray(begin + at * hashBytes, begin + (at + 1) * hashBytes),
    );
  };
}
