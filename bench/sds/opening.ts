import { copyFileSync } from 'node:fs';
import { join } from 'node:path';
import { entry } from '../../test/harness/mesh.ts';
import type { Scope } from '../../test/harness/scope.ts';
import { type Figure, percentile } from '../report.ts';
import { allLive, startCrowd } from './crowd.ts';
import { mainThreadTimes, startFleet } from './fleet.ts';
import { startFloor } from './floor.ts';

const streams = 1_000;
const id = 'spiffe://mesh.test/ns/shop/sa/crowd';

/**
 * A thousand streams of one identity whose certificate is there, opened at once over twenty connections by a process of
 * its own, several times; and in between the same of a server that does nothing but answer.
 */
export async function measureOpening(
  scope: Scope,
  main: string,
  client: string,
  runs: number,
): Promise<readonly Figure[]> {
  const { directory, server, agent } = await startFleet(scope, { main });
  const floor = await startFloor(scope, directory, id);
  const binary = join(directory, 'crowd');
  copyFileSync(client, binary);
  await server.apply(entry(id, binary, { nodes: ['*'] }));
  const open = async (socket: string, pid: number, opening: number): Promise<Opening> => {
    const before = mainThreadTimes(pid);
    const shape = ['-conns', '20', '-streams', '50', '-opening', `${opening}`, '-hold', '60s'];
    const crowd = startCrowd(scope, binary, directory, ['-addr', socket, ...shape]);
    await allLive(crowd, streams);
    crowd.child.kill('SIGINT');
    const result = await crowd.result();
    if (result.errors > 0) throw new Error(`streams failed: ${result.failures.join('; ')}`);
    // One that was not answered is in no percentile.
    if (result.first < streams) throw new Error(`only ${result.first} of ${streams} streams were answered`);
    const { ranMs, waitedMs } = mainThreadTimes(pid);
    const [ran, waited] = [ranMs - before.ranMs, waitedMs - before.waitedMs];
    return { p50Ms: result.p50Ms, p99Ms: result.p99Ms, ranMs: ran / streams, waitedMs: waited / streams };
  };
  const openBoth = async (opening: number): Promise<readonly [Opening, Opening]> => [
    await open(agent.workloadSocket, agent.child().pid, opening),
    await open(floor.socket, floor.pid, opening),
  ];
  // The certificate, and the code of all sides.
  await openBoth(1_000);
  const figures: Figure[] = [];
  // The client's own way is to wait for answers once 256 streams have none.
  for (const opening of [256, 1_000]) {
    const both: (readonly [Opening, Opening])[] = [];
    for (let i = 0; i < runs; i++) both.push(await openBoth(opening));
    const ours = medians(both.map(([own]) => own));
    const least = medians(both.map(([, other]) => other));
    const name = `1,000 streams (20 x 50, one identity, warm), ${opening} unanswered at most`;
    const figure = (what: string, value: number, unit = 'ms', atMost: number | null = null): Figure => ({
      name: `${name}: ${what}`,
      value,
      unit,
      atMost,
    });
    figures.push(
      figure(`p50, median of ${runs}`, ours.p50Ms, 'ms', 80),
      figure(`p99, median of ${runs}`, ours.p99Ms, 'ms', 250),
      figure('p99, worst', Math.max(...both.map(([{ p99Ms }]) => p99Ms))),
      figure("agent's main thread ran, for each, its end included", ours.ranMs),
      figure('and could have run, but had no processor', ours.waitedMs),
      figure('a server that only answers: p50', least.p50Ms),
      figure('a server that only answers: p99', least.p99Ms),
      figure('a server that only answers: its main thread ran, for each', least.ranMs),
      figure("agent's main thread, as a multiple of that", ours.ranMs / least.ranMs, 'x'),
    );
  }
  return figures;
}

type Opening = {
  readonly p50Ms: number;
  readonly p99Ms: number;
  /** The main thread of the server, for each stream. */
  readonly ranMs: number;
  readonly waitedMs: number;
};

function medians(openings: readonly Opening[]): Opening {
  const median = (of: (one: Opening) => number) => percentile(openings.map(of), 0.5);
  return {
    p50Ms: median(({ p50Ms }) => p50Ms),
    p99Ms: median(({ p99Ms }) => p99Ms),
    ranMs: median(({ ranMs }) => ranMs),
    waitedMs: median(({ waitedMs }) => waitedMs),
  };
}
