import { connect as connectNet } from 'node:net';
import { connect, type ConnectionOptions, type TLSSocket } from 'node:tls';
import { credentials, Metadata } from '@grpc/grpc-js';
import { afterEach, beforeAll, expect, test } from 'vitest';
import { type TlsPeer, tlsPeerOf } from '../../src/grpc/tls-connections.ts';
import { startTlsGrpcListener, type TlsGrpcListener } from '../../src/grpc/tls-listener.ts';
import { guardUnary } from '../../src/grpc/guard.ts';
import { banKey, parseBan } from '../../src/identity/ban.ts';
import { indexBans } from '../../src/identity/ban-list.ts';
import type { AttestedNode } from '../../src/identity/node.ts';
import { createCheckPeer, demandNode } from '../../src/node/node-check.ts';
import { bundlePem } from '../../src/spiffe/bundle.ts';
import { type NodeCertificate, NodeClient, NodeService, type RenewRequest } from '../../src/wire/node.ts';
import { makeTestAuthority, type TestAuthority } from '../ca/test-authority.ts';
import { eventually } from '../harness/eventually.ts';
import { createScope } from '../harness/scope.ts';
import { attestedNode, makeNodeCertificate, makeShown, type Shown } from './node-certificates.ts';

let ours: TestAuthority;
let foreign: TestAuthority;
let server: Shown;
let web: Shown;
const start = new Date(Math.floor(Date.now() / 1_000) * 1_000);
let scope = createScope();

beforeAll(async () => {
  const earlier = new Date(start.getTime() - 86_400_000);
  ours = await makeTestAuthority(earlier, {}, 'mesh.test');
  foreign = await makeTestAuthority(earlier, {}, 'mesh.test');
  server = await makeShown(ours, '/countersign/server', start);
  web = await makeNodeCertificate(ours, 'web-1', start);
});
afterEach(async () => {
  await scope.close();
  scope = createScope();
});

test('a live node is served, by name', async () => {
  const { call } = await serve({ nodes: [attestedNode('web-1', [web], start)] });
  expect(await call(web)).toBe('web-1');
});

test.each<[string, () => Promise<Shown | null> | Shown | null, string]>([
  ['no certificate', () => null, 'the client shows no certificate'],
  [
    'a certificate of another CA with our names',
    () => makeNodeCertificate(foreign, 'web-1', start),
    'the certificate is not one of ours',
  ],
  [
    'a certificate of a workload',
    () => makeShown(ours, '/ns/shop/sa/web', start),
    'the certificate is not that of a node',
  ],
  ['a certificate of the server itself', () => server, 'the certificate is not that of a node'],
  [
    'an expired certificate',
    () => makeNodeCertificate(ours, 'web-1', new Date(start.getTime() - 7_200_000)),
    'the certificate has expired',
  ],
  [
    'a certificate of a node that is not known',
    () => makeNodeCertificate(ours, 'web-2', start),
    'the node was evicted, or attested anew with another certificate',
  ],
  [
    'another certificate of the node, never recorded',
    () => makeNodeCertificate(ours, 'web-1', start),
    'the node was evicted, or attested anew with another certificate',
  ],
])('refused: %s', async (_, shown, why) => {
  const { call } = await serve({ nodes: [attestedNode('web-1', [web], start)] });
  await expect(call(await shown())).rejects.toMatchObject({ code: 16, details: why });
});

test('a certificate that expires between two calls of one connection is refused', async () => {
  const short = await makeNodeCertificate(ours, 'web-1', start, 20);
  const state = await serve({ nodes: [attestedNode('web-1', [short], start)] });
  const call = state.client(short);
  expect(await call()).toBe('web-1');
  state.now = new Date(start.getTime() + 21_000);
  await expect(call()).rejects.toMatchObject({ code: 16, details: 'the certificate has expired' });
});

