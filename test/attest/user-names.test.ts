import { chmod, mkdtemp, rename, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { createUserNames } from '../../src/attest/user-names.ts';

let directory: string;
let file: string;

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'passwd-'));
  file = join(directory, 'passwd');
});

afterEach(() => rm(directory, { recursive: true }));

test.each([
  ['an ordinary line', 'web:x:1000:1000::/:/bin/sh\n', 1_000, 'web'],
  ['no such uid', 'web:x:1000:1000::/:/bin/sh\n', 1_001, undefined],
  ['the first of two names', 'a:x:7:7::/:\nb:x:7:7::/:\n', 7, 'a'],
  ['no newline at the end', 'web:x:1000:1000::/:', 1_000, 'web'],
  ['a uid with a leading zero', 'web:x:01000:1::/:\n', 1_000, undefined],
  ['a negative uid', 'web:x:-1:1::/:\n', -1, undefined],
  ['a uid of words', 'web:x:root:0::/:\n', 0, undefined],
  ['an empty uid is not root', 'web:x::0::/:\n', 0, undefined],
  ['an empty name', ':x:1000:1::/:\n', 1_000, undefined],
  ['too few fields', 'web\nweb:x\n', 1_000, undefined],
  ['NIS lines', '+::::::\n-evil::::::\n', 0, undefined],
  ['an empty file', '', 0, undefined],
  ['more than 4 MiB', `web:x:1000:1::/:\n${'#'.repeat(4_194_304)}`, 1_000, undefined],
])('%s', async (_, text, uid, name) => {
  await writeFile(file, text);
  expect(createUserNames(file)(uid)).toBe(name);
});

test('a missing file names nobody', () => {
  expect(createUserNames(join(directory, 'none'))(0)).toBeUndefined();
});

test('a changed file is read again, an unreadable one forgotten', async () => {
  const userName = createUserNames(file);
  await writeFile(file, 'old:x:1:1::/:\n');
  expect(userName(1)).toBe('old');
  await writeFile(`${file}+`, 'new:x:1:1::/:\n');
  await rename(`${file}+`, file);
  expect(userName(1)).toBe('new');
  await writeFile(file, 'one:x:1:1::/:\n');
  expect(userName(1)).toBe('one');
  await rm(file);
  expect(userName(1)).toBeUndefined();
  await writeFile(file, 'two:x:1:1::/:\n');
  await chmod(file, 0o600);
  expect(userName(1)).toBe('two');
});
