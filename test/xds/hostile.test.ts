import { type ClientDuplexStream, Client, credentials as grpcCredentials, status } from '@grpc/grpc-js';
import { connect as connectHttp2 } from 'node:http2';
import { connect } from 'node:net';
import { afterEach, beforeAll, describe, expect, test } from 'vitest';
import { connectScript, runChild } from '../grpc/children.ts';
import type { WorkloadCredentials, X509Svid } from '../../src/identity/credentials.ts';
import { secretTypeUrl } from '../../src/xds/secret.ts';
import { DiscoveryRequest, DiscoveryResponse } from '../../src/wire/discovery.ts';
import { SecretDiscoveryServiceService } from '../../src/wire/sds.ts';
import { createAuthority, credentialsOf, nothingOf, type TestAuthority } from './certificates.ts';
import {
  createSource,
  emptyRequest,
  followStream,
  type RunningSds,
  secretsOf,
  startSds,
  until,
} from './harness.ts';

const isRoot = process.getuid?.() === 0;
let authority: TestAuthority;
let web: X509Svid;
let renewed: X509Svid;
let credentials: WorkloadCredentials;
let sds: RunningSds;

beforeAll(async () => {
  authority = await createAuthority('example.org');
  [web, renewed] = [
    await authority.issue('spiffe://example.org/web'),
    await authority.issue('spiffe://example.org/web'),
  ];
  credentials = credentialsOf(authority, [web]);
});

afterEach(() => sds.close());

describe('requests', () => {
  const cluster = 'type.googleapis.com/envoy.config.cluster.v3.Cluster';
  const many = Array.from({ length: 10_000 }, (_, i) => `name-${i}`);
  test.each<[string, Partial<DiscoveryRequest>, status, string]>([
    ['another type', { typeUrl: cluster }, status.INVALID_ARGUMENT, 'message_invalid'],
    [
      'the v2 type',
      { typeUrl: 'type.googleapis.com/envoy.api.v2.auth.Secret' },
      status.INVALID_ARGUMENT,
      'message_invalid',
    ],
    ['10,000 names', { resourceNames: many }, status.RESOURCE_EXHAUSTED, 'resource_names_exceeded'],
    [
      '257 equal names',
      { resourceNames: Array(257).fill('a') },
      status.RESOURCE_EXHAUSTED,
      'resource_names_exceeded',
    ],
    [
      'a name of 64 KiB',
      { resourceNames: ['x'.repeat(65_536)] },
      status.RESOURCE_EXHAUSTED,
      'resource_names_exceeded',
    ],
  ])('%s', async (_, request, code, ours) => {
    sds = await startSds(createSource(() => credentials).watch);
    const stream = sds.open();
    stream.send(request);
    const ended = await stream.status();
    expect(ended.code).toBe(code);
    expect(ended.metadata.get('countersign-code')).toEqual([ours]);
    await served();
  });

  test.each([
    ['a message of more than 1 MiB', { resourceNames: ['x'.repeat(1_048_577)] }, status.RESOURCE_EXHAUSTED],
    ['a node of 2 MiB', { node: node('x'.repeat(2_097_152)) }, status.RESOURCE_EXHAUSTED],
  ])('%s', async (_, request, code) => {
    sds = await startSds(createSource(() => credentials).watch);
    const stream = sds.open();
    stream.send(request);
    expect(await stream.status()).toMatchObject({ code });
    await served();
  });

  test('the first request of a real Envoy, 61 KB of node, is answered', async () => {
    sds = await startSds(createSource(() => credentials).watch);
    const stream = sds.open();
    const extensions = Object.fromEntries(
      Array.from({ length: 516 }, (_, i) => [`extension-${i}`, 'x'.repeat(100)]),
    );
    stream.send({ resourceNames: ['default'], node: node('envoy', { extensions }) });
    expect(secretsOf(await stream.response())).toHaveLength(1);
  });

  test.each([
    ['random bytes', Buffer.from('ffffffffffffffffffffff00', 'hex')],
    ['a length past the end', Buffer.from([0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f])],
    ['a group that never ends', Buffer.alloc(100_000, 0x0b)],
    ['a struct a thousand deep', nested(1_000)],
  ])('%s end the stream and nothing else', async (_, bytes) => {
    sds = await startSds(createSource(() => credentials).watch);
    const stream = followStream(rawStream());
    stream.call.write(bytes as unknown as DiscoveryRequest);
    expect((await stream.status()).code).toBe(status.INTERNAL);
    await served();
  });

  test('bytes that are no UTF-8, in a name, give nothing', async () => {
    sds = await startSds(createSource(() => credentials).watch);
    const stream = followStream(rawStream());
    stream.call.write(Buffer.from([0x1a, 0x03, 0xff, 0xfe, 0xfd]) as unknown as DiscoveryRequest);
    expect(['message', undefined]).toContain(kindOf(await stream.next(200)));
    await served();
  });

  test('odd names find nothing, and are recorded as they are', async () => {
    sds = await startSds(createSource(() => credentials).watch);
    const names = [
      '../../etc/passwd',
      'file-cert:/etc/shadow~/etc/shadow',
      '*',
      '',
      '__proto__',
      'constructor',
    ];
    const stream = sds.open();
    stream.send({ resourceNames: names });
    expect(await stream.next(100)).toBeUndefined();
    expect(sds.refusals.map(({ resource }) => resource)).toEqual(names);
  });

  test('what a node calls itself decides nothing', async () => {
    sds = await startSds(createSource(() => nothingOf(authority)).watch);
    const stream = sds.open();
    stream.send({ resourceNames: ['default'], node: node('spiffe://example.org/web') });
    expect(await stream.next(100)).toBeUndefined();
  });
});

