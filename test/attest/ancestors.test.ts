import { type ChildProcess, spawnSync } from 'node:child_process';
import { existsSync, readFileSync, realpathSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { type ProcessReader, readAncestorPaths } from '../../src/attest/ancestors.ts';
import { parseStat, type ProcessStat, readStat } from '../../src/attest/process.ts';
import { makeProgram, run } from './programs.ts';

let directory: string;
const children: ChildProcess[] = [];
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'tree-'));
});
afterEach(async () => {
  for (const child of children.splice(0)) child.kill('SIGKILL');
  await rm(directory, { recursive: true, force: true });
});

test('the ancestors of a real process', async () => {
  const program = makeProgram(join(directory, 'program'));
  const pidFile = join(directory, 'pid');
  const bash = realpathSync(spawnSync('sh', ['-c', 'command -v bash'], { encoding: 'utf8' }).stdout.trim());
  await run(children, bash, ['-c', `'${program}' 20 & echo $! > '${pidFile}'; wait`]);
  for (let i = 0; i < 1_000 && !(existsSync(pidFile) && readFileSync(pidFile, 'utf8').endsWith('\n')); i++)
    await new Promise((resolve) => setTimeout(resolve, 20));
  const pid = Number(readFileSync(pidFile, 'utf8'));
  try {
    const paths = readAncestorPaths(pid);
    expect(paths.slice(0, 2)).toEqual([bash, realpathSync(process.execPath)]);
    expect(paths).not.toContain(program);
  } finally {
    process.kill(pid, 'SIGKILL');
  }
});

test('of a process that is not there', () => {
  expect(readAncestorPaths(2 ** 30)).toEqual([]);
});

describe('a tree', () => {
  type Row = readonly [parentPid: number, startTicks: number, path?: string];
  const tree = (
    rows: Record<number, Row>,
    onPath: (pid: number) => void = () => undefined,
  ): ProcessReader => ({
    stat: (pid): ProcessStat | undefined => {
      const row = rows[pid];
      return row === undefined ? undefined : { parentPid: row[0], startTicks: BigInt(row[1]) };
    },
    executablePath: (pid) => {
      onPath(pid);
      return rows[pid]?.[2];
    },
  });

  test.each<[string, Record<number, Row>, string[]]>([
    ['of three', { 30: [20, 3], 20: [10, 2, '/b'], 10: [1, 1, '/a'] }, ['/b', '/a']],
    ['with pid 1, which is left out', { 30: [1, 3], 1: [0, 0, '/init'] }, []],
    ['whose top is out of sight', { 30: [20, 3], 20: [0, 2, '/b'] }, ['/b']],
    ['with one of no path', { 30: [20, 3], 20: [10, 2], 10: [1, 1, '/a'] }, ['/a']],
    ['with one path twice', { 30: [20, 3], 20: [10, 2, '/a'], 10: [1, 1, '/a'] }, ['/a']],
    ['whose parent is gone', { 30: [20, 3] }, []],
    ['whose parent is younger', { 30: [20, 3], 20: [1, 4, '/evil'] }, []],
    ['that goes round', { 30: [20, 3, '/a'], 20: [30, 3, '/b'] }, ['/b', '/a']],
  ])('%s', (_, rows, paths) => {
    expect(readAncestorPaths(30, tree(rows))).toEqual(paths);
  });

  test('is looked up sixteen times at most', () => {
    const rows = Object.fromEntries(
      Array.from({ length: 40 }, (_, i): [number, Row] => [100 - i, [99 - i, 100 - i, `/p${100 - i}`]]),
    );
    const paths = readAncestorPaths(100, tree(rows));
    expect(paths).toHaveLength(16);
    expect(paths.at(-1)).toBe('/p84');
  });

  test.each<[string, (rows: Record<number, Row>) => void]>([
    ['the parent ends and its pid goes to another', (rows) => (rows[20] = [1, 9, '/evil'])],
    ['the parent ends', (rows) => delete rows[20]],
    ['the child gets another parent', (rows) => (rows[30] = [1, 3])],
    ['the child ends and its pid goes to another', (rows) => (rows[30] = [20, 9])],
  ])('gives nothing when %s while it is read', (_, change) => {
    const rows: Record<number, Row> = { 30: [20, 3], 20: [1, 2, '/a'] };
    expect(
      readAncestorPaths(
        30,
        tree(rows, () => change(rows)),
      ),
    ).toEqual([]);
  });
});

describe('/proc/<pid>/stat', () => {
  const rest =
    'S 7 5507 4014 0 -1 4194304 99 0 0 0 0 0 0 0 20 0 1 0 1339417 3133440 363 18446744073709551615';
  test.each([
    ['plainly', 'cat'],
    ['with a space', 'a b'],
    ['with parentheses', 'a) R 1 (b'],
    ['with a newline', 'a\n) S 1 1'],
    ['with nothing', ''],
    ['to look like fields', ') S 1 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 1 1'],
  ])('a process named %s', (_, name) => {
    expect(parseStat(`5513 (${name}) ${rest}\n`)).toEqual({ parentPid: 7, startTicks: 1_339_417n });
  });

  test.each(['', '5513', '5513 (cat)', '5513 (cat) S', '5513 (cat) S x 1', `5513 (cat) S -1 ${rest}`])(
    'refuses %j',
    (text) => {
      expect(parseStat(text)).toBeUndefined();
    },
  );

  test('of this process', () => {
    expect(readStat(process.pid)?.parentPid).toBe(process.ppid);
  });
});
