import { mkdtemp, rm } from 'node:fs/promises';
import { chmodSync, readdirSync, readlinkSync } from 'node:fs';
import { Session } from 'node:inspector';
import { createServer, connect, type Server, Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { openPeerCredentials, type PeerCredentials } from '../../src/grpc/peer-credentials.ts';
import { connectScript, runChild } from './children.ts';

let directory: string;
let path: string;
let server: Server;
let accepted: (socket: Socket) => void;

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'peer-'));
  chmodSync(directory, 0o755);
  path = join(directory, 's');
  server = createServer((socket) => accepted(socket));
  await new Promise<void>((resolve) => server.listen(path, resolve));
  chmodSync(path, 0o666);
});

afterEach(async () => {
  server.close();
  await rm(directory, { recursive: true });
});

describe.each([
  ['with SO_PEERPIDFD', true],
  ['with the start time', false],
])('%s', (_, pidfd) => {
  test('names this process', async () => {
    const { credentials, end } = await acceptOwn(pidfd);
    expect(credentials).toMatchObject({ pid: process.pid, uid: process.getuid?.(), gid: process.getgid?.() });
    expect(credentials.isAlive()).toBe(true);
    end();
    expect(credentials.isAlive()).toBe(false);
  });

  test('sees that the process which connected has ended', async () => {
    const arrival = await expectConnection(pidfd);
    const child = runChild(connectScript, [path]);
    const credentials = await arrival.credentials;
    expect(await child.line()).toBe(`connected ${credentials.pid}`);
    expect(credentials.isAlive()).toBe(true);
    child.process.stdin?.end();
    await child.exited;
    expect(credentials.isAlive()).toBe(false);
    credentials.close();
  });

  test('is not fooled by a child that keeps the connection of a process that ended', async () => {
    // The first process connects, hands the socket to its own child, and exits: the connection lives on.
    const script = `
      const socket = require('net').connect(process.argv[1], () => {
        const keeper = require('child_process').spawn('sleep', ['2'], { stdio: [socket, 'ignore', 'ignore'], detached: true });
        keeper.on('spawn', () => { console.log('passed'); process.exit(); });
      });`;
    const arrival = await expectConnection(pidfd);
    const child = runChild(script, [path]);
    const credentials = await arrival.credentials;
    expect(await child.line()).toBe('passed');
    await child.exited;
    expect(credentials.isAlive()).toBe(false);
    credentials.close();
  });
});

test.skipIf(process.getuid?.() !== 0)('names the other user', async () => {
  const arrival = await expectConnection(true);
  const child = runChild(connectScript, [path], { uid: 65_534, gid: 65_533 });
  const credentials = await arrival.credentials;
  expect(credentials).toMatchObject({ pid: child.process.pid, uid: 65_534, gid: 65_533 });
  child.process.stdin?.end();
  await child.exited;
  credentials.close();
});

test('a socket without a file descriptor names nobody', async () => {
  const read = await openPeerCredentials();
  expect(() => read(new Socket())).toThrow(expect.objectContaining({ code: 'attestation_failed' }));
});

test('a signal in the middle does not make the process look ended', async () => {
  const { credentials, end } = await acceptOwn(true);
  const session = new Session();
  session.connect();
  // The sampling profiler interrupts this thread by signals.
  session.post('Profiler.enable');
  session.post('Profiler.setSamplingInterval', { interval: 50 });
  session.post('Profiler.start');
  const until = Date.now() + 500;
  let dead = 0;
  while (Date.now() < until) if (!credentials.isAlive()) dead += 1;
  session.post('Profiler.stop');
  session.disconnect();
  end();
  expect(dead).toBe(0);
});

test('the hold on the process is closed with the connection', async () => {
  const before = pidfds();
  const { end } = await acceptOwn(true);
  expect(pidfds()).toBe(before + 1);
  end();
  end();
  expect(pidfds()).toBe(before);
});

/** The credentials of the next connection, listened for before the promise of them is handed out. */
async function expectConnection(pidfd: boolean): Promise<{ credentials: Promise<PeerCredentials> }> {
  const read = await openPeerCredentials({ pidfd });
  const credentials = new Promise<PeerCredentials>((resolve) => {
    accepted = (socket) => {
      socket.on('error', () => undefined);
      resolve(read(socket));
    };
  });
  return { credentials };
}

async function acceptOwn(pidfd: boolean): Promise<{ credentials: PeerCredentials; end: () => void }> {
  const arrival = await expectConnection(pidfd);
  const client = connect(path);
  const credentials = await arrival.credentials;
  const end = (): void => {
    client.destroy();
    credentials.close();
  };
  return { credentials, end };
}

function pidfds(): number {
  return readdirSync('/proc/self/fd').filter((fd) => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`).includes('pidfd');
    } catch {
      return false;
    }
  }).length;
}
