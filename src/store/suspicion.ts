import { closeSync, constants, fsyncSync, lstatSync, openSync, rmSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { checkPrivateFile, syncDirectory } from './key-files.ts';

/**
 * Notes in the data directory that its database was found damaged, or that its disk failed: the next start reads all of it
 * before it serves anybody. Where the disk takes no note either, nothing is noted.
 * @param cause in one line, for who looks
 */
export function noteSuspicion(dataDir: string, cause: string): void {
  try {
    const fd = openSync(
      pathIn(dataDir),
      constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW,
      0o600,
    );
    try {
      writeSync(fd, `${cause}\n`);
      fsyncSync(fd);
    } finally {
      closeSync(fd);
    }
    syncDirectory(dataDir);
  } catch {
    // It was noted before, or cannot be.
  }
}

/** @throws MeshError `file_permissions` when somebody else could have put the note there */
export function isSuspect(dataDir: string): boolean {
  const stats = lstatSync(pathIn(dataDir), { throwIfNoEntry: false });
  if (stats !== undefined) checkPrivateFile(pathIn(dataDir), stats);
  return stats !== undefined;
}

/** All of the database was read, and is sound. */
export function clearSuspicion(dataDir: string): void {
  rmSync(pathIn(dataDir), { force: true });
  syncDirectory(dataDir);
}

function pathIn(dataDir: string): string {
  return join(dataDir, 'countersign.db.suspect');
}
