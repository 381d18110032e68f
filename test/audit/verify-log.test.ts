import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { Checkpoint } from '../../src/audit/checkpoint.ts';
import { decodeBundle, encodeBundle } from '../../src/audit/entry-bundle.ts';
import { formatTilePath } from '../../src/audit/tile-path.ts';
import type { LogCensus } from '../../src/audit/log-gaps.ts';
import { verifyLog } from '../../src/audit/verify-log.ts';
import { makeLogFiles, someEntries } from './log-files.ts';

const entries = someEntries(70_000);
const log = makeLogFiles(entries);
const old = makeLogFiles(entries.slice(0, 66_000)).checkpoint;

function verify(
  files: ReadonlyMap<string, Uint8Array>,
  checkpoint: Checkpoint = log.checkpoint,
  since: Checkpoint | null = null,
): Promise<LogCensus> {
  return verifyLog(checkpoint, (tile) => Promise.resolve(files.get(formatTilePath(tile))), since);
}

test('the tiles of a log of 70,000 entries are those of the specification', () => {
  const count = (prefix: string) => [...log.files.keys()].filter((path) => path.startsWith(prefix)).length;
  expect([count('tile/entries/'), count('tile/0/'), count('tile/1/'), count('tile/2/')]).toEqual([
    274, 274, 2, 1,
  ]);
  expect([
    log.files.has('tile/0/273.p/112'),
    log.files.has('tile/1/001.p/17'),
    log.files.has('tile/2/000.p/1'),
  ]).toEqual([true, true, true]);
});

describe('a log', () => {
  test('verifies, and from an older checkpoint on', async () => {
    await verify(log.files);
    await verify(log.files, log.checkpoint, old);
    await verify(log.files, log.checkpoint, log.checkpoint);
    await verify(log.files, log.checkpoint, makeLogFiles([]).checkpoint);
  });

  test.each([0, 1, 255, 256, 257, 513])('of %i entries verifies', async (size) => {
    const small = makeLogFiles(entries.slice(0, size));
    await verify(small.files, small.checkpoint);
    // It has grown: the narrow tiles are gone, and there are full ones.
    const before = makeLogFiles(entries.slice(0, Math.max(0, size - 1))).checkpoint;
    await verify(log.files, small.checkpoint, before);
  });

  test('says how far it is', async () => {
    const seen: number[] = [];
    const small = makeLogFiles(entries.slice(0, 600));
    const read = (tile: Parameters<typeof formatTilePath>[0]) =>
      Promise.resolve(small.files.get(formatTilePath(tile)));
    await verifyLog(small.checkpoint, read, null, (count) => seen.push(count));
    expect(seen).toEqual([256, 512, 600]);
  });
});

type Change = (files: Map<string, Uint8Array>) => void;
const bundle = 'tile/entries/100';
const bundleEntries = entries.slice(25_600, 25_856);

