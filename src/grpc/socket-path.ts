import { randomBytes } from 'node:crypto';
import { chmod, lstat, rename, stat, unlink } from 'node:fs/promises';
import { connect, type Server } from 'node:net';
import { basename, dirname, join } from 'node:path';
import { MeshError, quote } from '../errors.ts';

/** The longest path of a Unix socket: `sun_path` holds 108 bytes with the final NUL (unix(7)). */
export const maxSocketPathBytes = 107;

/** A socket bound to its path. */
export type BoundSocket = {
  /** Removes the path, but only while it still leads to this very socket. */
  readonly unlink: () => Promise<void>;
};

/**
 * Binds `server` to `path`, over the stale socket of an earlier process if there is one. The socket is made under
 * another name and moved into place, so the path never leads to a half-made socket, and Node, which removes the path
 * it has bound when the server closes, never removes the one of a later process.
 * @param path absolute, at most 107 bytes, in an existing directory
 * @param mode permission bits of the socket
 * @throws MeshError `socket_path_too_long`, `socket_path_unsafe`, `socket_in_use`, `file_missing`, `file_permissions`
 */
export async function bindSocket(server: Server, path: string, mode: number): Promise<BoundSocket> {
  const temporary = join(dirname(path), `.${randomBytes(4).toString('hex')}.sock`);
  checkLength(path);
  checkLength(temporary);
  await checkDirectory(dirname(path));
  await checkOccupant(path);
  await listen(server, temporary);
  try {
    await chmod(temporary, mode);
    const { dev, ino } = await lstat(temporary);
    await rename(temporary, path);
    return { unlink: () => unlinkIfSame(path, dev, ino) };
  } catch (cause) {
    await unlink(temporary).catch(() => undefined);
    server.close();
    throw unusable(path, cause);
  }
}

function checkLength(path: string): void {
  const bytes = Buffer.byteLength(path);
  if (!path.startsWith('/') || path.includes('\0')) {
    throw new MeshError('socket_path_unsafe', `socket path ${quote(path)} is not an absolute path`, {
      fix: 'give the absolute path of the socket',
    });
  }
  if (bytes <= maxSocketPathBytes) return;
  // The kernel would cut the path in silence and bind the rest of it.
  throw new MeshError(
    'socket_path_too_long',
    `socket path ${quote(path)} has ${bytes} bytes, more than the ${maxSocketPathBytes} a Unix socket can have`,
    { fix: 'use a shorter directory for the socket' },
  );
}

async function checkDirectory(directory: string): Promise<void> {
  const found = await stat(directory).catch((cause: unknown) => {
    throw unusable(directory, cause);
  });
  if (!found.isDirectory()) throw unsafe(directory, 'is not a directory', 'name a directory for the socket');
  if ((found.mode & 0o002) !== 0 && (found.mode & 0o1000) === 0) {
    throw unsafe(
      directory,
      'is a directory in which anybody may replace the socket',
      'take the write permission of others away, or set the sticky bit',
    );
  }
}

async function checkOccupant(path: string): Promise<void> {
  const occupant = await lstat(path).catch(() => undefined);
  if (occupant === undefined) return;
  if (!occupant.isSocket()) {
    const what = occupant.isSymbolicLink() ? 'is a symbolic link' : 'is a file of another kind than a socket';
    throw unsafe(path, what, 'remove it, or choose another path');
  }
  if (await answers(path)) {
    throw new MeshError('socket_in_use', `another process listens on ${quote(path)}`, {
      fix: 'stop that process, or choose another path',
    });
  }
}

/** True unless the kernel says that nobody listens: a full backlog or a closed permission is somebody's socket. */
function answers(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const probe = connect(path);
    const settle = (live: boolean): void => {
      probe.destroy();
      resolve(live);
    };
    probe.once('connect', () => settle(true));
    probe.once('error', (error: NodeJS.ErrnoException) =>
      settle(error.code !== 'ECONNREFUSED' && error.code !== 'ENOENT'),
    );
    probe.setTimeout(2_000, () => settle(true));
  });
}

function listen(server: Server, path: string): Promise<void> {
  return new Promise((resolve, reject) => {
    const failed = (cause: unknown): void => reject(unusable(path, cause));
    server.once('error', failed);
    server.listen({ path, backlog: 511 }, () => {
      server.off('error', failed);
      resolve();
    });
  });
}

async function unlinkIfSame(path: string, dev: number, ino: number): Promise<void> {
  const now = await lstat(path).catch(() => undefined);
  if (now?.dev === dev && now.ino === ino) await unlink(path).catch(() => undefined);
}

function unsafe(path: string, why: string, fix: string): MeshError {
  return new MeshError('socket_path_unsafe', `${quote(path)} ${why}`, { fix });
}

function unusable(path: string, cause: unknown): MeshError {
  const code = (cause as NodeJS.ErrnoException | undefined)?.code;
  if (code === 'ENOENT') {
    return new MeshError('file_missing', `there is no directory for the socket at ${quote(dirname(path))}`, {
      fix: `make it, for example with mkdir -p ${basename(dirname(path))} in its parent`,
      cause,
    });
  }
  if (code === 'EACCES' || code === 'EPERM' || code === 'EROFS') {
    return new MeshError('file_permissions', `a socket may not be made in ${quote(dirname(path))}`, {
      fix: 'run as a user that may write there, or choose another directory',
      cause,
    });
  }
  return new MeshError('internal', `the socket ${quote(path)} could not be bound`, { cause });
}
