import { statSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { randomBytes } from 'node:crypto';
import { ensurePrivateDirectory, makeDirectory } from '../../src/store/key-files.ts';
import { openStore } from '../../src/store/store.ts';
import { startCpuWatch } from '../harness/cpu-watch.ts';
import { newDirectory, standingClock } from './directories.ts';

const refused = (code: string) => expect.objectContaining({ code, fix: expect.any(String) as string });

describe('a path where no data can be is refused at once:', () => {
  const dir = () => newDirectory();
  test.each<[string, () => string]>([
    ['below /proc, where making one is denied by "not found"', () => '/proc/x'],
    ['deep below /proc', () => '/proc/self/x/y/z'],
    ['below a device', () => '/dev/null/x'],
    ['a device', () => '/dev/null'],
    ['a file', () => withFile(dir())],
    ['below a file', () => join(withFile(dir()), 'x', 'y')],
    ['a link to itself', () => withLoop(dir())],
    ['below a link to itself', () => join(withLoop(dir()), 'x')],
    ['a link to nowhere', () => withLink(dir(), 'nowhere')],
    ['a link to a directory', () => withLink(dir(), dir())],
    ['a name of 300 characters', () => join(dir(), 'a'.repeat(300))],
    ['a path of 5,000 characters', () => join(dir(), 'ab/'.repeat(1_700))],
    ['a single name of 5,000 characters', () => join(dir(), 'a'.repeat(5_000))],
  ])('%s', async (_, make) => {
    const path = make();
    const usedMs = startCpuWatch();
    expect(() => ensurePrivateDirectory(path)).toThrow(refused('file_permissions'));
    const open = openStore({ dataDir: path, clock: standingClock, randomBytes });
    await expect(open).rejects.toThrow(refused('file_permissions'));
    expect(usedMs()).toBeLessThan(1_000);
  });
});

test('what is missing of a path is made, and the first that had to be made is named', () => {
  const dir = newDirectory();
  expect(makeDirectory(join(dir, 'a', 'b', 'c'), 0o700)).toBe(join(dir, 'a'));
  expect(makeDirectory(join(dir, 'a', 'b'), 0o700)).toBeUndefined();
  expect(makeDirectory(join(dir, 'a', '..', 'd'), 0o700)).toBe(join(dir, 'd'));
});

test('a private directory is private, and those above it can be entered: sockets stand beside it', () => {
  const dir = newDirectory();
  ensurePrivateDirectory(join(dir, 'a', 'b'));
  const modes = [join(dir, 'a'), join(dir, 'a', 'b')].map((path) => statSync(path).mode & 0o777);
  expect(modes).toEqual([0o755 & ~process.umask(), 0o700]);
});

function withFile(dir: string): string {
  writeFileSync(join(dir, 'file'), '', { mode: 0o600 });
  return join(dir, 'file');
}

function withLoop(dir: string): string {
  symlinkSync('b', join(dir, 'a'));
  symlinkSync('a', join(dir, 'b'));
  return join(dir, 'a');
}

function withLink(dir: string, to: string): string {
  symlinkSync(to, join(dir, 'link'));
  return join(dir, 'link');
}
