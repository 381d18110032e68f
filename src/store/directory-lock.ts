import { closeSync, constants } from 'node:fs';
import { createRequire } from 'node:module';
import type Koffi from 'koffi';
import { MeshError, quote } from '../errors.ts';
import { diskError } from './disk-error.ts';
import { openAs } from './key-files.ts';

/**
 * Takes a directory for this process alone. A second process, or a second call of this one, is refused: the lock is the
 * kernel's (flock(2)) on the directory itself, so nothing is left behind to be stale.
 * @returns what lets it go; the end of the process does, too
 * @throws MeshError `directory_in_use`, `file_missing`, `file_permissions`, `platform_unsupported`
 */
export function lockDirectory(path: string): () => void {
  const fd = openAs(path, constants.O_RDONLY | constants.O_DIRECTORY, 'a directory');
  try {
    lockOpenDirectory(fd, path);
  } catch (error) {
    closeSync(fd);
    throw error;
  }
  let isOpen = true;
  return () => {
    if (isOpen) closeSync(fd);
    isOpen = false;
  };
}

/**
 * The same for a directory that is open: it is locked until it is closed.
 * @param path for the message
 * @throws MeshError `directory_in_use`, `platform_unsupported`, `store_unavailable`
 */
export function lockOpenDirectory(fd: number, path: string): void {
  flock ??= bindFlock();
  const errno = flock(fd);
  if (errno === 0) return;
  if (errno !== EAGAIN) throw diskError(Object.assign(new Error('flock'), { code: 'ENOLCK' }), path) as Error;
  throw new MeshError('directory_in_use', `another process keeps its files in ${quote(path)}`, {
    fix: 'stop that process, or name another directory',
  });
}

function bindFlock(): (fd: number) => number {
  try {
    // Loaded only by what locks.
    const koffi = createRequire(import.meta.url)('koffi') as typeof Koffi;
    const call = koffi.load(null).func('int flock(int fd, int operation)');
    return (fd) => (call(fd, LOCK_EX | LOCK_NB) === 0 ? 0 : koffi.errno());
  } catch (cause) {
    throw new MeshError('platform_unsupported', 'the native binding that locks a directory is missing', {
      fix: 'install the dependencies again without --omit=optional',
      cause,
    });
  }
}

let flock: ((fd: number) => number) | undefined;
const [LOCK_EX, LOCK_NB] = [2, 4];
const EAGAIN = process.platform === 'darwin' ? 35 : 11;
