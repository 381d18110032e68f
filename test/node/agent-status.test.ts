import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import type { AgentStatusAnswer } from '../../src/cli/agent-status-text.ts';
import { checkBytes } from '../ext-authz/check-input.ts';
import { runCli } from '../cli/run-cli.ts';
import { sendCheck } from '../harness/check-client.ts';
import { eventually } from '../harness/eventually.ts';
import { type FaultProxy, startFaultProxy } from '../harness/fault-proxy.ts';
import { ask } from '../harness/http.ts';
import { entry } from '../harness/mesh.ts';
import { type AgentHere, type ServerHere, startAgentHere, startServerHere } from '../harness/node-mesh.ts';
import { createScope } from '../harness/scope.ts';
import { fetchKeyPair } from '../harness/sds-client.ts';
import { followSecret } from '../harness/sds-stream.ts';
import { freePorts, makeTempDir } from '../harness/temp.ts';

// One server and one agent for the whole file, in the order of a life: wait, join, serve, be cut off, come back.
const scope = createScope();
afterAll(() => scope.close());

const uid = process.getuid?.() ?? 0;
const me = 'spiffe://mesh.test/ns/test/sa/me';
const brief = 'spiffe://mesh.test/ns/test/sa/brief';
const stranger = 'spiffe://mesh.test/ns/test/sa/stranger';
let server: ServerHere;
let proxy: FaultProxy;
let agent: AgentHere;
let dataDir: string;
let metricsPort: number;
let directory: string;

beforeAll(async () => {
  directory = makeTempDir(scope);
  server = await startServerHere(scope, directory, { metricsAddress: 'off' });
  await server.apply(
    [
      entry(me, '/', { selectors: [`unix:uid:${uid}`], nodes: ['*'] }),
      entry(brief, '/', { selectors: [`unix:uid:${uid}`], nodes: ['node:web-1'], ttlSeconds: 600 }),
    ].join(''),
  );
  proxy = await startFaultProxy(scope, server.port);
  proxy.set('refuse');
  const [port] = (await freePorts(1)) as [number];
  metricsPort = port;
  const at = join(directory, 'agent');
  dataDir = join(at, 'data');
  agent = startAgentHere(scope, {
    directory: at,
    port: proxy.port,
    token: await server.token('web-1'),
    flags: { metricsAddress: `127.0.0.1:${port}` },
  });
});

test('an agent that waits for its server says so', async () => {
  const status = await eventually('the socket', async () => {
    const told = await read();
    return told.server.trouble === null ? undefined : told;
  });
  expect(status).toMatchObject({
    kind: 'agent',
    ready: false,
    trustDomain: null,
    node: null,
    policy: null,
    server: { connected: false, lastContactAt: null, trouble: { code: 'server_unreachable' } },
  });
  expect((await http('/readyz')).status).toBe(503);
  expect((await http('/healthz')).status).toBe(200);
});

test('an agent that serves tells who it is, and until when each workload works without the server', async () => {
  proxy.set('pass');
  await agent.started;
  await fetchKeyPair(agent.workloadSocket, brief);
  followSecret(scope, agent.workloadSocket, me);
  const status = await eventually('both certificates', async () => {
    const told = await read();
    // Only of what somebody holds it is known when it is renewed.
    const isHeld = ({ renewsAt }: { renewsAt: string | null }) => Date.parse(renewsAt ?? '') > Date.now();
    return told.workloads.filter(isHeld).length === 2 ? told : undefined;
  });
  expect(status).toMatchObject({
    ready: true,
    trustDomain: 'mesh.test',
    node: { name: 'web-1', spiffeId: 'spiffe://mesh.test/countersign/node/web-1', attestsWith: null },
    server: { address: `127.0.0.1:${proxy.port}`, connected: true, trouble: null },
    policy: { maxStalenessSeconds: 86_400 },
    entries: 2,
    workloadsInAll: 2,
  });
  expect(status.workloads.map(({ spiffeId, darkBy }) => [spiffeId, darkBy])).toEqual([
    [brief, 'certificate'],
    [me, 'certificate'],
  ]);
  const [first, held] = status.workloads;
  expect(first).toMatchObject({ failure: '', darkAt: first!.expiresAt });
  expect(Date.parse(held!.renewsAt!)).toBeLessThan(Date.parse(held!.expiresAt!));
  expect(first!.darkInSeconds).toBeGreaterThan(300);
  expect(first!.darkInSeconds).toBeLessThanOrEqual(600);
});

test('countersign status shows it to people, the first to go dark first', async () => {
  const { out: stdout, code } = await runCli(['status', '--data-dir', dataDir]);
  expect(code).toBe(0);
  expect(stdout).toMatch(/^agent +web-1 \(spiffe:\/\/mesh\.test\/countersign\/node\/web-1\)$/m);
  expect(stdout).toMatch(/^server +127\.0\.0\.1:\d+, connected since /m);
  expect(stdout).toMatch(/^node certificate +until .* after that it needs a new join token$/m);
  expect(stdout.indexOf(brief)).toBeGreaterThan(0);
  expect(stdout.indexOf(brief)).toBeLessThan(stdout.indexOf(`${me} `));
  const json = await runCli(['status', '--data-dir', dataDir, '-o', 'json']);
  expect(JSON.parse(json.out)).toMatchObject({ kind: 'agent', workloadsInAll: 2 });
});

