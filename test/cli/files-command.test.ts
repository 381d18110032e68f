import { chmodSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { X509Certificate } from 'node:crypto';
import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest';
import { type Authority, startAuthority } from '../harness/authority.ts';
import { type Child, startChild } from '../harness/child.ts';
import { eventually } from '../harness/eventually.ts';
import { createScope } from '../harness/scope.ts';
import { makeTempDir } from '../harness/temp.ts';
import { main, runCli } from './run-cli.ts';

const scope = createScope();
afterAll(() => scope.close());
const directory = makeTempDir(scope);
const trustDomain = 'spiffe://mesh.test';

let authority: Authority;
let number = 0;
let files: string;
beforeAll(async () => {
  authority = await startAuthority(scope, { directory });
  await register('default', 600);
});
beforeEach(() => {
  number += 1;
  files = join(directory, `files-${number}`);
});

const once = (...more: readonly string[]) =>
  runCli(['agent', 'files', '--once', '-o', 'json', '--workload-socket', authority.workloadSocket, ...more]);

test('once: the files are there, the hook has run, and a second run changes nothing', async () => {
  const log = join(directory, 'hook.log');
  const hook = ['--', 'sh', '-c', `echo "$COUNTERSIGN_FILES_DIRECTORY" >> ${log}`];
  const first = await once('--directory', files, '--combined', 'all.pem', ...hook);
  expect([first.code, first.err]).toEqual([0, '']);
  const events = first.out
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as Record<string, unknown>);
  expect(events).toMatchObject([
    { kind: 'written', output: 'files', certificate: { spiffeId: `${trustDomain}/default` } },
    { kind: 'hook_ok' },
  ]);
  expect(first.out).not.toContain('PRIVATE');
  const shown = readdirSync(files).filter((name) => !name.startsWith('..'));
  expect(shown).toEqual(['all.pem', 'bundle.pem', 'key.pem', 'svid.pem']);
  const second = await once('--directory', files, '--combined', 'all.pem', ...hook);
  expect(second.code).toBe(0);
  expect(readFileSync(log, 'utf8').trim().split('\n')).toContain(files);
});

test.each<[string, readonly string[], number, string]>([
  ['no output', [], 64, 'usage'],
  ['a file and a directory', ['-f', '/x', '--directory', '/y'], 64, 'usage'],
  ['a file and a hook', ['-f', '/x', '--', 'true'], 64, 'usage'],
  ['an unknown user', ['--directory', '/x', '--owner', 'no-such-user'], 64, 'usage'],
  ['a mode for everybody', ['--directory', '/x', '--mode', '0644'], 64, 'usage'],
  ['a file elsewhere', ['--directory', '/x', '--combined', '../x'], 64, 'usage'],
  ['a file that is not there', ['-f', '/nowhere'], 2, 'file_missing'],
  ['a place where nothing can be made', ['--directory', '/proc/x'], 77, 'file_permissions'],
  [
    'an identity that nobody gives',
    ['--directory', '/dev/shm/countersign-none', '--spiffe-id', `${trustDomain}/none`, '--timeout', '1s'],
    77,
    'identity_none',
  ],
  [
    'a server that is away',
    ['--directory', '/dev/shm/countersign-none', '--workload-socket', '/nowhere', '--timeout', '2s'],
    69,
    'server_unreachable',
  ],
  [
    'a hook that is not there',
    ['--directory', '/dev/shm/countersign-none', '--', '/nowhere/nginx'],
    2,
    'hook_failed',
  ],
])('once: %s', async (_, args, code, error) => {
  const outcome = await once(...args);
  rmSync('/dev/shm/countersign-none', { recursive: true, force: true });
  const last = outcome.err.trim().split('\n').at(-1) ?? '';
  expect([outcome.code, JSON.parse(last)]).toMatchObject([code, { error: { code: error } }]);
});

test('a change while the hook runs leads to one more run, however many changes there were', async () => {
  await register('busy', 600);
  const log = join(directory, 'runs.log');
  const agent = start('busy', ['sh', '-c', `echo start >> ${log}; sleep 3; echo end >> ${log}`]);
  await eventually('the hook to run', () => existsSync(log));
  const before = serial();
  // Three new certificates while the first run lasts.
  for (const ttlSeconds of [601, 602, 603]) {
    await register('busy', ttlSeconds);
    await new Promise((resolve) => setTimeout(resolve, 400));
  }
  // INVARIANT: nothing is swapped under a hook.
  expect([runs(log), serial()]).toEqual([['start'], before]);
  await eventually('the second run to end', () => runs(log).length === 4);
  await new Promise((resolve) => setTimeout(resolve, 2_000));
  expect(runs(log)).toEqual(['start', 'end', 'start', 'end']);
  expect(serial()).not.toBe(before);
  agent.kill('SIGTERM');
  expect(await agent.exited).toBe(0);
}, 40_000);

