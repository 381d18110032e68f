// What thousands of proxies of one entry cost: all open their streams at once, then all are given a new certificate at
// once, while one stream of another identity is watched: how long until it has its own, and how long until a ban of it
// ends it. A real authority with its store; its clients are processes of their own. Takes about 30 seconds.
import { type ChildProcess, fork } from 'node:child_process';
import { chmodSync, copyFileSync, linkSync } from 'node:fs';
import { join } from 'node:path';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { loadConfig } from '../src/config.ts';
import { openLog } from '../src/log.ts';
import { startUp } from '../src/up.ts';
import { eventually } from '../test/harness/eventually.ts';
import { ask } from '../test/harness/http.ts';
import { entry } from '../test/harness/mesh.ts';
import { createScope } from '../test/harness/scope.ts';
import { makeTempDir } from '../test/harness/temp.ts';
import { printReport, type ReportRow } from './report.ts';

const streams = 5_000;
const connections = 250;
const renewals = 4;
const [crowdId, oneId] = ['crowd', 'one'].map((name) => `spiffe://bench.test/ns/shop/sa/${name}`) as [
  string,
  string,
];
const rows: ReportRow[] = [];
const metrics: Record<string, number> = {};
const scope = createScope();
try {
  await measure();
} finally {
  await scope.close();
}
printReport('streams', rows, metrics);

async function measure(): Promise<void> {
  const directory = makeTempDir(scope);
  const [workloadSocket, adminSocket] = [join(directory, 'w.sock'), join(directory, 'a.sock')];
  const flags = {
    trustDomain: 'bench.test',
    dataDir: join(directory, 'data'),
    workloadSocket,
    adminSocket,
    adminAddress: 'off',
    shutdownGraceSeconds: '1',
  };
  const config = loadConfig({ flags, environment: {}, file: null, isRoot: false });
  const authority = await startUp(config, openLog('error'));
  scope.defer(() => authority.close());
  const admin = async (path: string, body: unknown, method = 'POST'): Promise<void> => {
    const headers = { 'content-type': 'application/json' };
    const { status, body: text } = await ask({
      to: adminSocket,
      path,
      method,
      headers,
      body: JSON.stringify(body),
      timeoutMs: 30_000,
    });
    if (status >= 300) throw new Error(text);
  };
  const crowd = await startClient(directory, 'crowd', [
    workloadSocket,
    `${streams}`,
    `${connections}`,
    crowdId,
  ]);
  const one = await startClient(directory, 'one', [workloadSocket, '1', '1', oneId]);
  // A changed lifetime is a new certificate for everybody who has the old one.
  const setLife = (seconds: number, ...clients: readonly Client[]): Promise<void> =>
    admin('/v1/apply', {
      files: [
        {
          file: 'bench.yaml',
          text: clients.map(({ id, binary }) => entry(id, binary, { ttlSeconds: seconds })).join(''),
        },
      ],
    });
  await setLife(3_600, { ...crowd, id: crowdId }, { ...one, id: oneId });

  await one.tell('open');
  await eventually('the one stream', async () => (await one.times()).received.length === 1);
  const opening = watchLoop();
  let began = Date.now();
  await crowd.tell('open');
  await received(crowd, streams);
  report('open', streams, since(began, (await crowd.times()).received), opening());

  const [toCrowd, toOne]: [number[], number[]] = [[], []];
  const renewing = watchLoop();
  for (let i = 1; i <= renewals; i++) {
    await Promise.all([crowd.tell('mark'), one.tell('mark')]);
    began = Date.now();
    await setLife(3_600 - i, { ...crowd, id: crowdId }, { ...one, id: oneId });
    await Promise.all([received(crowd, streams), received(one, 1)]);
    toCrowd.push(...since(began, (await crowd.times()).received));
    toOne.push(...since(began, (await one.times()).received));
  }
  report('renewal', streams, toCrowd, renewing());
  row('renewal: one other stream, slowest', 'renewal_other_max_ms', Math.max(...toOne));

  const banning = watchLoop();
  await Promise.all([crowd.tell('mark'), one.tell('mark')]);
  await setLife(1_800, { ...crowd, id: crowdId });
  began = Date.now();
  await admin('/v1/bans', { kind: 'spiffe-id', value: oneId, reason: 'bench' });
  await eventually('the end of the banned stream', async () => (await one.times()).ended.length > 0, {
    everyMs: 20,
  });
  const [ended = Number.NaN] = since(began, (await one.times()).ended);
  row('ban during a renewal: to the end of the stream', 'ban_to_end_ms', ended);
  await received(crowd, streams);
  began = Date.now();
  await admin('/v1/bans', { kind: 'spiffe-id', value: crowdId, reason: 'bench' });
  await eventually('the end of all', async () => (await crowd.times()).ended.length >= streams, {
    withinMs: 20_000,
  });
  const ends = since(began, (await crowd.times()).ended);
  row(`ban of ${streams} streams: to the end of the last`, 'ban_all_ms', Math.max(...ends));
  const delay = banning();
  row('bans: event-loop delay, p99', 'ban_loop_p99_ms', delay.p99);
  row('bans: event-loop delay, longest', 'ban_loop_max_ms', delay.max);
}

