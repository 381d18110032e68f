import { mkdirSync, renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import type { RunningAgent } from '../../src/agent.ts';
import type { CaReport } from '../../src/http/ca-report.ts';
import { eventually } from '../harness/eventually.ts';
import { entry } from '../harness/mesh.ts';
import {
  type AgentHere,
  isConnected,
  type ServerHere,
  startAgentHere,
  startServerHere,
} from '../harness/node-mesh.ts';
import { createScope } from '../harness/scope.ts';
import { makeTempDir } from '../harness/temp.ts';

// One mesh for the whole file: a root is replaced, with nothing forced, while one agent runs and another is away.
const scope = createScope();
afterAll(() => scope.close());

let server: ServerHere;
let agent: AgentHere;
let running: RunningAgent;
let directory: string;

beforeAll(async () => {
  directory = makeTempDir(scope);
  server = await startServerHere(scope, directory);
  const [stays, leaves] = await Promise.all([startAgent('web-1'), startAgent('web-2')]);
  [agent, running] = [stays, await stays.started];
  await eventually('both to confirm', async () => (await report()).coverage.confirmed === 2, patient);
  await leaves.stop();
});

async function startAgent(name: string): Promise<AgentHere> {
  const at = { directory: join(directory, name), port: server.port };
  const started = startAgentHere(scope, { ...at, token: await server.token(name) });
  await started.started;
  return started;
}

const patient = { withinMs: 60_000 };
const report = async (): Promise<CaReport> => (await server.admin('GET', '/v1/ca')) as CaReport;
const isSafe = async (): Promise<boolean> => (await report()).next?.safe === true;
const inTheWay = async (): Promise<string> => {
  const { laggards } = await report();
  return laggards
    .map(({ spiffeId, why }) => `${spiffeId.slice(spiffeId.lastIndexOf('/') + 1)} ${why}`)
    .join();
};
const roots = async (): Promise<readonly string[]> =>
  (await report()).authorities.filter(({ kind }) => kind === 'root').map(({ state }) => state);
/** The revision of the view that it goes by, and 0 while a later one is on its way. */
const inForce = async (): Promise<number> => {
  const { items } = (await server.admin('GET', '/v1/nodes')) as { items: NodeItem[] };
  const { viewSent = 0, viewInForce = 0 } = items.find(({ name }) => name === 'web-1')?.presence ?? {};
  return viewSent === viewInForce ? viewInForce : 0;
};
type NodeItem = {
  readonly name: string;
  readonly presence: { readonly viewSent: number; readonly viewInForce: number };
};
const serial = (): string => running.status().node?.serial ?? '';

test('an agent that cannot keep a new root is in the way, though it goes by it', async () => {
  const sealed = join(agent.cacheDir, 'cache.sealed');
  renameSync(sealed, `${sealed}.aside`);
  // Nothing can be put in its place.
  mkdirSync(join(sealed, 'taken'), { recursive: true });
  const isRefused = () => agent.lines().some((line) => line.includes('could not be written'));
  const before = await eventually('a view', async () => (await inForce()) || undefined, patient);
  await server.admin('POST', '/v1/ca/rotate', { scope: 'root' });
  await eventually('the cache to be refused', isRefused, patient);
  await eventually('the agent to go by the new view', async () => (await inForce()) > before, patient);
  expect(await inTheWay()).toContain('web-1 has confirmed bundle 1, not 2');
  rmSync(sealed, { recursive: true });
  renameSync(`${sealed}.aside`, sealed);
  // It tries again with the next change.
  await server.apply(entry('spiffe://mesh.test/kept', '/', { nodes: ['node:web-1'] }));
}, 90_000);

test('an agent that runs confirms a new root at once; one that is away is in the way, by name', async () => {
  const only = async () => (await inTheWay()) === 'web-2 has confirmed bundle 1, not 2';
  await eventually('web-1 to confirm', only, patient);
  await expect(server.admin('POST', '/v1/ca/activate', {})).rejects.toThrow('node/web-2');
  expect(await roots()).toEqual(['active', 'prepared']);
}, 90_000);

test('a node that is evicted is in nobody’s way any more', async () => {
  await server.admin('POST', '/v1/nodes/web-2/evict', {});
  expect(await inTheWay()).toBe('');
  await server.admin('POST', '/v1/ca/activate', {});
  expect(await roots()).toEqual(['retiring', 'active']);
});

test('the old root goes once the agent has another certificate, and has kept it', async () => {
  const before = serial();
  await eventually('nobody to be in the way', isSafe, patient);
  expect(serial()).not.toBe(before);
  await server.admin('POST', '/v1/ca/retire', {});
  expect(await roots()).toEqual(['active']);
}, 150_000);

test('the agent goes on, and so does the next one on its cache', async () => {
  const isTold = (count: number) => () => isConnected(running) && running.status().entries === count;
  await server.apply(entry('spiffe://mesh.test/a', '/', { nodes: ['node:web-1'] }));
  await eventually('the change', isTold(2), patient);
  await agent.stop();
  agent = startAgentHere(scope, { directory: join(directory, 'web-1'), port: server.port });
  running = await agent.started;
  await server.apply(entry('spiffe://mesh.test/b', '/', { nodes: ['node:web-1'] }));
  await eventually('the next change', isTold(3), patient);
  expect(running.status().server.trouble).toBeNull();
}, 150_000);
