import { randomBytes } from 'node:crypto';
import {
  closeSync,
  constants,
  fchmodSync,
  fstatSync,
  fsyncSync,
  linkSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readSync,
  renameSync,
  type Stats,
  statSync,
  unlinkSync,
  writeSync,
} from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { MeshError, quote } from '../errors.ts';
import { diskError } from './disk-error.ts';

const parentMode = 0o755;

/** The most bytes a key file may have. */
export const maxKeyFileBytes = 65_536;

/**
 * Makes a directory that only its owner may enter (0700), with its parents, or checks that an existing one is ours and
 * closed to others.
 * @throws MeshError `file_permissions`
 */
export function ensurePrivateDirectory(dir: string): void {
  const made = makeDirectory(dir, 0o700);
  // Opened without following a link: what is checked is what was made.
  const fd = openAs(dir, constants.O_RDONLY | constants.O_DIRECTORY, 'a directory');
  try {
    // The umask may have taken bits away from what we made.
    if (made !== undefined) {
      fchmodSync(fd, 0o700);
      syncDirectory(dirname(made));
    }
    const stats = fstatSync(fd);
    checkOwner(dir, stats);
    if ((stats.mode & 0o077) !== 0) refuse(dir, 'is open to other users', `chmod 700 ${dir}`);
  } finally {
    closeSync(fd);
  }
}

/**
 * Makes a directory with its parents. Those have 0755, whatever the mode: sockets for all may stand beside a private one.
 * @returns the first that had to be made; undefined when it was there
 * @throws MeshError `file_permissions` when something else is in its way, or it may not be made; `store_unavailable`
 *   when the disk takes no more
 */
export function makeDirectory(dir: string, mode: number): string | undefined {
  try {
    const missing = missingDirectories(dir);
    // One by one: Node's own `recursive` goes round for ever where the kernel denies that the parent is there, as in /proc.
    for (const path of missing) makeOne(path, path === missing.at(-1) ? mode : parentMode);
    if (!statSync(dir).isDirectory()) refuse(dir, 'is not a directory', 'choose another path');
    return missing[0];
  } catch (error) {
    if (hasCode(error, 'EEXIST', 'ENOTDIR', 'ELOOP'))
      return refuse(dir, 'is not a directory', 'choose another path');
    // ENOENT: a link that leads nowhere, or a place where nobody can make anything, such as /proc.
    if (hasCode(error, 'ENOENT', 'EACCES', 'EPERM', 'EROFS')) {
      return refuse(dir, 'cannot be made', 'choose another path, or make it for the user that runs this');
    }
    throw diskError(error, dir) ?? error;
  }
}

/** Those of the path that do not exist, the outermost first. */
function missingDirectories(dir: string): readonly string[] {
  const missing: string[] = [];
  for (
    let path = resolve(dir);
    statSync(path, { throwIfNoEntry: false }) === undefined;
    path = dirname(path)
  ) {
    missing.unshift(path);
  }
  return missing;
}

function makeOne(path: string, mode: number): void {
  try {
    mkdirSync(path, { mode });
  } catch (error) {
    // Somebody else was faster; what they made is looked at in the end.
    if (!hasCode(error, 'EEXIST')) throw error;
  }
}

/**
 * Checks an open file: regular, ours or root's, and of mode 0600 or narrower.
 * @throws MeshError `file_permissions`
 */
export function checkPrivateFile(path: string, stats: Stats): void {
  if (!stats.isFile()) refuse(path, 'is no regular file', 'put a regular file in its place');
  checkOwner(path, stats);
  if ((stats.mode & 0o177) !== 0) refuse(path, 'is open to other users', `chmod 600 ${path}`);
}

/**
 * Replaces a key file whole: after a crash there is the old file or the new one. Mode 0600.
 * @param name a file name, no path
 * @throws MeshError `file_permissions` when the directory is not private, `store_unavailable` when the disk takes no more
 */
export function writeKeyFile(dir: string, name: string, bytes: Uint8Array): void {
  checkName(name);
  ensurePrivateDirectory(dir);
  const temporary = writeTemporary(dir, name, bytes);
  try {
    renameSync(temporary, join(dir, name));
  } catch (error) {
    unlinkSync(temporary);
    throw error;
  }
  syncDirectory(dir);
}

/**
 * Removes what a process that was killed while it wrote has left half done. Only for whoever is alone in the directory.
 */
export function removeHalfDone(dir: string): void {
  for (const name of readdirSync(dir)) if (temporaryForm.test(name)) unlinkSync(join(dir, name));
}

