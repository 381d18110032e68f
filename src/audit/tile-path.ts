import { tileWidth } from './merkle-tree.ts';

/** A tile of hashes, or a bundle of entries: the `index`-th of its level, with its first `width` hashes or entries. */
export type TileName = {
  /** Of hashes: 0 (of leaves) to 63. */
  readonly level: number | 'entries';
  /** 0 and up, a safe integer. */
  readonly index: number;
  /** 1 to 256; 256 is a full one. */
  readonly width: number;
};

/**
 * The path of a tile below the prefix of a log: `tile/0/x001/234`, `tile/entries/000.p/17`.
 * @see https://c2sp.org/tlog-tiles
 */
export function formatTilePath({ level, index, width }: TileName): string {
  const groups = `${index}`.padStart(Math.ceil(`${index}`.length / 3) * 3, '0').match(/[0-9]{3}/g) ?? [];
  const last = groups.length - 1;
  const steps = groups.map((group, at) => (at === last ? group : `x${group}`)).join('/');
  return `tile/${level}/${steps}${width === tileWidth ? '' : `.p/${width}`}`;
}

/** Reads what {@link formatTilePath} writes; undefined for anything else: every tile has one path. */
export function parseTilePath(path: string): TileName | undefined {
  const match = pattern.exec(path)?.groups;
  if (match === undefined) return undefined;
  const { level = '', steps = '', width } = match;
  const index = Number(steps.replaceAll(/[x/]/g, ''));
  const name: TileName = {
    level: level === 'entries' ? level : Number(level),
    index,
    width: width === undefined ? tileWidth : Number(width),
  };
  // What is read must be written the same: no leading zeros, no group too many, no width that nothing has.
  const isName =
    Number.isSafeInteger(index * tileWidth) &&
    (name.level === 'entries' || name.level <= maxLevel) &&
    (width === undefined || name.width < tileWidth);
  return isName && formatTilePath(name) === path ? name : undefined;
}

const maxLevel = 63;
const pattern =
  /^tile\/(?<level>entries|[0-9]{1,2})\/(?<steps>(?:x[0-9]{3}\/){0,5}[0-9]{3})(?:\.p\/(?<width>[1-9][0-9]{0,2}))?$/;
