import { MeshError } from '../errors.ts';
import { type Announcement, readAnnouncement, spanEntries, typeOfLeaf } from './retention.ts';

/** What was proven of a log. */
export type LogCensus = {
  /** Entries whose contents are gone, as the log had announced: they are proven by their hashes alone. */
  readonly pruned: number;
  /** Where those are: spans of entries, both ends included, those side by side as one. */
  readonly prunedRanges: readonly {
    readonly first: number;
    readonly last: number;
    readonly entries: number;
  }[];
};

/** Holds what a log has lost against what it has announced, in memory that grows with spans and not with entries. */
export type Gaps = {
  readonly noteGone: (index: number) => void;
  /** Entries are noted in their order. */
  readonly noteEntry: (index: number, entry: Uint8Array) => void;
  /** @throws MeshError `audit_log_invalid` when more is gone of a span than was announced */
  readonly close: () => LogCensus;
};

/** @see spanEntries */
export function createGaps(): Gaps {
  // By the first entry of the span.
  const gone = new Map<number, number>();
  const announced = new Map<number, Announcement[]>();
  const left = new Map<number, Map<string, number>>();
  return {
    noteGone: (index) => {
      const first = index - (index % spanEntries);
      gone.set(first, (gone.get(first) ?? 0) + 1);
    },
    noteEntry: (index, entry) => {
      const span = index - (index % spanEntries);
      const types = left.get(span) ?? new Map<string, number>();
      const type = typeOfLeaf(entry);
      left.set(span, types.set(type, (types.get(type) ?? 0) + 1));
      const told = readAnnouncement(entry);
      if (told === undefined || told.first % spanEntries !== 0) return;
      // INVARIANT: of what stands before it; of a whole span, and of no more than that has.
      if (told.last !== told.first + spanEntries - 1 || told.last >= index) return;
      const known = announced.get(told.first) ?? [];
      // INVARIANT: once for each class. Whoever brings entries back and has them announced again has no more to take.
      if (known.every((one) => one.class !== told.class)) announced.set(told.first, [...known, told]);
    },
    close: () => {
      for (const [first, count] of gone) {
        const told = announced.get(first) ?? [];
        const known = told.reduce((sum, { entries }) => sum + entries, 0);
        const where = `of the entries ${first} to ${first + spanEntries - 1} the contents of ${count} are missing, and the log has announced ${known}`;
        if (count > known) throw invalidLog(where);
        // All of these types were announced: what is there of them cannot be among those that are gone.
        const types = new Set(told.flatMap((one) => one.types));
        let still = 0;
        for (const [type, entries] of left.get(first) ?? []) if (types.has(type)) still += entries;
        if (count + still > known)
          throw invalidLog(`${where}, of which ${still} are there: others were taken in their place`);
      }
      return censusOf(gone);
    },
  };
}

/** That a log is not what it should be. */
export function invalidLog(message: string): MeshError {
  return new MeshError('audit_log_invalid', message, {
    fix: 'keep it for the auditor, and compare it with an export or a backup',
  });
}

function censusOf(gone: ReadonlyMap<number, number>): LogCensus {
  const prunedRanges: { first: number; last: number; entries: number }[] = [];
  let pruned = 0;
  for (const [first, entries] of gone) {
    pruned += entries;
    const before = prunedRanges.at(-1);
    const last = first + spanEntries - 1;
    if (before?.last === first - 1) Object.assign(before, { last, entries: before.entries + entries });
    else prunedRanges.push({ first, last, entries });
  }
  return { pruned, prunedRanges };
}
