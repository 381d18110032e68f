import { copyFileSync } from 'node:fs';
import { join } from 'node:path';
import { entry } from '../../test/harness/mesh.ts';
import type { Scope } from '../../test/harness/scope.ts';
import { type Figure, percentile } from '../report.ts';
import { allLive, startCrowd } from './crowd.ts';
import { mainThreadTimes, startFleet } from './fleet.ts';

const streams = 1_000;

/**
 * A thousand streams of one identity whose certificate is there, opened at once over twenty connections by a process of
 * its own, several times.
 */
export async function measureOpening(
  scope: Scope,
  main: string,
  client: string,
  runs: number,
): Promise<readonly Figure[]> {
  const { directory, server, agent } = await startFleet(scope, { main });
  const binary = join(directory, 'crowd');
  copyFileSync(client, binary);
  await server.apply(entry('spiffe://mesh.test/ns/shop/sa/crowd', binary, { nodes: ['*'] }));
  const open = async (opening: number) => {
    const shape = ['-conns', '20', '-streams', '50', '-opening', `${opening}`, '-hold', '60s'];
    const crowd = startCrowd(scope, binary, directory, ['-addr', agent.workloadSocket, ...shape]);
    await allLive(crowd, streams);
    crowd.child.kill('SIGINT');
    const result = await crowd.result();
    if (result.errors > 0) throw new Error(`streams failed: ${result.failures.join('; ')}`);
    // One that was not answered is in no percentile.
    if (result.first < streams) throw new Error(`only ${result.first} of ${streams} streams were answered`);
    return result;
  };
  // The certificate, and the code of both sides.
  await open(1_000);
  const figures: Figure[] = [];
  // The client's own way is to wait for answers once 256 streams have none.
  for (const opening of [256, 1_000]) {
    const results = [];
    const before = mainThreadTimes(agent.child().pid);
    for (let i = 0; i < runs; i++) results.push(await open(opening));
    const { ranMs, waitedMs } = mainThreadTimes(agent.child().pid);
    const p50s = results.map(({ p50Ms }) => p50Ms);
    const p99s = results.map(({ p99Ms }) => p99Ms);
    const name = `1,000 streams (20 x 50, one identity, warm), ${opening} unanswered at most`;
    figures.push(
      { name: `${name}: p50, median of ${runs}`, value: percentile(p50s, 0.5), unit: 'ms', atMost: 80 },
      { name: `${name}: p99, median of ${runs}`, value: percentile(p99s, 0.5), unit: 'ms', atMost: 250 },
      { name: `${name}: p99, worst`, value: Math.max(...p99s), unit: 'ms', atMost: null },
      {
        name: `${name}: agent's main thread ran, for each, its end included`,
        value: (ranMs - before.ranMs) / runs / streams,
        unit: 'ms',
        atMost: null,
      },
      {
        name: `${name}: and could have run, but had no processor`,
        value: (waitedMs - before.waitedMs) / runs / streams,
        unit: 'ms',
        atMost: null,
      },
    );
  }
  return figures;
}
