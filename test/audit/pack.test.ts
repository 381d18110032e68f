import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { openCheckpoint } from '../../src/audit/checkpoint.ts';
import {
  proveConsistency,
  proveInclusion,
  verifyConsistency,
  verifyInclusion,
} from '../../src/audit/merkle-proof.ts';
import { readRoot, type ReadHashes, tileWidth } from '../../src/audit/merkle-tree.ts';
import { parseVerifierKey } from '../../src/audit/note.ts';
import { drawSample } from '../../src/audit/pack.ts';
import {
  fromBase64,
  hashLeaf,
  isBeginning,
  isSame,
  openPackCheckpoint,
  readPackKey,
  rootOfPath,
} from '../../src/audit/pack-primitives.ts';
import { readPackManifest } from '../../src/audit/pack-reading.ts';
import { drawTickets, readRecords } from '../../src/audit/pack-verifier.ts';
import { fetchHashes } from '../../src/audit/tile-hashes.ts';
import { leafHash } from '../../src/audit/leaf.ts';
import type { TileName } from '../../src/audit/tile-path.ts';
import { formatTilePath } from '../../src/audit/tile-path.ts';
import { logSigner, makeLogFiles, makeNoteSigner, someEntries } from './log-files.ts';

// What a browser runs is held against what the rest of the program verifies with.

const entries = someEntries(700);
const log = makeLogFiles(entries);
const read: ReadHashes = (level, first, count) => {
  const name: TileName = { level, index: Math.floor(first / tileWidth), width: tileWidth };
  const tile =
    log.files.get(formatTilePath(name)) ??
    [...log.files].find(([path]) => path.startsWith(`${formatTilePath(name)}.p/`))![1];
  return Array.from({ length: count }, (_, at) => {
    const begin = ((first % tileWidth) + at) * 32;
    return tile.subarray(begin, begin + 32);
  });
};
const roots = (size: number) => readRoot(read, size);

const places = fc
  .integer({ min: 1, max: entries.length })
  .chain((size) => fc.tuple(fc.constant(size), fc.integer({ min: 0, max: size - 1 })));
const flips = fc.option(fc.tuple(fc.nat(), fc.integer({ min: 1, max: 255 })), { freq: 1 });

test('the root of a path is that of the tree, and a changed path is refused by both', async () => {
  await fc.assert(
    fc.asyncProperty(
      places,
      fc.nat({ max: 701 }),
      flips,
      fc.nat({ max: 3 }),
      async ([size, index], claimed, flip, cut) => {
        const path = changed(proveInclusion(read, index, size), flip, cut);
        const leaf = leafHash(entries[index]!);
        for (const at of [index, claimed]) {
          const root = roots(size);
          const made = await rootOfPath(at, size, leaf, path);
          const expected = verifyInclusion({ index: at, size, leafHash: leaf, path, root });
          expect(made !== undefined && isSame(made, root)).toBe(expected);
        }
      },
    ),
    { numRuns: 150 },
  );
});

test('a log begins with another for both, or for neither', async () => {
  await fc.assert(
    fc.asyncProperty(places, flips, fc.nat({ max: 3 }), async ([to, from], flip, cut) => {
      const path = changed(proveConsistency(read, from, to), flip, cut);
      const claim = { from, to, fromRoot: roots(from), toRoot: roots(to), path };
      const older = { size: from, root: claim.fromRoot };
      expect(await isBeginning(older, { size: to, root: claim.toRoot }, path)).toBe(verifyConsistency(claim));
    }),
    { numRuns: 150 },
  );
});

test('a note is opened by both, or by neither', async () => {
  const key = logSigner.verifierKey;
  const packKey = (await readPackKey(key))!;
  const notes = fc.tuple(
    fc.nat(log.note.length - 1),
    fc.constantFrom('', 'A', '\n', ' ', '+', '\u0001', '0'),
  );
  await fc.assert(
    fc.asyncProperty(fc.option(notes), async (change) => {
      const note =
        change === null ? log.note : log.note.slice(0, change[0]) + change[1] + log.note.slice(change[0] + 1);
      const expected = outcome(() => openCheckpoint(note, parseVerifierKey(key)).size);
      const opened = await openPackCheckpoint(note, packKey);
      expect('problem' in opened ? undefined : opened.size).toBe(expected);
    }),
    { numRuns: 300 },
  );
});

test.each([
  ['of another key', makeNoteSigner(logSigner.name, 5).verifierKey, 'it is not signed by'],
  ['of another name', makeNoteSigner('example.org/other', 1).verifierKey, 'it is not signed by'],
])('a checkpoint under a key %s is not opened', async (_, key, problem) => {
  const opened = await openPackCheckpoint(log.note, (await readPackKey(key))!);
  expect(opened).toEqual({ problem: expect.stringContaining(problem) });
});