describe('streams', () => {
  test('a NACK loop causes one push, one record and one line', async () => {
    sds = await startSds(createSource(() => credentials).watch);
    const stream = sds.open();
    stream.send({ resourceNames: ['default'] });
    const response = await stream.response();
    for (let i = 0; i < 1_000; i++)
      stream.reject(response, ['default'], `evil\n\u001b[31m${'x'.repeat(1_000)}`);
    await until(() => sds.rejected.length === 1);
    await served();
    expect([sds.pushed.length, sds.rejected.length, sds.log.length]).toEqual([2, 1, 1]);
  });

  test('a nonce tells nothing of the next: what was not read cannot be acknowledged', async () => {
    const source = createSource(() => credentials);
    sds = await startSds(source.watch);
    const stream = sds.open();
    const nonces: string[] = [];
    for (const names of [['default'], ['ROOTCA'], ['default', 'ROOTCA']]) {
      const nonce = nonces.at(-1) ?? '';
      stream.send({ resourceNames: names, responseNonce: nonce });
      nonces.push((await stream.response()).nonce);
    }
    const alike = nonces.flatMap((one, at) => nonces.slice(at + 1).map((other) => commonOf(one, other)));
    expect(Math.max(...alike)).toBeLessThan(16);
  });

  test('a flood of stale requests is ignored', async () => {
    sds = await startSds(createSource(() => credentials).watch);
    const stream = sds.open();
    stream.send({ resourceNames: ['default'] });
    for (let i = 0; i < 2_000; i++) stream.send({ resourceNames: ['ROOTCA'], responseNonce: 'bogus' });
    const response = await stream.response();
    expect(secretsOf(response).map(({ name }) => name)).toEqual(['default']);
    expect(await stream.next(100)).toBeUndefined();
  });

  test('a client that never acknowledges is asked to start anew, once something newer waits', async () => {
    const source = createSource(() => credentials);
    sds = await startSds(source.watch, { limits: { answerMs: 100 } });
    const stream = sds.open();
    stream.send({ resourceNames: ['default'] });
    await stream.response();
    expect(await stream.next(300)).toBeUndefined();
    source.publish(() => credentialsOf(authority, [renewed]));
    const ended = await stream.status();
    expect(ended.code).toBe(status.UNAVAILABLE);
    expect(ended.metadata.get('countersign-code')).toEqual(['stream_stalled']);
  });

  test('a client that never reads is cut off', async () => {
    sds = await startSds(createSource(() => credentials).watch, { limits: { writeMs: 100 } });
    const session = connectHttp2('http://localhost', {
      createConnection: () => connect(sds.path),
      settings: { initialWindowSize: 0 },
    });
    const closed = new Promise((resolve) => session.on('error', () => undefined).on('close', resolve));
    const stream = session.request({
      ':method': 'POST',
      ':path': SecretDiscoveryServiceService.streamSecrets.path,
      'content-type': 'application/grpc',
      te: 'trailers',
    });
    stream.on('error', () => undefined);
    stream.write(framed({ ...emptyRequest, resourceNames: ['default'] }));
    await closed;
    await until(() => sds.connections() === 0 && sds.streams() === 0);
    await served();
  });

  test('a stream that asks for nothing is ended', async () => {
    sds = await startSds(createSource(() => credentials).watch, { limits: { firstRequestMs: 100 } });
    const ended = await sds.open().status();
    expect(ended.code).toBe(status.UNAVAILABLE);
    expect(ended.metadata.get('countersign-code')).toEqual(['stream_stalled']);
  });

  test('streams of one uid are limited', async () => {
    sds = await startSds(createSource(() => credentials).watch, { limits: { streamsPerUid: 2 } });
    const [first, second] = [sds.open(), sds.open()];
    for (const stream of [first, second]) {
      stream.send({ resourceNames: ['default'] });
      await stream.response();
    }
    const third = sds.open();
    third.send({ resourceNames: ['default'] });
    expect(await third.status()).toMatchObject({ code: status.RESOURCE_EXHAUSTED });
    first.call.cancel();
    await until(() => sds.streams() === 1);
    await served();
  });
});

