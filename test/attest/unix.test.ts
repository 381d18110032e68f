import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { copyFileSync, realpathSync } from 'node:fs';
import { chmod, mkdtemp, rm, unlink } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { createUnixAttestor, describeUnixAbilities } from '../../src/attest/unix.ts';
import type { UnixPeer } from '../../src/identity/evidence.ts';

const sleep = realpathSync(spawnSync('sh', ['-c', 'command -v sleep'], { encoding: 'utf8' }).stdout.trim());
const isRoot = process.getuid?.() === 0;
let directory: string;
const children: ChildProcess[] = [];

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'attest-'));
  await chmod(directory, 0o755);
});

afterEach(async () => {
  for (const child of children.splice(0)) child.kill('SIGKILL');
  await rm(directory, { recursive: true });
});

describe('what is attested', () => {
  test('this process', async () => {
    const texts = await attest(ownPeer());
    const groups = new Set([process.getgid?.() ?? -1, ...(process.getgroups?.() ?? [])]);
    expect(texts).toContain(`unix:uid:${process.getuid?.()}`);
    expect(texts.filter((text) => text.startsWith('unix:gid:')).sort()).toEqual(
      [...groups].map((gid) => `unix:gid:${gid}`).sort(),
    );
    expect(texts).toContain(`unix:path:${realpathSync(process.execPath)}`);
    expect(texts).toEqual([...texts].sort());
    expect(new Set(texts).size).toBe(texts.length);
  });

  test.skipIf(!isRoot)('another user', async () => {
    const pid = await run(sleep, ['20'], { uid: 65_534, gid: 65_533 });
    const texts = await attest(peer({ pid, uid: 65_534, gid: 65_533 }));
    expect(texts).toEqual([
      'unix:gid:65533',
      `unix:path:${sleep}`,
      'unix:uid:65534',
      ...(userNamed(65_534) ? [`unix:user:${userNamed(65_534)}`] : []),
    ]);
  });

  test('the record names the caller as the kernel did', async () => {
    const { caller } = await createUnixAttestor()(ownPeer());
    expect(caller).toEqual({ pid: process.pid, uid: process.getuid?.(), gid: process.getgid?.() });
  });
});

describe('no path', () => {
  test('for a file that was deleted', async () => {
    const file = join(directory, 'program');
    copyFileSync(sleep, file);
    const pid = await run(file, ['20']);
    expect(await attest(peer({ pid }))).toContain(`unix:path:${file}`);
    await unlink(file);
    expect(paths(await attest(peer({ pid })))).toEqual([]);
  });

  test('for a file that was replaced', async () => {
    const file = join(directory, 'program');
    copyFileSync(sleep, file);
    const pid = await run(file, ['20']);
    await unlink(file);
    copyFileSync(sleep, file);
    expect(paths(await attest(peer({ pid })))).toEqual([]);
  });

  test.each(['new\nline', 'escape\u001b[31m', 'program (deleted)'])('for a file named %j', async (name) => {
    const file = join(directory, name);
    copyFileSync(sleep, file);
    const pid = await run(file, ['20']);
    expect(paths(await attest(peer({ pid })))).toEqual([]);
  });

  test('for a file of another mount namespace under a name of ours', async (context) => {
    const good = join(directory, 'good');
    const evil = join(directory, 'evil');
    copyFileSync(sleep, good);
    copyFileSync(sleep, evil);
    const script = `mount --bind '${evil}' '${good}' && exec '${good}' 20`;
    const pid = await run('unshare', ['--mount', '--propagation', 'private', 'sh', '-c', script]).catch(
      () => 0,
    );
    const exe = await settle(() => realpath(pid), good);
    context.skip(exe !== good, 'no mount namespaces here');
    expect(paths(await attest(peer({ pid })))).toEqual([]);
  });
});

