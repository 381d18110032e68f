import { credentials, type ServiceError, status } from '@grpc/grpc-js';
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { connect as connectHttp2, type ClientHttp2Session, constants } from 'node:http2';
import { connect, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { disconnect, peerOf } from '../../src/grpc/connections.ts';
import { guardStream, guardUnary } from '../../src/grpc/guard.ts';
import { type GrpcLimits, type GrpcListener, inMeasure, startGrpcListener } from '../../src/grpc/listener.ts';
import type { UnixPeer } from '../../src/identity/evidence.ts';
import type { DiscoveryRequest, DiscoveryResponse } from '../../src/wire/discovery.ts';
import { SecretDiscoveryServiceClient, SecretDiscoveryServiceService } from '../../src/wire/sds.ts';

let directory: string;
let path: string;
let log: string[];
let peers: UnixPeer[];
let closeService: (() => void) | undefined;
const opened: { close: () => unknown }[] = [];

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'grpc-'));
  path = join(directory, 'api.sock');
  log = [];
  peers = [];
  closeService = undefined;
});

afterEach(async () => {
  for (const one of opened.splice(0).reverse()) await one.close();
  await rm(directory, { recursive: true });
});

describe('peers', () => {
  test('a call names the process behind its connection', async () => {
    await listen();
    const client = open();
    await Promise.all([fetch(client), fetch(client), fetch(client)]);
    expect(new Set(peers.map(({ connectionId }) => connectionId)).size).toBe(1);
    expect(peers[0]).toMatchObject({
      kind: 'unix',
      pid: process.pid,
      uid: process.getuid?.(),
      gid: process.getgid?.(),
    });
    expect(peers[0]?.isAlive()).toBe(true);
  });

  test('each connection has a name of its own, never used again', async () => {
    await listen();
    for (let i = 0; i < 3; i++) {
      const client = open();
      await fetch(client);
      client.close();
    }
    expect(new Set(peers.map(({ connectionId }) => connectionId)).size).toBe(3);
  });

  test('is dead to us once its connection has closed', async () => {
    const listener = await listen();
    const client = open();
    await fetch(client);
    client.close();
    await until(() => listener.connections() === 0);
    expect(peers[0]?.isAlive()).toBe(false);
    expect(() => peerOf({ getPeer: () => peers[0]?.connectionId ?? '' })).toThrow(
      expect.objectContaining({ code: 'unauthenticated' }),
    );
  });

  test.each(['unknown', '', '127.0.0.1:1', '__proto__'])('no connection is called %j', (name) => {
    expect(() => peerOf({ getPeer: () => name })).toThrow(
      expect.objectContaining({ code: 'unauthenticated' }),
    );
  });

  test('a connection can be cut', async () => {
    const listener = await listen();
    const client = open();
    await fetch(client);
    const [peer] = peers;
    if (peer !== undefined) disconnect(peer);
    await until(() => listener.connections() === 0);
  });
});

describe('limits', () => {
  test('connections of one uid', async () => {
    const listener = await listen({ connectionsPerUid: 2 });
    const first = await raw();
    await raw();
    expect(await closes(await raw())).toBe(true);
    expect(log).toEqual(['connection turned away']);
    expect(listener.connections()).toBe(2);
    first.destroy();
    await until(() => listener.connections() === 1);
    await raw();
    await until(() => listener.connections() === 2);
    expect(log).toHaveLength(1);
  });

  test('connections in all', async () => {
    await listen({ connections: 1 });
    await raw();
    expect(await closes(await raw())).toBe(true);
  });

  test('streams of one connection', async () => {
    await listen({ streamsPerConnection: 2 });
    const session = await http2();
    const settings = await new Promise<{ maxConcurrentStreams?: number }>((resolve) =>
      session.once('remoteSettings', resolve),
    );
    expect(settings.maxConcurrentStreams).toBe(2);
  });

  test('message size', async () => {
    await listen({ messageBytes: 10_000 });
    await expect(fetch(open(), 'x'.repeat(9_000))).resolves.toBeDefined();
    await expect(fetch(open(), 'x'.repeat(11_000))).rejects.toMatchObject({
      code: status.RESOURCE_EXHAUSTED,
    });
    await expect(fetch(open())).resolves.toBeDefined();
  });

  test.each([
    [10_000, true],
    [20_000, false],
  ])('a header of %i bytes gets through: %s', async (bytes, passes) => {
    await listen();
    const session = await http2();
    await new Promise((resolve) => session.once('localSettings', resolve));
    const stream = session.request({
      ':method': 'POST',
      ':path': '/envoy.service.secret.v3.SecretDiscoveryService/FetchSecrets',
      'content-type': 'application/grpc',
      'x-large': 'x'.repeat(bytes),
    });
    const outcome = await new Promise<string>((resolve) => {
      stream.once('response', () => resolve('response'));
      stream.once('error', () => resolve('reset'));
      stream.once('close', () => resolve(`reset ${stream.rstCode}`));
      stream.end();
    });
    stream.on('error', () => undefined).close();
    expect(outcome === 'response').toBe(passes);
  });
});

