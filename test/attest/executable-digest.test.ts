import { type ChildProcess, spawnSync } from 'node:child_process';
import { chmodSync, rmSync, utimesSync, writeFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { createDigestSource } from '../../src/attest/executable-digest.ts';
import { believes, isTrustedMount, parseMounts } from '../../src/attest/mounts.ts';
import { systemClock } from '../../src/clock.ts';
import { startCpuWatch } from '../harness/cpu-watch.ts';
import { isRoot, makeProgram, peerOf, run, sha256Of, sleepProgram } from './programs.ts';

const never = new AbortController().signal;
let directory: string;
const children: ChildProcess[] = [];
// A file must have been left alone for two seconds to be remembered; the clock goes ahead so that tests need not wait.
const laterClock = { ...systemClock, now: () => new Date(Date.now() + 3_000) };

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'digest-'));
  chmodSync(directory, 0o755);
});
afterEach(async () => {
  for (const child of children.splice(0)) child.kill('SIGKILL');
  await rm(directory, { recursive: true, force: true });
});

function source(options: Partial<Parameters<typeof createDigestSource>[0]> = {}) {
  const warnings: string[] = [];
  let hashes = 0;
  const made = createDigestSource({
    clock: laterClock,
    warn: (message) => warnings.push(message),
    onHash: () => (hashes += 1),
    ...options,
  });
  const digest = async (pid: number, uid = 0): Promise<string | undefined> =>
    (await made.selectorsOf({ peer: peerOf({ pid, uid }), cgroups: [] }, never))[0]?.text;
  return { digest, warnings, hashes: () => hashes };
}

describe('the digest', () => {
  test('of what runs', async () => {
    const { digest } = source();
    const pid = await run(children, sleepProgram);
    expect(await digest(pid)).toBe(`unix:sha256:${sha256Of(sleepProgram)}`);
    expect(await digest(process.pid)).toBe(`unix:sha256:${sha256Of(process.execPath)}`);
  });

  test('is that of the running image when another file takes its path', async () => {
    const { digest } = source();
    const file = makeProgram(join(directory, 'program'), 'first');
    const expected = sha256Of(file);
    const pid = await run(children, file);
    rmSync(file);
    expect(await digest(pid)).toBe(`unix:sha256:${expected}`);
    makeProgram(file, 'second');
    expect(await digest(pid)).toBe(`unix:sha256:${expected}`);
  });

  test('is computed once for many callers, and anew for another file', async () => {
    const { digest, hashes } = source();
    const [one, two] = [makeProgram(join(directory, 'one')), makeProgram(join(directory, 'two'))];
    const [first, again, other] = await Promise.all([one, one, two].map((file) => run(children, file)));
    const found = await Promise.all([first, again, first, other].map((pid) => digest(pid ?? 0)));
    expect(found).toEqual([one, one, one, two].map((file) => `unix:sha256:${sha256Of(file)}`));
    expect(hashes()).toBe(2);
    await digest(again ?? 0);
    expect(hashes()).toBe(2);
  });

  test('is not remembered for a file that has just changed', async () => {
    const { digest, hashes } = source({ clock: systemClock });
    const pid = await run(children, makeProgram(join(directory, 'program')));
    await digest(pid);
    await digest(pid);
    expect(hashes()).toBe(2);
  });

  test('is computed anew when the times of the file changed, even back', async () => {
    const { digest, hashes } = source();
    const file = makeProgram(join(directory, 'program'));
    const pid = await run(children, file);
    await digest(pid);
    utimesSync(file, 1_000, 1_000);
    await digest(pid);
    expect(hashes()).toBe(2);
  });

  test('forgets the oldest', async () => {
    const { digest, hashes } = source({ capacity: 1 });
    const pids = await Promise.all(
      ['a', 'b'].map((name) => run(children, makeProgram(join(directory, name)))),
    );
    for (const pid of [...pids, ...pids]) await digest(pid);
    expect(hashes()).toBe(4);
  });
});

describe('no digest', () => {
  test('over the bound, and it says so', async () => {
    const { digest, warnings, hashes } = source({ maxBytes: 1_000 });
    expect(await digest(await run(children, sleepProgram))).toBeUndefined();
    expect(hashes()).toBe(0);
    expect(warnings).toEqual(['an executable of more than 1000 bytes has no unix:sha256']);
  });

  test('of a process that is not there, or a thread of the kernel', async () => {
    const { digest } = source();
    expect(await digest(2 ** 30)).toBeUndefined();
    expect(await digest(2)).toBeUndefined();
  });

  test('of a file system that is not in our mount table', async (context) => {
    const program = join(directory, 'program');
    const script = `mount -t tmpfs none '${directory}' && cp '${sleepProgram}' '${program}' && exec '${program}' 20`;
    const pid = await run(children, 'unshare', ['--mount', '--propagation', 'private', 'sh', '-c', script]);
    const read = () => spawnSync('readlink', [`/proc/${pid}/exe`], { encoding: 'utf8' }).stdout.trim();
    for (let i = 0; i < 100 && read() !== program; i++)
      await new Promise((resolve) => setTimeout(resolve, 20));
    context.skip(read() !== program, 'no mount namespaces here');
    const { digest, hashes } = source();
    expect(await digest(pid)).toBeUndefined();
    expect(hashes()).toBe(0);
  });

  test('of a file that lives in memory only', async (context) => {
    const python = spawnSync('python3', ['-c', 'import os; os.memfd_create("x")']);
    context.skip(python.status !== 0, 'no memfd_create here');
    const script = `import os
fd = os.memfd_create("x", 0)
os.write(fd, open("${sleepProgram}", "rb").read())
os.execv(f"/proc/self/fd/{fd}", ["sleep", "20"])`;
    const pid = await run(children, 'python3', ['-c', script]);
    const read = () => spawnSync('readlink', [`/proc/${pid}/exe`], { encoding: 'utf8' }).stdout.trim();
    for (let i = 0; i < 1_000 && !read().startsWith('/memfd'); i++)
      await new Promise((resolve) => setTimeout(resolve, 20));
    expect(read()).toMatch(/^\/memfd/);
    expect(await source().digest(pid)).toBeUndefined();
  });
});

