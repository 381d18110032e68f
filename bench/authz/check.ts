import { execFile } from 'node:child_process';
import { copyFileSync, existsSync } from 'node:fs';
import { connect } from 'node:net';
import { loadavg } from 'node:os';
import { join } from 'node:path';
import { AuthorizationService } from '../../src/wire/authz.ts';
import { type Authority, startAuthority } from '../../test/harness/authority.ts';
import { startChild } from '../../test/harness/child.ts';
import { eventually } from '../../test/harness/eventually.ts';
import { ask } from '../../test/harness/http.ts';
import { entry } from '../../test/harness/mesh.ts';
import { createScope, type Scope } from '../../test/harness/scope.ts';
import { makeTempDir } from '../../test/harness/temp.ts';
import { findCaller } from '../issuance/caller.ts';
import { percentile, type ReportRow } from '../report.ts';
import { mainThreadTimes, type Probe } from '../sds/fleet.ts';
import type { Measured } from './engine.ts';
import { ledger, makeRequests, policyDocument } from './requests.ts';

/**
 * Checks over gRPC: `countersign up` with 10,000 policies and its store, and beside it the same listener with a Check that
 * reads nothing and always says yes. Each is a process of its own; the caller is a third, in Go. They are called in turn,
 * several times, and each figure is a median.
 */
export async function measureChecks(rounds: number, seconds: number): Promise<Measured> {
  const scope = createScope();
  try {
    const rows = await measure(scope, rounds, seconds);
    const slug = (name: string): string => name.toLowerCase().replaceAll(/[^a-z0-9]+/g, '_');
    const metrics = rows.map(({ name, value }) => [slug(name), Math.round(Number(value) * 1_000) / 1_000]);
    return { rows, metrics: Object.fromEntries(metrics) as Record<string, number> };
  } finally {
    await scope.close();
  }
}

const policies = 10_000;
const pacedPerSecond = 5_000;
const inFlight = [16, 128] as const;
const connections = 2;

type Side = { readonly pid: number; readonly socket: string; readonly probe: () => Promise<Probe> };

async function measure(scope: Scope, rounds: number, seconds: number): Promise<readonly ReportRow[]> {
  const directory = makeTempDir(scope);
  const caller = await findCaller();
  if (caller.language !== 'Go') throw new Error('the caller of this part needs Go');
  // A name of its own in this directory, by which it is attested.
  const command = join(directory, 'caller');
  copyFileSync(caller.command[0] ?? '', command);
  const requests = await makeRequests(64, policies);
  const authority = await startAuthority(scope, {
    directory,
    env: { COUNTERSIGN_LOG_LEVEL: 'warn', ...probeOf(join(directory, 'ours.probe')) },
  });
  await load(authority, command);
  const ours: Side = {
    pid: authority.child().pid,
    socket: authority.workloadSocket,
    probe: () => readProbe(join(directory, 'ours.probe')),
  };
  const reference = await startReference(scope, directory);
  const call = (side: Side, shape: Shape) => measureCalls(side, command, requests, shape);
  const rows: ReportRow[] = [];
  const add = (name: string, values: readonly number[], unit: string): void =>
    void rows.push({ name, value: percentile(values, 0.5), unit });
  for (const side of [ours, reference]) await call(side, { seconds: 2, inFlight: 16 });
  for (const lanes of inFlight) {
    const runs: { ours: Calls; reference: Calls }[] = [];
    for (let i = 0; i < rounds; i++) {
      runs.push({
        reference: await call(reference, { seconds, inFlight: lanes }),
        ours: await call(ours, { seconds, inFlight: lanes }),
      });
      // What the log still has to write belongs to nobody else's figures.
      await settled(authority);
    }
    const name = `${lanes} in flight`;
    const each = (read: (run: (typeof runs)[number]) => number): number[] => runs.map(read);
    add(
      `${name}: reference`,
      each((run) => run.reference.perSecond),
      '/s',
    );
    add(
      `${name}: ours`,
      each((run) => run.ours.perSecond),
      '/s',
    );
    add(
      `${name}: ours / reference`,
      each((run) => run.ours.perSecond / run.reference.perSecond),
      'x',
    );
    for (const side of ['reference', 'ours'] as const) {
      add(
        `${name}: ${side}, p50`,
        each((run) => run[side].p50Ms),
        'ms',
      );
      add(
        `${name}: ${side}, p99`,
        each((run) => run[side].p99Ms),
        'ms',
      );
      add(
        `${name}: ${side}, main thread, a call`,
        each((run) => run[side].mainUs),
        'us',
      );
      add(
        `${name}: ${side}, all threads, a call`,
        each((run) => run[side].allUs),
        'us',
      );
    }
    add(
      `${name}: ours, answers that deny`,
      each((run) => run.ours.deniedShare * 100),
      '%',
    );
  }
  for (const [who, side] of [
    ['reference', reference],
    ['ours', ours],
  ] as const) {
    const runs: Calls[] = [];
    for (let i = 0; i < rounds; i++)
      runs.push(await call(side, { seconds, inFlight: 256, perSecond: pacedPerSecond }));
    const name = `${pacedPerSecond} a second: ${who}`;
    add(
      `${name}, made`,
      runs.map((run) => run.perSecond),
      '/s',
    );
    add(
      `${name}, p50`,
      runs.map((run) => run.p50Ms),
      'ms',
    );
    add(
      `${name}, p99`,
      runs.map((run) => run.p99Ms),
      'ms',
    );
    add(
      `${name}, longest`,
      runs.map((run) => run.maxMs),
      'ms',
    );
    add(
      `${name}, event loop delay p99`,
      runs.map((run) => run.loop.p99Ms),
      'ms',
    );
    add(
      `${name}, event loop delay, longest`,
      runs.map((run) => run.loop.maxMs),
      'ms',
    );
    add(
      `${name}, main thread, a call`,
      runs.map((run) => run.mainUs),
      'us',
    );
    add(
      `${name}, all threads, a call`,
      runs.map((run) => run.allUs),
      'us',
    );
    if (side === ours) add(`${name}, decisions lost`, [await lostDecisions(authority)], '');
  }
  add('load average', [loadavg()[0] ?? Number.NaN], '');
  return rows;
}

