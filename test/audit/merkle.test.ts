import { createHash } from 'node:crypto';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { leafHash } from '../../src/audit/leaf.ts';
import { createMerkleTrail } from '../../src/audit/merkle-trail.ts';
import {
  proveConsistency,
  proveInclusion,
  verifyConsistency,
  verifyInclusion,
} from '../../src/audit/merkle-proof.ts';
import {
  emptyEdge,
  emptyRoot,
  growTree,
  hashesOfLevel,
  readEdge,
  type ReadHashes,
  readRoot,
  splitOf,
  widthOfTile,
} from '../../src/audit/merkle-tree.ts';
import { hex } from './log-files.ts';

// Of certificate-transparency-go and of everybody else.
const leaves = [
  '',
  '00',
  '10',
  '2021',
  '3031',
  '40414243',
  '5051525354555657',
  '606162636465666768696a6b6c6d6e6f',
];
const roots: readonly [size: number, root: string][] = [
  [0, 'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855'],
  [1, '6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d'],
  [2, 'fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125'],
  [3, 'aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77'],
  [5, '4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4'],
  [8, '5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328'],
];

test.each(roots)('the first %i of the known leaves have the known root', (size, root) => {
  const { read, tree } = grow(leaves.slice(0, size).map((leaf) => leafHash(Buffer.from(leaf, 'hex'))));
  expect([hex(tree.root()), hex(readRoot(read, size))]).toEqual([root, root]);
});

test('the root is that of the definition, grown or read, at every size, across tiles', () => {
  const all = someHashes(700);
  const { read } = grow(all);
  for (const size of [...Array(130).keys(), 255, 256, 257, 511, 512, 513, 699, 700]) {
    const { tree } = grow(all.slice(0, size));
    const root = hex(definition(all.slice(0, size)));
    expect([
      hex(tree.root()),
      hex(readRoot(read, size)),
      hex(growTree(readEdge(read, size), () => {}).root()),
    ]).toEqual([root, root, root]);
  }
});

test('a tree goes back to an edge, and on from there as if nothing had been', () => {
  const all = someHashes(600);
  const { tree } = grow(all.slice(0, 300));
  const edge = tree.edge();
  for (const hash of all.slice(0, 200)) tree.append(hash);
  tree.rewind(edge);
  for (const hash of all.slice(300)) tree.append(hash);
  expect([tree.size(), hex(tree.root())]).toEqual([600, hex(grow(all).tree.root())]);
});

test('hashes of tiles are kept once each, in their order', () => {
  const kept: [number, number][] = [];
  const tree = growTree(emptyEdge, (level, index) => kept.push([level, index]));
  for (const hash of someHashes(1, 65_536 + 256)) tree.append(hash);
  expect(kept.filter(([level]) => level === 1).map(([, index]) => index)).toEqual([...Array(257).keys()]);
  expect(kept.filter(([level]) => level > 1)).toEqual([[2, 0]]);
});

describe('sizes beyond 32 bits', () => {
  const huge = 2 ** 52 + 70_000;
  test.each<[string, number, number]>([
    ['a split', splitOf(huge), 2 ** 52],
    ['a split of a power of two', splitOf(2 ** 40), 2 ** 39],
    ['hashes of leaves', hashesOfLevel(huge, 0), huge],
    ['hashes of a level', hashesOfLevel(2 ** 33 + 300, 1), 2 ** 25 + 1],
    ['a full tile', widthOfTile(2 ** 33 + 300, 0, 2 ** 25), 256],
    ['a narrow one', widthOfTile(2 ** 33 + 300, 0, 2 ** 25 + 1), 44],
    ['one that is not there', widthOfTile(2 ** 33 + 300, 0, 2 ** 25 + 2), 0],
    ['a level that is not there', widthOfTile(huge, 63, 0), 0],
  ])('%s', (_, found, expected) => expect(found).toBe(expected));

  test('a proof of a log of 2^40 entries that are all the same verifies, and grows on', () => {
    // Of equal leaves each subtree of a height has one hash, so that a tree of any size can be had.
    const perfect: Uint8Array[] = [leafHash(Buffer.from('x'))];
    for (let height = 1; height <= 48; height++) {
      const below = perfect[height - 1]!;
      perfect.push(createHash('sha256').update('\x01').update(below).update(below).digest());
    }
    const read: ReadHashes = (level, _first, count) => Array<Uint8Array>(count).fill(perfect[level * 8]!);
    const [from, size] = [2 ** 33 + 12_345, 2 ** 40 + 77];
    const root = readRoot(read, size);
    for (const index of [0, 2 ** 31, 2 ** 32 + 1, 2 ** 39 + 3, size - 1]) {
      const path = proveInclusion(read, index, size);
      const claim = { index, size, leafHash: perfect[0]!, path, root };
      expect([index, verifyInclusion(claim)]).toEqual([index, true]);
      expect(verifyInclusion({ ...claim, size: size - 77 })).toBe(false);
    }
    const path = proveConsistency(read, from, size);
    const claim = { from, to: size, fromRoot: readRoot(read, from), toRoot: root, path };
    expect(verifyConsistency(claim)).toBe(true);
    expect(verifyConsistency({ ...claim, from: from + 2 ** 32 })).toBe(false);
    expect(growTree(readEdge(read, size), () => {}).root()).toEqual(root);
  });
});

