import { copyFileSync } from 'node:fs';
import { join } from 'node:path';
import { eventually } from '../../test/harness/eventually.ts';
import { entry } from '../../test/harness/mesh.ts';
import type { Scope } from '../../test/harness/scope.ts';
import type { Figure } from '../report.ts';
import { allLive, startCrowd } from './crowd.ts';
import { memoryOf, pause, settledMemory, startFleet } from './fleet.ts';

/** Streams on one agent, and the connections they come over. Each connection is a proxy with a node id of its own. */
const [connections, perConnection] = [200, 50];
const streams = connections * perConnection;

/**
 * Ten thousand live streams on one agent: what each costs, what becomes of them while the root is replaced from prepare
 * to retire, and how soon they are back when the agent was killed and started again.
 */
export async function measureMany(scope: Scope, main: string, client: string): Promise<readonly Figure[]> {
  const fleet = await startFleet(scope, { main, probes: true });
  const { directory, server, agent } = fleet;
  const binary = join(directory, 'crowd');
  copyFileSync(client, binary);
  await server.apply(entry('spiffe://mesh.test/ns/shop/sa/crowd', binary, { nodes: ['*'] }));
  const args = ['-addr', agent.workloadSocket, '-conns', `${connections}`, '-streams', `${perConnection}`];
  const open = (hold: string) =>
    startCrowd(scope, binary, directory, [
      ...args,
      '-opening',
      '10000',
      '-hold',
      hold,
      '-timeout',
      '120s',
      '-node',
      'proxy-{c}',
    ]);
  const before = await settledMemory(agent.child().pid);

  const crowd = open('600s');
  await allLive(crowd, streams);
  const settled = await settledMemory(agent.child().pid);
  const perStream = ((settled.rssMiB - before.rssMiB) * 1_024) / streams;

  await Promise.all([fleet.probe('agent'), fleet.probe('server')]);
  type Report = { readonly next: { readonly safe: boolean } | null };
  const isSafe = async () => (await fleet.get<Report>('/v1/ca')).next?.safe === true;
  const patient = { withinMs: 60_000, everyMs: 250 };
  /** Nothing is forced. @returns how long it took until everybody had confirmed that it is safe, in ms */
  const step = async (name: 'activate' | 'retire'): Promise<number> => {
    const from = performance.now();
    await eventually(`everybody to confirm before ${name}`, isSafe, patient);
    const tookMs = performance.now() - from;
    await fleet.post(`/v1/ca/${name}`, { force: false });
    return tookMs;
  };
  const began = performance.now();
  await fleet.post('/v1/ca/rotate', { scope: 'root' });
  const waitedMs = [await step('activate'), await step('retire')] as const;
  // The CA, both roots, the certificate under the new one, one root: three pushes at least, some folded into one.
  await eventually('the last push', () => crowd.progress().pushes >= 3 * streams, patient).catch(
    () => undefined,
  );
  const rotationMs = performance.now() - began;
  await pause(3_000);
  const loop = await fleet.probe('agent');
  const after = memoryOf(agent.child().pid);
  crowd.child.kill('SIGINT');
  const result = await crowd.result();

  await pause(2_000);
  const signedBefore = await fleet.signatures();
  await agent.kill();
  await agent.restart();
  await fleet.probe('agent');
  const back = open('600s');
  await allLive(back, streams);
  const backLoop = await fleet.probe('agent');
  back.child.kill('SIGINT');
  const returned = await back.result();
  const signed = (await fleet.signatures()) - signedBefore;

  const name = `${streams} streams (${connections} x ${perConnection}, one identity)`;
  const lastVersion = result.versions.at(-1)?.responses ?? 0;
  return [
    { name: `${name}: agent, resident, for each`, value: perStream, unit: 'KiB', atMost: null },
    { name: `${name}: agent, resident`, value: settled.rssMiB, unit: 'MiB', atMost: null },
    { name: `${name}: agent, resident after the rotation`, value: after.rssMiB, unit: 'MiB', atMost: null },
    { name: `root rotation, prepare to retire: took`, value: rotationMs, unit: 'ms', atMost: null },
    { name: 'root rotation: activate waited for', value: waitedMs[0], unit: 'ms', atMost: null },
    { name: 'root rotation: retire waited for', value: waitedMs[1], unit: 'ms', atMost: null },
    { name: `root rotation: responses pushed`, value: result.pushes, unit: '', atMost: null },
    { name: `root rotation: streams dropped`, value: streams - result.liveAtEnd, unit: '', atMost: 0 },
    {
      name: `root rotation: streams without the last state`,
      value: streams - lastVersion,
      unit: '',
      atMost: 0,
    },
    { name: `root rotation: errors`, value: result.errors + result.bad, unit: '', atMost: 0 },
    { name: `root rotation: agent's event loop, p99`, value: loop.p99Ms, unit: 'ms', atMost: null },
    { name: `root rotation: agent's event loop, longest`, value: loop.maxMs, unit: 'ms', atMost: 100 },
    {
      name: `agent restarted: ${streams} streams at once, p50`,
      value: returned.p50Ms,
      unit: 'ms',
      atMost: null,
    },
    {
      name: `agent restarted: ${streams} streams at once, last`,
      value: returned.maxMs,
      unit: 'ms',
      atMost: null,
    },
    { name: `agent restarted: errors`, value: returned.errors, unit: '', atMost: 0 },
    { name: `agent restarted: event loop, longest`, value: backLoop.maxMs, unit: 'ms', atMost: 100 },
    { name: `agent restarted: signatures`, value: signed, unit: '', atMost: 0 },
  ];
}
