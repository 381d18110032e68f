import { execFileSync } from 'node:child_process';
import { copyFileSync, mkdirSync, readFileSync, rmSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import { type Agent, startAgentProcess } from '../../test/harness/agent.ts';
import { type Authority, startAuthority } from '../../test/harness/authority.ts';
import { ask } from '../../test/harness/http.ts';
import { entry } from '../../test/harness/mesh.ts';
import type { Scope } from '../../test/harness/scope.ts';
import { freePorts, makeTempDir } from '../../test/harness/temp.ts';

/** A server and an agent, each a process of its own with a data directory of its own. */
export type Fleet = {
  readonly directory: string;
  readonly server: Authority;
  readonly agent: Agent;
  /** Of the node API, on loopback. */
  readonly nodePort: number;
  /** What the event loop did since it was last asked; only with `probes`. */
  readonly probe: (of: 'server' | 'agent') => Promise<Probe>;
  /** Certificates that the server has signed, nodes' among them. */
  readonly signatures: () => Promise<number>;
  readonly get: <T>(path: string) => Promise<T>;
  readonly post: <T>(path: string, body: object) => Promise<T>;
};

export type Probe = {
  /** Delays of the event loop, whatever they come from: on a machine that is busy, other programs. */
  readonly p99Ms: number;
  readonly maxMs: number;
  /** The most processor time that the main thread took without a pause. */
  readonly busiestMs: number;
  /** Processor time of all threads. */
  readonly cpuMs: number;
};

export type FleetOptions = {
  /** The compiled program. */
  readonly main: string;
  /** A thread of the program is watched; costs memory. */
  readonly probes?: boolean;
  readonly serverEnv?: Readonly<Record<string, string>>;
  readonly agentEnv?: Readonly<Record<string, string>>;
};

/** Compiles the program as it is installed. @returns the path of its main file */
export function compile(scope: Scope): string {
  const root = join(import.meta.dirname, '../..');
  // Within the tree, where it finds its packages; the version is read beside it.
  const out = join(root, '.tool', `bench-${process.pid}`);
  mkdirSync(out, { recursive: true });
  scope.defer(() => rmSync(out, { recursive: true, force: true }));
  execFileSync('bash', ['tool/run', 'tsc', '-p', 'tsconfig.build.json', '--outDir', join(out, 'dist')], {
    cwd: root,
    stdio: 'inherit',
  });
  copyFileSync(join(root, 'package.json'), join(out, 'package.json'));
  return join(out, 'dist/cli/main.js');
}

/** Starts both, and joins the agent as `web-1`. */
export async function startFleet(
  scope: Scope,
  { main, probes = false, serverEnv, agentEnv }: FleetOptions,
): Promise<Fleet> {
  const directory = makeTempDir(scope);
  const [nodePort] = (await freePorts(1)) as [number];
  const probePath = (of: string) => join(directory, `${of}.probe`);
  const probeEnv = (of: string): Record<string, string> =>
    probes ? { NODE_OPTIONS: `--import=${import.meta.dirname}/probe.ts`, BENCH_PROBE: probePath(of) } : {};
  const server = await startAuthority(scope, {
    directory,
    command: 'server',
    main,
    env: {
      COUNTERSIGN_NODE_ADDRESS: `127.0.0.1:${nodePort}`,
      COUNTERSIGN_LOG_LEVEL: 'warn',
      ...probeEnv('server'),
      ...serverEnv,
    },
  });
  const agent = await startAgentProcess(scope, {
    directory: join(directory, 'agent'),
    port: nodePort,
    joinToken: await server.joinToken('web-1'),
    main,
    env: { COUNTERSIGN_LOG_LEVEL: 'warn', ...probeEnv('agent'), ...agentEnv },
  });
  const call = async <T>(method: string, path: string, body?: object): Promise<T> => {
    const answer = await ask({
      to: server.adminSocket,
      method,
      path,
      timeoutMs: 60_000,
      ...(body === undefined
        ? {}
        : { headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) }),
    });
    if (answer.status >= 300) throw new Error(`${method} ${path}: ${answer.status} ${answer.body}`);
    return answer.body === '' ? (undefined as T) : (JSON.parse(answer.body) as T);
  };
  return {
    directory,
    server,
    agent,
    nodePort,
    probe: async (of) => JSON.parse(await readAll(probePath(of))) as Probe,
    signatures: async () => {
      const { body } = await ask({ to: server.adminSocket, path: '/metrics' });
      const [, made] = /^countersign_issuances(?:_total)?\{result="ok"\} (\d+)/m.exec(body) ?? [];
      return Number(made ?? Number.NaN);
    },
    get: (path) => call('GET', path),
    post: (path, body) => call('POST', path, body),
  };
}

/** Documents of entries that some process of every node may have, and no process here has. */
export function otherEntries(count: number): string {
  const one = (at: number) =>
    entry(`spiffe://mesh.test/ns/shop/sa/other-${at}`, `/opt/other/${at}`, { nodes: ['*'] });
  return Array.from({ length: count }, (_, at) => one(at)).join('');
}

export type Memory = { readonly rssMiB: number; readonly peakMiB: number };

/** VmRSS and VmHWM of a process, as the kernel has them. */
export function memoryOf(pid: number): Memory {
  const text = readFileSync(`/proc/${pid}/status`, 'utf8');
  const mebibytes = (name: string) =>
    Number(new RegExp(`^${name}:\\s+(\\d+) kB`, 'm').exec(text)?.[1]) / 1_024;
  return { rssMiB: mebibytes('VmRSS'), peakMiB: mebibytes('VmHWM') };
}

/** Of the main thread of a process since its start: how long it ran, and how long it could have and had no processor. */
export function mainThreadTimes(pid: number): { readonly ranMs: number; readonly waitedMs: number } {
  const text = readFileSync(`/proc/${pid}/task/${pid}/schedstat`, 'utf8');
  const [ran = Number.NaN, waited = Number.NaN] = text.split(' ').map(Number);
  return { ranMs: ran / 1e6, waitedMs: waited / 1e6 };
}

/** The memory of a process that rests: once it has changed by less than 1 % in 5 s, or after 40 s. */
export async function settledMemory(pid: number): Promise<Memory> {
  let last = memoryOf(pid);
  for (let i = 0; i < 8; i++) {
    await pause(5_000);
    const now = memoryOf(pid);
    if (Math.abs(now.rssMiB - last.rssMiB) < last.rssMiB / 100) return now;
    last = now;
  }
  return last;
}

export function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

function readAll(path: string): Promise<string> {
  return new Promise((resolve, reject) => {
    let text = '';
    const socket = connect(path);
    socket.on('data', (bytes) => (text += bytes.toString()));
    socket.on('end', () => resolve(text));
    socket.on('error', reject);
  });
}