type Times = { readonly received: readonly number[]; readonly ended: readonly number[] };
type Client = { readonly binary: string; readonly id: string };

async function startClient(directory: string, name: string, args: readonly string[]) {
  // A binary of its own, by which the authority tells one client from the other.
  const binary = join(directory, name);
  try {
    linkSync(process.execPath, binary);
  } catch {
    copyFileSync(process.execPath, binary);
    chmodSync(binary, 0o755);
  }
  const child: ChildProcess = fork(join(import.meta.dirname, 'streams/client.ts'), [...args], {
    execPath: binary,
    execArgv: [],
  });
  scope.defer(() => void child.kill('SIGKILL'));
  const answer = <T>(): Promise<T> =>
    new Promise((resolve, reject) => {
      if (child.exitCode !== null) reject(new Error(`the client ${name} has ended`));
      child.once('message', (message) => resolve(message as T));
    });
  await answer();
  const tell = (message: 'open' | 'mark' | 'report'): Promise<void> =>
    new Promise((resolve, reject) => {
      child.send(message, (error) => (error === null ? resolve() : reject(error)));
    });
  const times = async (): Promise<Times> => {
    const told = answer<Times>();
    await tell('report');
    return told;
  };
  return { binary, tell, times };
}

function received(client: Awaited<ReturnType<typeof startClient>>, count: number): Promise<unknown> {
  return eventually(`${count} responses`, async () => (await client.times()).received.length >= count, {
    withinMs: 30_000,
    everyMs: 100,
  });
}

type Loop = { readonly p99: number; readonly max: number; readonly cpuMs: number };

function watchLoop(): () => Loop {
  const before = process.threadCpuUsage();
  const delay = monitorEventLoopDelay({ resolution: 1 });
  delay.enable();
  return () => {
    delay.disable();
    const { user, system } = process.threadCpuUsage(before);
    return { p99: delay.percentile(99) / 1e6, max: delay.max / 1e6, cpuMs: (user + system) / 1_000 };
  };
}

function report(what: string, count: number, times: readonly number[], delay: Loop): void {
  const sorted = [...times].sort((a, b) => a - b);
  const at = (share: number) => sorted[Math.max(0, Math.ceil(sorted.length * share) - 1)] ?? Number.NaN;
  row(`${what} of ${count} streams: to the secret, p50`, `${what}_p50_ms`, at(0.5));
  row(`${what} of ${count} streams: to the secret, p99`, `${what}_p99_ms`, at(0.99));
  row(`${what}: event-loop delay, p99`, `${what}_loop_p99_ms`, delay.p99);
  row(`${what}: event-loop delay, longest`, `${what}_loop_max_ms`, delay.max);
  row(`${what}: CPU of the main thread for one stream`, `${what}_cpu_ms`, delay.cpuMs / times.length);
}

function row(name: string, metric: string, ms: number): void {
  rows.push({ name, value: ms, unit: 'ms' });
  metrics[metric] = Math.round(ms * 1_000) / 1_000;
}

function since(began: number, times: readonly number[]): readonly number[] {
  return times.map((time) => time - began);
}
