import { chmodSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'vitest';
import type { CheckCode, CheckResult } from '../../src/cli/check-report.ts';
import { runChecks } from '../../src/cli/check-run.ts';
import type { Session } from '../../src/cli/session.ts';
import { loadConfig } from '../../src/config.ts';
import { openLog } from '../../src/log.ts';
import { startUp } from '../../src/up.ts';
import { type Relay, startRelay } from './lying-relay.ts';

/** A real authority with every door open, and a relay in front of its admin socket that may lie. */
export type Installation = {
  readonly directory: string;
  /** Of the sockets. */
  readonly run: string;
  readonly dataDir: string;
  readonly adminSocket: string;
  readonly workloadSocket: string;
  readonly relay: Relay;
  readonly close: () => Promise<void>;
};

export async function startInstallation(): Promise<Installation> {
  const directory = mkdtempSync(join(tmpdir(), 'cs-check-'));
  chmodSync(directory, 0o755);
  const run = join(directory, 'run');
  mkdirSync(run, { mode: 0o755 });
  const places = {
    dataDir: join(directory, 'data'),
    adminSocket: join(run, 'admin.sock'),
    workloadSocket: join(run, 'workload.sock'),
  };
  const flags = {
    ...places,
    adminAddress: '127.0.0.1:0',
    nodeAddress: '127.0.0.1:0',
    trustAddress: '127.0.0.1:0',
    shutdownGraceSeconds: '0',
  };
  const config = loadConfig({ flags, environment: {}, file: null, isRoot: false });
  const running = await startUp(config, openLog('error'));
  const relay = await startRelay(join(directory, 'relay.sock'), places.adminSocket);
  chmodSync(relay.socket, 0o600);
  return {
    directory,
    run,
    ...places,
    relay,
    close: async () => {
      await relay.close();
      await running.close();
      rmSync(directory, { recursive: true, force: true });
    },
  };
}

/** Runs the checks in this process. */
export function check(socket: string, now = () => new Date()): Promise<readonly CheckResult[]> {
  return runChecks(session(), { output: 'json', socket }, now);
}

/** Codes that are not in order, and how; each has to say why, and what to do. */
export async function wrong(socket: string): Promise<readonly (readonly [CheckCode, string])[]> {
  const results = await check(socket);
  return results.flatMap(({ code, status, cause, fix }) => {
    if (status !== 'failed' && status !== 'warning') return [];
    expect([code, cause, fix].every((words) => words !== undefined && words !== '')).toBe(true);
    return [[code, status] as const];
  });
}

export const later = (seconds: number): string => new Date(Date.now() + seconds * 1_000).toISOString();
export const ago = (seconds: number): string => later(-seconds);

function session(): Session {
  return {
    environment: {},
    write: () => undefined,
    say: () => undefined,
    isRoot: false,
    program: 'countersign',
    catchSignals: () => new AbortController().signal,
    texts: new Map(),
    exitCode: 0,
  };
}