type Shape = { readonly seconds: number; readonly inFlight: number; readonly perSecond?: number };

type Calls = {
  readonly perSecond: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly maxMs: number;
  readonly deniedShare: number;
  /** Processor time of the server for a call. */
  readonly mainUs: number;
  readonly allUs: number;
  readonly loop: Probe;
};

async function measureCalls(
  side: Side,
  command: string,
  requests: readonly Buffer[],
  { seconds, inFlight: lanes, perSecond }: Shape,
): Promise<Calls> {
  await side.probe();
  const before = mainThreadTimes(side.pid);
  const args = [side.socket, AuthorizationService.check.path, seconds, lanes, connections, perSecond ?? []];
  const output = await new Promise<string>((resolve, reject) => {
    const child = execFile(command, args.flat().map(String), { timeout: 120_000 }, (error, stdout) => {
      if (error === null) resolve(stdout);
      else reject(error);
    });
    child.stdin?.end(requests.map((bytes) => `${bytes.toString('base64')}\n`).join(''));
  });
  const after = mainThreadTimes(side.pid);
  const loop = await side.probe();
  const told = JSON.parse(output) as {
    readonly count: number;
    readonly seconds: number;
    readonly p50Ms: number;
    readonly p99Ms: number;
    readonly maxMs: number;
    readonly answers: Readonly<Record<string, number>>;
  };
  // A status with a code is no allow: field 1 of field 1.
  const denied = Object.entries(told.answers).filter(([start]) => start.endsWith('08'));
  const calls = told.count * (1 + 0.3 / told.seconds);
  return {
    perSecond: told.count / told.seconds,
    p50Ms: told.p50Ms,
    p99Ms: told.p99Ms,
    maxMs: told.maxMs,
    deniedShare: denied.reduce((sum, [, count]) => sum + count, 0) / told.count,
    mainUs: ((after.ranMs - before.ranMs) * 1_000) / calls,
    allUs: (loop.cpuMs * 1_000) / calls,
    loop,
  };
}

async function load(authority: Authority, command: string): Promise<void> {
  const batch = 1_000;
  for (let first = 0; first < policies; first += batch) {
    const documents = Array.from({ length: batch }, (_, i) => JSON.stringify(policyDocument(first + i)));
    await apply(authority, documents.map((one) => `---\n${one}\n`).join(''));
  }
  await apply(authority, entry(ledger, command));
}

async function apply(authority: Authority, text: string): Promise<void> {
  const { status, body } = await ask({
    to: authority.adminSocket,
    method: 'POST',
    path: '/v1/apply',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ files: [{ file: 'bench.yaml', text }] }),
    // A thousand policies take a while where others work.
    timeoutMs: 60_000,
  });
  if (status >= 300) throw new Error(`the policies were refused: ${body}`);
}

async function startReference(scope: Scope, directory: string): Promise<Side> {
  const socket = join(directory, 'r.sock');
  const probe = join(directory, 'reference.probe');
  const child = startChild(scope, {
    command: process.execPath,
    args: [join(import.meta.dirname, 'reference.ts'), socket],
    env: probeOf(probe),
    logFile: join(directory, 'reference.log'),
  });
  await eventually('the reference to listen', () => Promise.resolve(existsSync(socket)));
  return { pid: child.pid, socket, probe: () => readProbe(probe) };
}

function probeOf(path: string): Record<string, string> {
  const options = `--import=${join(import.meta.dirname, '../sds/probe.ts')} ${process.env['BENCH_NODE_OPTIONS'] ?? ''}`;
  return { NODE_OPTIONS: options, BENCH_PROBE: path };
}

function readProbe(path: string): Promise<Probe> {
  return new Promise((resolve, reject) => {
    let text = '';
    const socket = connect(path);
    socket.on('data', (bytes) => (text += bytes.toString()));
    socket.on('end', () => resolve(JSON.parse(text) as Probe));
    socket.on('error', reject);
  });
}

async function settled(authority: Authority): Promise<void> {
  const empty = async () => (await readGauge(authority, 'countersign_decisions_queued')) === 0;
  await eventually('the decisions to be written', empty, { withinMs: 60_000 });
}

async function lostDecisions(authority: Authority): Promise<number> {
  await settled(authority);
  const losses = await authority.audit('type=loss');
  return losses.reduce((sum, { count }) => sum + Number(count), 0);
}

async function readGauge(authority: Authority, name: string): Promise<number> {
  const { body } = await ask({ to: authority.adminSocket, path: '/metrics' });
  return Number(new RegExp(`^${name} (\\d+)`, 'm').exec(body)?.[1] ?? Number.NaN);
}
