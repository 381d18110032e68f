import { type ChildProcess, fork, spawn } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { getPriority, setPriority } from 'node:os';
import { join } from 'node:path';
import { performance } from 'node:perf_hooks';
import { createInterface } from 'node:readline';
import { createTurns } from '../../src/identity/turns.ts';
import { eventually } from '../../test/harness/eventually.ts';
import { ask } from '../../test/harness/http.ts';
import type { Scope } from '../../test/harness/scope.ts';
import { type Figure, percentile } from '../report.ts';
import type { FromAgents, Join, JoinedNode, Returned, ToAgents } from './agents.ts';
import { type Fleet, mainThreadTimes, otherEntries, pause, settledMemory, startFleet } from './fleet.ts';

const entries = 10;
const agentsPerProcess = 500;

/** Many nodes, wherever they run. */
type Crowd<T extends Returned> = {
  /** From now on it counts. */
  readonly mark: () => void;
  readonly report: () => Promise<T>;
};

/**
 * The server is killed and started again at once, and so many agents come back with the certificates that they hold: link,
 * signer and keeper of the product, each with a certificate, an address and a connection of its own. They take more of
 * this machine than the server does, so that they come back as slowly as they can be run.
 */
export async function measureStampede(scope: Scope, main: string, count: number): Promise<readonly Figure[]> {
  const fleet = await startFleet(scope, { main, probes: true });
  await fleet.server.apply(otherEntries(entries));
  const agents = startAgents(scope, Math.ceil(count / agentsPerProcess));
  await agents.join(fleet, count, true);
  const own = count * entries;
  await settle(agents, count, ({ certificates }) => certificates === own);
  agents.stepBack();
  const name = `server restarted, ${count} agents with ${entries} certificates each`;
  const { figures, killedAt } = await measureReturn(fleet, agents, count, name);
  // Whatever else would be asked for, such as certificates.
  await pause(5_000);
  const { certificates, signed } = await agents.report();
  const issued = await fleet.server.audit(
    `type=issuance&since=${encodeURIComponent(killedAt.toISOString())}`,
  );
  const notOwn = issued.filter(({ spiffeId }) => !String(spiffeId).endsWith('/server'));
  return [
    ...figures,
    { name: `${name}: certificates lost`, value: own - certificates, unit: '', atMost: 0 },
    { name: `${name}: signatures`, value: Math.max(signed, notOwn.length), unit: '', atMost: 0 },
    await measureChange(fleet, count),
  ];
}

/**
 * The same with nodes that cost next to nothing, so that the server is what they wait for. They join as agents; then a
 * client in Go takes their place, which comes back by the same rules.
 */
export async function measureSwarm(
  scope: Scope,
  main: string,
  client: string,
  count: number,
): Promise<readonly Figure[]> {
  const fleet = await startFleet(scope, { main, probes: true });
  await fleet.server.apply(otherEntries(entries));
  const agents = startAgents(scope, 2);
  await agents.join(fleet, count, false);
  await settle(agents, count, () => true);
  const nodes = await agents.give();
  agents.end();
  const swarm = startSwarm(scope, client, fleet, nodes);
  await settle(swarm, count, () => true);
  const { figures } = await measureReturn(fleet, swarm, count, `server restarted, ${count} nodes`);
  return [...figures, await measureChange(fleet, count)];
}

/** Waits until all nodes watch their view. */
async function settle<T extends Returned>(
  crowd: Pick<Crowd<T>, 'report'>,
  count: number,
  isSo: (now: T) => boolean,
): Promise<T> {
  const look = async (): Promise<T> => {
    const now = await crowd.report();
    if (now.watching === count && isSo(now)) return now;
    throw new Error(`not yet: ${JSON.stringify({ ...now, backAtMs: now.backAtMs.length })}`);
  };
  return eventually(`${count} nodes to be there`, look, {
    withinMs: 60_000 + count * 100,
    everyMs: 250,
  });
}

async function measureReturn<T extends Returned>(
  fleet: Fleet,
  crowd: Crowd<T>,
  count: number,
  name: string,
): Promise<{ readonly figures: readonly Figure[]; readonly killedAt: Date }> {
  const { server } = fleet;
  const before = await settledMemory(server.child().pid);
  crowd.mark();
  const killedAt = new Date();
  await server.kill();
  await eventually('all to have noticed', async () => (await crowd.report()).watching === 0);
  await server.restart();
  const readyAtMs = Date.now();
  await fleet.probe('server');
  const atStart = mainThreadTimes(server.child().pid);
  let isOver = false;
  const reading = (async () => {
    const times: number[] = [];
    while (!isOver) {
      const began = performance.now();
      await ask({ to: server.adminSocket, path: '/v1/entries?limit=1', timeoutMs: 30_000 });
      times.push(performance.now() - began);
      await pause(20);
    }
    return times;
  })();
  // Awaited below, unless something else fails before.
  reading.catch(() => undefined);
  const back = await settle(crowd, count, () => true).finally(() => (isOver = true));
  const loop = await fleet.probe('server');
  const atEnd = mainThreadTimes(server.child().pid);
  const reads = await reading;
  const after = await settledMemory(server.child().pid);
  const { standing, failures } = await crowd.report();
  for (const [what, times] of Object.entries(failures)) console.error(`${times} x ${what}`);
  const backMs = back.backAtMs.map((at) => at - readyAtMs);
  const told = (what: string, value: number, unit = '', atMost: number | null = null): Figure => ({
    name: `${name}: ${what}`,
    value,
    unit,
    atMost,
  });
  const figures = [
    told('back with a view, p50', percentile(backMs, 0.5), 'ms'),
    told('back with a view, p99', percentile(backMs, 0.99), 'ms'),
    told('back with a view, last', Math.max(...backMs), 'ms'),
    told('connections that came about and were given up', back.inVain - count),
    told('connections that stand afterwards, of each', standing / count, '', 1),
    told('connections that waited at once, at most', back.mostWaiting),
    told('reading over the admin API, p99', percentile(reads, 0.99), 'ms', 1_000),
    told('event loop, p99', loop.p99Ms, 'ms'),
    told('event loop, longest', loop.maxMs, 'ms', 100),
    told('event loop, most work without a pause', loop.busiestMs, 'ms', 100),
    told('main thread, for each', (atEnd.ranMs - atStart.ranMs) / count, 'ms'),
    told('main thread, had no processor', atEnd.waitedMs - atStart.waitedMs, 'ms'),
    told('server, resident before', before.rssMiB, 'MiB'),
    told('server, resident after', after.rssMiB, 'MiB'),
    told('server, resident at most', after.peakMiB, 'MiB'),
  ];
  return { figures, killedAt };
}