test('a hook that fails is tried again, also by the next process, and the version it knows stays', async () => {
  await register('flaky', 600);
  const good = join(directory, 'good');
  const hook = ['sh', '-c', `test -e ${good} || { echo not yet; exit 1; }`];
  const first = start('flaky', hook);
  await eventually('two failures', () => first.output().split('HOOK FAILED').length > 2);
  expect(first.output()).toMatch(/HOOK FAILED +"sh" ended with exit code 1: not yet; again in 1 s/);
  first.kill('SIGKILL');
  await first.exited;
  writeFileSync(good, '');
  const second = start('flaky', hook);
  await eventually('the hook to succeed', () => second.output().split('hook ok').length > 1);
  second.kill('SIGINT');
  expect(await second.exited).toBe(0);
  // A second instance is told so, and harms nobody.
  const laid = (): number => second.output().match(/ {2}(?:written|unchanged) {2}/g)?.length ?? 0;
  const before = laid();
  const third = start('flaky', hook);
  await eventually('the third', () => laid() > before);
  const refused = await once('--directory', files);
  expect([refused.code, JSON.parse(refused.err)]).toMatchObject([2, { error: { code: 'directory_in_use' } }]);
  await third.stop();
}, 40_000);

test('a ban removes the files, and its end brings them back', async () => {
  await register('banned', 600);
  const agent = start('banned', ['true']);
  await eventually('the files', () => existsSync(join(files, 'key.pem')));
  await authority.ban('spiffe-id', `${trustDomain}/banned`);
  await eventually('the files to go', () => readdirSync(files).length === 0);
  await eventually('it to be said', () => agent.output().includes('BANNED'));
  await authority.unban('spiffe-id', `${trustDomain}/banned`);
  await eventually('the files to be back', () => existsSync(join(files, 'key.pem')));
  // An entry that is gone is no ban, and cannot be told from a server that is silent: the files stay until they expire.
  await agent.stop();
}, 40_000);

test('while the server is away the files stay, their end is announced, and then they go on', async () => {
  await register('away', 20);
  const agent = start('away', ['true']);
  await eventually('the files', () => existsSync(join(files, 'key.pem')));
  await authority.kill();
  const before = serial();
  for (const said of ['NO CERTIFICATE', 'EXPIRES SOON', 'EXPIRED']) {
    await eventually(said, () => agent.output().includes(said), { withinMs: 25_000 });
  }
  expect(serial()).toBe(before);
  expect(readFileSync(`${files}.prom`, 'utf8')).toMatch(/^countersign_files_failing\{output="files"\} 1$/m);
  // A process that starts now has only what it finds.
  await agent.stop();
  const next = start('away', ['true']);
  await eventually('the end to be announced again', () => next.output().split('EXPIRED').length > 2);
  await authority.restart();
  await eventually('new files', () => serial() !== before, { withinMs: 35_000 });
  await eventually('calm', () =>
    /^countersign_files_failing\{output="files"\} 0$/m.test(readFileSync(`${files}.prom`, 'utf8')),
  );
  await next.stop();
}, 120_000);

test.skipIf(process.geteuid?.() === 0)(
  'a directory that cannot be written is said, and got over',
  async () => {
    mkdirSync(files, { mode: 0o500 });
    const agent = start('default', ['true']);
    await eventually('it to be said', () => agent.output().includes('NOT WRITTEN'));
    chmodSync(files, 0o700);
    await eventually('the files', () => existsSync(join(files, 'key.pem')));
    await agent.stop();
  },
);

function start(name: string, hook: readonly string[]): Child {
  const args = [
    ...[main, 'agent', 'files', '--workload-socket', authority.workloadSocket],
    ...['--directory', files, '--spiffe-id', `${trustDomain}/${name}`, '--metrics-file', `${files}.prom`],
    ...['--', ...hook],
  ];
  return startChild(scope, { command: process.execPath, args, logFile: `${files}.log` });
}

async function register(name: string, ttlSeconds: number): Promise<void> {
  await authority.apply(
    JSON.stringify({
      apiVersion: 'countersign.dev/v1',
      kind: 'RegistrationEntry',
      metadata: { name },
      spec: {
        spiffeId: `${trustDomain}/${name}`,
        selectors: [`unix:uid:${process.geteuid?.()}`],
        ttlSeconds,
      },
    }),
  );
}

function serial(): string {
  return new X509Certificate(readFileSync(join(files, 'svid.pem'))).serialNumber;
}

function runs(log: string): readonly string[] {
  return readFileSync(log, 'utf8').trim().split('\n');
}