/**
 * Deletes a key file for good; one that is not there is no error. What a disk or a backup keeps of it stays sealed.
 * @param name a file name, no path
 */
export function removeKeyFile(dir: string, name: string): void {
  checkName(name);
  try {
    unlinkSync(join(dir, name));
  } catch (error) {
    if (hasCode(error, 'ENOENT')) return;
    throw error;
  }
  syncDirectory(dir);
}

/**
 * Reads a key file of at most 65,536 bytes. Links are not followed.
 * @param name a file name, no path
 * @throws MeshError `file_missing`, `file_permissions` with the command that mends it
 */
export function readKeyFile(dir: string, name: string): Uint8Array {
  checkName(name);
  return readPrivateFile(join(dir, name));
}

/**
 * Reads a file as {@link readKeyFile} does, wherever an operator has put it and whatever it is called.
 * @param maxBytes default: those of a key file
 */
export function readPrivateFile(path: string, maxBytes = maxKeyFileBytes): Uint8Array {
  // Without O_NONBLOCK a FIFO put in its place would hang us.
  const fd = openAs(path, constants.O_RDONLY | constants.O_NONBLOCK, 'a regular file');
  try {
    const stats = fstatSync(fd);
    checkPrivateFile(path, stats);
    if (stats.size > maxBytes) refuse(path, `has more than ${maxBytes} bytes`, `check ${path}`);
    return readWhole(fd, stats.size);
  } finally {
    closeSync(fd);
  }
}

/**
 * Reads a credential that systemd has put where only this unit may look. Its directory and its file may be readable by
 * a group: where access goes by ACL, the mode shows the ACL's mask there. Nobody else may have any access, and only root
 * or we may be the owner.
 * @throws MeshError `file_missing`, `file_permissions`
 * @see systemd.exec(5), section "Credentials"
 */
export function readCredentialFile(path: string): Uint8Array {
  const dir = openAs(dirname(path), constants.O_RDONLY | constants.O_DIRECTORY, 'a directory');
  try {
    checkCredential(dirname(path), fstatSync(dir));
  } finally {
    closeSync(dir);
  }
  const fd = openAs(path, constants.O_RDONLY | constants.O_NONBLOCK, 'a regular file');
  try {
    const stats = fstatSync(fd);
    if (!stats.isFile()) refuse(path, 'is no regular file', 'put a regular file in its place');
    checkCredential(path, stats);
    if (stats.size > maxKeyFileBytes) refuse(path, `has more than ${maxKeyFileBytes} bytes`, `check ${path}`);
    return readWhole(fd, stats.size);
  } finally {
    closeSync(fd);
  }
}

/**
 * Reads a file descriptor that is open already to its end, at most 65,536 bytes, and closes it. It waits for as long as
 * the other end of a pipe stays open.
 * @throws MeshError `config_invalid` when it is not open for reading or holds more
 */
export function readDescriptor(fd: number): Uint8Array {
  const fix = 'open it for reading before the start, for example with 3<file';
  const bytes = Buffer.alloc(maxKeyFileBytes + 1);
  let at = 0;
  try {
    while (at < bytes.length) {
      const count = readSync(fd, bytes, at, bytes.length - at, null);
      if (count === 0) break;
      at += count;
    }
    if (fd > 2) closeSync(fd);
  } catch (cause) {
    throw new MeshError('config_invalid', `the file descriptor ${fd} cannot be read`, { cause, fix });
  }
  if (at > maxKeyFileBytes) {
    throw new MeshError(
      'config_invalid',
      `the file descriptor ${fd} holds more than ${maxKeyFileBytes} bytes`,
      { fix },
    );
  }
  return bytes.subarray(0, at);
}

/**
 * Reads a list, which is no secret; but whoever may write to it decides what it permits.
 * @throws MeshError `file_missing`, `file_permissions`
 */
export function readListFile(path: string, maxBytes: number): string {
  const fd = openAs(path, constants.O_RDONLY | constants.O_NONBLOCK, 'a regular file');
  try {
    const stats = fstatSync(fd);
    if (!stats.isFile()) refuse(path, 'is no regular file', 'put a regular file in its place');
    checkOwner(path, stats);
    if ((stats.mode & 0o022) !== 0) refuse(path, 'can be written by other users', `chmod go-w ${path}`);
    if (stats.size > maxBytes) refuse(path, `has more than ${maxBytes} bytes`, `check ${path}`);
    return readWhole(fd, stats.size).toString('utf8');
  } finally {
    closeSync(fd);
  }
}