test('a user with many executables waits alone, and is refused beyond sixteen', async () => {
  const { digest, hashes } = source();
  const files = Array.from({ length: 18 }, (_, i) => makeProgram(join(directory, `p${i}`)));
  const pids = await Promise.all(files.map((file) => run(children, file)));
  const [honest] = [await run(children, makeProgram(join(directory, 'honest')))];
  const crowd = pids.map((pid) =>
    digest(pid, 1_000).then(
      () => 'done',
      (error: Error) => error.message,
    ),
  );
  expect(await digest(honest, 1_001)).toMatch(/^unix:sha256:/);
  const answers = await Promise.all(crowd);
  expect(
    answers.filter((answer) => answer === 'uid 1000 has too many executables waiting').length,
  ).toBeLessThanOrEqual(2);
  expect(hashes()).toBe(1 + answers.filter((answer) => answer === 'done').length);
});

test('a large executable does not hold up the event loop', async () => {
  const big = makeProgram(join(directory, 'big'), new Uint8Array(100_000_000));
  const pid = await run(children, big);
  const { digest } = source();
  // Of work, as time on the wall also passes while others have the processor.
  let [longestMs, usedMs] = [0, startCpuWatch()];
  const timer = setInterval(() => {
    longestMs = Math.max(longestMs, usedMs());
    usedMs = startCpuWatch();
  }, 1);
  expect(await digest(pid)).toMatch(/^unix:sha256:/);
  clearInterval(timer);
  // In one piece it takes many times as long.
  expect(longestMs).toBeLessThan(150);
});

test.skipIf(isRoot)('without the right to look it is left out and said so', async () => {
  const { digest, warnings } = source();
  expect(await digest(1)).toBeUndefined();
  expect(warnings).toHaveLength(1);
});

describe('mounts', () => {
  test.each<[string, string, number]>([
    ['an ordinary line', '27 1 254:0 / / rw,relatime - ext4 /dev/vda rw', 1],
    ['optional fields', '36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 shared:2 - ext3 /dev/root rw', 1],
    ['a name with an escaped space', '28 1 0:5 / /a\\040-\\040b rw - tmpfs tmpfs rw', 1],
    ['no type', '27 1 254:0 / / rw', 0],
    ['no number', 'x 1 254:0 / / rw - ext4 /dev/vda rw', 0],
    ['no device', '27 1 vda / / rw - ext4 /dev/vda rw', 0],
    ['a line cut short', '27 1 254:0 / / rw - ext4', 0],
  ])('%s', (_, line, count) => {
    expect(parseMounts(`${line}\n`)).toHaveLength(count);
  });

  test('one that does not exist is not trusted', () => {
    expect(isTrustedMount(process.pid, 2 ** 30)).toBe(false);
  });

  const own = parseMounts(
    [
      '27 1 254:0 / / rw - ext4 x rw',
      '40 27 0:50 / /merged rw - overlay x rw',
      '41 27 0:51 / /u rw - fuse.sshfs x rw',
    ].join('\n'),
  );
  test.each<[string, number, string, boolean]>([
    ['a disk of ours', 27, '', true],
    ['a disk that a user serves', 41, '', false],
    ['the same disk in a container', 900, '900 1 254:0 / / rw - ext4 x rw', true],
    ['the overlay of a container', 900, '900 1 0:50 / / rw - overlay x rw', true],
    ['an overlay that a user made', 900, '900 1 0:52 / / rw - overlay x rw', false],
    ['a disk that a user serves, in a container', 900, '900 1 0:51 / / rw - fuse.sshfs x rw', false],
    ['the number of a disk under another kind', 900, '900 1 254:0 / / rw - tmpfs x rw', false],
    ['one of no table', 901, '900 1 254:0 / / rw - ext4 x rw', false],
  ])('%s', (_, id, theirs, believed) => {
    expect(believes(id, own, () => parseMounts(theirs))).toBe(believed);
  });
});

test('a program that cannot be read gives nothing', async (context) => {
  context.skip(isRoot, 'root reads everything');
  const file = makeProgram(join(directory, 'program'));
  chmodSync(file, 0o111);
  writeFileSync(join(directory, 'x'), '');
  expect(await source().digest(await run(children, file))).toBeUndefined();
});
