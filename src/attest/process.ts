import { readFileSync, readlinkSync } from 'node:fs';

/** What /proc/<pid>/stat (proc(5)) says of a process. */
export type ProcessStat = {
  /** 0 when the parent is out of sight. */
  readonly parentPid: number;
  /** Clock ticks from boot to the start of the process: with the pid, the name of one process for ever. */
  readonly startTicks: bigint;
};

/** Undefined when there is no such process, or it may not be seen. */
export function readStat(pid: number): ProcessStat | undefined {
  const text = readProc(`${pid}/stat`);
  return text === undefined ? undefined : parseStat(text);
}

/** Parses /proc/<pid>/stat. */
export function parseStat(text: string): ProcessStat | undefined {
  // The second field is the name of the command, which the process chooses and which may hold spaces, newlines and
  // parentheses. None of the fields after it can: count from its end, the last parenthesis.
  const fields = text.slice(text.lastIndexOf(')') + 1).split(' ');
  const [parentPid, startTicks] = [fields[2] ?? '', fields[20] ?? ''];
  if (!/^[0-9]{1,10}$/.test(parentPid) || !/^[0-9]{1,20}$/.test(startTicks)) return undefined;
  return { parentPid: Number(parentPid), startTicks: BigInt(startTicks) };
}

/** A file of /proc that the kernel makes up as it is read, or undefined. It never waits for a file system. */
export function readProc(name: string): string | undefined {
  try {
    return readFileSync(`/proc/${name}`, 'latin1');
  } catch {
    return undefined;
  }
}

/**
 * The path of the executable of a process in our own mount namespace. In another one, which any user may make, any file
 * can stand at any path, so that it says nothing. Nor does the path of a file that was deleted or replaced.
 * @param onHidden told when we may not look
 */
export function readExecutablePath(pid: number, onHidden: () => void): string | undefined {
  try {
    ownMounts ??= readlinkSync('/proc/self/ns/mnt');
    if (readlinkSync(`/proc/${pid}/ns/mnt`) !== ownMounts) return undefined;
    const path = readlinkSync(`/proc/${pid}/exe`);
    return path.endsWith(' (deleted)') || path.includes('\ufffd') ? undefined : path;
  } catch (error) {
    if (isDenied(error)) onHidden();
    return undefined;
  }
}

// A process of several threads cannot leave its mount namespace (setns(2)).
let ownMounts: string | undefined;

/** Whether an error of the file system says that we may not look. */
export function isDenied(error: unknown): boolean {
  const code = (error as NodeJS.ErrnoException).code;
  return code === 'EACCES' || code === 'EPERM';
}
