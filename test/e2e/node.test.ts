import { X509Certificate } from 'node:crypto';
import { readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { type Agent, launchAgent, startAgentProcess } from '../harness/agent.ts';
import { type HttpApp, startHttpApp } from '../harness/apps.ts';
import { type Authority, startAuthority } from '../harness/authority.ts';
import { eventually } from '../harness/eventually.ts';
import { type FaultProxy, startFaultProxy } from '../harness/fault-proxy.ts';
import { ask } from '../harness/http.ts';
import { entry, policy, type Sidecar, startSidecar } from '../harness/mesh.ts';
import { createScope } from '../harness/scope.ts';
import { fetchKeyPair } from '../harness/sds-client.ts';
import { freePorts, makeTempDir } from '../harness/temp.ts';

// One mesh for the whole file, in the order of a life: join, serve, fail, come back.
const scope = createScope();
afterAll(() => scope.close());

let directory: string;
let server: Authority;
let proxy: FaultProxy;
let agent: Agent;
let web: Sidecar;
let orders: Sidecar;
let app: HttpApp;
let toHttp: number;
let token: string;

const me = 'spiffe://mesh.test/ns/test/sa/me';
beforeAll(async () => {
  directory = makeTempDir(scope);
  const [nodePort, inHttp, outHttp] = (await freePorts(3)) as [number, number, number];
  toHttp = outHttp;
  server = await startAuthority(scope, {
    directory,
    command: 'server',
    env: { COUNTERSIGN_NODE_ADDRESS: `127.0.0.1:${nodePort}` },
  });
  proxy = await startFaultProxy(scope, nodePort);
  token = await server.joinToken('web-1');
  agent = await startAgentProcess(scope, {
    directory: join(directory, 'agent'),
    port: proxy.port,
    joinToken: token,
    env: { COUNTERSIGN_ALLOWED_CALLS_WINDOW_SECONDS: '1' },
  });
  app = await startHttpApp(scope, 'orders');
  const at = (port: number) => `127.0.0.1:${port}`;
  const authority = { ...server, workloadSocket: agent.workloadSocket };
  orders = startSidecar(scope, {
    authority,
    directory,
    service: 'shop/orders',
    ways: { inbound: at(inHttp), app: at(app.port) },
  });
  web = startSidecar(scope, {
    authority,
    directory,
    service: 'shop/web',
    ways: { outbound: [`${at(outHttp)}=${orders.id}@${at(inHttp)}`] },
  });
  await server.apply(
    [
      entry(web.id, web.binary, { nodes: ['node:web-1'] }),
      entry(orders.id, orders.binary, { nodes: ['*'] }),
      entry(me, '/', { selectors: [`unix:uid:${process.getuid?.() ?? 0}`], nodes: ['node:web-1'] }),
      policy('shop', 'all', { rules: [{}] }),
    ].join(''),
  );
  await Promise.all([web.live(), orders.live()]);
});

test('two Envoys on a node speak mTLS with certificates of the agent, and the server knows of each', async () => {
  await eventually('a call to pass', async () => (await call()) === 200);
  const issued = await server.audit('type=issuance');
  const mine = issued.filter(({ spiffeId }) => spiffeId === web.id || spiffeId === orders.id);
  expect(mine.map(({ spiffeId }) => spiffeId).sort()).toEqual([orders.id, web.id].sort());
  expect(mine.every(({ caller }) => (caller as { node: string }).node === 'web-1')).toBe(true);
});

test('decisions of the node are in the log of the server, with its name', async () => {
  const decisions = await eventually('decisions', async () => {
    const all = await server.audit('type=allowed_calls');
    return all.length > 0 ? all : undefined;
  });
  expect(decisions[0]).toMatchObject({
    source: web.id,
    destination: orders.id,
    pathPattern: '*',
    caller: { node: 'web-1' },
  });
});

test('what the proxy of the node saw is in the log of the server, too', async () => {
  const seen = await eventually('an outcome', async () => {
    const [first] = await server.audit('type=outcomes');
    return first;
  });
  expect(seen).toMatchObject({
    outcome: 'ok',
    source: web.id,
    destination: orders.id,
    rule: 'shop/all rule[0]',
  });
  expect((seen['caller'] as { node: string }).node).toBe('web-1');
});

test('an entry reaches an open stream soon', async () => {
  const pending = fetchKeyPair(agent.workloadSocket, 'spiffe://mesh.test/ns/test/sa/late');
  await new Promise((resolve) => setTimeout(resolve, 200));
  const before = Date.now();
  await server.apply(
    entry('spiffe://mesh.test/ns/test/sa/late', '/', {
      selectors: [`unix:uid:${process.getuid?.() ?? 0}`],
      nodes: ['*'],
    }),
  );
  await pending;
  expect(Date.now() - before).toBeLessThan(2_000);
});

test('a join token is good once', async () => {
  const second = launchAgent(scope, {
    directory: join(directory, 'thief'),
    port: proxy.port,
    joinToken: token,
  });
  expect(await second.exited).toBe(77);
  expect(second.output()).toContain('node_evidence_invalid');
  expect(await server.audit('type=node')).toContainEqual(
    expect.objectContaining({ action: 'refused', code: 'node_evidence_invalid' }),
  );
});

test('a ban reaches the decisions of the agent, and lifting it does', async () => {
  await server.ban('spiffe-id', web.id);
  await eventually('the ban', async () => (await call()) === 403);
  await server.unban('spiffe-id', web.id);
  await eventually('the end of the ban', async () => (await call()) === 200);
});

test('with the server killed the agent serves, decides and starts again from its sealed cache', async () => {
  const before = await fetchKeyPair(agent.workloadSocket, me);
  await eventually('the cache to be written', () => statSync(agent.cacheFile).size > 0);
  await new Promise((resolve) => setTimeout(resolve, 1_000));
  await server.kill();
  expect(await call()).toBe(200);
  expect(await fetchKeyPair(agent.workloadSocket, me)).toEqual(before);

  await agent.kill();
  await agent.restart();
  const after = await fetchKeyPair(agent.workloadSocket, me);
  expect(new X509Certificate(after.cert).serialNumber).toBe(new X509Certificate(before.cert).serialNumber);
  await eventually('a call to pass', async () => (await call()) === 200);
  expect(agent.child().output()).toContain('away; serving from the sealed cache');
}, 60_000);

test('when the server is back the agent follows it again', async () => {
  await server.restart();
  await server.ban('spiffe-id', web.id);
  await eventually('the ban', async () => (await call()) === 403, { withinMs: 30_000 });
  await server.unban('spiffe-id', web.id);
  await eventually('the end of the ban', async () => (await call()) === 200);
  // Renewed at half of it, by the server, on the stream that is open.
  await server.apply(entry(web.id, web.binary, { nodes: ['node:web-1'], ttlSeconds: 20 }));
  const serials = new Set<string | undefined>();
  const renewals = async (): Promise<boolean> => {
    serials.add((await web.certificates())[0]?.serial);
    return serials.size >= 3;
  };
  await eventually('two more certificates', renewals, { withinMs: 30_000, everyMs: 500 });
}, 90_000);

test('a key in the sealed cache cannot be read without the machine', () => {
  const bytes = readFileSync(agent.cacheFile);
  expect(bytes.subarray(0, 36).toString('latin1')).toBe('countersign-agent-cache-1 mesh.test\n');
  expect(bytes.includes('PRIVATE')).toBe(false);
  expect(statSync(agent.cacheFile).mode & 0o777).toBe(0o600);
});

test('an evicted node is cut off: no view, no certificate, and no way back with what it has', async () => {
  await server.evict('web-1');
  expect(await server.nodes()).toEqual([expect.objectContaining({ name: 'web-1', state: 'evicted' })]);
  // The token in its file was used up long ago; it is shown once more, and refused.
  await eventually('the agent to be told', () => agent.child().output().includes('node_evidence_invalid'));
  await server.ban('spiffe-id', web.id);
  // What it has stays good until it ends: that is what bans and short lives are for.
  expect(await call()).toBe(200);
});

test('a damaged cache is refused and named, and a token that is spent does not help', async () => {
  await agent.kill();
  const bytes = readFileSync(agent.cacheFile);
  bytes[bytes.length - 1] = (bytes.at(-1) ?? 0) ^ 1;
  writeFileSync(agent.cacheFile, bytes);
  const child = launchAgent(scope, { directory: join(directory, 'agent'), port: proxy.port });
  expect(await child.exited).not.toBe(0);
  expect(child.output()).toContain('agent_cache_invalid');
});

async function call(): Promise<number> {
  return (await ask({ to: toHttp, path: '/1' })).status;
}
