import type { PresentedCertificate } from '../identity/evidence.ts';

/** One certificate that was shown to be given another. */
export type Ancestor = Pick<PresentedCertificate, 'serial' | 'spkiSha256'>;

/** Which certificates were given for which, while the later ones live; in memory only. */
export type Lineage = {
  /** A certificate leaves for whoever has shown another. */
  readonly note: (
    given: { readonly serial: string; readonly notAfter: Date },
    shown: Ancestor,
    now: Date,
  ) => void;
  /** What was shown for it, the last first, as far back as the lineage goes. */
  readonly of: (serial: string) => Iterable<Ancestor>;
  /** The first certificate of a line, as far back as it goes; the serial itself when it came of nothing known. */
  readonly originOf: (serial: string) => string;
  readonly size: () => number;
};

/**
 * Follows who was given what for what, so that a ban of one certificate reaches those that came of it. A line is as long
 * as it was renewed without a break; what has expired is dropped.
 * @param capacity lines followed at most; beyond it the oldest is forgotten
 */
export function createLineage(capacity = 65_536): Lineage {
  const lines = new Map<string, Link & { readonly until: Date }>();
  let sweptAt = 0;
  const drop = (now: Date): void => {
    if (Math.abs(now.getTime() - sweptAt) >= sweepMs) {
      sweptAt = now.getTime();
      for (const [serial, { until }] of lines) if (until < now) lines.delete(serial);
    }
    while (lines.size > capacity) {
      const [oldest] = lines.keys();
      if (oldest === undefined) return;
      lines.delete(oldest);
    }
  };
  return {
    note: ({ serial, notAfter }, { serial: shown, spkiSha256 }, now) => {
      if (serial === shown || lines.has(serial)) return;
      const before = lines.get(shown);
      const length = (before?.length ?? 0) + 1;
      // Whoever serves the line bounds how fast it grows: a line this long took days, and months when nobody hurried.
      const kept = length > maxLength ? undefined : before;
      lines.set(serial, {
        ancestor: { serial: shown, spkiSha256 },
        origin: before?.origin ?? shown,
        before: kept,
        length: kept === undefined ? 1 : length,
        until: notAfter,
      });
      drop(now);
    },
    of: function* (serial) {
      for (let link: Link | undefined = lines.get(serial); link !== undefined; link = link.before)
        yield link.ancestor;
    },
    originOf: (serial) => lines.get(serial)?.origin ?? serial,
    size: () => lines.size,
  };
}

type Link = {
  readonly ancestor: Ancestor;
  readonly origin: string;
  readonly before: Link | undefined;
  readonly length: number;
};

const sweepMs = 60_000;
const maxLength = 16_384;