test('eviction, a ban and another bundle each count from the next call of an open connection', async () => {
  const state = await serve({ nodes: [attestedNode('web-1', [web], start)] });
  const call = state.client(web);
  expect(await call()).toBe('web-1');

  state.nodes.set('web-1', { ...attestedNode('web-1', [web], start), evictedAt: start });
  await expect(call()).rejects.toMatchObject({ details: expect.stringContaining('evicted') as string });
  state.nodes.set('web-1', attestedNode('web-1', [web], start));
  expect(await call()).toBe('web-1');

  const ban = parseBan({ kind: 'serial', value: web.serial, reason: 'stolen' }, ours.trustDomain, {
    actor: { kind: 'system' },
    revision: 1,
    now: start,
  });
  state.bans = indexBans(new Map([[banKey(ban), ban]]).values());
  await expect(call()).rejects.toMatchObject({ details: 'the node is banned' });
  state.bans = indexBans([]);
  expect(await call()).toBe('web-1');

  state.bundle = foreign.authority.bundle;
  await expect(call()).rejects.toMatchObject({ details: 'the certificate is not one of ours' });
  expect(state.peers.size).toBe(1);
});

test('the certificate before the latest still counts, the one before that does not', async () => {
  const [older, old, latest] = await Promise.all(
    [0, 1, 2].map(() => makeNodeCertificate(ours, 'web-1', start)),
  );
  const { call } = await serve({ nodes: [attestedNode('web-1', [latest!, old!], start)] });
  expect(await call(latest!)).toBe('web-1');
  expect(await call(old!)).toBe('web-1');
  await expect(call(older!)).rejects.toMatchObject({ code: 16 });
});

test('what looks like a session is worth nothing: none is resumed', async () => {
  const { port } = await serve({ nodes: [] });
  const sessions: Buffer[] = [];
  const first = await shake(port, web, {}, (socket) =>
    socket.on('session', (ticket) => sessions.push(ticket)),
  );
  await new Promise((resolve) => setTimeout(resolve, 200));
  first.destroy();
  for (const session of sessions) {
    const second = await shake(port, web, { session });
    expect(second.isSessionReused()).toBe(false);
    second.destroy();
  }
});

test('TLS 1.2 is refused', async () => {
  const { port } = await serve({ nodes: [] });
  await expect(shake(port, web, { maxVersion: 'TLSv1.2', minVersion: 'TLSv1.2' })).rejects.toThrow(/alert/);
});

test('a client without h2 is cut', async () => {
  const { port } = await serve({ nodes: [] });
  await expect(shake(port, web, { ALPNProtocols: ['http/1.1'] }).then(ended)).rejects.toThrow(
    /alert|closed|reset/i,
  );
});

test('a handshake that takes too long is cut', async () => {
  const { port, listener } = await serve({ nodes: [], limits: { handshakeMs: 200 } });
  const socket = connectNet({ host: '127.0.0.1', port });
  socket.on('error', () => undefined);
  socket.write(Buffer.from('160301', 'hex'));
  await eventually('the server to cut it', () => socket.destroyed || socket.readableEnded);
  socket.destroy();
  await eventually('it to be forgotten', () => listener.connections() === 0);
});

test('connections over the limit of an address, and of the listener, are cut, and room comes back', async () => {
  const { port, listener, call } = await serve({
    nodes: [attestedNode('web-1', [web], start)],
    limits: { connections: 4, connectionsPerAddress: 2 },
  });
  const [one, two] = await Promise.all([shake(port, web), shake(port, web)]);
  await expect(shake(port, web)).rejects.toThrow();
  expect(listener.connections()).toBe(2);
  one.destroy();
  two.destroy();
  await eventually('room', () => listener.connections() === 0);
  expect(await call(web)).toBe('web-1');
});

test('another certificate is shown from the next handshake on', async () => {
  const { port, listener } = await serve({ nodes: [] });
  const next = await makeShown(ours, '/countersign/server', start);
  const before = await shake(port, web);
  listener.renew(next);
  const after = await shake(port, web);
  expect(before.getPeerCertificate().serialNumber.toLowerCase()).toBe(server.serial);
  expect(after.getPeerCertificate().serialNumber.toLowerCase()).toBe(next.serial);
  before.destroy();
  after.destroy();
});

