import { chmod, lstat, mkdir, mkdtemp, readdir, rm, symlink, writeFile } from 'node:fs/promises';
import { connect, createServer, type Server } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { bindSocket, maxSocketPathBytes } from '../../src/grpc/socket-path.ts';
import { runChild } from './children.ts';

let directory: string;
const servers: Server[] = [];

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'bind-'));
});

afterEach(async () => {
  for (const server of servers.splice(0)) server.close();
  await rm(directory, { recursive: true });
});

test.each([0o666, 0o600, 0o660])('binds with mode %o and leaves nothing else behind', async (mode) => {
  const path = join(directory, 'api.sock');
  await bind(path, mode);
  expect((await lstat(path)).mode & 0o777).toBe(mode);
  expect(await readdir(directory)).toEqual(['api.sock']);
  expect(await connects(path)).toBe(true);
});

test.each([
  [maxSocketPathBytes - 1, true],
  [maxSocketPathBytes, true],
  [maxSocketPathBytes + 1, false],
])('a path of %i bytes is bound: %s', async (bytes, accepted) => {
  const path = join(directory, 'x'.repeat(bytes - directory.length - 1));
  expect(Buffer.byteLength(path)).toBe(bytes);
  if (accepted) {
    await bind(path);
    expect(await connects(path)).toBe(true);
  } else await refused(path, 'socket_path_too_long');
});

test('bytes are counted, not characters', async () => {
  await refused(join(directory, 'é'.repeat(50)), 'socket_path_too_long');
});

test.each(['relative.sock', '', './x.sock', '\0abstract'])('the path %j is refused', async (path) => {
  await refused(path, 'socket_path_unsafe');
});

test('a missing directory is named', async () => {
  await refused(join(directory, 'missing', 'api.sock'), 'file_missing');
});

test.each([
  [0o777, 'socket_path_unsafe'],
  [0o757, 'socket_path_unsafe'],
  [0o1777, undefined],
  [0o755, undefined],
  [0o770, undefined],
])('a directory of mode %o: %s', async (mode, code) => {
  const inner = join(directory, 'd');
  await mkdir(inner);
  await chmod(inner, mode);
  if (code === undefined) await bind(join(inner, 's'));
  else await refused(join(inner, 's'), code);
});

test('a file is left alone', async () => {
  const path = join(directory, 'api.sock');
  await writeFile(path, 'mine');
  await refused(path, 'socket_path_unsafe');
  expect((await lstat(path)).isFile()).toBe(true);
});

test('a symbolic link is not followed, whether it leads to a socket, nowhere or elsewhere', async () => {
  const live = join(directory, 'live.sock');
  await bind(live);
  for (const target of [live, join(directory, 'nothing'), '/etc/passwd']) {
    const link = join(directory, 'link.sock');
    await symlink(target, link);
    await refused(link, 'socket_path_unsafe');
    expect((await lstat(link)).isSymbolicLink()).toBe(true);
    await rm(link);
  }
});

test('a live socket is never taken', async () => {
  const path = join(directory, 'api.sock');
  await bind(path);
  const { ino } = await lstat(path);
  await refused(path, 'socket_in_use');
  expect((await lstat(path)).ino).toBe(ino);
  expect(await connects(path)).toBe(true);
});

test('the stale socket of a killed process is replaced', async () => {
  const path = join(directory, 'api.sock');
  const script = `require('net').createServer().listen(process.argv[1], () => console.log('up'))`;
  const child = runChild(script, [path]);
  expect(await child.line()).toBe('up');
  await refused(path, 'socket_in_use');
  child.process.kill('SIGKILL');
  await child.exited;
  expect((await lstat(path)).isSocket()).toBe(true);
  await bind(path);
  expect(await connects(path)).toBe(true);
});

test('closing the old server leaves the path of the new one', async () => {
  const path = join(directory, 'api.sock');
  const old = createServer();
  const bound = await bindSocket(old, path, 0o600);
  await new Promise((resolve) => old.close(resolve));
  await bind(path);
  await bound.unlink();
  expect(await connects(path)).toBe(true);
});

test('unlink removes our own socket', async () => {
  const path = join(directory, 'api.sock');
  const bound = await bind(path);
  await bound.unlink();
  await bound.unlink();
  expect(await readdir(directory)).toEqual([]);
});

async function bind(path: string, mode = 0o600): ReturnType<typeof bindSocket> {
  const server = createServer((socket) => socket.destroy());
  servers.push(server);
  return bindSocket(server, path, mode);
}

async function refused(path: string, code: string): Promise<void> {
  await expect(bind(path)).rejects.toMatchObject({ code });
}

function connects(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(path, () => resolve(true));
    socket.on('error', () => resolve(false));
    socket.on('connect', () => socket.destroy());
  });
}
