import { spawnSync } from 'node:child_process';

/**
 * Whether a program that a test needs runs here. Without it the test is skipped, but never in CI: there a missing real
 * part is a failure.
 */
export function isHere(command: string, ...args: readonly string[]): boolean {
  const here = spawnSync(command, args).status === 0;
  if (!here && process.env['CI']) throw new Error(`${command} is not here, and CI runs every real part`);
  return here;
}