type State = {
  readonly port: number;
  readonly listener: TlsGrpcListener;
  readonly nodes: Map<string, AttestedNode>;
  /** Connections that called. */
  readonly peers: Set<string>;
  now: Date;
  bans: ReturnType<typeof indexBans>;
  bundle: TestAuthority['authority']['bundle'];
  /** Calls over a connection of its own. */
  readonly call: (shown: Shown | null) => Promise<string>;
  /** Calls over one connection. */
  readonly client: (shown: Shown) => () => Promise<string>;
};

async function serve(options: {
  nodes: readonly AttestedNode[];
  limits?: Parameters<typeof startTlsGrpcListener>[0]['limits'];
}): Promise<State> {
  const peers = new Set<string>();
  const check = createCheckPeer({
    trustDomain: ours.trustDomain,
    bundle: () => state.bundle,
    bans: () => state.bans,
    node: (name) => state.nodes.get(name),
    clock: { now: () => state.now, sleep: () => Promise.resolve() },
  });
  const renew = guardUnary<RenewRequest, NodeCertificate>((call) => {
    const peer: TlsPeer = tlsPeerOf(call);
    const { node } = demandNode(check(peer));
    peers.add(peer.connectionId);
    return { certificates: [Buffer.from(node.name)], bundle: undefined };
  });
  const refuse = guardUnary(() => {
    throw new Error('not in this test');
  });
  const listener = await startTlsGrpcListener({
    at: { host: '127.0.0.1', port: 0 },
    shown: server,
    services: [
      {
        definition: NodeService,
        implementation: {
          renew,
          watchView: refuse,
          signX509: refuse,
          signJwt: refuse,
          reportCoverage: refuse,
          shipEvents: refuse,
        },
      },
    ],
    ...(options.limits === undefined ? {} : { limits: options.limits }),
  });
  scope.defer(() => listener.close(100));
  const client = (shown: Shown | null) => {
    const ssl = credentials.createSsl(
      Buffer.from(bundlePem(ours.authority.bundle)),
      shown === null ? null : Buffer.from(shown.privateKey),
      shown === null ? null : Buffer.from(shown.certificate),
    );
    const stub = new NodeClient(`localhost:${listener.port}`, ssl, { 'grpc.use_local_subchannel_pool': 1 });
    scope.defer(() => stub.close());
    return () =>
      new Promise<string>((resolve, reject) => {
        stub.renew(
          { csr: Buffer.alloc(0) },
          new Metadata(),
          { deadline: Date.now() + 5_000 },
          (error, answer) => (error ? reject(error) : resolve(String(answer.certificates[0]))),
        );
      });
  };
  const state: State = {
    port: listener.port,
    listener,
    peers,
    nodes: new Map(options.nodes.map((node) => [node.name, node])),
    now: start,
    bans: indexBans([]),
    bundle: ours.authority.bundle,
    client,
    call: (shown) => client(shown)(),
  };
  return state;
}

/** A connection whose handshake is over, and which the server has let live for a moment. */
function shake(
  port: number,
  shown: Shown,
  options: ConnectionOptions = {},
  prepare: (socket: TLSSocket) => unknown = () => undefined,
): Promise<TLSSocket> {
  return new Promise((resolve, reject) => {
    const socket = connect({
      host: '127.0.0.1',
      port,
      rejectUnauthorized: false,
      ALPNProtocols: ['h2'],
      key: shown.privateKey,
      cert: shown.certificate,
      ...options,
    });
    prepare(socket);
    socket.on('error', reject);
    socket.on('close', () => reject(new Error('closed')));
    socket.on('secureConnect', () => setTimeout(() => resolve(socket), 50));
  });
}

function ended(socket: TLSSocket): Promise<never> {
  return new Promise((_, reject) => {
    if (socket.destroyed) return reject(new Error('closed'));
    socket.on('close', () => reject(new Error('closed')));
    return undefined;
  });
}
