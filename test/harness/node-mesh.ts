import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Writable } from 'node:stream';
import { pino } from 'pino';
import { type RunningAgent, startAgent } from '../../src/agent.ts';
import { loadAgentConfig } from '../../src/agent-config.ts';
import type { Clock } from '../../src/clock.ts';
import { loadConfig } from '../../src/config.ts';
import type { Log } from '../../src/log.ts';
import { startServer } from '../../src/server.ts';
import { eventually } from './eventually.ts';
import { askAdmin } from './http.ts';
import type { Scope } from './scope.ts';
import { freePorts } from './temp.ts';

/** A server of nodes in this process. */
export type ServerHere = {
  readonly port: number;
  readonly admin: (method: string, path: string, body?: unknown) => Promise<unknown>;
  readonly token: (node: string) => Promise<string>;
  readonly apply: (text: string) => Promise<void>;
  /** Events of the audit log, oldest first. */
  readonly audit: (query: string) => Promise<readonly Record<string, unknown>[]>;
  readonly stop: () => Promise<void>;
  readonly start: () => Promise<void>;
};

/** Starts a server; it ends with the scope. Trust domain `mesh.test`. */
export async function startServerHere(
  scope: Scope,
  directory: string,
  flags: Readonly<Record<string, string>> = {},
): Promise<ServerHere> {
  const [port] = (await freePorts(1)) as [number];
  const adminSocket = join(directory, 'a.sock');
  const config = loadConfig({
    flags: {
      trustDomain: 'mesh.test',
      dataDir: join(directory, 'data'),
      adminSocket,
      adminAddress: 'off',
      nodeAddress: `127.0.0.1:${port}`,
      shutdownGraceSeconds: '1',
      ...flags,
    },
    environment: {},
    file: null,
    isRoot: false,
  });
  let running = await startServer(config, capturingLog().log);
  scope.defer(() => running.close());
  const admin = (method: string, path: string, body?: unknown): Promise<unknown> =>
    askAdmin(adminSocket, method, path, body);
  return {
    port,
    admin,
    token: async (node) => ((await admin('POST', '/v1/join-tokens', { node })) as { token: string }).token,
    apply: async (text) => void (await admin('POST', '/v1/apply', { files: [{ file: 'f', text }] })),
    audit: async (query) => {
      const { items } = (await admin('GET', `/v1/audit?order=oldest&limit=1000&${query}`)) as {
        items: { event: Record<string, unknown> }[];
      };
      return items.map(({ event }) => event);
    },
    stop: () => running.close(),
    start: async () => {
      running = await startServer(config, capturingLog().log);
    },
  };
}

/** An agent in this process. */
export type AgentHere = {
  readonly workloadSocket: string;
  readonly cacheDir: string;
  /** What it has logged, as JSON lines. */
  readonly lines: () => readonly string[];
  /** Settles as the start does. */
  readonly started: Promise<RunningAgent>;
  /** Ends it, however far its start has come. */
  readonly stop: () => Promise<void>;
  readonly writeToken: (token: string) => void;
};

/** Begins to start an agent, without waiting for it. It ends with the scope. */
export function startAgentHere(
  scope: Scope,
  options: {
    readonly directory: string;
    readonly port: number;
    readonly token?: string;
    readonly clock?: Clock;
    readonly flags?: Readonly<Record<string, string>>;
  },
): AgentHere {
  const { directory, port, token, clock } = options;
  mkdirSync(directory, { recursive: true });
  const joinTokenFile = join(directory, 'join-token');
  const writeToken = (text: string): void => writeFileSync(joinTokenFile, `${text}\n`, { mode: 0o600 });
  if (token !== undefined) writeToken(token);
  const workloadSocket = join(directory, 'w.sock');
  const dataDir = join(directory, 'data');
  const config = loadAgentConfig(
    {
      dataDir,
      serverAddress: `127.0.0.1:${port}`,
      workloadSocket,
      joinTokenFile,
      shutdownGraceSeconds: '1',
      ...options.flags,
    },
    { environment: {}, isRoot: false },
  );
  const { log, lines } = capturingLog();
  const abort = new AbortController();
  const started = startAgent(config, log, clock, abort.signal);
  started.catch(() => undefined);
  const stop = async (): Promise<void> => {
    abort.abort();
    await started.then((running) => running.close()).catch(() => undefined);
  };
  scope.defer(stop);
  return { workloadSocket, cacheDir: join(dataDir, 'cache'), lines, started, stop, writeToken };
}

/** Waits until a line with this text was logged. */
export function logged({ lines }: Pick<AgentHere, 'lines'>, text: string): Promise<string> {
  return eventually(`the line ${text}`, () => lines().find((line) => line.includes(text)), {
    withinMs: 60_000,
  });
}

/** Whether the server is there, as the agent says. */
export function isConnected({ status }: RunningAgent): boolean {
  return status().server.connected;
}

function capturingLog(): { readonly log: Log; readonly lines: () => readonly string[] } {
  const lines: string[] = [];
  const out = new Writable({
    write: (chunk: Buffer, _encoding, done) => {
      lines.push(chunk.toString());
      done();
    },
  });
  return { log: pino({ level: 'info', base: null }, out), lines: () => lines };
}