test.each([
  ['nothing', ''],
  ['a name alone', 'example.org/audit'],
  ['another ID', logSigner.verifierKey.replace(/\+[0-9a-f]{8}\+/, '+00000000+')],
  ['another name', logSigner.verifierKey.replace('audit', 'audio')],
  ['a key too short', logSigner.verifierKey.slice(0, -8)],
  ['two lines', `${logSigner.verifierKey}\n${logSigner.verifierKey}`],
])('%s is no key', async (_, text) => {
  expect(await readPackKey(text)).toBeUndefined();
  expect(outcome(() => parseVerifierKey(text).name)).toBeUndefined();
});

test.each([
  ['', 0],
  ['AA==', 1],
  ['AAAA', 3],
  ['AB==', undefined],
  ['AA=', undefined],
  ['A A=', undefined],
  ['AA==\n', undefined],
])('base64 %j has %s bytes', (text, bytes) => {
  expect(fromBase64(text)?.length).toBe(bytes);
});

test('both draw the same sample', async () => {
  const records = entries.map((_, index) => ({ index, leafHash: '', leaf: '' }));
  for (const [seed, size] of [
    ['a', 25],
    ['b', 0],
    ['c', 9_999],
  ] as const) {
    const drawn = drawSample(records, seed, size);
    expect(drawn).toEqual(await drawTickets(records, seed, size));
    expect(drawn).toHaveLength(Math.min(size, records.length));
  }
});

describe('a line of records', () => {
  const hash = 'ab'.repeat(32);
  test.each<[string, string, number | undefined]>([
    ['none', '', 0],
    ['one', `{"index":0,"leafHash":"${hash}","event":{}}\n`, 1],
    ['with a line separator inside', `{"index":0,"leafHash":"${hash}","event":{"a":"\u2028"}}\n`, 1],
    ['without an end', `{"index":0,"leafHash":"${hash}","event":{}}`, undefined],
    ['with a carriage return', `{"index":0,"leafHash":"${hash}","event":{}}\r\n`, undefined],
    ['with a zero in front', `{"index":01,"leafHash":"${hash}","event":{}}\n`, undefined],
    [
      'with an index beyond numbers',
      `{"index":9999999999999999,"leafHash":"${hash}","event":{}}\n`,
      undefined,
    ],
    ['with a hash in upper case', `{"index":0,"leafHash":"${hash.toUpperCase()}","event":{}}\n`, undefined],
    ['with an event that is a list', `{"index":0,"leafHash":"${hash}","event":[]}\n`, undefined],
    ['an empty line', '\n', undefined],
  ])('%s', (_, text, count) => {
    expect(readRecords(text)?.length).toBe(count);
  });
});

test('no text that is no manifest is one, and none throws', () => {
  fc.assert(
    fc.property(fc.oneof(fc.json(), fc.string()), (text) => {
      expect(readPackManifest(text)).toBeUndefined();
    }),
  );
});

describe('the hashes of a log that is elsewhere', () => {
  test('make the same proofs, and no tile is asked for twice', async () => {
    const work = (from: ReadHashes) =>
      [0, 300, 699]
        .map((index) => proveInclusion(from, index, 700))
        .concat([proveConsistency(from, 299, 700)]);
    const asked: string[] = [];
    const fetched = await fetchHashes(
      async (tile) => {
        asked.push(formatTilePath(tile));
        return log.files.get(formatTilePath(tile));
      },
      700,
      work,
    );
    expect(work(fetched)).toEqual(work(read));
    expect(new Set(asked).size).toBe(asked.length);
  });

  test.each<[string, Uint8Array | undefined]>([
    ['missing', undefined],
    ['too short', new Uint8Array(32)],
    ['too long', new Uint8Array(32 * 257)],
  ])('are refused when a tile is %s', async (_, tile) => {
    const fetching = fetchHashes(
      async () => tile,
      700,
      (from) => void proveInclusion(from, 0, 700),
    );
    await expect(fetching).rejects.toMatchObject({ code: 'audit_log_invalid' });
  });
});

test('a leaf has the hash that the log has', async () => {
  expect(Buffer.from(await hashLeaf(entries[7]!))).toEqual(Buffer.from(leafHash(entries[7]!)));
});

function changed(
  path: readonly Uint8Array[],
  flip: readonly [number, number] | null,
  cut: number,
): readonly Uint8Array[] {
  if (cut === 1) return path.slice(1);
  if (cut === 2) return [...path, new Uint8Array(32)];
  if (flip === null || path.length === 0) return path;
  return path.map((hash, at) => {
    if (at !== flip[0] % path.length) return hash;
    const other = new Uint8Array(hash);
    other[flip[0] % 32]! ^= flip[1];
    return other;
  });
}

function outcome<T>(work: () => T): T | undefined {
  try {
    return work();
  } catch {
    return undefined;
  }
}
