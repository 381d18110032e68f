import { type ChildProcess, fork } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { performance } from 'node:perf_hooks';
import { systemClock } from '../../src/clock.ts';
import { MeshError } from '../../src/errors.ts';
import { attestNode } from '../../src/node/node-client.ts';
import { learnServer, parseJoinSecret } from '../../src/node/server-trust.ts';
import { encodePem } from '../../src/spiffe/pem.ts';
import { generateP256 } from '../../src/up-key-pair.ts';
import { eventually } from '../../test/harness/eventually.ts';
import { ask } from '../../test/harness/http.ts';
import type { Scope } from '../../test/harness/scope.ts';
import { type Figure, percentile } from '../report.ts';
import { type Fleet, memoryOf, otherEntries, pause, startFleet } from './fleet.ts';
import { type NodeTimes, openSession, type SavedNode } from './nodes.ts';

/**
 * The server is killed and started again, and so many nodes, each with an identity and a connection of its own, are back
 * within a second, without the back-off that real agents have. Meanwhile one node that was there first goes on asking
 * for views, and somebody reads over the admin API.
 */
export async function measureStampede(scope: Scope, main: string, count: number): Promise<readonly Figure[]> {
  const fleet = await startFleet(scope, { main, probes: true });
  const { server, nodePort, directory } = fleet;
  await server.apply(otherEntries(1_000));
  const [first, ...nodes] = await attestMany(fleet, count + 1);
  if (first === undefined) throw new Error('there are no nodes');
  const crowd = startNodes(scope, join(directory, 'nodes.json'), nodes, nodePort);
  const patient = { withinMs: 180_000, everyMs: 250 };
  // One that has failed does not come back by itself, as a real agent would.
  const allBack = () =>
    eventually(
      `${count} views`,
      async () => {
        const { views, failed } = await crowd.report();
        return views.length + failed >= count;
      },
      patient,
    );
  await crowd.open();
  await allBack();
  await server.kill();
  await eventually('the end of all streams', async () => (await crowd.report()).ended >= count, patient);
  const killedAt = new Date();
  await server.restart();

  const early = openSession(nodePort, first);
  await early.view(false);
  await fleet.probe('server');
  let isOver = false;
  const every = async (ms: number, work: () => Promise<number>): Promise<readonly number[]> => {
    const times: number[] = [];
    while (!isOver) {
      times.push(await work());
      await pause(ms);
    }
    return times;
  };
  const others = Promise.all([
    every(20, () => early.view(false)),
    every(20, async () => {
      const began = performance.now();
      await ask({ to: server.adminSocket, path: '/v1/entries?limit=1', timeoutMs: 30_000 });
      return performance.now() - began;
    }),
  ]);
  // Awaited below, unless something else fails before.
  others.catch(() => undefined);
  const began = performance.now();
  await crowd.open();
  await allBack().finally(() => (isOver = true));
  const tookMs = performance.now() - began;
  const loop = await fleet.probe('server');
  const [views, reads] = await others;
  early.close();
  const times = await crowd.report();
  const { rssMiB } = memoryOf(server.child().pid);

  // A change reaches all of them, in turns.
  await fleet.probe('server');
  await server.apply(otherEntries(1_001));
  await pause(2_000);
  const change = await fleet.probe('server');
  const issued = await server.audit(`type=issuance&since=${encodeURIComponent(killedAt.toISOString())}`);
  const ofNodes = issued.filter(({ spiffeId }) => !String(spiffeId).endsWith('/server'));

  const name = `server restarted, ${count} nodes back within a second`;
  return [
    { name: `${name}: until all have their view`, value: tookMs, unit: 'ms', atMost: null },
    {
      name: `${name}: connection to view, p50`,
      value: percentile(times.views, 0.5),
      unit: 'ms',
      atMost: null,
    },
    {
      name: `${name}: connection to view, p99`,
      value: percentile(times.views, 0.99),
      unit: 'ms',
      atMost: null,
    },
    { name: `${name}: failed or cut`, value: times.failed + times.ended, unit: '', atMost: 0 },
    {
      name: `${name}: a node that is there asks for its view, p99`,
      value: percentile(views, 0.99),
      unit: 'ms',
      atMost: 1_000,
    },
    {
      name: `${name}: reading over the admin API, p99`,
      value: percentile(reads, 0.99),
      unit: 'ms',
      atMost: 1_000,
    },
    { name: `${name}: event loop, p99`, value: loop.p99Ms, unit: 'ms', atMost: null },
    { name: `${name}: event loop, longest`, value: loop.maxMs, unit: 'ms', atMost: 100 },
    { name: `${name}: signatures`, value: ofNodes.length, unit: '', atMost: 0 },
    { name: `${name}: server, resident`, value: rssMiB, unit: 'MiB', atMost: null },
    {
      name: `a change for ${count} nodes: event loop, longest`,
      value: change.maxMs,
      unit: 'ms',
      atMost: 100,
    },
  ];
}

/** Attests nodes with join tokens, a few at a time. */
async function attestMany({ server, nodePort }: Fleet, count: number): Promise<readonly SavedNode[]> {
  const address = { host: '127.0.0.1', port: nodePort };
  const nodes: SavedNode[] = [];
  let next = 0;
  const attestNext = async (): Promise<void> => {
    while (next < count) {
      next += 1;
      const token = parseJoinSecret(await server.joinToken(`n-${next}-${randomBytes(4).toString('hex')}`));
      const trust = await learnServer(address, token.rootSha256, systemClock.now());
      const key = await generateP256();
      const options = { server: address, roots: trust.roots, trustDomain: trust.trustDomain };
      const attest = () => attestNode(options, { kind: 'join_token', secret: token.secret }, key);
      const { certificates } = await patiently(attest);
      nodes.push({
        certificate: certificates.map((der) => encodePem('CERTIFICATE', der)).join(''),
        privateKey: encodePem('PRIVATE KEY', key.privateKey),
      });
    }
  };
  await Promise.all(Array.from({ length: 8 }, attestNext));
  return nodes;
}

/** A server takes in so many nodes a second and no more: asks again until it is the turn of this one. */
async function patiently<T>(work: () => Promise<T>): Promise<T> {
  for (let tries = 1; ; tries++) {
    try {
      return await work();
    } catch (error) {
      if (!(error instanceof MeshError) || error.code !== 'rate_limited' || tries === 300) throw error;
      await pause(100 + Math.random() * 200);
    }
  }
}

function startNodes(scope: Scope, file: string, nodes: readonly SavedNode[], port: number) {
  writeFileSync(file, JSON.stringify(nodes), { mode: 0o600 });
  const child: ChildProcess = fork(join(import.meta.dirname, 'nodes.ts'), [file, `${port}`]);
  scope.defer(() => void child.kill('SIGKILL'));
  return {
    open: async () => void child.send('open'),
    report: () =>
      new Promise<NodeTimes>((resolve, reject) => {
        if (child.exitCode !== null) return reject(new Error('the nodes have ended'));
        child.once('message', (times) => resolve(times as NodeTimes));
        child.send('report');
        return undefined;
      }),
  };
}
