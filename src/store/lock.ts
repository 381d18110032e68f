import { closeSync, constants, fchmodSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import SqliteDatabase from 'better-sqlite3';
import { MeshError, quote } from '../errors.ts';
import { isBusy, storageError } from './database.ts';
import { diskError } from './disk-error.ts';
import { ensurePrivateDirectory } from './key-files.ts';

/** A data directory held by this process. */
export type DirectoryLock = { readonly release: () => void };

/**
 * Holds a data directory for this process alone, until `release` or the end of the process, however it ends. The lock
 * is the kernel's, on the file `lock`, taken through SQLite: nothing is left to be stale after SIGKILL, and a
 * process ID that is used again means nothing. `lock.pid` only names the holder.
 * @throws MeshError `store_locked` naming the holder, `file_permissions`, `store_unavailable`
 */
export function lockDataDirectory(dir: string): DirectoryLock {
  ensurePrivateDirectory(dir);
  const lockPath = join(dir, 'lock');
  const pidPath = join(dir, 'lock.pid');
  createEmpty(lockPath);
  const held = new SqliteDatabase(lockPath, { timeout: 0 });
  try {
    // Nothing is ever written to it: no journal file beside it.
    held.pragma('journal_mode = MEMORY');
    held.exec('BEGIN EXCLUSIVE');
  } catch (error) {
    held.close();
    if (!isBusy(error)) throw storageError(error) ?? error;
    throw new MeshError('store_locked', `${quote(dir)} is in use by ${holder(pidPath)}`, {
      fix: 'stop that process, or give this one another data directory',
      cause: error,
    });
  }
  try {
    writeFileSync(pidPath, `${process.pid}\n`, { mode: 0o600 });
  } catch (error) {
    held.close();
    throw diskError(error, pidPath) ?? error;
  }
  locks.add(held);
  return {
    release: () => {
      if (!held.open) return;
      rmSync(pidPath, { force: true });
      held.close();
      locks.delete(held);
    },
  };
}

// INVARIANT: reachable while it is held. A database that is collected is closed, and its lock is gone.
const locks = new Set<SqliteDatabase.Database>();

function createEmpty(path: string): void {
  // INVARIANT: nobody of this process opens and closes the file once it is locked: POSIX drops all locks of a process on
  // a file when any descriptor of it is closed. Hence O_EXCL.
  let fd: number;
  try {
    fd = openSync(path, constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL, 0o600);
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'EEXIST') return;
    throw diskError(error, path) ?? error;
  }
  fchmodSync(fd, 0o600);
  closeSync(fd);
}

function holder(pidPath: string): string {
  try {
    const pid = readFileSync(pidPath, 'latin1').trim();
    return /^[0-9]{1,10}$/.test(pid) ? `process ${pid}` : 'another process';
  } catch {
    return 'another process';
  }
}