/**
 * The 32 random bytes that seal the keys of this data directory. Made on first use, file `key-encryption-key`, 0600.
 * Of two processes that make it at once, both get the same.
 * @throws MeshError `file_permissions`
 */
export function ensureKeyEncryptionKey(dir: string): Uint8Array {
  ensurePrivateDirectory(dir);
  const path = join(dir, keyEncryptionKeyName);
  if (lstatSync(path, { throwIfNoEntry: false }) === undefined) {
    const temporary = writeTemporary(dir, keyEncryptionKeyName, randomBytes(keyEncryptionKeyBytes));
    try {
      // A link, unlike a rename, never replaces: whoever is first decides.
      linkSync(temporary, path);
    } catch (error) {
      if (!hasCode(error, 'EEXIST')) throw error;
    } finally {
      unlinkSync(temporary);
    }
    syncDirectory(dir);
  }
  const key = readKeyFile(dir, keyEncryptionKeyName);
  if (key.length !== keyEncryptionKeyBytes) {
    refuse(path, `does not hold ${keyEncryptionKeyBytes} bytes`, `restore ${path} from your backup`);
  }
  return key;
}

function writeTemporary(dir: string, name: string, bytes: Uint8Array): string {
  const path = join(dir, `.${name}.${randomBytes(8).toString('hex')}.tmp`);
  const fd = openAs(path, constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL, 'a regular file');
  try {
    fchmodSync(fd, 0o600);
    for (let at = 0; at < bytes.length;) at += writeSync(fd, bytes, at);
    fsyncSync(fd);
  } catch (error) {
    unlinkSync(path);
    throw diskError(error, join(dir, name)) ?? error;
  } finally {
    closeSync(fd);
  }
  return path;
}

/** Makes the names in a directory durable: fsync of a file alone does not keep its name. */
export function syncDirectory(dir: string): void {
  const fd = openSync(dir, constants.O_RDONLY | constants.O_DIRECTORY);
  try {
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}

function readWhole(fd: number, size: number): Buffer {
  const bytes = Buffer.alloc(size);
  let at = 0;
  while (at < size) {
    const count = readSync(fd, bytes, at, size - at, at);
    if (count === 0) break;
    at += count;
  }
  return bytes.subarray(0, at);
}

/**
 * Opens a file without following a link in its last part.
 * @param what the file is expected to be, with its article, for the message
 * @throws MeshError `file_missing`, `file_permissions`
 */
export function openAs(path: string, flags: number, what: string): number {
  try {
    return openSync(path, flags | constants.O_NOFOLLOW, 0o600);
  } catch (error) {
    if (hasCode(error, 'ENOENT')) {
      throw new MeshError('file_missing', `${quote(path)} does not exist`, {
        fix: 'check the path where it is named',
        cause: error,
      });
    }
    if (hasCode(error, 'ELOOP', 'ENOTDIR', 'ENXIO')) {
      return refuse(path, `is not ${what}`, `put ${what} in its place, no link`);
    }
    if (hasCode(error, 'EACCES', 'EPERM')) {
      return refuse(path, 'may not be opened', 'run as the user it belongs to');
    }
    throw diskError(error, path) ?? error;
  }
}

function checkOwner(path: string, stats: Stats): void {
  const uid = process.geteuid?.();
  if (stats.uid !== 0 && uid !== undefined && stats.uid !== uid) {
    refuse(path, `belongs to uid ${stats.uid}`, `run as that user, or chown ${uid} ${path}`);
  }
}

function checkCredential(path: string, stats: Stats): void {
  checkOwner(path, stats);
  if ((stats.mode & 0o027) !== 0)
    refuse(path, 'is open to other users', 'let systemd load it: LoadCredential=');
}

function checkName(name: string): void {
  if (!/^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$/.test(name)) {
    throw new MeshError('internal', `${quote(name)} is no name for a key file`);
  }
}

function hasCode(error: unknown, ...codes: readonly string[]): boolean {
  return error instanceof Error && 'code' in error && codes.includes(String(error.code));
}

function refuse(path: string, why: string, fix: string): never {
  throw new MeshError('file_permissions', `${quote(path)} ${why}`, { fix });
}

const temporaryForm = /^\..+\.[0-9a-f]{16}\.tmp$/;
const keyEncryptionKeyName = 'key-encryption-key';
const keyEncryptionKeyBytes = 32;
