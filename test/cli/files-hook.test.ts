import { chmodSync, existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, expect, test } from 'vitest';
import { createTurns, type Hook, type HookOutcome, runHook } from '../../src/cli/files-hook.ts';
import { startChild } from '../harness/child.ts';
import { eventually } from '../harness/eventually.ts';
import { createScope } from '../harness/scope.ts';
import { makeTempDir } from '../harness/temp.ts';

const scope = createScope();
afterAll(() => scope.close());
const directory = makeTempDir(scope);
const plain = join(directory, 'plain');
writeFileSync(plain, 'no program', { mode: 0o644 });

const run = (...argv: [string, ...string[]]): Hook => ({ kind: 'run', argv });

test.each<[string, Hook, RegExp, RegExp]>([
  ['ends well', run('sh', '-c', 'echo out; echo err >&2'), /^$/, /^out\nerr$/],
  ['sees its arguments as they are', run('echo', '$HOME;', '`id`', '*'), /^$/, /^\$HOME; `id` \*$/],
  ['knows the directory', run('sh', '-c', 'echo $WHERE; pwd'), /^$/, /^here\n\/$/],
  ['has no standard input', run('cat'), /^$/, /^$/],
  ['fails', run('sh', '-c', 'echo why; exit 3'), /^"sh" ended with exit code 3$/, /^why$/],
  ['kills itself', run('sh', '-c', 'kill -9 $$'), /^"sh" ended with SIGKILL$/, /^$/],
  ['is not there', run('/nowhere/nginx'), /^there is no program "\/nowhere\/nginx"$/, /^$/],
  ['is no program', run(plain), /may not be executed$/, /^$/],
  ['is a directory', run(directory), /may not be executed$/, /^$/],
  ['leaves a process that holds its pipes', run('sh', '-c', 'sleep 60 & echo done'), /^$/, /^done$/],
  ['talks without end', run('sh', '-c', 'yes | head -c 3000000'), /^$/, /^(y\n?){1,1000}$/],
])('a hook that %s', async (_, hook, why, output) => {
  const outcome = await runHook(hook, 30_000, { ...process.env, WHERE: 'here' });
  expect(outcome.why).toMatch(why);
  expect(outcome.output).toMatch(output);
  expect(outcome.ok).toBe(outcome.why === '');
  expect(outcome.tookMs).toBeLessThan(25_000);
});

test.each<[string, Hook, RegExp]>([
  ['hangs', run('sh', '-c', 'echo waiting; sleep 60'), /^waiting$/],
  ['shrugs signals off', run('sh', '-c', 'trap "" TERM INT HUP; echo deaf; sleep 60'), /^deaf$/],
])('a hook that %s is killed', async (_, hook, output) => {
  const outcome = await runHook(hook, 2_000, process.env);
  expect(outcome.why).toMatch(/did not end within 2 s and was killed$/);
  expect([outcome.ok, outcome.output]).toEqual([false, expect.stringMatching(output)]);
  expect(outcome.tookMs).toBeLessThan(25_000);
});

test('the whole group of a hook that hangs is killed', async () => {
  const pidFile = join(directory, 'grandchild');
  await runHook(run('sh', '-c', `sleep 60 & echo $! > ${pidFile}; wait`), 2_000, process.env);
  const pid = readFileSync(pidFile, 'utf8').trim();
  await eventually('the grandchild to be gone', () => {
    if (!existsSync(`/proc/${pid}/stat`)) return true;
    return readFileSync(`/proc/${pid}/stat`, 'latin1').split(' ')[2] === 'Z';
  });
});

test('a signal reaches the process of the file', async () => {
  const child = startChild(scope, {
    command: process.execPath,
    args: [
      '-e',
      'process.on("SIGHUP", () => { console.log("hup"); process.exit(0); }); console.log("up"); setInterval(() => {}, 1000)',
    ],
    logFile: join(directory, 'child.log'),
  });
  await eventually('the child', () => child.output().includes('up'));
  const pidFile = join(directory, 'good.pid');
  writeFileSync(pidFile, `${child.pid}\n`, { mode: 0o644 });
  const hook = { kind: 'signal', pidFile, signal: 'HUP' } as const;
  expect(await runHook(hook, 10_000, {})).toMatchObject({ ok: true, why: '' });
  expect(await child.exited).toBe(0);
  expect(await runHook(hook, 1_000, {})).toMatchObject({
    ok: false,
    why: expect.stringMatching(/does not run$/) as string,
  });
});

test.each<[string, string, number, RegExp]>([
  ['nothing', '', 0o644, /holds no process id$/],
  ['a word', 'nginx', 0o644, /holds no process id$/],
  ['everybody', '-1', 0o644, /holds no process id$/],
  ['its own group', '0', 0o644, /holds no process id$/],
  ['init', '1', 0o644, /holds no process id$/],
  ['a number with more behind it', '12 13', 0o644, /holds no process id$/],
  ['a book', '1'.repeat(40), 0o644, /holds no process id$/],
  ['what anybody may write', '4194304', 0o666, /can be written by other users$/],
  ['nobody', '4194304', 0o644, /does not run$/],
])('a pid file that names %s', async (_, text, mode, why) => {
  const pidFile = join(directory, 'bad.pid');
  writeFileSync(pidFile, text);
  chmodSync(pidFile, mode);
  const outcome = await runHook({ kind: 'signal', pidFile, signal: 'HUP' }, 1_000, {});
  expect([outcome.ok, outcome.why]).toEqual([false, expect.stringMatching(why)]);
});

test('a pid file that is not there', async () => {
  const outcome = await runHook({ kind: 'signal', pidFile: '/nowhere/pid', signal: 'HUP' }, 1_000, {});
  expect(outcome).toMatchObject({ ok: false, why: '"/nowhere/pid" does not exist' });
});

test('equal hooks take turns, and others do not wait for them', async () => {
  const turns = createTurns();
  let [running, most] = [0, 0];
  const slow = async (): Promise<HookOutcome> => {
    running += 1;
    most = Math.max(most, running);
    await new Promise((resolve) => setTimeout(resolve, 30));
    running -= 1;
    return { ok: true, why: '', output: '', tookMs: 0 };
  };
  await Promise.all([1, 2, 3].map(() => turns(run('nginx'), slow)));
  expect(most).toBe(1);
  await Promise.all(['a', 'b', 'c'].map((name) => turns(run(name), slow)));
  expect(most).toBe(3);
});
