import type { Cgroup } from './cgroup.ts';

/** The container that a process was started in. */
export type Container = {
  /** 64 hexadecimal digits. */
  readonly containerId: string;
  /** As Kubernetes writes it, or null outside of it. */
  readonly podUid: string | null;
};

/**
 * The outermost container on the way to a process's cgroups. Undefined when there is none, and when two hierarchies name
 * different ones. Formats: kubelet with the cgroupfs and the systemd driver, under containerd, CRI-O and cri-dockerd; the
 * Docker engine with both drivers; cgroup versions 1 and 2.
 */
export function containerOf(cgroups: readonly Cgroup[]): Container | undefined {
  let found: Container | undefined;
  for (const cgroup of cgroups) {
    const container = containerAt(cgroup);
    if (container === undefined) continue;
    if (found !== undefined && !isSame(found, container)) return undefined;
    found = container;
  }
  return found;
}

function containerAt({ from, path }: Cgroup): Container | undefined {
  for (const pattern of from === 'root' ? fromRoot : fromAbove) {
    const groups = pattern.exec(path)?.groups;
    if (groups?.['id'] === undefined) continue;
    const uid = groups['uid'];
    return { containerId: groups['id'], podUid: uid === undefined ? null : uid.replaceAll('_', '-') };
  }
  return undefined;
}

function isSame(a: Container, b: Container): boolean {
  return a.containerId === b.containerId && a.podUid === b.podUid;
}

// INVARIANT: each pattern begins at the beginning and names every cgroup down to the container's own; what comes after
// it is not looked at. Each is linear: no part that repeats without a bound.
const hex64 = '[0-9a-f]{64}';
// Pods of files on the node have a uid of 32 digits. In the name of a slice `-` would part levels, so it becomes `_`.
const uid = '(?<uid>[0-9a-f]{32}|[0-9a-f]{8}(?:[-_][0-9a-f]{4}){3}[-_][0-9a-f]{12})';
const inPod = `(?:(?:docker-|crio-|cri-containerd-)?(?<id>${hex64})(?:\\.scope)?)(?=/|$)`;
const end = '(?=/|$)';

const fromRoot = [
  // cgroupfs driver, also with a --cgroup-root of kind or Docker Desktop.
  new RegExp(`^(?:kubelet/|kubepods/)?kubepods/(?:besteffort/|burstable/)?pod${uid}/${inPod}`),
  // systemd driver: slices lie in one another by their names.
  new RegExp(
    `^kubepods\\.slice/(?:kubepods(?<qos>-besteffort|-burstable)\\.slice/)?kubepods\\k<qos>-pod${uid}\\.slice/${inPod}`,
  ),
  new RegExp(
    `^kubelet\\.slice/kubelet-kubepods\\.slice/(?:kubelet-kubepods(?<qos>-besteffort|-burstable)\\.slice/)?` +
      `kubelet-kubepods\\k<qos>-pod${uid}\\.slice/${inPod}`,
  ),
  // containerd that was not told of the systemd driver takes what it is given for one name.
  new RegExp(
    `^(?:system\\.slice/containerd\\.service/)?kubepods(?:-besteffort|-burstable)?-pod${uid}\\.slice:cri-containerd:` +
      `(?<id>${hex64})${end}`,
  ),
  // The Docker engine by itself.
  new RegExp(`^docker/(?<id>${hex64})${end}`),
  new RegExp(`^system\\.slice/docker-(?<id>${hex64})\\.scope${end}`),
];

// As seen from a pod: the way begins at the pod's own class, or at one of the levels above that.
const fromAbove = [
  new RegExp(`^(?:kubepods/)?(?:besteffort/|burstable/)?pod${uid}/${inPod}`),
  new RegExp(
    `^(?:(?:kubelet-)?kubepods\\.slice/)?(?:(?:kubelet-)?kubepods-(?:besteffort|burstable)\\.slice/)?` +
      `(?:kubelet-)?kubepods(?:-besteffort|-burstable)?-pod${uid}\\.slice/${inPod}`,
  ),
];