describe('refused', () => {
  test.each([
    ['a process that has ended', { isAlive: () => false }],
    ['a process out of sight', { pid: 0 }],
    ['a pid that is none', { pid: -1 }],
    ['a process that has changed its user', { uid: (process.getuid?.() ?? 0) + 1 }],
  ])('%s', async (_, change) => {
    await expect(attest({ ...ownPeer(), ...change })).rejects.toMatchObject({ code: 'attestation_failed' });
  });

  test('a pid that went to another process while it was looked at', async () => {
    const child = await run(sleep, ['20']);
    const checks: string[] = [];
    const successor = peer({
      pid: child,
      isAlive: () => {
        checks.push('after');
        return false;
      },
    });
    await expect(attest(successor)).rejects.toMatchObject({ code: 'attestation_failed' });
    expect(checks).toEqual(['after']);
  });
});

test('without the right to look, the path is left out and said so once', async (context) => {
  context.skip(!isRoot, 'needs a second user');
  // The attestor as nobody, looking twice at a process of root.
  const attestor = pathToFileURL(fileURLToPath(new URL('../../src/attest/unix.ts', import.meta.url))).href;
  const script = `
    const { createUnixAttestor, describeUnixAbilities } = await import(${JSON.stringify(attestor)});
    const attest = createUnixAttestor({ warn: (message) => console.log('warned ' + message) });
    const peer = { kind: 'unix', connectionId: 'c', pid: ${process.pid}, uid: 0, gid: 0, isAlive: () => true };
    for (let i = 0; i < 2; i++) console.log((await attest(peer)).selectors.map(({ text }) => text).join(' '));
    console.log(JSON.stringify(describeUnixAbilities()));`;
  const { stdout, stderr } = spawnSync(process.execPath, ['--input-type=module', '-e', script], {
    uid: 65_534,
    gid: 65_534,
    cwd: '/',
    encoding: 'utf8',
  });
  context.skip(stderr.includes('EACCES'), 'the repository is not readable for other users');
  const lines = stdout.trim().split('\n');
  expect(lines.filter((line) => line.startsWith('warned'))).toHaveLength(1);
  expect(lines.filter((line) => line.includes('unix:uid:0'))).toHaveLength(2);
  expect(stdout).not.toContain('unix:path:');
  expect(lines.at(-1)).toBe('{"pathOfOtherUsers":false}');
});

test.skipIf(!isRoot)('root sees the paths of others', () => {
  const bounded = spawnSync('grep', ['CapEff', '/proc/self/status'], { encoding: 'utf8' }).stdout;
  const ptrace = (BigInt(`0x${bounded.split(/\s+/)[1]}`) >> 19n) & 1n;
  expect(describeUnixAbilities()).toEqual({ pathOfOtherUsers: ptrace === 1n });
});

async function attest(of: UnixPeer): Promise<string[]> {
  return (await createUnixAttestor()(of)).selectors.map(({ text }) => text);
}

function ownPeer(): UnixPeer {
  return peer({ pid: process.pid });
}

function peer(of: Partial<UnixPeer>): UnixPeer {
  const [uid, gid] = [process.getuid?.() ?? -1, process.getgid?.() ?? -1];
  return { kind: 'unix', connectionId: 'unix-1', pid: 0, uid, gid, isAlive: () => true, ...of };
}

function paths(texts: readonly string[]): readonly string[] {
  return texts.filter((text) => text.startsWith('unix:path:'));
}

/** Starts a program and waits until it has replaced the fork of this process. */
async function run(
  file: string,
  args: readonly string[],
  who: { uid?: number; gid?: number } = {},
): Promise<number> {
  const child = spawn(file, args, { ...who, stdio: 'ignore' });
  children.push(child);
  await new Promise((resolve, reject) => child.once('spawn', resolve).once('error', reject));
  return child.pid ?? 0;
}

function realpath(pid: number): string {
  try {
    return spawnSync('readlink', [`/proc/${pid}/exe`], { encoding: 'utf8' }).stdout.trim();
  } catch {
    return '';
  }
}

async function settle(read: () => string, wanted: string): Promise<string> {
  for (let i = 0; i < 1_000 && read() !== wanted; i++)
    await new Promise((resolve) => setTimeout(resolve, 20));
  return read();
}

function userNamed(uid: number): string | undefined {
  const line = spawnSync('getent', ['passwd', String(uid)], { encoding: 'utf8' }).stdout;
  return line.split(':')[0] === '' ? undefined : line.split(':')[0];
}