describe('hostile connections', () => {
  test.each([
    ['nothing', ''],
    ['garbage', '\0\xff'.repeat(5_000)],
    ['HTTP/1.1', 'GET / HTTP/1.1\r\nhost: x\r\n\r\n'],
    ['half a preface', 'PRI * HTTP/2.0\r\n'],
    ['a preface and garbage', `PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n${'\xff'.repeat(200)}`],
  ])('%s does not hurt the others', async (_, bytes) => {
    await listen();
    const socket = await raw();
    socket.write(bytes, 'latin1');
    await fetch(open());
    socket.destroy();
    await fetch(open());
  });

  test.each([
    ['no content type', { ':path': '/x', ':method': 'POST' }, 415],
    [
      'an unknown method',
      { ':path': '/nobody/Home', ':method': 'POST', 'content-type': 'application/grpc' },
      200,
    ],
  ])('a request with %s is answered', async (_, headers, code) => {
    await listen();
    const session = await http2();
    const stream = session.request(headers, { endStream: true });
    stream.on('error', () => undefined).resume();
    const answer = await new Promise<Record<string, unknown>>((resolve) => stream.once('response', resolve));
    expect(answer[':status']).toBe(code);
    if (code === 200) expect(answer['grpc-status']).toBe(String(status.UNIMPLEMENTED));
    await fetch(open());
  });

  test('a thousand streams opened and reset do not hurt the others', async () => {
    await listen();
    const session = await http2();
    for (let i = 0; i < 1_000; i++) {
      const stream = session.request({
        ':path': '/x/y',
        ':method': 'POST',
        'content-type': 'application/grpc',
      });
      stream.on('error', () => undefined);
      stream.close(constants.NGHTTP2_CANCEL);
    }
    await fetch(open());
  });
});

describe('closing', () => {
  test('takes the path away, refuses new calls and lets the running one finish', async () => {
    const release = Promise.withResolvers<void>();
    const listener = await listen({}, { unary: () => release.promise });
    const client = open();
    const running = fetch(client);
    await until(() => peers.length === 1);
    const closed = listener.close(5_000);
    await until(async () => (await readdir(directory)).length === 0);
    await expect(fetch(open())).rejects.toMatchObject({ code: status.UNAVAILABLE });
    release.resolve();
    await running;
    await closed;
  });

  test('tells the services, whose streams end with OK', async () => {
    const stop = Promise.withResolvers<void>();
    closeService = stop.resolve;
    const listener = await listen({}, { stream: () => stop.promise });
    const ended = streamStatus(open());
    await until(() => peers.length === 1);
    // Nothing is left to cut, so neither waits for the end of a grace longer than the test has.
    await Promise.all([listener.close(600_000), listener.close(600_000)]);
    expect(await ended).toMatchObject({ code: status.OK });
  });

  test('cuts after the grace what does not end', async () => {
    const listener = await listen({}, { stream: () => new Promise(() => undefined) });
    const ended = streamStatus(open());
    await raw();
    await until(() => peers.length === 1);
    await listener.close(100);
    expect(await ended).not.toMatchObject({ code: status.OK });
    await until(() => listener.connections() === 0);
  });

  test('leaves the path to a successor that has started meanwhile', async () => {
    const first = await listen({}, { stream: () => new Promise(() => undefined) });
    const ended = streamStatus(open());
    await until(() => peers.length === 1);
    const closed = first.close(300);
    await until(async () => (await readdir(directory)).length === 0);
    await listen();
    await closed;
    await ended;
    await fetch(open());
  });

  test('while it lives nobody else takes the path', async () => {
    await listen();
    await expect(listen()).rejects.toMatchObject({ code: 'socket_in_use' });
    await fetch(open());
  });
});

