import type { Clock } from '../clock.ts';

/** Counts things of one kind together, and tells of each kind when a window has passed since the first of all. */
export type Window<Kind> = {
  /**
   * @param owner on whose account it is
   * @param kind what it has in common with those it is counted with
   * @param make makes the kind of the first
   * @param add counts another
   */
  readonly count: (owner: string, kind: string, make: () => Kind, add: (known: Kind) => void) => void;
  /** Kinds that are counted and not told yet. */
  readonly held: () => number;
  /** Tells what was counted until now. */
  readonly flush: () => void;
};

/**
 * Opens a window. Peers choose how many kinds there are: too many of one owner are told at once, and so are all when they are
 * too many together.
 * @param options `windowMs` 1 to 300,000; `ended` is called when all has been told
 */
export function createWindow<Kind>(options: {
  readonly windowMs: number;
  readonly clock: Clock;
  readonly tell: (kind: Kind) => void;
  readonly ended?: () => void;
  readonly maxKinds?: number;
  readonly maxOfOwner?: number;
}): Window<Kind> {
  const { windowMs, clock, tell, ended = () => undefined, maxKinds = 4_096, maxOfOwner = 256 } = options;
  let timer = new AbortController();
  let held = 0;
  let owners = new Map<string, Map<string, Kind>>();

  return { count, held: () => held, flush };

  function count(owner: string, key: string, make: () => Kind, add: (known: Kind) => void): void {
    const known = owners.get(owner)?.get(key);
    if (known !== undefined) return add(known);
    if (held >= maxKinds) flush();
    const kinds = owners.get(owner) ?? new Map<string, Kind>();
    if (kinds.size >= maxOfOwner) tellOf(owner, kinds);
    if (held === 0) void open();
    owners.set(owner, kinds);
    kinds.set(key, make());
    held += 1;
  }

  async function open(): Promise<void> {
    const { signal } = (timer = new AbortController());
    await clock.sleep(windowMs, signal);
    if (!signal.aborted) flush();
  }

  function flush(): void {
    timer.abort('told');
    const told = owners;
    owners = new Map();
    held = 0;
    for (const kinds of told.values()) for (const kind of kinds.values()) tell(kind);
    ended();
  }

  /** INVARIANT: whoever makes up kinds cuts short the window of nobody else. */
  function tellOf(owner: string, kinds: Map<string, Kind>): void {
    const told = [...kinds.values()];
    owners.delete(owner);
    kinds.clear();
    held -= told.length;
    if (held === 0) timer.abort('told');
    for (const kind of told) tell(kind);
  }
}
