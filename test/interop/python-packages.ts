import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

/**
 * The path of a Python with exactly these packages, brought from PyPI into .tool/ the first time; undefined where there
 * is no python3 or no network, which in CI is a failure.
 * @param name of the directory in .tool/
 * @param packages `package==version`, with all that they depend on
 */
export function pythonWith(name: string, packages: readonly string[]): string | undefined {
  const tools = fileURLToPath(new URL('../../.tool', import.meta.url));
  const home = join(tools, name);
  const python = join(home, 'bin', 'python');
  if (existsSync(python)) return python;
  const failure = install(tools, home, packages);
  if (failure === undefined) return python;
  if (process.env['CI']) throw new Error(`${name} could not be installed: ${failure}`);
  return undefined;
}

function install(tools: string, home: string, packages: readonly string[]): string | undefined {
  mkdirSync(tools, { recursive: true });
  // Under another name first: two test runs may install at once.
  const making = mkdtempSync(`${home}.`);
  try {
    for (const [command, ...args] of [
      ['python3', '-m', 'venv', making],
      [join(making, 'bin', 'python'), '-m', 'pip', 'install', '--quiet', '--no-deps', ...packages],
      [join(making, 'bin', 'python'), '-m', 'pip', 'check'],
    ] as const) {
      const { status, stderr, stdout } = spawnSync(command, args, { encoding: 'utf8', timeout: 240_000 });
      if (status !== 0) return `${stderr ?? 'python3 is not on PATH'}${stdout ?? ''}`;
    }
    if (!existsSync(home)) renameSync(making, home);
    return undefined;
  } finally {
    rmSync(making, { recursive: true, force: true });
  }
}
