import { createHash } from 'node:crypto';
import {
  closeSync,
  constants,
  fchmodSync,
  fstatSync,
  fsyncSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readSync,
  rmSync,
  statfsSync,
  writeSync,
} from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { MeshError, quote } from '../errors.ts';
import type { FileRecord } from './archive-manifest.ts';
import { lockDirectory } from './directory-lock.ts';
import { diskError } from './disk-error.ts';
import { makeDirectory, openAs } from './key-files.ts';

/**
 * Copies a file into a new one, 0600 and durable, and says what it was. Links are not followed.
 * @param maxBytes a larger file is refused before and while it is read
 * @throws MeshError `file_missing`, `file_permissions`, `backup_failed` (a disk that takes no more)
 */
export function copyFile(from: string, to: string, maxBytes: number): Omit<FileRecord, 'name'> {
  const fd = openAs(from, constants.O_RDONLY | constants.O_NONBLOCK, 'a regular file');
  try {
    const target = openSync(
      to,
      constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW,
      0o600,
    );
    try {
      fchmodSync(target, 0o600);
      const digest = readThrough(fd, from, maxBytes, (chunk) => {
        for (let at = 0; at < chunk.length;) at += writeSync(target, chunk, at);
      });
      fsyncSync(target);
      return digest;
    } finally {
      closeSync(target);
    }
  } catch (error) {
    throw failed(to, error);
  } finally {
    closeSync(fd);
  }
}

/** Size and SHA-256 of a file. Links are not followed. @throws MeshError `file_missing`, `file_permissions` */
export function digestFile(path: string, maxBytes: number): Omit<FileRecord, 'name'> {
  const fd = openAs(path, constants.O_RDONLY | constants.O_NONBLOCK, 'a regular file');
  try {
    return readThrough(fd, path, maxBytes, () => undefined);
  } finally {
    closeSync(fd);
  }
}

/** The bytes of a small file. Links are not followed. @throws MeshError `file_missing`, `file_permissions` */
export function readSmallFile(path: string, maxBytes: number): Buffer {
  const chunks: Buffer[] = [];
  const fd = openAs(path, constants.O_RDONLY | constants.O_NONBLOCK, 'a regular file');
  try {
    readThrough(fd, path, maxBytes, (chunk) => chunks.push(Buffer.from(chunk)));
  } finally {
    closeSync(fd);
  }
  return Buffer.concat(chunks);
}

/** Writes a new file, 0600 and durable. @throws MeshError `backup_failed` */
export function writeFile(path: string, bytes: Uint8Array): void {
  try {
    const fd = openSync(
      path,
      constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW,
      0o600,
    );
    try {
      fchmodSync(fd, 0o600);
      for (let at = 0; at < bytes.length;) at += writeSync(fd, bytes, at);
      fsyncSync(fd);
    } finally {
      closeSync(fd);
    }
  } catch (error) {
    throw failed(path, error);
  }
}

export type Staging = {
  readonly path: string;
  /** It has got its name. */
  readonly keep: () => void;
  /** Removes it, unless it was kept, and lets it go. */
  readonly drop: () => void;
};

/**
 * A directory of our own beside a target, in which that is made: 0700, locked, empty, whatever a process that was killed has
 * left in it. It gets its name only when it is whole.
 * @throws MeshError `directory_in_use` when another process makes the same, `file_permissions`, `backup_failed`
 */
export function openStaging(target: string, suffix: string): Staging {
  makeDirectory(dirname(resolve(target)), 0o700);
  const path = `${resolve(target)}${suffix}`;
  let release = (): void => undefined;
  try {
    if (lstatSync(path, { throwIfNoEntry: false }) === undefined) mkdirSync(path, { mode: 0o700 });
    release = lockDirectory(path);
    const { uid, mode } = lstatSync(path);
    if (uid !== process.geteuid?.() || (mode & 0o077) !== 0) {
      throw new MeshError('file_permissions', `${quote(path)} is in the way`, { fix: `remove ${path}` });
    }
    for (const name of readdirSync(path)) rmSync(join(path, name), { recursive: true, force: true });
    mkdirSync(join(path, 'keys'), { mode: 0o700 });
  } catch (error) {
    release();
    throw failed(path, error);
  }
  let isKept = false;
  return {
    path,
    keep: () => {
      isKept = true;
    },
    drop: () => {
      // What has its name by now is nobody's to remove.
      if (!isKept) rmSync(path, { recursive: true, force: true });
      release();
    },
  };
}

/** @throws MeshError `backup_failed` when a disk has less room than that, and some to spare */
export function demandRoom(dir: string, bytes: number): void {
  const { bavail, bsize } = statfsSync(dir);
  const free = bavail * bsize;
  if (free >= bytes + spareBytes) return;
  throw new MeshError(
    'backup_failed',
    `${bytes} bytes are to be written, and ${free} are free on that disk`,
    {
      fix: 'make room, or name a directory on another disk',
    },
  );
}

/** What went wrong, in our words. */
export function failed(path: string, error: unknown): MeshError {
  if (error instanceof MeshError) return error;
  const why = diskError(error, path)?.message ?? `${quote(path)} cannot be written`;
  return new MeshError('backup_failed', why, {
    fix: 'nothing was left half done; make room or check the directory, then try again',
    cause: error,
  });
}

function readThrough(
  fd: number,
  path: string,
  maxBytes: number,
  take: (chunk: Buffer) => void,
): Omit<FileRecord, 'name'> {
  const stats = fstatSync(fd);
  if (!stats.isFile()) {
    throw new MeshError('file_permissions', `${quote(path)} is no regular file`, {
      fix: 'put a regular file in its place, no link',
    });
  }
  const hash = createHash('sha256');
  const buffer = Buffer.allocUnsafe(chunkBytes);
  let bytes = 0;
  for (;;) {
    const count = readSync(fd, buffer, 0, chunkBytes, null);
    if (count === 0) break;
    bytes += count;
    if (bytes > maxBytes) {
      throw new MeshError('backup_invalid', `${quote(path)} is larger than it may be`, {
        fix: 'use another backup',
      });
    }
    const chunk = buffer.subarray(0, count);
    hash.update(chunk);
    take(chunk);
  }
  return { bytes, sha256: hash.digest('hex') };
}

const chunkBytes = 1_048_576;
const spareBytes = 4_194_304;
