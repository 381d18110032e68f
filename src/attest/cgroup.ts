import { readlinkSync } from 'node:fs';
import { readProc } from './process.ts';

/**
 * The place of a process in one cgroup hierarchy, as far as it is certain where that place lies.
 *
 * INVARIANT: a process can choose the names below the cgroup it was put in (when that was delegated to it), and none
 * above. So a path is only ever read from its beginning, and nothing below the first container or unit in it counts.
 */
export type Cgroup = {
  /** `unified` for version 2, else the controllers of a version 1 hierarchy, such as `name=systemd`. */
  readonly hierarchy: string;
  /**
   * Where `path` begins: `root` at the top of the machine; `above` at a cgroup that our own container lies in, of which
   * we do not know the name.
   */
  readonly from: 'root' | 'above';
  /** Without a slash at the beginning; empty for the top itself. */
  readonly path: string;
};

/** Reads where a process is; empty when it is gone or that is not certain. */
export function readCgroups(pid: number): readonly Cgroup[] {
  const lines = parseCgroups(readProc(`${pid}/cgroup`) ?? '');
  // Sharing pid 1's cgroup namespace, we see what the machine's own init sees.
  if (isOfInit()) return placeLines(lines, undefined);
  return placeLines(lines, parseCgroups(readProc('1/cgroup') ?? ''));
}

/** A line of /proc/<pid>/cgroup. `up` counts the `..` at the beginning of its path. */
export type CgroupLine = { readonly hierarchy: string; readonly up: number; readonly path: string };

/** Parses /proc/<pid>/cgroup (cgroups(7)). A file with anything unheard-of in it has no lines. */
export function parseCgroups(text: string): readonly CgroupLine[] {
  const lines: CgroupLine[] = [];
  if (text.length > maxBytes) return [];
  for (const line of text.split('\n')) {
    if (line === '') continue;
    // The kernel refuses newlines in the names of cgroups; colons it allows, so that only the first two part fields.
    const match = /^([0-9]{1,5}):([^:/]*):(\/.*)$/.exec(line);
    if (match === null) return [];
    const [, number, controllers = '', whole = ''] = match;
    const names = whole === '/' ? [] : whole.slice(1).split('/');
    const down = names.findIndex((name) => name !== '..');
    const up = down === -1 ? names.length : down;
    const rest = names.slice(up);
    if (rest.some((name) => name === '' || name === '.' || name === '..')) return [];
    const hierarchy = number === '0' && controllers === '' ? 'unified' : controllers;
    lines.push({ hierarchy, up, path: rest.join('/') });
  }
  return lines;
}

/**
 * Says where each path begins.
 * @param init the lines of pid 1 when it lives outside our cgroup namespace, whose root shows how deep ours lies;
 * undefined when pid 1 shares our namespace
 */
export function placeLines(
  lines: readonly CgroupLine[],
  init: readonly CgroupLine[] | undefined,
): readonly Cgroup[] {
  return lines.flatMap(({ hierarchy, up, path }): Cgroup[] => {
    if (init === undefined) return up === 0 ? [{ hierarchy, from: 'root', path }] : [];
    // INVARIANT: what lies inside our own container may have been made by anybody in it.
    if (up === 0) return [];
    const atRoot = init.some(
      (line) =>
        line.hierarchy === hierarchy && line.up === up && (line.path === '' || line.path === 'init.scope'),
    );
    return [{ hierarchy, from: atRoot ? 'root' : 'above', path }];
  });
}

// INVARIANT: asked once. We never leave our cgroup namespace, in which what we see of others is written.
function isOfInit(): boolean {
  return (sharesInit ??= askWhetherOfInit());
}

let sharesInit: boolean | undefined;

function askWhetherOfInit(): boolean {
  try {
    return readlinkSync('/proc/1/ns/cgroup') === readlinkSync('/proc/self/ns/cgroup');
  } catch {
    // Without the right to look at pid 1: the first cgroup namespace has a number of its own.
    return ownNamespace() === firstNamespace;
  }
}

function ownNamespace(): string | undefined {
  try {
    return readlinkSync('/proc/self/ns/cgroup');
  } catch {
    return undefined;
  }
}

// PROC_CGROUP_INIT_INO of the kernel.
const firstNamespace = 'cgroup:[4026531835]';
const maxBytes = 65_536;
