import { type ChildProcess, spawn } from 'node:child_process';
import { join } from 'node:path';
import type { Scope } from '../harness/scope.ts';

export type Outcome = { readonly code: number | null; readonly out: string; readonly err: string };

/** A command line for a host, and its outcome. */
export type Asked = { readonly id: number; readonly argv: readonly string[] };
export type Answered = Outcome & { readonly id: number };

export const main = join(import.meta.dirname, '../../src/cli/main.ts');

const cache = process.env['NODE_COMPILE_CACHE'];
const compileCache = cache === undefined ? {} : { NODE_COMPILE_CACHE: cache };
const bareEnvironment = { PATH: process.env['PATH'], HOME: '/nonexistent', ...compileCache };

/** Runs the command line as a process of its own, without what the environment of the test says. */
export function runCli(
  args: readonly string[],
  options: {
    readonly stdin?: string;
    readonly env?: Readonly<Record<string, string>>;
    readonly uid?: number;
    readonly cwd?: string;
  } = {},
): Promise<Outcome> {
  const { stdin = '', env = {}, ...rest } = options;
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [main, ...args], {
      env: { ...bareEnvironment, ...env },
      timeout: 50_000,
      ...rest,
    });
    const out: Buffer[] = [];
    const err: Buffer[] = [];
    child.stdout.on('data', (chunk: Buffer) => out.push(chunk));
    child.stderr.on('data', (chunk: Buffer) => err.push(chunk));
    child.on('error', reject);
    child.on('close', (code) => {
      resolve({ code, out: Buffer.concat(out).toString('utf8'), err: Buffer.concat(err).toString('utf8') });
    });
    child.stdin.on('error', () => undefined);
    child.stdin.end(stdin);
  });
}

/**
 * Runs command lines in one process after the other, without the start of a process for each: half a second of a core.
 * For commands that neither read standard input nor wait for signals; some of each kind still belong to `runCli`, which
 * alone sees how a process ends. When the scope closes, the process has to end by itself.
 */
export function openCli(
  scope: Scope,
  options: { readonly cwd: string },
): (args: readonly string[]) => Promise<Outcome> {
  const waiting = new Map<number, PromiseWithResolvers<Outcome>>();
  let host: ChildProcess | undefined;
  let ended: Promise<number | string | null> = Promise.resolve(null);
  let asked = 0;
  let complaints = '';

  const start = (): ChildProcess => {
    const started = spawn(process.execPath, [join(import.meta.dirname, 'command-host.ts')], {
      ...options,
      env: bareEnvironment,
      stdio: ['ignore', 'ignore', 'pipe', 'ipc'],
    });
    started.stderr?.on('data', (chunk: Buffer) => (complaints += chunk.toString()));
    started.on('message', ({ id, ...outcome }: Answered) => {
      waiting.get(id)?.resolve(outcome);
      waiting.delete(id);
    });
    ended = new Promise((resolve) => {
      started.once('exit', (code, signal) => {
        for (const one of waiting.values())
          one.reject(new Error(`the commands' process ended: ${complaints}`));
        resolve(code ?? signal);
      });
    });
    return started;
  };

  scope.defer(async () => {
    if (host === undefined) return;
    if (host.connected) host.disconnect();
    const late = setTimeout(() => host?.kill('SIGKILL'), 20_000);
    const end = await ended;
    clearTimeout(late);
    if (end !== 0) throw new Error(`the commands' process did not end by itself (${end}): ${complaints}`);
  });

  return (args) => {
    host ??= start();
    asked += 1;
    const outcome = Promise.withResolvers<Outcome>();
    waiting.set(asked, outcome);
    const line: Asked = { id: asked, argv: [process.execPath, main, ...args] };
    host.send(line, (error) => error === null || outcome.reject(error));
    return outcome.promise;
  };
}