type Work = { unary?: () => Promise<void>; stream?: () => Promise<void> };

async function listen(limits: Partial<GrpcLimits> = {}, work: Work = {}): Promise<GrpcListener> {
  const listener = await startGrpcListener({
    path,
    mode: 0o600,
    limits,
    log: (message) => void log.push(message),
    services: [
      {
        definition: SecretDiscoveryServiceService,
        close: () => closeService?.(),
        implementation: {
          fetchSecrets: guardUnary<DiscoveryRequest, DiscoveryResponse>(async (call) => {
            peers.push(peerOf(call));
            await work.unary?.();
            return response;
          }),
          streamSecrets: guardStream<DiscoveryRequest, DiscoveryResponse>(async (call) => {
            peers.push(peerOf(call));
            call.resume();
            await work.stream?.();
          }),
        },
      },
    ],
  });
  opened.push({ close: () => listener.close(0) });
  return listener;
}

function open(): SecretDiscoveryServiceClient {
  // Without its own pool grpc-js would share one connection among all clients of an address.
  const client = new SecretDiscoveryServiceClient(`unix:${path}`, credentials.createInsecure(), {
    'grpc.use_local_subchannel_pool': 1,
  });
  opened.push(client);
  return client;
}

function fetch(client: SecretDiscoveryServiceClient, versionInfo = ''): Promise<DiscoveryResponse> {
  return new Promise((resolve, reject) => {
    client.fetchSecrets({ ...request, versionInfo }, (error: ServiceError | null, answer) =>
      error ? reject(error) : resolve(answer),
    );
  });
}

function streamStatus(client: SecretDiscoveryServiceClient): Promise<unknown> {
  return new Promise((resolve) => {
    const call = client.streamSecrets();
    call
      .on('error', () => undefined)
      .on('data', () => undefined)
      .on('status', resolve);
  });
}

function raw(): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = connect(path, () => resolve(socket));
    socket.on('error', reject);
    opened.push({ close: () => socket.destroy() });
  });
}

async function http2(): Promise<ClientHttp2Session> {
  const socket = await raw();
  const session = connectHttp2('http://localhost', { createConnection: () => socket });
  session.on('error', () => undefined);
  opened.push({ close: () => session.destroy() });
  return session;
}

function closes(socket: Socket): Promise<boolean> {
  return new Promise((resolve) => {
    socket.on('close', () => resolve(true)).resume();
    setTimeout(resolve, 30_000, false).unref();
  });
}

test('whoever connects cannot fill the log: what is not told is counted', () => {
  const told: unknown[] = [];
  const log = inMeasure((_, detail) => told.push(detail));
  for (let i = 0; i < 1_000; i++) log('handshake failed', { i });
  expect(told).toHaveLength(60);
  expect(told.at(-1)).toEqual({ i: 59 });
});

async function until(done: () => boolean | Promise<boolean>): Promise<void> {
  for (let i = 0; i < 2_000; i++) {
    if (await done()) return;
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  throw new Error('it never came to be');
}

const request: DiscoveryRequest = {
  versionInfo: '',
  node: undefined,
  resourceNames: [],
  typeUrl: '',
  responseNonce: '',
  errorDetail: undefined,
};
const response: DiscoveryResponse = {
  versionInfo: '1',
  resources: [],
  canary: false,
  typeUrl: '',
  nonce: '',
  controlPlane: undefined,
  resourceErrors: [],
};