/** A change reaches all of them, in turns. */
async function measureChange(fleet: Fleet, count: number): Promise<Figure> {
  await fleet.probe('server');
  await fleet.server.apply(otherEntries(entries + 1));
  await pause(2_000 + count);
  const { maxMs } = await fleet.probe('server');
  return { name: `a change for ${count} nodes: event loop, longest`, value: maxMs, unit: 'ms', atMost: 100 };
}

/** Several processes, as one of them has to do the work of hundreds of machines. */
function startAgents(scope: Scope, processes: number) {
  const children = Array.from({ length: processes }, () => {
    const child: ChildProcess = fork(join(import.meta.dirname, 'agents.ts'));
    scope.defer(() => void child.kill('SIGKILL'));
    return child;
  });
  const tell = (message: ToAgents): void => {
    for (const child of children) child.send(message);
  };
  const askOne = <T>(child: ChildProcess, message: ToAgents): Promise<T> =>
    new Promise((resolve, reject) => {
      if (child.exitCode !== null) return reject(new Error('a process of agents has ended'));
      child.once('message', (answer) => resolve(answer as T));
      child.send(message);
      return undefined;
    });
  const askAll = <T>(message: ToAgents) => Promise.all(children.map((child) => askOne<T>(child, message)));
  return {
    mark: () => tell({ kind: 'mark' }),
    report: async (): Promise<FromAgents> => add(await askAll<FromAgents>({ kind: 'report' })),
    give: async () => (await askAll<readonly JoinedNode[]>({ kind: 'give' })).flat(),
    /** On machines of their own they would take nothing from the server. */
    stepBack: (): void => {
      for (const { pid } of children)
        if (pid !== undefined) setPriority(pid, Math.min(19, getPriority() + 5));
    },
    end: (): void => {
      for (const child of children) child.kill('SIGKILL');
    },
    join: async ({ server, nodePort: port }: Fleet, count: number, holds: boolean): Promise<void> => {
      const turns = createTurns(8);
      const make = async (at: number): Promise<Join> => ({
        token: await server.joinToken(`n-${at}`),
        address: `127.1.${1 + Math.floor(at / 250)}.${1 + (at % 250)}`,
      });
      const joins = await Promise.all(Array.from({ length: count }, (_, at) => turns(() => make(at))));
      for (const [at, child] of children.entries()) {
        const own = joins.filter((_, index) => index % processes === at);
        child.send({ kind: 'join', port, joins: own, holds } satisfies ToAgents);
      }
    },
  };
}

function startSwarm(
  scope: Scope,
  client: string,
  { directory, nodePort }: Fleet,
  nodes: readonly JoinedNode[],
): Crowd<Returned> {
  const file = join(directory, 'nodes.json');
  writeFileSync(file, JSON.stringify(nodes), { mode: 0o600 });
  const child = spawn(client, ['-addr', `127.0.0.1:${nodePort}`, '-nodes', file], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  scope.defer(() => void child.kill('SIGKILL'));
  const waiting: ((line: string) => void)[] = [];
  createInterface({ input: child.stdout }).on('line', (line) => waiting.shift()?.(line));
  return {
    mark: () => void child.stdin.write('mark\n'),
    report: () =>
      new Promise((resolve, reject) => {
        if (child.exitCode !== null) return reject(new Error('the client has ended'));
        waiting.push((line) => resolve(JSON.parse(line) as Returned));
        child.stdin.write('report\n');
        return undefined;
      }),
  };
}

function add(reports: readonly FromAgents[]): FromAgents {
  const sum = (of: (one: FromAgents) => number) => reports.reduce((total, one) => total + of(one), 0);
  const failures: Record<string, number> = {};
  for (const one of reports) {
    for (const [what, times] of Object.entries(one.failures)) failures[what] = (failures[what] ?? 0) + times;
  }
  return {
    watching: sum(({ watching }) => watching),
    ended: sum(({ ended }) => ended),
    certificates: sum(({ certificates }) => certificates),
    signed: sum(({ signed }) => signed),
    backAtMs: reports.flatMap(({ backAtMs }) => backAtMs),
    connections: sum(({ connections }) => connections),
    inVain: sum(({ inVain }) => inVain),
    standing: sum(({ standing }) => standing),
    mostWaiting: sum(({ mostWaiting }) => mostWaiting),
    failures,
  };
}
