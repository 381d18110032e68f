import { spawn } from 'node:child_process';
import { join } from 'node:path';

export type Outcome = { readonly code: number | null; readonly out: string; readonly err: string };

export const main = join(import.meta.dirname, '../../src/cli/main.ts');

const cache = process.env['NODE_COMPILE_CACHE'];
const compileCache = cache === undefined ? {} : { NODE_COMPILE_CACHE: cache };

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
      env: { PATH: process.env['PATH'], HOME: '/nonexistent', ...compileCache, ...env },
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