describe('processes', () => {
  test.skipIf(!isRoot)('two users on one socket get what is theirs', async () => {
    const api = await authority.issue('spiffe://example.org/api');
    const source = createSource(({ caller }) =>
      caller.uid === 65_534 ? credentialsOf(authority, [api]) : credentials,
    );
    sds = await startSds(source.watch);
    const child = runChild(
      streamScript,
      [sds.path, ...requestArgs(['default', 'spiffe://example.org/web'])],
      {
        uid: 65_534,
        gid: 65_534,
      },
    );
    const theirs = DiscoveryResponse.decode(Buffer.from(await child.line(), 'base64').subarray(5));
    expect(theirs.resources).toHaveLength(1);
    expect(text(theirs)).toContain(pemOf(api));
    expect(text(theirs)).not.toContain(pemOf(web));
    const ours = await served();
    expect(text(ours)).toContain(pemOf(web));
    expect(sds.refusals).toMatchObject([{ resource: 'spiffe://example.org/web', caller: { uid: 65_534 } }]);
    child.process.stdin?.end();
    await child.exited;
  });

  test('a process that ends and leaves its connection to a child gets no further key', async () => {
    const source = createSource(() => credentials);
    sds = await startSds(source.watch);
    const child = runChild(streamScript, [sds.path, ...requestArgs(['default']), 'hand over']);
    await child.line();
    expect(await child.line()).toBe('handed over');
    await child.exited;
    expect([sds.streams(), sds.connections()]).toEqual([1, 1]);
    source.publish(() => credentialsOf(authority, [renewed]));
    await until(() => sds.streams() === 0);
    expect(sds.pushed).toHaveLength(1);
    expect(sds.refusals).toMatchObject([{ code: 'attestation_failed' }]);
  });

  test('a process that connects and ends leaves nothing', async () => {
    sds = await startSds(createSource(() => credentials).watch);
    const child = runChild(connectScript, [sds.path]);
    await child.line();
    child.process.kill('SIGKILL');
    await child.exited;
    await until(() => sds.connections() === 0);
  });
});

/**
 * Opens StreamSecrets on argv[1], sends the frame argv[2], prints the first response, and stays; with argv[3] it
 * acknowledges the response, hands its socket to a child and exits.
 */
