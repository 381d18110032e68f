import type { Clock } from '../clock.ts';

/** How one source of selectors fares. */
export type SourceHealth = {
  /** What warnings call it, such as `kubelet`. */
  readonly name: string;
  /** The URL or socket it asks, or empty for one that asks the kernel alone. */
  readonly place: string;
  /** Questions that it was asked since the start, and those it had no answer to. */
  readonly calls: number;
  readonly failures: number;
  readonly lastSuccessAt: Date | null;
  readonly lastFailureAt: Date | null;
  /** Why it failed last, or empty. */
  readonly lastFailure: string;
};

/** Counts what becomes of questions to the sources. */
export type SourceHealths = {
  /** Names a source that will be asked; each once. */
  readonly add: (name: string, place: string) => void;
  /** Notes an answer, or why there was none. Of a source that was not added it notes nothing. */
  readonly note: (name: string, failure: string | null) => void;
  readonly all: () => readonly SourceHealth[];
};

export function createSourceHealths(clock: Clock): SourceHealths {
  const known = new Map<string, SourceHealth>();
  return {
    add: (name, place) => {
      known.set(name, {
        name,
        place,
        calls: 0,
        failures: 0,
        lastSuccessAt: null,
        lastFailureAt: null,
        lastFailure: '',
      });
    },
    note: (name, failure) => {
      const before = known.get(name);
      if (before === undefined) return;
      const at = clock.now();
      known.set(name, {
        ...before,
        calls: before.calls + 1,
        ...(failure === null
          ? { lastSuccessAt: at }
          : { failures: before.failures + 1, lastFailureAt: at, lastFailure: failure.slice(0, maxWhy) }),
      });
    },
    all: () => [...known.values()],
  };
}

/** Whether the last thing that is known of a source is that it failed. */
export function isFailing({ lastSuccessAt, lastFailureAt }: SourceHealth): boolean {
  return lastFailureAt !== null && (lastSuccessAt === null || lastFailureAt > lastSuccessAt);
}

const maxWhy = 256;
