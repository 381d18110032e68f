import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { appendFileSync, copyFileSync, readFileSync, realpathSync } from 'node:fs';
import type { UnixPeer } from '../../src/identity/evidence.ts';

/** A program that waits, and is small. */
export const sleepProgram = realpathSync(
  spawnSync('sh', ['-c', 'command -v sleep'], { encoding: 'utf8' }).stdout.trim(),
);

export const isRoot = process.getuid?.() === 0;

/** A copy of it that runs the same and has other bytes. */
export function makeProgram(file: string, tail: string | Uint8Array = file): string {
  copyFileSync(sleepProgram, file);
  appendFileSync(file, tail);
  return file;
}

export function sha256Of(file: string): string {
  return createHash('sha256').update(readFileSync(file)).digest('hex');
}

/** Starts a program and waits until it has replaced the fork of this process. */
export async function run(
  children: ChildProcess[],
  file: string,
  args: readonly string[] = ['20'],
  who: { uid?: number; gid?: number; cwd?: string } = {},
): Promise<number> {
  const child = spawn(file, args, { ...who, stdio: 'ignore' });
  children.push(child);
  await new Promise((resolve, reject) => child.once('spawn', resolve).once('error', reject));
  return child.pid ?? 0;
}

export function peerOf(of: Partial<UnixPeer>): UnixPeer {
  const [uid, gid] = [process.getuid?.() ?? -1, process.getgid?.() ?? -1];
  return { kind: 'unix', connectionId: 'unix-1', pid: 0, uid, gid, isAlive: () => true, ...of };
}