test('its socket has no registry, and says where there is one', async () => {
  const { err: stderr, code } = await runCli(['entry', 'list', '--data-dir', dataDir]);
  expect(code).not.toBe(0);
  expect(stderr).toContain('route_not_found');
  expect(stderr).toContain('ask the server');
});

test('metrics are the same on the socket and for whoever is on the machine', async () => {
  const text = (await ask({ to: metricsPort, path: '/metrics' })).body;
  expect(text).toMatch(/^countersign_agent_connected 1$/m);
  expect(text).toMatch(/^countersign_first_dark_seconds \d+$/m);
  expect(text).toContain(`countersign_workload_dark_seconds{spiffe_id="${brief}"} `);
  expect(text).toMatch(/^countersign_issuances_total\{result="ok"\} 2$/m);
  expect(text).toMatch(/^countersign_attestation_calls_total\{source="systemd"\} [1-9]\d*$/m);
  expect(text.endsWith('# EOF\n')).toBe(true);
  const names = (body: string) => body.match(/^# TYPE .*$/gm);
  expect(names((await http('/metrics')).body)).toEqual(names(text));
  expect((await ask({ to: metricsPort, path: '/v1/status' })).status).toBe(404);
});

test('what a process was not given is in the log of the server, with the name of the node', async () => {
  const refused = fetchKeyPair(agent.workloadSocket, stranger, 3_000);
  await expect(refused).rejects.toThrow();
  const refusals = await eventually('the refusal', async () => {
    const all = await server.audit('type=refusal');
    return all.length > 0 ? all : undefined;
  });
  expect(refusals[0]).toMatchObject({ door: 'sds', resource: stranger, caller: { uid, node: 'web-1' } });
  const { out: stdout } = await runCli([
    'audit',
    'list',
    '--type',
    'refusal',
    '--socket',
    join(directory, 'a.sock'),
  ]);
  expect(stdout).toContain('on web-1');
});

test('the server knows that the node is there, what it has, and how it is', async () => {
  const node = await eventually(
    'the report',
    async () => {
      const { presence } = await show();
      return presence.behindSince === null && presence.report?.workloads === 2 ? presence : undefined;
    },
    { withinMs: 60_000 },
  );
  expect(node).toMatchObject({ connected: true, report: { eventsLost: 0 } });
  expect(node.viewInForce).toBe(node.viewSent);
  const status = (await server.admin('GET', '/v1/status')) as { nodes: object };
  expect(status.nodes).toEqual({ attested: 1, connected: 1, laggard: null });
  const { out: stdout } = await runCli(['node', 'show', 'web-1', '--socket', join(directory, 'a.sock')]);
  expect(stdout).toMatch(/^connected +yes since /m);
  expect(stdout).toMatch(/^workloads +2, the first dark at /m);
}, 90_000);

test('cut off it says since when, and what waits; decisions and refusals arrive afterwards', async () => {
  proxy.set('refuse');
  proxy.cut();
  await eventually('the loss of the server to be noticed', async () => !(await read()).server.connected);
  await sendCheck(agent.workloadSocket, checkBytes({}));
  const status = await eventually('events to wait', async () => {
    const told = await read();
    return told.events.queued > 0 ? told : undefined;
  });
  expect(status).toMatchObject({ ready: true, server: { connected: false } });
  expect(status.warnings.join()).toContain('the server is away since');
  expect(status.policy!.deniesInSeconds).toBeLessThanOrEqual(86_400);
  const away = await eventually('the server to notice', async () => {
    const { presence } = await show();
    return presence.connected ? undefined : presence;
  });
  expect(away.behindSince).not.toBeNull();
  const { out: stdout } = await runCli(['status', '--data-dir', dataDir]);
  expect(stdout).toMatch(/^server +.* away since /m);
  expect(stdout).toMatch(/^policy +counts for another /m);
  proxy.set('pass');
  await eventually('the events to arrive', async () => (await read()).events.queued === 0, {
    withinMs: 60_000,
  });
  const decisions = await server.audit('type=decision');
  expect(decisions.at(-1)).toMatchObject({ caller: { node: 'web-1' } });
}, 120_000);

type Presence = {
  readonly connected: boolean;
  readonly behindSince: string | null;
  readonly viewSent: number;
  readonly viewInForce: number;
  readonly report: { readonly workloads: number } | null;
};

async function show(): Promise<{ readonly presence: Presence }> {
  return (await server.admin('GET', '/v1/nodes/web-1')) as { presence: Presence };
}

function http(path: string) {
  return ask({ to: `${dataDir}.run/admin.sock`, path, headers: { host: 'localhost' } });
}

async function read(): Promise<AgentStatusAnswer> {
  const { status, body } = await http('/v1/status');
  if (status !== 200) throw new Error(`${status} ${body}`);
  return JSON.parse(body) as AgentStatusAnswer;
}
