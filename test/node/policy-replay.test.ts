import { execFileSync } from 'node:child_process';
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import type { RunningAgent } from '../../src/agent.ts';
import { eventually } from '../harness/eventually.ts';
import {
  type AgentHere,
  isConnected,
  logged,
  type ServerHere,
  startAgentHere,
  startServerHere,
} from '../harness/node-mesh.ts';
import { createScope } from '../harness/scope.ts';
import { makeTempDir } from '../harness/temp.ts';

const scope = createScope();
afterAll(() => scope.close());

const directory = makeTempDir(scope);
const [data, backup] = [join(directory, 'data'), join(directory, 'backup')];
const agentDirectory = join(makeTempDir(scope), 'agent');
let server: ServerHere;
let agent: AgentHere;

const policy = (method: string) =>
  'apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: { name: a, namespace: shop }\n' +
  `spec: { action: ALLOW, rules: [{ to: [{ operation: { methods: ["${method}"] } }] }] }\n`;
const numberOf = ({ status }: RunningAgent) => status().policy?.revision?.number;
const enforces = async (number: number) => {
  const running = await agent.started;
  await eventually(`revision ${number}`, () => numberOf(running) === number && isConnected(running), {
    withinMs: 90_000,
  });
};
const restart = async () => {
  await agent.stop();
  agent = startAgentHere(scope, { directory: agentDirectory, port: server.port });
  await agent.started;
};

// With owners and modes: a server does not start on what others may read.
const copy = (from: string, to: string) => execFileSync('cp', ['-a', from, to]);

beforeAll(async () => {
  server = await startServerHere(scope, directory);
  await server.apply(policy('GET'));
  agent = startAgentHere(scope, {
    directory: agentDirectory,
    port: server.port,
    token: await server.token('web-1'),
  });
  await enforces(1);
  await server.stop();
  copy(data, backup);
  await server.start();
  await server.apply(policy('POST'));
  await enforces(2);
  await server.stop();
  rmSync(data, { recursive: true });
  copy(backup, data);
  await server.start();
});

test('an agent refuses what a restored server says, says so, and goes on with what it has', async () => {
  await logged(agent, 'policy_replayed');
  const running = await agent.started;
  await eventually('the trouble', () => running.status().server.trouble?.code === 'policy_replayed');
  expect(running.status()).toMatchObject({
    ready: true,
    server: { connected: false, trouble: { fix: expect.stringContaining('--after 2') } },
    policy: { revision: { number: 2 } },
  });
});

test('it still does after a restart', async () => {
  await restart();
  await logged(agent, 'policy_replayed');
  expect(numberOf(await agent.started)).toBe(2);
});

test('it refuses others under the number that it knows', async () => {
  await server.apply(policy('PUT'));
  await restart();
  await logged(agent, 'other policies under the same number');
  expect(numberOf(await agent.started)).toBe(2);
});

test('once an operator has moved the number ahead it takes what the server says', async () => {
  expect(await server.admin('POST', '/v1/policy-revisions/renumber', { after: 2 })).toMatchObject({
    number: 3,
  });
  await restart();
  await enforces(3);
  const { items } = (await server.admin('GET', '/v1/policy-revisions')) as {
    items: { number: number; parent: { number: number } | null }[];
  };
  expect(items.map(({ number, parent }) => [number, parent?.number])).toEqual([
    [3, 2],
    [2, 1],
    [1, undefined],
  ]);
});
