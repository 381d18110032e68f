import { MeshError } from '../errors.ts';
import type { Attest, UnixPeer } from '../identity/evidence.ts';
import { type Selector, selector, type SelectorKind } from '../identity/selector.ts';
import { readExecutablePath, readProc } from './process.ts';
import { createUserNames } from './user-names.ts';

/** Told, once, why a selector could not be made for some callers. */
export type WarnAttestation = (message: string) => void;

/**
 * Attests a process by what the kernel says of it:
 *
 * - `unix:uid` and `unix:gid`: the effective ids at the time it connected; `unix:gid` also for each of its supplementary
 *   groups, as they are now.
 * - `unix:user`: the first name of the uid in this machine's /etc/passwd. No name, no selector.
 * - `unix:path`: its executable, when it lives in our own mount namespace. In another one, which any user may make, any
 *   file can stand at any path; such a process gets no such selector, nor does one whose file was deleted or replaced.
 *
 * A selector that cannot be read, or would not be valid, is left out; nothing is guessed. A process in a pid namespace
 * that we cannot see (pid 0) is refused: of such a caller only the uid is known, and other containers share it.
 * @throws MeshError (from the attestor) `attestation_failed` when the process has ended, has changed its effective
 * user since it connected, or is out of sight
 */
export function createUnixAttestor(options: { readonly warn?: WarnAttestation } = {}): Attest {
  const userName = createUserNames('/etc/passwd');
  const warn = warnOnce(options.warn ?? (() => undefined));
  return async (peer) => {
    if (peer.pid <= 0) {
      throw new MeshError('attestation_failed', 'the caller lives in a pid namespace that is out of sight', {
        fix: 'run Countersign in the pid namespace of the host, for example with hostPID',
      });
    }
    // Synchronous, because /proc is memory and answers in microseconds. Nothing here touches a file of the caller's
    // own: its file system might never answer.
    const status = readStatus(peer.pid);
    const user = userName(peer.uid);
    const path = readExecutablePath(peer.pid, () => warn(hiddenPaths));
    // INVARIANT: asked after /proc was read. Alive now means that the pid was the caller's all along.
    if (!peer.isAlive()) throw new MeshError('attestation_failed', 'the caller has ended');
    if (status !== undefined && status.effectiveUid !== peer.uid) {
      throw new MeshError('attestation_failed', 'the caller has changed its user since it connected', {
        fix: 'connect again as the new user',
      });
    }
    return {
      selectors: selectorsOf(peer, status?.groups ?? [], user, path),
      caller: { pid: peer.pid, uid: peer.uid, gid: peer.gid },
    };
  };
}

/** What attestation can see on this machine, for the status line. */
export type UnixAbilities = {
  /** Whether `unix:path` works for processes of other users than our own. */
  readonly pathOfOtherUsers: boolean;
};

export function describeUnixAbilities(): UnixAbilities {
  const status = readProc('self/status') ?? '';
  const effective = /^CapEff:\s*([0-9a-f]{1,16})$/m.exec(status)?.[1] ?? '0';
  return { pathOfOtherUsers: ((BigInt(`0x${effective}`) >> CAP_SYS_PTRACE) & 1n) === 1n };
}

type ProcessStatus = { readonly effectiveUid: number; readonly groups: readonly string[] };

/** /proc/<pid>/status (proc(5)); undefined where it is hidden from us (`hidepid`). */
function readStatus(pid: number): ProcessStatus | undefined {
  const text = readProc(`${pid}/status`) ?? '';
  const effectiveUid = /^Uid:\t\d+\t(\d+)\t/m.exec(text)?.[1];
  if (effectiveUid === undefined) return undefined;
  const groups = (/^Groups:\t([\d ]*)$/m.exec(text)?.[1] ?? '').split(' ').filter((gid) => gid !== '');
  return { effectiveUid: Number(effectiveUid), groups: groups.slice(0, maxGroups) };
}

function selectorsOf(
  peer: UnixPeer,
  groups: readonly string[],
  user: string | undefined,
  path: string | undefined,
): readonly Selector[] {
  const found = new Map<string, Selector>();
  const add = (kind: SelectorKind, value: string | undefined): void => {
    const made = value === undefined ? undefined : valid(kind, value);
    if (made !== undefined) found.set(made.text, made);
  };
  add('unix:uid', String(peer.uid));
  for (const gid of [String(peer.gid), ...groups]) add('unix:gid', gid);
  add('unix:user', user);
  add('unix:path', path);
  return [...found.values()].sort((a, b) => (a.text < b.text ? -1 : 1));
}

function valid(kind: SelectorKind, value: string): Selector | undefined {
  try {
    return selector(kind, value);
  } catch {
    return undefined;
  }
}

/** Passes each message on once. */
export function warnOnce(warn: WarnAttestation): WarnAttestation {
  const told = new Set<string>();
  return (message) => {
    if (told.has(message)) return;
    told.add(message);
    warn(message);
  };
}

const hiddenPaths = 'unix:path is not known for processes of other users: run as root or with CAP_SYS_PTRACE';
const CAP_SYS_PTRACE = 19n;
const maxGroups = 1_024;
