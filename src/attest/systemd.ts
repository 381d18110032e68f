import type { Cgroup } from './cgroup.ts';
import { type SelectorSource, validSelector } from './source.ts';

/** `systemd:unit`: the service that the system manager started a process in. */
export function createSystemdSource(): SelectorSource {
  return {
    name: 'systemd',
    kinds: ['systemd:unit'],
    isCostly: false,
    selectorsOf: async ({ cgroups }) => validSelector('systemd:unit', serviceUnitOf(cgroups)),
  };
}

/**
 * The system service on the way to a process's cgroup. Only the system manager makes cgroups above it; what a manager of
 * a user, or the service itself, makes below it does not count. Undefined when the hierarchies disagree.
 */
export function serviceUnitOf(cgroups: readonly Cgroup[]): string | undefined {
  const units = new Set(
    cgroups
      .filter(({ hierarchy, from }) => from === 'root' && managed.has(hierarchy))
      .flatMap(({ path }) => unitAt(path) ?? []),
  );
  return units.size === 1 ? [...units][0] : undefined;
}

function unitAt(path: string): string | undefined {
  let slice = '';
  for (const name of path.split('/')) {
    if (!name.endsWith('.slice')) {
      // A name that could be taken for a file of the kernel's has an underscore put before it (cg_escape).
      const unit = name.startsWith('_') ? name.slice(1) : name;
      return isServiceUnit(unit) ? unit : undefined;
    }
    const stem = name.slice(0, -'.slice'.length);
    // `a-b.slice` lies in `a.slice` (systemd.slice(5)): anything else was not made by the manager.
    const last = slice === '' ? stem : stem.startsWith(`${slice}-`) ? stem.slice(slice.length + 1) : '';
    if (!/^[A-Za-z0-9:_.\\]+$/.test(last)) return undefined;
    slice = stem;
  }
  return undefined;
}

/** Whether systemd could have a running service of this name (systemd.unit(5)). */
export function isServiceUnit(name: string): boolean {
  return name.length <= 255 && /^[A-Za-z0-9:_.\\-]+(@[A-Za-z0-9:_.\\@-]+)?\.service$/.test(name);
}

const managed = new Set(['unified', 'name=systemd']);
