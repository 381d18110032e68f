import { createHash } from 'node:crypto';
import { type BigIntStats, closeSync, constants, openSync } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import type { Clock } from '../clock.ts';
import { isTrustedMount } from './mounts.ts';
import { isDenied, readProc } from './process.ts';
import { type SelectorSource, validSelector } from './source.ts';

export type DigestOptions = {
  readonly clock: Clock;
  readonly warn: (message: string) => void;
  /** Larger executables have no digest. */
  readonly maxBytes?: number;
  /** How many digests are remembered. */
  readonly capacity?: number;
  /** Told of every hash that is computed, for tests. */
  readonly onHash?: () => void;
};

/** 256 MiB: Envoy has 100, Node 120. */
export const defaultMaxDigestBytes = 268_435_456;

/**
 * `unix:sha256`: the digest of the file that the process runs, not of what now stands at its path. It is read in
 * slices, so that other work goes on in between, and remembered while the file is the same by device, inode, size and
 * times. A file that changes under the reading, is too large, or lies where its bytes cannot be believed, gives none.
 */
export function createDigestSource(options: DigestOptions): SelectorSource {
  const { clock, warn, maxBytes = defaultMaxDigestBytes, capacity = 512, onHash } = options;
  const nowMs = (): number => clock.now().getTime();
  const known = new Map<string, string>();
  const underWay = new Map<string, Promise<string | undefined>>();
  const lines = new Map<number, { last: Promise<unknown>; length: number }>();

  return {
    name: 'executable digest',
    kinds: ['unix:sha256'],
    isCostly: true,
    selectorsOf: async ({ peer }) => validSelector('unix:sha256', await digestOf(peer.pid, peer.uid)),
  };

  async function digestOf(pid: number, uid: number): Promise<string | undefined> {
    const file = await openExecutable(pid);
    if (file === undefined) return undefined;
    let isTaken = false;
    try {
      const stat = await file.stat({ bigint: true });
      if (!stat.isFile()) return undefined;
      if (stat.size > BigInt(maxBytes)) {
        warn(`an executable of more than ${maxBytes} bytes has no unix:sha256`);
        return undefined;
      }
      const key = keyOf(stat);
      const digest = recall(key) ?? underWay.get(key);
      if (digest !== undefined) return await digest;
      const hashing = inLine(uid, () => hash(file, stat));
      if (hashing === undefined) throw new Error(`uid ${uid} has too many executables waiting`);
      isTaken = true;
      // It goes on when its caller has stopped waiting: the next one finds it done.
      const settled = settle(key, file, hashing);
      underWay.set(key, settled);
      return await settled;
    } finally {
      if (!isTaken) await file.close();
    }
  }

  async function settle<T>(key: string, file: FileHandle, hashing: Promise<T>): Promise<T> {
    try {
      return await hashing;
    } finally {
      underWay.delete(key);
      await file.close();
    }
  }

  /** The open file of the running image, when its file system is one that answers, and answers truly. */
  async function openExecutable(pid: number): Promise<FileHandle | undefined> {
    let held: number;
    try {
      // INVARIANT: nothing before isTrustedMount() asks the file's own file system anything. O_PATH does not open the file.
      held = openSync(`/proc/${pid}/exe`, O_PATH);
    } catch (error) {
      if (isDenied(error)) {
        warn('unix:sha256 is not known for processes of other users: run as root or with CAP_SYS_PTRACE');
      }
      return undefined;
    }
    try {
      const mountId = /^mnt_id:\s*([0-9]{1,10})$/m.exec(readProc(`self/fdinfo/${held}`) ?? '')?.[1];
      if (mountId === undefined || !isTrustedMount(pid, Number(mountId))) return undefined;
      return await open(`/proc/self/fd/${held}`, constants.O_RDONLY | constants.O_NONBLOCK);
    } finally {
      closeSync(held);
    }
  }

  /** One file of each user at a time, so that a user with many executables keeps only itself waiting. */
  function inLine<T>(uid: number, work: () => Promise<T>): Promise<T> | undefined {
    const line = lines.get(uid) ?? { last: Promise.resolve(), length: 0 };
    if (line.length >= maxWaiting) return undefined;
    line.length += 1;
    lines.set(uid, line);
    const done = line.last.then(work);
    line.last = done
      .catch(() => undefined)
      .finally(() => {
        line.length -= 1;
        if (line.length === 0) lines.delete(uid);
      });
    return done;
  }

  async function hash(file: FileHandle, before: BigIntStats): Promise<string | undefined> {
    onHash?.();
    const sha256 = createHash('sha256');
    const slice = Buffer.allocUnsafe(sliceBytes);
    let total = 0n;
    for (;;) {
      const { bytesRead } = await file.read(slice, 0, slice.length, Number(total));
      if (bytesRead === 0) break;
      sha256.update(slice.subarray(0, bytesRead));
      total += BigInt(bytesRead);
      if (total > before.size) return undefined;
    }
    const after = await file.stat({ bigint: true });
    if (total !== before.size || keyOf(after) !== keyOf(before)) return undefined;
    const digest = sha256.digest('hex');
    // INVARIANT: a digest is remembered only for a file that was left alone for a while: times move in ticks, and a
    // change within the tick of the last one would not show.
    const changedMs = Number((after.ctimeNs > after.mtimeNs ? after.ctimeNs : after.mtimeNs) / 1_000_000n);
    if (nowMs() - changedMs > settledMs) remember(keyOf(after), digest);
    return digest;
  }

  function recall(key: string): string | undefined {
    const digest = known.get(key);
    if (digest === undefined) return undefined;
    known.delete(key);
    known.set(key, digest);
    return digest;
  }

  function remember(key: string, digest: string): void {
    known.set(key, digest);
    for (const oldest of known.keys()) {
      if (known.size <= capacity) break;
      known.delete(oldest);
    }
  }
}

function keyOf({ dev, ino, size, mtimeNs, ctimeNs }: BigIntStats): string {
  return [dev, ino, size, mtimeNs, ctimeNs].join(':');
}

// The same on x64 and arm64; Node has no name for it.
const O_PATH = 0o10000000;
const sliceBytes = 262_144;
const settledMs = 2_000;
const maxWaiting = 16;
