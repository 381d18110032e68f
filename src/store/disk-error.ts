import { closeSync, constants, fsyncSync, openSync, unlinkSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { MeshError, quote } from '../errors.ts';

/**
 * What the kernel refused because of the disk, in words that say what to mend.
 * @returns MeshError `store_unavailable`, or `file_permissions` where the path itself is at fault; undefined when the
 *   error is of another kind
 */
export function diskError(error: unknown, path: string): MeshError | undefined {
  const found = error instanceof Error && 'code' in error ? refusals.get(String(error.code)) : undefined;
  if (found === undefined) return undefined;
  const { code = 'store_unavailable', why, fix } = found;
  return new MeshError(code, `${quote(path)} ${why}`, { fix, cause: error });
}

/** Writes a megabyte durably and takes it away again. @throws Error of the kernel, when it does not take it */
export function proveRoom(dir: string): void {
  const path = join(dir, 'room');
  const fd = openSync(path, constants.O_WRONLY | constants.O_CREAT | constants.O_NOFOLLOW, 0o600);
  try {
    const bytes = Buffer.alloc(roomBytes, 1);
    for (let at = 0; at < bytes.length;) at += writeSync(fd, bytes, at);
    fsyncSync(fd);
  } finally {
    closeSync(fd);
    unlinkSync(path);
  }
}

const roomBytes = 1_048_576;

type Refusal = { readonly code?: 'file_permissions'; readonly why: string; readonly fix: string };

const elsewhere = 'choose another path, on a local disk';
const refusals: ReadonlyMap<string, Refusal> = new Map<string, Refusal>([
  ['ENOSPC', { why: 'cannot be written: its disk is full', fix: 'make room on that disk' }],
  ['EDQUOT', { why: 'cannot be written: the quota is used up', fix: 'make room, or raise the quota' }],
  ['EFBIG', { why: 'cannot grow: the limit of file sizes is reached', fix: 'raise the limit (ulimit -f)' }],
  ['EROFS', { why: 'cannot be written: its disk is read-only', fix: 'mount it writable' }],
  ['EIO', { why: 'cannot be used: its disk fails', fix: 'look at the log of the kernel' }],
  ['ENOLCK', { why: 'lies on a filesystem without locks', fix: elsewhere }],
  ['EOPNOTSUPP', { why: 'lies on a filesystem that cannot hold it', fix: elsewhere }],
  ['ENAMETOOLONG', { code: 'file_permissions', why: 'is too long a path', fix: 'choose a shorter one' }],
]);
