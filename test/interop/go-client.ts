import { execFile, spawnSync } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

/** How a run of a client ended. */
export type ClientRun = { readonly code: number; readonly output: string };

/** Whether Go is on PATH. Without it the tests that need it are skipped, but never in CI. */
export function goIsHere(): boolean {
  const here = spawnSync('go', ['version']).status === 0;
  if (!here && process.env['CI']) throw new Error('go is not on PATH: CI runs the Go clients, install Go');
  return here;
}

/**
 * Builds the client in test/interop/<name> into .tool/, once for each state of its sources, and answers with the path
 * of the binary. Its modules come from the module proxy, pinned by go.sum.
 */
export async function buildGoClient(name: string): Promise<string> {
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
  await run('go', ['build', '-buildvcs=false', '-o', making, '.'], { cwd: sources });
  renameSync(making, binary);
  return binary;
}

/** Runs a client to its end, at most 60 s. */
export async function runClient(binary: string, args: readonly string[]): Promise<ClientRun> {
  try {
    const { stdout, stderr } = await run(binary, args, { timeout: 60_000, maxBuffer: 67_108_864 });
    return { code: 0, output: stdout + stderr };
  } catch (error) {
    const { code, stdout, stderr } = error as { code?: unknown; stdout?: string; stderr?: string };
    return { code: typeof code === 'number' ? code : -1, output: `${stdout ?? ''}${stderr ?? ''}` };
  }
}

const run = promisify(execFile);