describe('what was changed is named', () => {
  test.each<[string, Change, RegExp]>([
    ['an entry', edit(bundle, (all) => all.with(1, Buffer.from('{}'))), /^entry 25601 is not what its hash/],
    ['an entry that is left out', edit(bundle, (all) => all.toSpliced(7, 1)), /^entry 25607 is not/],
    ['an entry that is put in', edit(bundle, (all) => all.toSpliced(9, 0, all[0]!)), /^entry 25609 is not/],
    [
      'two that change places',
      edit(bundle, (all) => all.with(3, all[4]!).with(4, all[3]!)),
      /^entry 25603 is not/,
    ],
    ['the last of a bundle', edit(bundle, (all) => all.slice(0, -1)), /^entry 25855 is missing/],
    ['one at the end of a bundle', edit(bundle, (all) => [...all, all[0]!]), /goes on behind entry 25855/],
    ['a byte at the end of a bundle', append(bundle), /tile\/entries\/100 goes on behind entry 25855/],
    ['half a bundle', cut(bundle), /^entry 25[67]\d\d is missing/],
    ['an empty bundle', (files) => files.set(bundle, new Uint8Array()), /^entry 25600 is missing/],
    ['a bundle', (files) => files.delete(bundle), /^entry 25600 is missing: there is no tile\/entries\/100$/],
    ['the last bundle', (files) => files.delete('tile/entries/273.p/112'), /^entry 69888 is missing/],
    ['a tile', (files) => files.delete('tile/0/100'), /^the hash of entry 25600 is missing/],
    ['a byte at the end of a tile', append('tile/0/100'), /goes on behind the hash of entry 25855/],
    ['half a tile', cut('tile/0/100'), /^entry 25728 is not what its hash/],
    [
      'a tile of level 1',
      (files) => files.delete('tile/1/000'),
      /^the hash of the entries 0 to 255 is missing/,
    ],
    [
      'the end of level 1',
      (files) => files.delete('tile/1/001.p/17'),
      /^the hash of the entries 65536 to 65791 is/,
    ],
    [
      'a byte at the end of level 1',
      append('tile/1/000'),
      /goes on behind the hash of the entries 65280 to 65535/,
    ],
    [
      'a tile of level 2',
      (files) => files.delete('tile/2/000.p/1'),
      /^the hash of the entries 0 to 65535 is/,
    ],
    [
      'an entry, with its hash',
      (files) => {
        const forged = makeLogFiles(bundleEntries.with(5, Buffer.from('{}'))).files;
        files.set(bundle, forged.get('tile/entries/000')!);
        files.set('tile/0/100', forged.get('tile/0/000')!);
      },
      /^the entries 25600 to 25855 are not what their hash in tile\/1\/000 was made of/,
    ],
    [
      'an entry, with all hashes',
      (files) => {
        for (const [path, bytes] of makeLogFiles(entries.with(5, Buffer.from('{}'))).files)
          files.set(path, bytes);
      },
      /^the entries 0 to 69999 do not have the root that the checkpoint was signed with/,
    ],
  ])('%s', async (_, change, message) => {
    const files = new Map(log.files);
    change(files);
    await expect(verify(files)).rejects.toMatchObject({
      code: 'audit_log_invalid',
      message: expect.stringMatching(message) as string,
    });
  });

  test('whichever bit of whichever file is flipped', async () => {
    const size = 600;
    const { files, checkpoint } = makeLogFiles(entries.slice(0, size));
    const paths = [...files.keys()];
    await fc.assert(
      fc.asyncProperty(fc.nat({ max: paths.length - 1 }), fc.nat(), async (at, bit) => {
        const path = paths[at]!;
        const bytes = Uint8Array.from(files.get(path)!);
        const place = bit % (bytes.length * 8);
        bytes[Math.floor(place / 8)]! ^= 1 << (place % 8);
        await expect(verify(new Map(files).set(path, bytes), checkpoint)).rejects.toMatchObject({
          code: 'audit_log_invalid',
          message: expect.stringMatching(/entr(y|ies) \d+/) as string,
        });
      }),
      { numRuns: 300 },
    );
  });
});

describe('an older checkpoint', () => {
  test.each<[string, () => Checkpoint, string]>([
    [
      'of another history',
      () => makeLogFiles(entries.slice(0, 66_000).with(9, Buffer.from('{}'))).checkpoint,
      'audit_log_forked',
    ],
    [
      'of the same size and another root',
      () => makeLogFiles(entries.with(9, Buffer.from('{}'))).checkpoint,
      'audit_log_forked',
    ],
    ['of more entries', () => makeLogFiles(someEntries(70_001)).checkpoint, 'audit_log_shorter'],
    [
      'of no entries and another root',
      () => ({ ...makeLogFiles([]).checkpoint, root: new Uint8Array(32) }),
      'audit_log_forked',
    ],
  ])('%s is told apart', async (_, since, code) => {
    await expect(verify(log.files, log.checkpoint, since())).rejects.toMatchObject({ code });
  });
});

test('bundles hold entries of any length', () => {
  fc.assert(
    fc.property(fc.array(fc.uint8Array({ maxLength: 300 }), { maxLength: 20 }), (all) => {
      expect(decodeBundle(encodeBundle(all))).toEqual({
        entries: all.map((one) => Buffer.from(one)),
        rest: 0,
      });
    }),
  );
  expect(decodeBundle(Buffer.alloc(1_000_000))).toMatchObject({ entries: { length: 256 }, rest: 999_488 });
  const long = Buffer.alloc(65_535, 7);
  expect(decodeBundle(encodeBundle([long]))).toEqual({ entries: [long], rest: 0 });
});

function edit(path: string, change: (all: readonly Uint8Array[]) => readonly Uint8Array[]): Change {
  return (files) => files.set(path, encodeBundle(change(decodeBundle(files.get(path)!).entries)));
}

function append(path: string): Change {
  return (files) => files.set(path, Buffer.concat([files.get(path)!, Buffer.from([0])]));
}

function cut(path: string): Change {
  return (files) => {
    const bytes = files.get(path)!;
    files.set(path, bytes.subarray(0, bytes.length / 2));
  };
}
