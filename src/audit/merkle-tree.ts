import { hash } from 'node:crypto';

/** Bytes of a hash in the tree. */
export const hashBytes = 32;
/** Levels of the tree between one level of tiles and the next. */
export const tileHeight = 8;
/** Hashes of a full tile, and entries of a full bundle. */
export const tileWidth = 256;

/** The root of a tree without leaves: SHA-256 of nothing. */
export const emptyRoot: Uint8Array = hash('sha256', '', 'buffer');

/**
 * The hash of an inner node: SHA-256(0x01 || left || right), 32 bytes.
 * @see RFC 6962 section 2.1
 */
export function nodeHash(left: Uint8Array, right: Uint8Array): Uint8Array {
  nodeInput.set(left, 1);
  nodeInput.set(right, 1 + hashBytes);
  return hash('sha256', nodeInput, 'buffer');
}

/**
 * Reads hashes of one level of tiles: `level` 0 are those of leaves, each further one is 256 times as coarse. From
 * `first` on, `count` of them (1 to 256), all of which are in the tree.
 */
export type ReadHashes = (level: number, first: number, count: number) => readonly Uint8Array[];

/** Keeps a hash of a level of tiles from 1 on, once: it belongs to a subtree that is full. */
export type KeepHash = (level: number, index: number, hash: Uint8Array) => void;

/** The right edge of a tree: the roots of its perfect subtrees, the largest first. Enough to append, and for the root. */
export type TreeEdge = { readonly size: number; readonly hashes: readonly Uint8Array[] };

/** A tree that grows at its right edge. */
export type GrowingTree = {
  readonly size: () => number;
  /** @param leaf the hash of a leaf, which is kept: the caller does not change it */
  readonly append: (leaf: Uint8Array) => void;
  readonly root: () => Uint8Array;
  readonly edge: () => TreeEdge;
  /** Goes back to an edge it had. What was given to `keep` since is the caller's affair. */
  readonly rewind: (edge: TreeEdge) => void;
};

/**
 * Goes on from an edge: that of the tree so far, or {@link emptyEdge}.
 * @param made told of each node as it is made, the leaves among them: `level` 0, each further one twice as coarse
 */
export function growTree(
  edge: TreeEdge,
  keep: KeepHash,
  made?: (level: number, hash: Uint8Array) => void,
): GrowingTree {
  let { size } = edge;
  let hashes = [...edge.hashes];
  return {
    size: () => size,
    append: (leaf) => {
      let node = leaf;
      let index = size;
      made?.(0, node);
      // INVARIANT: no shifts: they are of 32 bits, and a tree may be larger.
      for (let level = 1; index % 2 === 1; level++) {
        node = nodeHash(hashes.pop() ?? node, node);
        index = (index - 1) / 2;
        made?.(level, node);
        if (level % tileHeight === 0) keep(level / tileHeight, index, node);
      }
      hashes.push(node);
      size++;
    },
    root: () => rootOfEdge(hashes),
    edge: () => ({ size, hashes: [...hashes] }),
    rewind: (to) => {
      ({ size } = to);
      hashes = [...to.hashes];
    },
  };
}

/** The edge of a tree without leaves. */
export const emptyEdge: TreeEdge = { size: 0, hashes: [] };

/** The edge of a tree of this size, a safe integer. */
export function readEdge(read: ReadHashes, size: number): TreeEdge {
  return { size, hashes: subtreesOf(0, size).map((subtree) => subtreeHash(read, subtree)) };
}

/** The root of a tree of this size: the Merkle Tree Hash of its leaves. */
export function readRoot(read: ReadHashes, size: number): Uint8Array {
  return rangeHash(read, 0, size);
}

/**
 * The Merkle Tree Hash of the leaves from `begin` up to, not with, `end`: a range that the tree itself splits into.
 * @see RFC 6962 section 2.1
 */
export function rangeHash(read: ReadHashes, begin: number, end: number): Uint8Array {
  return rootOfEdge(subtreesOf(begin, end).map((subtree) => subtreeHash(read, subtree)));
}

/** How many hashes a level of tiles has in a tree of this size. */
export function hashesOfLevel(size: number, level: number): number {
  return Math.floor(size / tileWidth ** level);
}

/** How wide a tile is in a tree of this size: 0 when it is not there, 256 when it is full. */
export function widthOfTile(size: number, level: number, index: number): number {
  return Math.max(0, Math.min(tileWidth, hashesOfLevel(size, level) - index * tileWidth));
}

/** The largest power of two below `count`, which is at least 2: where the tree splits so many leaves. */
export function splitOf(count: number): number {
  let half = 1;
  while (half * 2 < count) half *= 2;
  return half;
}

/** The root over 2^n hashes of one level. */
export function perfectRoot(hashes: readonly Uint8Array[]): Uint8Array {
  let level = hashes;
  while (level.length > 1) {
    const below = level;
    level = below.flatMap((left, at) => {
      const right = below[at + 1];
      return at % 2 === 1 || right === undefined ? [] : [nodeHash(left, right)];
    });
  }
  return level[0] ?? emptyRoot;
}

/** A perfect subtree: 2^height leaves, from index * 2^height on. */
type Subtree = { readonly height: number; readonly index: number };

function subtreesOf(begin: number, end: number): readonly Subtree[] {
  const subtrees: Subtree[] = [];
  for (let at = begin; at < end;) {
    let height = 0;
    while (2 ** (height + 1) <= end - at) height++;
    subtrees.push({ height, index: at / 2 ** height });
    at += 2 ** height;
  }
  return subtrees;
}

function subtreeHash(read: ReadHashes, { height, index }: Subtree): Uint8Array {
  const count = 2 ** (height % tileHeight);
  return perfectRoot(read(Math.floor(height / tileHeight), index * count, count));
}

function rootOfEdge(hashes: readonly Uint8Array[]): Uint8Array {
  return hashes.length === 0 ? emptyRoot : hashes.reduceRight((right, left) => nodeHash(left, right));
}

// One for all: nothing here waits, so nobody sees what another has put into it.
const nodeInput = Buffer.alloc(1 + 2 * hashBytes);
nodeInput[0] = 0x01;
