import { type ProcessStat, readExecutablePath, readStat } from './process.ts';
import { type SelectorSource, validSelector } from './source.ts';

/** How far up a process tree is looked. */
export const maxAncestors = 16;

/** `unix:ancestor-path`: the executables of the processes that a caller descends from, as they are now. */
export function createAncestorSource(): SelectorSource {
  return {
    name: 'process tree',
    kinds: ['unix:ancestor-path'],
    isCostly: true,
    selectorsOf: async ({ peer }) =>
      readAncestorPaths(peer.pid).flatMap((path) => validSelector('unix:ancestor-path', path)),
  };
}

/** What the walk reads of processes; a test hands in trees that change under it. */
export type ProcessReader = {
  readonly stat: (pid: number) => ProcessStat | undefined;
  readonly executablePath: (pid: number) => string | undefined;
};

/**
 * Walks from a process towards pid 1, which is left out: everything descends from it. An ancestor without a path that
 * counts is passed over. When the tree changes under the walk nothing of it is used.
 */
export function readAncestorPaths(pid: number, reader: ProcessReader = kernel): readonly string[] {
  const paths = new Set<string>();
  const first = reader.stat(pid);
  if (first === undefined) return [];
  let [childPid, child] = [pid, first];
  for (let depth = 0; depth < maxAncestors && child.parentPid > 1; depth++) {
    const parentPid = child.parentPid;
    const parent = reader.stat(parentPid);
    // A parent that is younger than its child is another process with the parent's old pid.
    if (parent === undefined || parent.startTicks > child.startTicks) return [];
    const path = reader.executablePath(parentPid);
    // INVARIANT: asked after the path was read, the parent before the child. While the child still names that pid as its
    // parent the parent has not ended, so that the pid was the parent's all along.
    if (reader.stat(parentPid)?.startTicks !== parent.startTicks) return [];
    const again = reader.stat(childPid);
    if (again?.startTicks !== child.startTicks || again.parentPid !== parentPid) return [];
    if (path !== undefined) paths.add(path);
    [childPid, child] = [parentPid, parent];
  }
  return [...paths];
}

const kernel: ProcessReader = {
  stat: readStat,
  // Whoever may not look at the ancestor may not look at the caller either, and has been told.
  executablePath: (pid) => readExecutablePath(pid, () => undefined),
};
