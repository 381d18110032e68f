import type { UnixPeer } from '../identity/evidence.ts';
import type { Selector, SelectorKind } from '../identity/selector.ts';
import { selector } from '../identity/selector.ts';
import type { Cgroup } from './cgroup.ts';

/** A caller as sources of selectors see it. */
export type Subject = {
  readonly peer: UnixPeer;
  /** Where the kernel's cgroups hold the process; empty when that is not known. */
  readonly cgroups: readonly Cgroup[];
};

/** Something that knows more of a process than its ids. */
export type SelectorSource = {
  /** What warnings call it. */
  readonly name: string;
  /** The kinds it can give. */
  readonly kinds: readonly SelectorKind[];
  /** Whether it is asked only while some entry names one of its kinds. */
  readonly isCostly: boolean;
  /**
   * What it knows of the process, nothing where it knows nothing. It need not care whether the process lives on.
   * @param signal aborts when nobody waits any longer
   * @throws anything when it could not find out; the caller then has none of its selectors
   */
  readonly selectorsOf: (subject: Subject, signal: AbortSignal) => Promise<readonly Selector[]>;
};

/** A selector, or nothing when its value would not be valid: what cannot be named is left out. */
export function validSelector(kind: SelectorKind, value: string | undefined): readonly Selector[] {
  if (value === undefined) return [];
  try {
    return [selector(kind, value)];
  } catch {
    return [];
  }
}
