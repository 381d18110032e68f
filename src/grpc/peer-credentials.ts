import { closeSync, readFileSync } from 'node:fs';
import type { Socket } from 'node:net';
import { MeshError } from '../errors.ts';

/** What the kernel says of the process that connected, and a hold on that process while the connection lives. */
export type PeerCredentials = {
  /** 0 when the process lives in a pid namespace that we cannot see. */
  readonly pid: number;
  readonly uid: number;
  readonly gid: number;
  /** False once the process that connected has ended, whatever its pid means by then. */
  readonly isAlive: () => boolean;
  /** Lets go of the process; call it once, when the connection has closed. */
  readonly close: () => void;
};

/** @throws MeshError `attestation_failed` when the kernel does not name the peer of the socket */
export type ReadPeerCredentials = (socket: Socket) => PeerCredentials;

/**
 * Prepares the reading of peer credentials from connected Unix sockets (`SO_PEERCRED`, and `SO_PEERPIDFD` where the
 * kernel is 6.5 or newer; before that the start time of the process, taken at accept, stands in for the pidfd).
 * @param options.pidfd false leaves `SO_PEERPIDFD` aside, for tests of the older way
 * @throws MeshError `platform_unsupported` when this is not Linux or the native binding cannot be loaded
 */
export async function openPeerCredentials(options: { pidfd?: boolean } = {}): Promise<ReadPeerCredentials> {
  const kernel = await bindKernel();
  return (socket) => {
    const fd = descriptorOf(socket);
    const credentials = readUcred(kernel, fd);
    return { ...credentials, ...holdProcess(kernel, fd, credentials.pid, options.pidfd ?? true) };
  };
}

type Kernel = {
  readonly getsockopt: (fd: number, level: number, name: number, value: Buffer, length: Buffer) => number;
  readonly poll: (pollfds: Buffer, count: number, timeoutMs: number) => number;
  readonly errno: () => number;
};

async function bindKernel(): Promise<Kernel> {
  if (process.platform !== 'linux') {
    throw new MeshError('platform_unsupported', `peer credentials are not read on ${process.platform}`, {
      fix: 'run this on Linux',
    });
  }
  try {
    const koffi = await import('koffi');
    const libc = koffi.load(null);
    return {
      getsockopt: libc.func('int getsockopt(int fd, int level, int name, void *value, void *length)'),
      poll: libc.func('int poll(void *pollfds, unsigned long count, int timeoutMs)'),
      errno: () => koffi.errno(),
    };
  } catch (cause) {
    throw new MeshError('platform_unsupported', 'the native binding that reads peer credentials is missing', {
      fix: 'install the dependencies again without --omit=optional',
      cause,
    });
  }
}

function descriptorOf(socket: Socket): number {
  const handle: unknown = Reflect.get(socket, '_handle');
  const fd: unknown = typeof handle === 'object' && handle !== null ? Reflect.get(handle, 'fd') : undefined;
  // Undocumented in Node: without it we cannot know the caller, so there is no caller.
  if (typeof fd !== 'number' || fd < 0) throw unreadable('the socket has no file descriptor');
  return fd;
}

function readUcred(kernel: Kernel, fd: number): { pid: number; uid: number; gid: number } {
  const value = Buffer.alloc(ucredBytes);
  if (!readOption(kernel, fd, SO_PEERCRED, value)) throw unreadable('the kernel does not name its process');
  return { pid: value.readInt32LE(0), uid: value.readUInt32LE(4), gid: value.readUInt32LE(8) };
}

function holdProcess(
  kernel: Kernel,
  fd: number,
  pid: number,
  pidfd: boolean,
): Pick<PeerCredentials, 'isAlive' | 'close'> {
  const value = Buffer.alloc(4);
  if (pidfd && readOption(kernel, fd, SO_PEERPIDFD, value)) return holdByPidfd(kernel, value.readInt32LE(0));
  if (pidfd && kernel.errno() !== ENOPROTOOPT) return { isAlive: () => false, close: () => undefined };
  return holdByStartTime(pid);
}

function holdByPidfd(kernel: Kernel, pidfd: number): Pick<PeerCredentials, 'isAlive' | 'close'> {
  let open = true;
  const pollfd = Buffer.alloc(8);
  return {
    // A pidfd is readable from the moment its process ends; it never refers to another process.
    isAlive: () => {
      if (!open) return false;
      pollfd.writeInt32LE(pidfd, 0);
      pollfd.writeInt16LE(POLLIN, 4);
      pollfd.writeInt16LE(0, 6);
      let ready = kernel.poll(pollfd, 1, 0);
      // A signal that comes just then (a profiler sends a thousand a second) says nothing about the process.
      for (let i = 0; ready < 0 && kernel.errno() === EINTR && i < maxInterruptions; i++) {
        ready = kernel.poll(pollfd, 1, 0);
      }
      return ready === 0;
    },
    close: () => {
      if (open) closeSync(pidfd);
      open = false;
    },
  };
}

function holdByStartTime(pid: number): Pick<PeerCredentials, 'isAlive' | 'close'> {
  let open = true;
  const started = startTime(pid);
  return {
    isAlive: () => open && started !== undefined && startTime(pid) === started,
    close: () => {
      open = false;
    },
  };
}

/** Field 22 of /proc/<pid>/stat (proc(5)); undefined when the process is gone or only its zombie is left. */
function startTime(pid: number): string | undefined {
  if (pid <= 0) return undefined;
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
    // The second field is the command's name, which may hold spaces and parentheses: count from the last one.
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    return fields[0] === 'Z' || fields[0] === 'X' ? undefined : fields[19];
  } catch {
    return undefined;
  }
}

function readOption(kernel: Kernel, fd: number, name: number, value: Buffer): boolean {
  const length = Buffer.alloc(4);
  length.writeUInt32LE(value.length);
  return (
    kernel.getsockopt(fd, SOL_SOCKET, name, value, length) === 0 && length.readUInt32LE() === value.length
  );
}

function unreadable(why: string): MeshError {
  return new MeshError('attestation_failed', `the caller cannot be told: ${why}`);
}

// Values of Linux on x64 and arm64 (asm-generic/socket.h), the two platforms we ship for; both are little-endian.
const SOL_SOCKET = 1;
const SO_PEERCRED = 17;
const SO_PEERPIDFD = 77;
const EINTR = 4;
const ENOPROTOOPT = 92;
const POLLIN = 1;
const ucredBytes = 12;
const maxInterruptions = 100;
