import { closeSync, openSync, readSync } from 'node:fs';
import { readProc } from './process.ts';

/**
 * Whether the mount with this id, in the mount namespace of the process, is one whose files can be believed. It believes
 * files of local file systems that stand in our own mount table, where only root puts them: mounted there, or the same
 * device mounted for a container.
 *
 * A file system that a user serves (FUSE), or that another machine does, may show us other bytes than it runs, and may
 * let a read wait for ever. A user can hide such a one under an overlay, but only in a namespace of its own, so that its
 * device is not in our table.
 */
export function isTrustedMount(pid: number, mountId: number): boolean {
  // INVARIANT: read anew each time. Numbers of mounts and devices are given again as soon as they are free; the caller
  // holds the file, so that its own are not while we look.
  const own = parseMounts(readProc('self/mountinfo') ?? '');
  return believes(mountId, own, () => parseMounts(readStart(`/proc/${pid}/mountinfo`)));
}

/** The rule of {@link isTrustedMount}, on tables. */
export function believes(
  mountId: number,
  own: readonly Mount[],
  readTheirs: () => readonly Mount[],
): boolean {
  const byId = ({ id }: Mount): boolean => id === mountId;
  const mount = own.find(byId);
  if (mount !== undefined) return localTypes.has(mount.type);
  const theirs = readTheirs().find(byId);
  if (theirs === undefined || !localTypes.has(theirs.type)) return false;
  return own.some(({ device, type }) => device === theirs.device && type === theirs.type);
}

/** One mounted file system; `device` is `major:minor`. */
export type Mount = { readonly id: number; readonly device: string; readonly type: string };

/** Parses a mountinfo file (proc_pid_mountinfo(5)); lines that are not whole are passed over. */
export function parseMounts(text: string): readonly Mount[] {
  return text.split('\n').flatMap((line) => {
    // Spaces within fields are escaped, so that each space parts two fields.
    const [head = '', tail = ''] = line.split(' - ', 2);
    const [id = '', , device = ''] = head.split(' ');
    const [type = '', ...rest] = tail.split(' ');
    if (!/^[0-9]{1,10}$/.test(id) || !/^[0-9]+:[0-9]+$/.test(device) || rest.length < 2) return [];
    return [{ id: Number(id), device, type }];
  });
}

/** The first part only: a user can mount very much in a namespace of its own. */
function readStart(file: string): string {
  try {
    const fd = openSync(file, 'r');
    try {
      const bytes = Buffer.allocUnsafe(maxTheirBytes);
      let length = 0;
      for (let read = -1; read !== 0 && length < bytes.length; length += read) {
        read = readSync(fd, bytes, length, bytes.length - length, null);
      }
      return bytes.toString('latin1', 0, length);
    } finally {
      closeSync(fd);
    }
  } catch {
    return '';
  }
}

const localTypes = new Set(
  'bcachefs btrfs erofs ext2 ext3 ext4 f2fs iso9660 overlay ramfs rootfs squashfs tmpfs vfat xfs zfs'.split(
    ' ',
  ),
);
const maxTheirBytes = 262_144;