const most = 130;
// Of larger trees a few thousand changes are drawn.
const mostChanged = 40;
const all = someHashes(most);
const { read } = grow(all);
const rootAt = Array.from({ length: most + 1 }, (_, size) => readRoot(read, size));

describe(`proofs of all trees up to ${most} leaves`, () => {
  test('every inclusion verifies, and none for another leaf, place or root', () => {
    const wrong: string[] = [];
    for (let size = 1; size <= most; size++) {
      for (let index = 0; index < size; index++) {
        const claim = {
          index,
          size,
          leafHash: all[index]!,
          path: proveInclusion(read, index, size),
          root: rootAt[size]!,
        };
        if (!verifyInclusion(claim)) wrong.push(`${index} of ${size} is refused`);
        if (size === 1 || size > mostChanged) continue;
        const others = [
          { ...claim, leafHash: all[(index + 1) % size]! },
          { ...claim, index: (index + 1) % size },
          { ...claim, root: rootAt[size - 1]! },
          { ...claim, path: claim.path.slice(1) },
          { ...claim, path: claim.path.slice(0, -1) },
          { ...claim, path: [...claim.path, all[0]!] },
          { ...claim, path: [all[0]!, ...claim.path] },
        ];
        for (const [at, other] of others.entries()) {
          if (verifyInclusion(other)) wrong.push(`${index} of ${size} is taken with change ${at}`);
        }
      }
    }
    expect(wrong).toEqual([]);
  });

  test('every consistency verifies, and none for other sizes or roots', () => {
    const wrong: string[] = [];
    for (let to = 0; to <= most; to++) {
      for (let from = 0; from <= to; from++) {
        const claim = {
          from,
          to,
          fromRoot: rootAt[from]!,
          toRoot: rootAt[to]!,
          path: proveConsistency(read, from, to),
        };
        if (!verifyConsistency(claim)) wrong.push(`${from} to ${to} is refused`);
        if (from === 0 || to > mostChanged) continue;
        const others = [
          { ...claim, fromRoot: rootAt[from - 1]! },
          { ...claim, toRoot: rootAt[to - 1]! },
          { ...claim, path: [...claim.path, all[0]!] },
          { ...claim, path: [all[0]!, ...claim.path] },
          ...(from < to
            ? [
                { ...claim, from: from === 1 ? 2 : from - 1 },
                { ...claim, path: claim.path.slice(1) },
                { ...claim, path: claim.path.slice(0, -1) },
                { ...claim, from: to, to: from },
              ]
            : []),
        ];
        for (const [at, other] of others.entries()) {
          if (verifyConsistency(other)) wrong.push(`${from} to ${to} is taken with change ${at}`);
        }
      }
    }
    expect(wrong).toEqual([]);
  });

  test('no proof survives a flipped bit, nor two hashes that change places', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 2, max: most }),
        fc.nat(),
        fc.nat(),
        fc.nat({ max: 255 }),
        fc.boolean(),
        (size, place, hash, bit, isInclusion) => {
          const index = place % size;
          const path = isInclusion ? proveInclusion(read, index, size) : proveConsistency(read, index, size);
          const holds = (changed: readonly Uint8Array[]): boolean =>
            isInclusion
              ? verifyInclusion({ index, size, leafHash: all[index]!, path: changed, root: rootAt[size]! })
              : verifyConsistency({
                  from: index,
                  to: size,
                  fromRoot: rootAt[index]!,
                  toRoot: rootAt[size]!,
                  path: changed,
                });
          expect(holds(path)).toBe(true);
          if (path.length === 0) return;
          const at = hash % path.length;
          const flipped = Uint8Array.from(path[at]!);
          flipped[bit >> 3]! ^= 1 << (bit & 7);
          expect(holds(path.with(at, flipped))).toBe(false);
          const next = (at + 1) % path.length;
          if (next === at) return;
          expect(holds(path.with(at, path[next]!).with(next, path[at]!))).toBe(false);
        },
      ),
      { numRuns: 1_000 },
    );
  });

  test.each([
    ['an index beyond', { index: 5, size: 5 }],
    ['a negative index', { index: -2, size: 5 }],
    ['half an index', { index: 0.5, size: 5 }],
    ['no number', { index: Number.NaN, size: 5 }],
    ['a size that is not safe', { index: 0, size: 2 ** 60 }],
  ])('%s is in no tree', (_, place) => {
    expect(verifyInclusion({ ...place, leafHash: all[0]!, path: [], root: all[0]! })).toBe(false);
    const { index, size } = place;
    const claim = { from: index + 1, to: size, fromRoot: all[0]!, toRoot: all[0]!, path: [] };
    expect(verifyConsistency(claim)).toBe(false);
  });
});

