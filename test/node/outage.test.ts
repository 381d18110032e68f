import { X509Certificate } from 'node:crypto';
import { cpSync, existsSync, mkdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { type AddressInfo, createServer, type Socket } from 'node:net';
import { join } from 'node:path';
import { credentials, Metadata, type ServiceError, status } from '@grpc/grpc-js';
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest';
import { openAgentCache } from '../../src/agent-cache.ts';
import type { MeshError } from '../../src/errors.ts';
import { ask, attestNode, type ChannelOptions, openNodeChannel } from '../../src/node/node-client.ts';
import { learnServer } from '../../src/node/server-trust.ts';
import { generateP256 } from '../../src/up-key-pair.ts';
import { randomBytes } from '../../src/up-random.ts';
import type { NodeClient } from '../../src/wire/node.ts';
import { SpiffeWorkloadAPIClient } from '../../src/wire/workload.ts';
import { makeTestAuthority } from '../ca/test-authority.ts';
import { checkBytes } from '../ext-authz/check-input.ts';
import { launchAgent } from '../harness/agent.ts';
import { sendCheck } from '../harness/check-client.ts';
import { eventually } from '../harness/eventually.ts';
import { startFaultProxy } from '../harness/fault-proxy.ts';
import { entry } from '../harness/mesh.ts';
import {
  type AgentHere,
  isConnected,
  logged,
  type ServerHere,
  startAgentHere,
  startServerHere,
} from '../harness/node-mesh.ts';
import { createScope } from '../harness/scope.ts';
import { fetchKeyPair } from '../harness/sds-client.ts';
import { freePorts, makeTempDir } from '../harness/temp.ts';
import { makeNodeCertificate } from './node-certificates.ts';

const whole = createScope();
afterAll(() => whole.close());
let scope = createScope();
afterEach(async () => {
  await scope.close();
  scope = createScope();
});

const me = 'spiffe://mesh.test/ns/test/sa/me';
let server: ServerHere;
let names = 0;
let authority: Awaited<ReturnType<typeof makeTestAuthority>>;

beforeAll(async () => {
  authority = await makeTestAuthority(new Date(), {}, 'mesh.test');
  server = await startServerHere(whole, makeTempDir(whole));
  await server.apply(entry(me, '/', { selectors: [`unix:uid:${process.getuid?.() ?? 0}`], nodes: ['*'] }));
});

function place(): { readonly name: string; readonly directory: string } {
  names += 1;
  const name = `node-${names}`;
  return { name, directory: join(makeTempDir(scope), name) };
}

async function join_(
  port = server.port,
): Promise<AgentHere & { readonly name: string; readonly directory: string }> {
  const at = place();
  const agent = startAgentHere(scope, { ...at, port, token: await server.token(at.name) });
  await agent.started;
  return { ...agent, ...at };
}

/** Stops an agent when what it serves now is in its cache. */
async function stopKept(agent: AgentHere): Promise<void> {
  await fetchKeyPair(agent.workloadSocket, me);
  await agent.stop();
}

test('a machine that boots before its server waits, says so, and serves when the server is there', async () => {
  const at = place();
  const proxy = await startFaultProxy(scope, server.port);
  proxy.set('refuse');
  const agent = startAgentHere(scope, { ...at, port: proxy.port, token: await server.token(at.name) });
  await logged(agent, 'the server cannot be reached yet');
  expect(await workloadApi(agent)).toBe(status.UNAVAILABLE);
  await expect(sendCheck(agent.workloadSocket, checkBytes({}))).rejects.toMatchObject({
    code: status.UNAVAILABLE,
  });
  await expect(fetchKeyPair(agent.workloadSocket, me, 2_000)).rejects.toMatchObject({
    code: status.UNAVAILABLE,
  });
  await eventually('a second attempt', () => proxy.attempts() > 1);
  expect(agent.lines().filter((line) => line.includes('cannot be reached yet'))).toHaveLength(1);
  proxy.set('pass');
  await agent.started;
  expect(await idOf(agent)).toBe(me);
});

test.each<[string, (token: string) => string, string]>([
  ['of another root', (text) => text.replace(/[0-9a-f]{64}$/, 'ab'.repeat(32)), 'server_untrusted'],
  [
    'that never was',
    (text) => text.replace(/\.[0-9a-f]{64}\./, `.${'ab'.repeat(32)}.`),
    'node_evidence_invalid',
  ],
  ['that is none', () => 'not a token', 'node_evidence_invalid'],
])('a first start with a token %s ends: no waiting mends it', async (_, change, code) => {
  const at = place();
  const agent = startAgentHere(scope, {
    ...at,
    port: server.port,
    token: change(await server.token(at.name)),
  });
  await expect(agent.started).rejects.toMatchObject({ code });
});

test.each<[string, (at: ChannelOptions, stop: AbortSignal) => Promise<unknown>]>([
  ['whom to believe', (at, stop) => learnServer(at.server, 'ab'.repeat(32), new Date(), stop)],
  [
    'to be let in',
    async (at, stop) => attestNode(at, { kind: 'join_token', secret: '' }, await generateP256(), stop),
  ],
  [
    'for a certificate',
    async (at, stop) => {
      const client = await openChannel(at);
      return ask((metadata, options, done) => client.signX509({ items: [] }, metadata, options, done), stop);
    },
  ],
])('who asks a server that says nothing %s and is stopped does not wait', async (_, question) => {
  const taken = Promise.withResolvers<void>();
  const at = await startListener((socket) => {
    scope.defer(() => socket.destroy());
    taken.resolve();
  });
  const stop = new AbortController();
  const asked = question(at, stop.signal);
  asked.catch(() => undefined);
  await taken.promise;
  const startedAt = performance.now();
  stop.abort();
  await expect(asked).rejects.toMatchObject({ code: 'server_unreachable' });
  // By themselves they give up after ten seconds and more.
  expect(performance.now() - startedAt).toBeLessThan(8_000);
});

test('a channel whose server hangs up fails at once, and does not try again by itself', async () => {
  let attempts = 0;
  const client = await openChannel(
    await startListener((socket) => {
      attempts += 1;
      socket.destroy();
    }),
  );
  const call = () =>
    ask((metadata, options, done) => client.signX509({ items: [] }, metadata, options, done));
  await expect(call()).rejects.toMatchObject({ code: 'server_unreachable' });
  await new Promise((resolve) => setTimeout(resolve, 1_500));
  await expect(call()).rejects.toMatchObject({ code: 'server_unreachable' });
  expect(attempts).toBe(1);
});

test('the command that is stopped while it waits ends with 0', async () => {
  const at = place();
  const [port] = (await freePorts(1)) as [number];
  const joinToken = await server.token(at.name);
  const child = launchAgent(scope, { directory: at.directory, port, joinToken });
  await eventually('it to wait', () => child.output().includes('cannot be reached yet'));
  expect(await child.stop(30_000)).toBe(0);
  expect(child.output()).not.toContain('error[');
});

test('a second agent on the same data is refused, and what a killed one left half done is gone', async () => {
  const { directory, ...agent } = await join_();
  const halfDone = join(agent.cacheDir, `.cache.sealed.${'ab'.repeat(8)}.tmp`);
  writeFileSync(halfDone, 'half');
  const flags = { workloadSocket: join(directory, 'w2.sock'), adminSocket: join(directory, 'a2.sock') };
  const second = startAgentHere(scope, { directory, port: server.port, flags });
  await expect(second.started).rejects.toMatchObject({ code: 'directory_in_use' });
  expect(existsSync(halfDone)).toBe(true);
  await stopKept(agent);
  const again = startAgentHere(scope, { directory, port: server.port });
  await again.started;
  expect(existsSync(halfDone)).toBe(false);
});

test('a server that was restored from a backup is believed, and that it went back is said', async () => {
  const [dir, backup] = [makeTempDir(scope), makeTempDir(scope)];
  const own = await startServerHere(scope, dir);
  const at = place();
  const agent = startAgentHere(scope, { ...at, port: own.port, token: await own.token(at.name) });
  const running = await agent.started;
  await own.stop();
  cpSync(join(dir, 'data'), backup, { recursive: true });
  await own.start();
  await own.apply(entry(`${me}-2`, '/', { selectors: ['unix:uid:7'], nodes: ['*'] }));
  await eventually('the change', () => running.status().entries === 1, { withinMs: 60_000 });
  await own.stop();
  cpSync(backup, join(dir, 'data'), { recursive: true });
  await own.start();
  await logged(agent, 'the server has gone back');
  await eventually('the view', () => running.status().entries === 0);
  expect(running.status().server).toMatchObject({ connected: true, trouble: { code: 'view_set_back' } });
  await own.apply(entry(`${me}-2`, '/', { selectors: ['unix:uid:7'], nodes: ['*'] }) + entry(`${me}-3`, '/'));
  await eventually('the way on', () => running.status().server.trouble === null);
}, 90_000);

test('a start that is stopped while it waits ends, and frees its socket', async () => {
  const at = place();
  const proxy = await startFaultProxy(scope, server.port);
  proxy.set('refuse');
  const token = await server.token(at.name);
  const agent = startAgentHere(scope, { ...at, port: proxy.port, token });
  await logged(agent, 'the server cannot be reached yet');
  await agent.stop();
  await expect(agent.started).rejects.toMatchObject({ code: 'shutting_down' });
  const again = startAgentHere(scope, { ...at, port: server.port });
  await again.started;
});

test('after a long outage it starts from what it has, and comes back with a new token in the file', async () => {
  const { name, directory, ...before } = await join_();
  await stopKept(before);
  const serial = await expireIdentity(before.cacheDir);
  const proxy = await startFaultProxy(scope, server.port);
  proxy.set('refuse');

  const agent = startAgentHere(scope, { directory, port: proxy.port });
  const running = await agent.started;
  expect(await serialOf(agent)).toBe(serial);
  await logged(agent, 'server_unreachable');

  // The token that let it in is in its file still; it is shown once, and the server says that it is spent.
  proxy.set('pass');
  await logged(agent, 'the join token does not count');
  expect(await serialOf(agent)).toBe(serial);
  agent.writeToken(await server.token(name));
  await eventually('the node to be attested', () => isConnected(running), { withinMs: 60_000 });
  expect(await serialOf(agent)).toBe(serial);
}, 90_000);

test('an evicted node comes back with a new token, while its old certificate is still good', async () => {
  const { name, ...agent } = await join_();
  const running = await agent.started;
  await fetchKeyPair(agent.workloadSocket, me);
  await server.admin('POST', `/v1/nodes/${name}/evict`, {});
  await logged(agent, 'node_evidence_invalid');
  expect(isConnected(running)).toBe(false);
  agent.writeToken(await server.token(name));
  await eventually('the node to be back', () => isConnected(running), { withinMs: 60_000 });
}, 90_000);

test.each<[string, (dir: string) => void, string]>([
  ['cut', (dir) => truncateSync(join(dir, 'cache.sealed'), 200), 'is of another machine, or damaged'],
  ['empty', (dir) => truncateSync(join(dir, 'cache.sealed'), 0), 'is damaged'],
  ['changed in one bit', (dir) => flip(join(dir, 'cache.sealed')), 'is of another machine, or damaged'],
  [
    'without its count',
    (dir) => {
      saveAgain(dir);
      rmSync(join(dir, 'cache.count'));
    },
    'has put it back',
  ],
  ['with a count that was changed', (dir) => flip(join(dir, 'cache.count')), 'has lost its count'],
  [
    'an old one',
    (dir) => {
      const old = readFileSync(join(dir, 'cache.sealed'));
      saveAgain(dir);
      writeFileSync(join(dir, 'cache.sealed'), old, { mode: 0o600 });
    },
    'has put it back',
  ],
])('a cache that is %s is refused by name, and the agent goes on as without one', async (_, spoil, why) => {
  const { name, directory, ...before } = await join_();
  await stopKept(before);
  spoil(before.cacheDir);
  const agent = startAgentHere(scope, { directory, port: server.port, token: await server.token(name) });
  await agent.started;
  expect(agent.lines().join('')).toContain(why);
  expect(await idOf(agent)).toBe(me);
});

test('a cache of another machine is refused by name, and its token is spent', async () => {
  const { directory, ...before } = await join_();
  await stopKept(before);
  const other = join(directory, '..', 'other');
  for (const dir of ['', 'data', 'data/cache']) mkdirSync(join(other, dir), { mode: 0o700 });
  for (const file of ['join-token', 'data/cache/cache.sealed', 'data/cache/cache.count']) {
    writeFileSync(join(other, file), readFileSync(join(directory, file)), { mode: 0o600 });
  }
  // What binds it is a file beside it, too: whoever takes the cache alone has nothing.
  writeFileSync(join(other, 'data', 'cache', 'key-encryption-key'), randomBytes(32), { mode: 0o600 });
  const agent = startAgentHere(scope, { directory: other, port: server.port });
  await expect(agent.started).rejects.toMatchObject({ code: 'node_evidence_invalid' });
  expect(agent.lines().join('')).toContain('agent_cache_invalid');
});

test('a cache that cannot be written is said, and tried again; what is served goes on', async () => {
  const agent = await join_();
  await eventually('the cache', () => readFileSync(join(agent.cacheDir, 'cache.sealed')).length > 0);
  const before = await serialOf(agent);
  // A directory in its place: not even root can put a file there.
  rmSync(join(agent.cacheDir, 'cache.sealed'));
  mkdirSync(join(agent.cacheDir, 'cache.sealed'));
  await server.apply(entry(`${me}-2`, '/', { selectors: ['unix:uid:7'], nodes: ['*'] }));
  await logged(agent, 'the sealed cache could not be written');
  expect(await serialOf(agent)).toBe(before);
  rmSync(join(agent.cacheDir, 'cache.sealed'), { recursive: true });
  await server.admin('DELETE', '/v1/entries/ns-test-sa-me-2');
  await eventually('the cache again', () => readFileSync(join(agent.cacheDir, 'cache.sealed')).length > 0);
});

test('a tainted CA is replaced on every agent within the minute, and what it signed is served no longer', async () => {
  const agent = await join_();
  const before = new X509Certificate((await fetchKeyPair(agent.workloadSocket, me)).cert);
  const [signer] = await issuers('active');
  await server.admin('POST', '/v1/ca/taint', { keyId: signer });
  await eventually('another CA to sign', async () => (await issuers('active'))[0] !== signer);
  const replaced = async () => {
    const { cert } = await fetchKeyPair(agent.workloadSocket, me);
    return new X509Certificate(cert).serialNumber !== before.serialNumber;
  };
  await eventually('the leaf to be replaced', replaced, { withinMs: 90_000, everyMs: 500 });
}, 120_000);

/** Something that takes connections, and how to reach it. */
async function startListener(take: (socket: Socket) => void): Promise<ChannelOptions> {
  const listener = createServer(take);
  scope.defer(() => listener.close());
  await new Promise<void>((resolve) => listener.listen(0, '127.0.0.1', resolve));
  const { port } = listener.address() as AddressInfo;
  const { bundle } = authority.authority;
  const roots = bundle.x509Authorities;
  return { server: { host: '127.0.0.1', port }, roots, trustDomain: bundle.trustDomain };
}

async function openChannel(at: ChannelOptions): Promise<NodeClient> {
  const { certificates, key } = await makeNodeCertificate(authority, 'web-1', new Date());
  const privateKey = new Uint8Array(key.export({ type: 'pkcs8', format: 'der' }));
  const client = openNodeChannel(at, { certificates, privateKey });
  scope.defer(() => client.close());
  return client;
}

async function issuers(state: string): Promise<readonly string[]> {
  const { authorities } = (await server.admin('GET', '/v1/ca')) as {
    authorities: { kind: string; keyId: string; state: string }[];
  };
  return authorities
    .filter((key) => key.kind === 'intermediate' && key.state === state)
    .map(({ keyId }) => keyId);
}

/** Puts a certificate in the cache that ended long ago. @returns the serial of the workload's */
async function expireIdentity(cacheDir: string): Promise<string | undefined> {
  const cache = openAgentCache(cacheDir, randomBytes);
  const state = cache.load(null, fail) ?? fail();
  const longAgo = new Date(Date.now() - 3 * 86_400_000);
  const ours = await makeTestAuthority(new Date(longAgo.getTime() - 86_400_000), {}, 'mesh.test');
  const shown = await makeNodeCertificate(ours, 'long-ago', longAgo);
  const privateKey = new Uint8Array(shown.key.export({ type: 'pkcs8', format: 'der' }));
  cache.save({ ...state, identity: { certificates: shown.certificates, privateKey } });
  return state.svids[0]?.serial.replace(/^0+/, '');
}

function saveAgain(cacheDir: string): void {
  const cache = openAgentCache(cacheDir, randomBytes);
  cache.save(cache.load(null, fail) ?? fail());
}

async function serialOf({ workloadSocket }: Pick<AgentHere, 'workloadSocket'>): Promise<string> {
  const { cert } = await fetchKeyPair(workloadSocket, me);
  return new X509Certificate(cert).serialNumber.toLowerCase().replace(/^0+/, '');
}

async function idOf({ workloadSocket }: Pick<AgentHere, 'workloadSocket'>): Promise<string | undefined> {
  const { cert } = await fetchKeyPair(workloadSocket, me);
  return new X509Certificate(cert).subjectAltName?.replace('URI:', '');
}

function workloadApi({ workloadSocket }: Pick<AgentHere, 'workloadSocket'>): Promise<number> {
  const client = new SpiffeWorkloadAPIClient(`unix:${workloadSocket}`, credentials.createInsecure());
  const metadata = new Metadata();
  metadata.set('workload.spiffe.io', 'true');
  return new Promise<number>((resolve, reject) => {
    const call = client.fetchX509Svid({}, metadata);
    call.on('data', () => reject(new Error('it was served')));
    call.on('error', ({ code }: ServiceError) => resolve(code));
  }).finally(() => client.close());
}

function flip(path: string): void {
  const bytes = readFileSync(path);
  const at = bytes.length - 3;
  bytes[at] = (bytes[at] ?? 0) ^ 1;
  writeFileSync(path, bytes);
}

function fail(error: unknown = new Error('there is no cache')): never {
  throw error as MeshError;
}
