import { nodeHash, type TreeEdge } from './merkle-tree.ts';

/**
 * What was appended to a tree since a certain edge, level by level: enough to prove each of those leaves in the tree as
 * it is then, without reading what was there before.
 */
export type MerkleTrail = {
  /** Forgets all, and begins at this edge: that of the tree as it is. */
  readonly start: (edge: TreeEdge) => void;
  /** A node of this level was made, the next one to the right: level 0 are leaves, each further one is twice as coarse. */
  readonly add: (level: number, hash: Uint8Array) => void;
  /** The tree went back to a size that it had since the start. */
  readonly rewind: (size: number) => void;
  /**
   * Proves leaves that were appended since the start, by their index, until the tree changes: the hashes that lead from each
   * to the root, as `proveInclusion` gives them.
   * @param edge of the tree as it is
   */
  readonly prover: (edge: TreeEdge) => (index: number) => readonly Uint8Array[];
};

/** A trail that waits for its start. */
export function createMerkleTrail(): MerkleTrail {
  let levels: Level[] = [];

  function levelAt(height: number): Level {
    for (let at = levels.length; at <= height; at++) levels.push({ first: 0, hashes: [] });
    return levels[height] as Level;
  }

  return {
    start: ({ size, hashes }) => {
      levels = [];
      // INVARIANT: no shifts: they are of 32 bits, and a tree may be larger.
      let at = hashes.length - 1;
      for (let count = size; count > 0; count = Math.floor(count / 2)) {
        const left = count % 2 === 1 ? hashes[at--] : undefined;
        // A left sibling of what comes is a perfect subtree of the edge, so that each level begins with an even node.
        levels.push(left === undefined ? { first: count, hashes: [] } : { first: count - 1, hashes: [left] });
      }
    },
    add: (height, hash) => {
      levelAt(height).hashes.push(hash);
    },
    rewind: (size) => {
      for (const [height, { first, hashes }] of levels.entries()) {
        hashes.length = Math.max(0, Math.floor(size / 2 ** height) - first);
      }
    },
    prover: (edge) => {
      const rights = unfinished(edge);
      return (index) => {
        const path: Uint8Array[] = [];
        for (let height = 0, node = index; ; height++, node = Math.floor(node / 2)) {
          const whole = Math.floor(edge.size / 2 ** height);
          const right = rights[height];
          if (whole + (right === undefined ? 0 : 1) <= 1) return path;
          const sibling = node % 2 === 1 ? node - 1 : node + 1;
          const { first, hashes } = levelAt(height);
          const hash = sibling < whole ? hashes[sibling - first] : sibling === whole ? right : undefined;
          if (hash !== undefined) path.push(hash);
        }
      };
    },
  };
}

/** Nodes of one level, the first of which has this index. */
type Level = { readonly first: number; readonly hashes: Uint8Array[] };

/** The rightmost node of each level when it is not that of a perfect subtree; undefined where all are. */
function unfinished({ size, hashes }: TreeEdge): readonly (Uint8Array | undefined)[] {
  const nodes: (Uint8Array | undefined)[] = [];
  let at = hashes.length - 1;
  let made: Uint8Array | undefined;
  for (let count = size; count > 0; count = Math.floor(count / 2)) {
    nodes.push(made);
    const left = count % 2 === 1 ? hashes[at--] : undefined;
    if (left !== undefined) made = made === undefined ? left : nodeHash(left, made);
  }
  nodes.push(made);
  return nodes;
}
