import { nodeHash, rangeHash, type ReadHashes, splitOf } from './merkle-tree.ts';

/**
 * The hashes that lead from a leaf to the root of a tree, the lowest first: 53 at most.
 * @param index of the leaf, below `size`
 * @see RFC 9162 section 2.1.3.1
 */
export function proveInclusion(read: ReadHashes, index: number, size: number): readonly Uint8Array[] {
  const path: Uint8Array[] = [];
  let [begin, end] = [0, size];
  while (end - begin > 1) {
    const middle = begin + splitOf(end - begin);
    if (index < middle) {
      path.push(rangeHash(read, middle, end));
      end = middle;
    } else {
      path.push(rangeHash(read, begin, middle));
      begin = middle;
    }
  }
  return path.reverse();
}

/**
 * The hashes that show that a tree begins with a smaller one: none when either is empty or both are the same.
 * @param from the size of the smaller, at most `to`
 * @see RFC 9162 section 2.1.4.1
 */
export function proveConsistency(read: ReadHashes, from: number, to: number): readonly Uint8Array[] {
  if (from === 0 || from === to) return [];
  const path: Uint8Array[] = [];
  let [begin, end] = [0, to];
  // Whether the subtree that is left is the whole smaller tree, whose root its holder knows.
  let isWhole = true;
  while (from < end) {
    const middle = begin + splitOf(end - begin);
    if (from <= middle) {
      path.push(rangeHash(read, middle, end));
      end = middle;
    } else {
      path.push(rangeHash(read, begin, middle));
      begin = middle;
      isWhole = false;
    }
  }
  if (!isWhole) path.push(rangeHash(read, begin, end));
  return path.reverse();
}

/**
 * Whether a leaf is in a tree.
 * @see RFC 9162 section 2.1.3.2
 */
export function verifyInclusion(claim: {
  readonly index: number;
  readonly size: number;
  readonly leafHash: Uint8Array;
  readonly path: readonly Uint8Array[];
  readonly root: Uint8Array;
}): boolean {
  const { index, size, leafHash, path, root } = claim;
  if (!isSize(index) || !isSize(size) || index >= size) return false;
  let [node, last] = [index, size - 1];
  let made = leafHash;
  for (const hash of path) {
    if (last === 0) return false;
    if (isRight(node) || node === last) {
      made = nodeHash(hash, made);
      while (!isRight(node) && node !== 0) [node, last] = [half(node), half(last)];
    } else {
      made = nodeHash(made, hash);
    }
    [node, last] = [half(node), half(last)];
  }
  return last === 0 && isEqual(made, root);
}

/**
 * Whether a tree begins with a smaller one. The empty tree is the beginning of every tree.
 * @see RFC 9162 section 2.1.4.2
 */
export function verifyConsistency(claim: {
  readonly from: number;
  readonly to: number;
  readonly fromRoot: Uint8Array;
  readonly toRoot: Uint8Array;
  readonly path: readonly Uint8Array[];
}): boolean {
  const { from, to, fromRoot, toRoot, path } = claim;
  if (!isSize(from) || !isSize(to) || from > to) return false;
  if (from === to) return path.length === 0 && isEqual(fromRoot, toRoot);
  if (from === 0) return path.length === 0;
  let [node, last] = [from - 1, to - 1];
  while (isRight(node)) [node, last] = [half(node), half(last)];
  // A smaller tree that is perfect is a node of the larger one, and not repeated in the proof.
  const [first, ...rest] = node === 0 ? [fromRoot, ...path] : path;
  if (first === undefined) return false;
  let [madeFrom, madeTo] = [first, first];
  for (const hash of rest) {
    if (last === 0) return false;
    if (isRight(node) || node === last) {
      madeFrom = nodeHash(hash, madeFrom);
      madeTo = nodeHash(hash, madeTo);
      while (!isRight(node) && node !== 0) [node, last] = [half(node), half(last)];
    } else {
      madeTo = nodeHash(madeTo, hash);
    }
    [node, last] = [half(node), half(last)];
  }
  return last === 0 && isEqual(madeFrom, fromRoot) && isEqual(madeTo, toRoot);
}

function isSize(value: number): boolean {
  return Number.isSafeInteger(value) && value >= 0;
}

function isRight(node: number): boolean {
  return node % 2 === 1;
}

function half(value: number): number {
  return Math.floor(value / 2);
}

function isEqual(a: Uint8Array, b: Uint8Array): boolean {
  return Buffer.compare(a, b) === 0;
}
