import { lstatSync, readdirSync, type Stats, statfsSync, statSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { quote } from '../errors.ts';
import type { CheckResult } from './check-report.ts';
import { failed, ok, skipped, warning } from './check-result.ts';

/** The data directory and what lies in it. Whoever may not enter it learns that, and nothing of what is inside. */
export function checkData(dataDir: string): readonly CheckResult[] {
  const found = lookAt(dataDir);
  const text = 'only its owner may enter the data directory';
  if (found === 'missing') {
    const fix = 'start countersign up once, or name the directory with --data-dir';
    return [failed('data_directory_private', text, `${quote(dataDir)} does not exist`, fix)];
  }
  if (found === 'forbidden') return [skipped('data_directory_private', `${text}: ${notPermitted}`)];
  if (!found.isDirectory()) {
    const fix = 'name a directory with --data-dir';
    return [failed('data_directory_private', text, `${quote(dataDir)} is no directory`, fix)];
  }
  const isOpen = (found.mode & 0o077) !== 0;
  const first = isOpen
    ? failed(
        'data_directory_private',
        text,
        `${quote(dataDir)} has the mode ${modeText(found)}`,
        `run chmod 700 ${dataDir}`,
      )
    : ok('data_directory_private', text);
  return [first, checkKeyFiles(dataDir, found.uid), checkRoom(dataDir)];
}

/** Room for the database and its log. */
export function judgeRoom(freeBytes: number): CheckResult {
  const text = 'there is room for the data';
  const left = `${Math.floor(freeBytes / 1_048_576)} MiB are left`;
  const fix = 'make room: nothing is issued while the log cannot grow';
  if (freeBytes < leastBytes) return failed('disk_room', text, left, fix);
  return freeBytes < lowBytes ? warning('disk_room', text, left, fix) : ok('disk_room', text);
}

/** The socket of an administrator: of its owner alone, where nobody else may put another in its place. */
export function checkAdminSocket(path: string): CheckResult {
  const text = 'only its owner may use the admin socket';
  const found = lookAt(path);
  if (found === 'missing')
    return failed('admin_socket_private', text, `${quote(path)} does not exist`, restartFix);
  if (found === 'forbidden') return skipped('admin_socket_private', `${text}: ${notPermitted}`);
  if (!found.isSocket())
    return failed('admin_socket_private', text, `${quote(path)} is no socket`, restartFix);
  if ((found.mode & 0o077) !== 0) {
    const cause = `${quote(path)} has the mode ${modeText(found)}`;
    return failed('admin_socket_private', text, cause, `run chmod 600 ${path}`);
  }
  return judgeDirectory(path) ?? ok('admin_socket_private', text);

  function judgeDirectory(socket: string): CheckResult | undefined {
    const cause = replaceable(dirname(socket));
    return cause === undefined
      ? undefined
      : failed('admin_socket_private', text, cause, `run chmod go-w ${dirname(socket)}`);
  }
}

/** The socket of workloads: open to all, and yet nobody may put another in its place. */
export function checkWorkloadSocket(path: string): CheckResult {
  const text = 'every workload may reach the workload socket';
  const found = lookAt(path);
  if (found === 'missing')
    return failed('workload_socket_open', text, `${quote(path)} does not exist`, restartFix);
  if (found === 'forbidden') {
    const fix = `run chmod a+x on the directories above ${path}`;
    return failed(
      'workload_socket_open',
      text,
      `${quote(path)} is in a directory that is closed to you`,
      fix,
    );
  }
  if (!found.isSocket())
    return failed('workload_socket_open', text, `${quote(path)} is no socket`, restartFix);
  if ((found.mode & 0o666) !== 0o666) {
    const cause = `${quote(path)} has the mode ${modeText(found)}`;
    return failed('workload_socket_open', text, cause, `run chmod 666 ${path}`);
  }
  const cause = replaceable(dirname(path));
  if (cause !== undefined)
    return failed('workload_socket_open', text, cause, `run chmod 755 ${dirname(path)}`);
  // Under the home of a user, say: then it is for this user, and that is as it should be.
  const closed = closedAbove(path);
  if (closed === undefined) return ok('workload_socket_open', text);
  if (statSync(closed).uid === 0) {
    const fix = `run chmod a+x ${closed}, or name another place with workloadSocket`;
    return warning('workload_socket_open', text, `only root may enter ${quote(closed)}`, fix);
  }
  return ok('workload_socket_open', `every workload that may enter ${closed} may reach the workload socket`);
}

function checkKeyFiles(dataDir: string, owner: number): CheckResult {
  const text = 'only their owner may read the files in it';
  let open: string | undefined;
  let strange: string | undefined;
  try {
    for (const entry of readdirSync(dataDir, { recursive: true, withFileTypes: true })) {
      const path = join(entry.parentPath, entry.name);
      const found = lookAt(path);
      if (typeof found === 'string') continue;
      if (found.isSymbolicLink() || found.uid !== owner) strange ??= path;
      if ((found.mode & 0o077) !== 0 && !found.isSymbolicLink()) open ??= path;
    }
  } catch {
    return skipped('key_files_private', `${text}: ${notPermitted}`);
  }
  if (open !== undefined) {
    const fix = `run chmod -R go-rwx ${dataDir}, and replace the keys in it if somebody may have read them`;
    return failed('key_files_private', text, `${quote(open)} is open to other users`, fix);
  }
  if (strange === undefined) return ok('key_files_private', text);
  const cause = `${quote(strange)} is a link, or belongs to somebody else`;
  return failed('key_files_private', text, cause, `give it back to uid ${owner}, or remove it`);
}

function checkRoom(dataDir: string): CheckResult {
  const { bavail, bsize } = statfsSync(dataDir);
  return judgeRoom(bavail * bsize);
}

function lookAt(path: string): Stats | 'missing' | 'forbidden' {
  try {
    return lstatSync(path);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    return code === 'EACCES' || code === 'EPERM' ? 'forbidden' : 'missing';
  }
}

/** Whoever may write into the directory of a socket can put their own in its place. */
function replaceable(directory: string): string | undefined {
  const { mode } = statSync(directory);
  if ((mode & 0o022) === 0 || (mode & 0o1000) !== 0) return undefined;
  return `others may write into ${quote(directory)}, and so replace the socket`;
}

/** The outermost directory above a path that others may not enter. */
function closedAbove(path: string): string | undefined {
  let closed: string | undefined;
  for (let at = dirname(path); at !== dirname(at); at = dirname(at)) {
    if ((statSync(at).mode & 0o001) === 0) closed = at;
  }
  return closed;
}

function modeText({ mode }: Stats): string {
  return (mode & 0o7777).toString(8).padStart(4, '0');
}

const notPermitted = 'this user may not look; run it as root or as the user of the server';
const restartFix = 'start the process again: it makes its sockets when it starts';
const leastBytes = 67_108_864;
const lowBytes = 268_435_456;
