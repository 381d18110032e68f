import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type Child, startChild } from './child.ts';
import { eventually, GaveUp } from './eventually.ts';
import type { Scope } from './scope.ts';

/** `countersign agent` as a process of its own. */
export type Agent = {
  readonly workloadSocket: string;
  readonly cacheFile: string;
  readonly child: () => Child;
  readonly kill: () => Promise<void>;
  /** Starts it again on the same data; resolves when it serves. */
  readonly restart: () => Promise<void>;
};

export type AgentOptions = {
  /** Of its own, made here. */
  readonly directory: string;
  /** Port of the node API on loopback. */
  readonly port: number;
  readonly joinToken?: string;
  readonly env?: Readonly<Record<string, string>>;
  /** The program; default: that of the sources. */
  readonly main?: string;
};

/** Starts an agent and waits until it serves. It ends with the scope. */
export async function startAgentProcess(scope: Scope, options: AgentOptions): Promise<Agent> {
  mkdirSync(options.directory, { recursive: true });
  const workloadSocket = join(options.directory, 'w.sock');
  let child = await launch();
  return {
    workloadSocket,
    cacheFile: join(options.directory, 'data', 'cache', 'cache.sealed'),
    child: () => child,
    kill: async () => {
      child.kill('SIGKILL');
      await child.exited;
    },
    restart: async () => {
      child = await launch();
    },
  };

  async function launch(): Promise<Child> {
    const started = launchAgent(scope, options);
    const before = started.output().length;
    const serving = () => {
      if (!started.running()) throw new GaveUp('it has ended');
      return started.output().slice(before).includes('workload socket');
    };
    await eventually('the agent to serve', serving, { withinMs: 30_000 }).catch((error: Error) => {
      throw new Error(`${error.message}\n${started.output().slice(-4_000)}`, { cause: error });
    });
    return started;
  }
}

/** Starts an agent and waits for nothing. */
export function launchAgent(scope: Scope, options: AgentOptions): Child {
  const { directory, port, joinToken, env } = options;
  mkdirSync(directory, { recursive: true });
  const tokenFile = join(directory, 'join-token');
  if (joinToken !== undefined) writeFileSync(tokenFile, `${joinToken}\n`, { mode: 0o600 });
  return startChild(scope, {
    command: process.execPath,
    args: [
      options.main ?? join(import.meta.dirname, '../../src/cli/main.ts'),
      'agent',
      ...['--data-dir', join(directory, 'data')],
      ...['--server-address', `127.0.0.1:${port}`],
      ...['--join-token-file', tokenFile],
      ...['--workload-socket', join(directory, 'w.sock')],
    ],
    env: { COUNTERSIGN_LOG_LEVEL: 'info', COUNTERSIGN_SHUTDOWN_GRACE_SECONDS: '1', ...env },
    logFile: join(directory, 'agent.log'),
  });
}