function someHashes(count: number, repeat = 1): Uint8Array[] {
  return Array.from({ length: count * repeat }, (_, at) => leafHash(Buffer.from(`leaf ${at}`)));
}

/** A tree with a reader of what it keeps. */
function grow(hashes: readonly Uint8Array[]) {
  const levels: Uint8Array[][] = [[...hashes]];
  const tree = growTree(emptyEdge, (level, _index, hash) => (levels[level] ??= []).push(hash));
  for (const hash of hashes) tree.append(hash);
  const read: ReadHashes = (level, first, count) => {
    const found = levels[level]?.slice(first, first + count) ?? [];
    if (found.length !== count) throw new Error(`level ${level} has no ${count} hashes from ${first} on`);
    return found;
  };
  return { tree, read };
}

/** RFC 6962 section 2.1, word for word. */
function definition(hashes: readonly Uint8Array[]): Uint8Array {
  const [only] = hashes;
  if (only === undefined) return emptyRoot;
  if (hashes.length === 1) return only;
  let k = 1;
  while (k * 2 < hashes.length) k *= 2;
  return createHash('sha256')
    .update(Uint8Array.of(1))
    .update(definition(hashes.slice(0, k)))
    .update(definition(hashes.slice(k)))
    .digest();
}

describe('a trail of what was appended', () => {
  // Of every size a batch begins at, and of every size it ends at: across one tile too.
  test.each([0, 1, 2, 3, 7, 8, 21, 127, 128, 250, 255, 256, 511])('proves all of it from %i on', (start) => {
    const all = someHashes(start + 40);
    const wrong: string[] = [];
    const trail = createMerkleTrail();
    const kept = grow(all.slice(0, start));
    const tree = growTree(readEdge(kept.read, start), () => {}, trail.add);
    trail.start(tree.edge());
    for (let size = start + 1; size <= all.length; size++) {
      tree.append(all[size - 1]!);
      if (size > start + 6 && size < start + 38) continue;
      const { read: readAll } = grow(all.slice(0, size));
      for (let index = start; index < size; index++) {
        const [found, known] = [trail.prover(tree.edge())(index), proveInclusion(readAll, index, size)];
        if (found.map(hex).join() !== known.map(hex).join()) wrong.push(`${index} of ${size}`);
      }
    }
    expect(wrong).toEqual([]);
  });

  test('as `proveInclusion` does, whatever was taken back between', () => {
    const steps = fc.array(fc.tuple(fc.integer({ min: 0, max: 40 }), fc.boolean()), {
      minLength: 1,
      maxLength: 8,
    });
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 600 }), steps, (start, batches) => {
        const all = someHashes(start);
        const trail = createMerkleTrail();
        const tree = growTree(readEdge(grow(all).read, start), () => {}, trail.add);
        trail.start(tree.edge());
        for (const [at, [count, isTakenBack]] of batches.entries()) {
          const mark = tree.edge();
          const added = Array.from({ length: count }, (_, i) => leafHash(Buffer.from(`${at} ${i}`)));
          for (const hash of added) tree.append(hash);
          if (isTakenBack) {
            tree.rewind(mark);
            trail.rewind(mark.size);
          } else {
            all.push(...added);
          }
        }
        const { read: readAll } = grow(all);
        for (let index = start; index < all.length; index++) {
          const path = proveInclusion(readAll, index, all.length);
          expect(trail.prover(tree.edge())(index).map(hex)).toEqual(path.map(hex));
        }
      }),
      { numRuns: 40 },
    );
  });

  test('holds in a tree of 2^40 leaves', () => {
    const perfect: Uint8Array[] = [leafHash(Buffer.from('x'))];
    for (let height = 1; height <= 48; height++) {
      const below = perfect[height - 1]!;
      perfect.push(createHash('sha256').update('\x01').update(below).update(below).digest());
    }
    const read: ReadHashes = (level, _first, count) => Array<Uint8Array>(count).fill(perfect[level * 8]!);
    const start = 2 ** 40 + 2 ** 33 + 4_095;
    const trail = createMerkleTrail();
    const tree = growTree(readEdge(read, start), () => {}, trail.add);
    trail.start(tree.edge());
    const hashes = someHashes(3);
    for (const hash of hashes) tree.append(hash);
    for (const [at, hash] of hashes.entries()) {
      const path = trail.prover(tree.edge())(start + at);
      const claim = { index: start + at, size: start + 3, leafHash: hash, path, root: tree.root() };
      expect(verifyInclusion(claim)).toBe(true);
    }
  });
});
