import { spawn } from 'node:child_process';
import { closeSync, openSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Scope } from './scope.ts';

/** A process of ours. It ends with the scope, politely for a while and then not. */
export type Child = {
  readonly pid: number;
  readonly running: () => boolean;
  /** The exit code, or the name of the signal that ended it. */
  readonly exited: Promise<number | string>;
  /** All it wrote to standard output and standard error. */
  readonly output: () => string;
  readonly kill: (signal: NodeJS.Signals) => void;
  /** SIGTERM, then SIGKILL after `graceMs`. */
  readonly stop: (graceMs?: number) => Promise<number | string>;
};

export type ChildOptions = {
  readonly command: string;
  readonly args: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
  /** Receives its output, appended. */
  readonly logFile: string;
};

export function startChild(scope: Scope, { command, args, env = {}, logFile }: ChildOptions): Child {
  const log = openSync(logFile, 'a');
  const child = spawn(command, args, {
    stdio: ['ignore', log, log],
    env: { ...process.env, ...compileCacheOf(args), ...env },
  });
  closeSync(log);
  let running = true;
  const exited = new Promise<number | string>((resolve, reject) => {
    child.once('error', reject);
    child.once('exit', (code, signal) => {
      running = false;
      living.delete(child.pid ?? 0);
      resolve(code ?? signal ?? 'unknown');
    });
  });
  exited.catch(() => {});
  if (child.pid === undefined) throw new Error(`${command} did not start`);
  living.add(child.pid);
  const stop = async (graceMs = 5_000): Promise<number | string> => {
    if (running) child.kill('SIGTERM');
    const late = setTimeout(() => child.kill('SIGKILL'), graceMs);
    return exited.finally(() => clearTimeout(late));
  };
  scope.defer(() => stop());
  return {
    pid: child.pid,
    running: () => running,
    exited,
    output: () => readFileSync(logFile, 'utf8'),
    kill: (signal) => void child.kill(signal),
    stop,
  };
}

/**
 * V8 takes no compiled code from a process with other flags, and these commands set some: in one cache they and all others
 * would refuse and replace what the last one left, which costs a start a third more.
 */
function compileCacheOf(args: readonly string[]): Readonly<Record<string, string>> {
  const cache = process.env['NODE_COMPILE_CACHE'];
  const [command = '', inner] = args.slice(args.findIndex((arg) => arg.endsWith('/src/cli/main.ts')) + 1);
  if (cache === undefined || !flagged.has(command) || inner === 'files') return {};
  return { NODE_COMPILE_CACHE: join(cache, command) };
}

const flagged: ReadonlySet<string> = new Set(['up', 'server', 'agent']);

// A test run that ends early leaves no process behind.
const living = new Set<number>();
process.on('exit', () => {
  for (const pid of living) {
    try {
      process.kill(pid, 'SIGKILL');
    } catch {
      // It has ended by itself.
    }
  }
});
