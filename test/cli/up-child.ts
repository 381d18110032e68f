import { join } from 'node:path';
import { type Child, startChild } from '../harness/child.ts';
import { eventually } from '../harness/eventually.ts';
import type { Scope } from '../harness/scope.ts';
import { main } from './run-cli.ts';

/** Starts `up` as a process of its own, with its data in `dir`/data and its output in `dir`/up.log, and waits for it. */
export async function startUp(scope: Scope, dir: string, args: readonly string[]): Promise<Child> {
  const server = startChild(scope, {
    command: process.execPath,
    args: [main, 'up', '--data-dir', join(dir, 'data'), ...args],
    logFile: join(dir, 'up.log'),
  });
  await eventually('the status of up', () => server.output().includes('Ctrl-C stops'), { withinMs: 30_000 });
  return server;
}
