import {
  closeSync,
  constants,
  existsSync,
  fchmodSync,
  fchownSync,
  fstatSync,
  fsyncSync,
  lstatSync,
} from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { MeshError, quote } from '../errors.ts';
import { lockOpenDirectory } from '../store/directory-lock.ts';
import { diskError } from '../store/disk-error.ts';
import { makeDirectory, openAs } from '../store/key-files.ts';

/** A directory that this process alone writes to, until `release` or the end of the process, however it ends. */
export type ClaimedDirectory = {
  /** As the user named it, for messages. */
  readonly name: string;
  /** The path of an entry, which leads into the very directory that was checked, whatever its own path leads to by now. */
  readonly at: (entry: string) => string;
  /** Whether the path still leads to this directory. */
  readonly isInPlace: () => boolean;
  /** Makes the names in it durable. */
  readonly sync: () => void;
  readonly release: () => void;
};

/**
 * Makes a directory, or takes one that is there: it must be no link, belong to this user and be writable by nobody else.
 * One that is made is 0700, or 0750 for the group that is to enter it. A second process, or a second claim by this one,
 * is refused: the lock is the kernel's (flock(2)) on the directory itself, so nothing is left behind to be stale.
 * @param path absolute
 * @param readers the group that is to reach the files, or null
 * @throws MeshError `file_permissions`, `directory_in_use`, `store_unavailable` when the disk takes no more
 */
export function claimDirectory(path: string, readers: number | null): ClaimedDirectory {
  try {
    return claim(path, readers);
  } catch (cause) {
    throw directoryFailure(path, cause);
  }
}

/** What the kernel said of a directory or of something in it, in words that say what to mend. */
export function directoryFailure(path: string, cause: unknown): Error {
  if (cause instanceof MeshError || !(cause instanceof Error) || !('code' in cause)) return cause as Error;
  const code = String(cause.code);
  return (
    diskError(cause, path) ??
    new MeshError('file_permissions', `${quote(path)} cannot be written (${code})`, {
      fix:
        code === 'EPERM'
          ? 'run as root, or name an owner and a group that this user may give files to'
          : 'name a directory of your own, with nothing else in it',
      cause,
    })
  );
}

function claim(path: string, readers: number | null): ClaimedDirectory {
  makeDirectory(dirname(path), readers === null ? 0o700 : 0o755);
  const made = makeDirectory(path, 0o700) !== undefined;
  const fd = openAs(path, constants.O_RDONLY | constants.O_DIRECTORY, 'a directory');
  try {
    if (made) openTo(fd, readers);
    check(fd, path, readers);
    lockOpenDirectory(fd, path);
  } catch (error) {
    closeSync(fd);
    throw error;
  }
  // The kernel leads every path under it to the open directory; elsewhere the path itself has to do.
  const base = existsSync(`/proc/self/fd/${fd}`) ? `/proc/self/fd/${fd}` : path;
  let isOpen = true;
  return {
    name: path,
    at: (entry) => join(base, basename(entry)),
    isInPlace: () => {
      try {
        const [now, held] = [lstatSync(path), fstatSync(fd)];
        return now.dev === held.dev && now.ino === held.ino;
      } catch {
        return false;
      }
    },
    sync: () => fsyncSync(fd),
    release: () => {
      if (isOpen) closeSync(fd);
      isOpen = false;
    },
  };
}

function openTo(fd: number, readers: number | null): void {
  if (readers !== null) fchownSync(fd, -1, readers);
  // The umask may have taken bits away from what we made.
  fchmodSync(fd, readers === null ? 0o700 : 0o750);
}

function check(fd: number, path: string, readers: number | null): void {
  const { uid, mode } = fstatSync(fd);
  const refuse = (why: string, fix: string): never => {
    throw new MeshError('file_permissions', `${quote(path)} ${why}`, { fix });
  };
  if (uid !== process.geteuid?.()) refuse('belongs to another user', 'name a directory of your own');
  if ((mode & 0o022) !== 0) refuse('can be written by others', `chmod go-w ${path}`);
  // Where access goes by ACL, the mode shows the ACL's mask for the group.
  if (readers !== null && (mode & 0o011) === 0) {
    refuse(`cannot be entered by group ${readers}`, `chgrp ${readers} ${path} && chmod g+x ${path}`);
  }
}