const streamScript = `
const [, path, request, handOver] = process.argv;
const socket = require('net').connect(path);
const session = require('http2').connect('http://localhost', { createConnection: () => socket });
session.on('error', () => {});
const stream = session.request({ ':method': 'POST', 'content-type': 'application/grpc', te: 'trailers',
  ':path': '/envoy.service.secret.v3.SecretDiscoveryService/StreamSecrets' });
stream.on('error', () => {});
stream.write(Buffer.from(request, 'base64'));
let all = Buffer.alloc(0);
stream.on('data', (data) => {
  all = Buffer.concat([all, data]);
  if (all.length < 5 || all.length < 5 + all.readUInt32BE(1)) return;
  console.log(all.toString('base64'));
  if (handOver === undefined) return;
  // An acknowledgement: the nonce of a response is field 5 and has 32 characters.
  const at = all.indexOf(Buffer.from('2a20', 'hex'));
  const nonce = all.subarray(at + 2, at + 34);
  const head = Buffer.from(request, 'base64').subarray(5);
  const message = Buffer.concat([head, Buffer.from('2a20', 'hex'), nonce]);
  const frame = Buffer.alloc(5);
  frame.writeUInt32BE(message.length, 1);
  stream.write(Buffer.concat([frame, message]), () => setTimeout(() => {
    const keeper = require('child_process').spawn('sleep', ['5'], { stdio: [socket, 'ignore', 'ignore'], detached: true });
    keeper.on('spawn', () => { console.log('handed over'); process.exit(); });
  }, 100));
});
process.stdin.resume().on('end', () => process.exit());
`;

/** How many characters stand in both at the same place. */
function commonOf(one: string, other: string): number {
  return one.split('').filter((character, at) => character === other[at]).length;
}

function requestArgs(resourceNames: string[]): string[] {
  return [framed({ ...emptyRequest, resourceNames }).toString('base64')];
}

function framed(request: DiscoveryRequest): Buffer {
  const message = DiscoveryRequest.encode(request).finish();
  const head = Buffer.alloc(5);
  head.writeUInt32BE(message.length, 1);
  return Buffer.concat([head, message]);
}

/** The service still serves: another client gets its certificate. */
async function served(): Promise<DiscoveryResponse> {
  const stream = sds.open();
  stream.send({ resourceNames: ['default'] });
  const response = await stream.response();
  expect(secretsOf(response)).toHaveLength(1);
  stream.call.cancel();
  return response;
}

function rawStream(): ClientDuplexStream<DiscoveryRequest, DiscoveryResponse> {
  const client = new Client(`unix:${sds.path}`, grpcCredentials.createInsecure());
  return client.makeBidiStreamRequest(
    SecretDiscoveryServiceService.streamSecrets.path,
    (bytes) => bytes as unknown as Buffer,
    (bytes) => DiscoveryResponse.decode(bytes),
  );
}

/** A request whose node's metadata is lists in lists. */
function nested(depth: number): Buffer {
  let value: Buffer = Buffer.alloc(0);
  for (let i = 0; i < depth; i++) value = field(6, field(1, value));
  const entry = Buffer.concat([field(1, Buffer.from('k')), field(2, value)]);
  return field(2, field(3, field(1, entry)));
}

function field(number: number, bytes: Buffer): Buffer {
  const length: number[] = [];
  let rest = bytes.length;
  for (; rest > 0x7f; rest >>>= 7) length.push((rest & 0x7f) | 0x80);
  return Buffer.concat([Buffer.from([(number << 3) | 2, ...length, rest]), bytes]);
}

function kindOf(event: unknown): string | undefined {
  return event === undefined ? undefined : 'message';
}

function text({ resources }: DiscoveryResponse): string {
  return resources.map(({ value }) => value.toString('latin1')).join();
}

function pemOf(svid: X509Svid): string {
  return Buffer.from(svid.certificates[0] ?? [])
    .toString('base64')
    .slice(0, 64);
}

function node(id: string, metadata?: Record<string, unknown>) {
  return {
    id,
    cluster: '',
    metadata,
    locality: undefined,
    userAgentName: '',
    userAgentVersionType: undefined,
    clientFeatures: [],
  };
}

test('the type of the service is the one Envoy knows', async () => {
  sds = await startSds(createSource(() => credentials).watch);
  expect((await served()).typeUrl).toBe(secretTypeUrl);
});
