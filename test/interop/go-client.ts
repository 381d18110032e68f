import { execFile } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { isHere } from '../harness/real-part.ts';

/** How a run of a client ended. */
export type ClientRun = { readonly code: number; readonly output: string };

/** Whether Go runs: from PATH, or brought from PyPI by tool/go. */
export function goIsHere(): boolean {
  return isHere('bash', goTool, 'version');
}

const goTool = fileURLToPath(new URL('../../tool/go', import.meta.url));

/**
 * Builds the client in test/interop/<name> into .tool/, once for each state of its sources, and answers with the path
 * of the binary. Its modules come from the module proxy, pinned by go.sum.
 * @param what of that module is built: a command of others that its go.mod names
 */
export async function buildGoClient(name: string, what = '.'): Promise<string> {
  const sources = fileURLToPath(new URL(`./${name}`, import.meta.url));
  const hash = createHash('sha256').update(process.arch);
  for (const file of readdirSync(sources).sort())
    hash.update(file).update(readFileSync(`${sources}/${file}`));
  const directory = fileURLToPath(new URL('../../.tool/go', import.meta.url));
  const binary = `${directory}/${name}-${hash.digest('hex').slice(0, 16)}`;
  if (existsSync(binary)) return binary;
  mkdirSync(directory, { recursive: true });
  // Under another name first: two test runs may build at once.
  const making = `${binary}.${randomBytes(4).toString('hex')}`;
  await run('bash', [goTool, 'build', '-buildvcs=false', '-o', making, what], { cwd: sources });
  renameSync(making, binary);
  return binary;
}

/**
 * Runs a client to its end, at most 150 s unless something else is said.
 * @param enough when it settles, the client is told to end by SIGTERM
 */
export async function runClient(
  binary: string,
  args: readonly string[],
  enough?: Promise<unknown>,
  { timeoutMs = 150_000, env = {} }: { readonly timeoutMs?: number; readonly env?: NodeJS.ProcessEnv } = {},
): Promise<ClientRun> {
  try {
    const limits = { timeout: timeoutMs, maxBuffer: 67_108_864, env: { ...process.env, ...env } };
    const running = run(binary, args, limits);
    const stop = (): void => void running.child.kill('SIGTERM');
    enough?.then(stop, stop);
    const { stdout, stderr } = await running;
    return { code: 0, output: stdout + stderr };
  } catch (error) {
    const { code, stdout, stderr } = error as { code?: unknown; stdout?: string; stderr?: string };
    return { code: typeof code === 'number' ? code : -1, output: `${stdout ?? ''}${stderr ?? ''}` };
  }
}

const run = promisify(execFile);
