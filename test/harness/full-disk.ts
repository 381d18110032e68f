import { execFileSync, spawnSync } from 'node:child_process';
import { closeSync, openSync, rmSync, writeSync } from 'node:fs';
import { join } from 'node:path';

/** A way to take a process's room to write away, and give it back. */
export type FullDisk = {
  /** Runs a program in its place, with the same pid. */
  readonly wrapper: (directory: string) => readonly string[];
  /** Takes what room there is now. What the process gives back later is room again: fill until it is met. */
  readonly fill: (pid: number, directory: string) => void;
  readonly free: (pid: number, directory: string) => void;
};

const ballast = (pid: number, directory: string): string => join(`/proc/${pid}/root`, directory, 'ballast');

/** A small filesystem of its own, which only the process and its relatives see: writes fail with ENOSPC. */
export const smallDisk: FullDisk = {
  wrapper: (directory) => [
    ...['unshare', '--user', '--map-root-user', '--mount', 'bash', '-c'],
    `mount -t tmpfs -o size=6m,mode=700 tmpfs "$0" && exec "$@"`,
    directory,
  ],
  fill: (pid, directory) => {
    const file = openSync(ballast(pid, directory), 'a');
    for (let bytes = 1_048_576; bytes >= 512; bytes /= 2) {
      try {
        for (;;) writeSync(file, Buffer.alloc(bytes, 1));
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== 'ENOSPC') throw error;
      }
    }
    closeSync(file);
  },
  free: (pid, directory) => rmSync(ballast(pid, directory)),
};

/** No file may have more bytes than none: writes fail with EFBIG. It needs no namespace. */
export const noFileMayGrow: FullDisk = {
  wrapper: () => [],
  fill: (pid) => void execFileSync('prlimit', ['--pid', `${pid}`, '--fsize=0:']),
  free: (pid) => void execFileSync('prlimit', ['--pid', `${pid}`, '--fsize=unlimited:']),
};

/** Whether this user may mount a filesystem in a namespace of its own. */
export function mayMount(): boolean {
  const script = 'mount -t tmpfs tmpfs /tmp';
  return spawnSync('unshare', ['--user', '--map-root-user', '--mount', 'bash', '-c', script]).status === 0;
}
