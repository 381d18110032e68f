import { hash } from 'node:crypto';
import type { AuditEventType } from './event.ts';
import type { AuditRow } from './query.ts';

/** What a sample is drawn from, and what is told of it besides. */
export type SampleQuestion = {
  /** Together what is drawn from. No record is in two of them. */
  readonly populations: readonly Population[];
  readonly since: Date | null;
  readonly until: Date | null;
  /** See {@link isSeed}. */
  readonly seed: string;
  /** How many records are drawn. */
  readonly size: number;
  /** Records of the populations that meet one of these are told of, drawn or not. */
  readonly marks: readonly SampleMark[];
  /** The most of those. */
  readonly maxMarked: number;
  /** Beyond so many records it is not counted on. */
  readonly maxRecords: number;
};

/** Records of some types, none of them about calls. */
export type Population = {
  readonly types: readonly AuditEventType[];
  /** Those with this action; null: all. */
  readonly action: string | null;
};

/** A condition on a field of records of some types: a text, any text that is not empty, or a whole number above another. */
export type SampleMark = {
  readonly types: readonly AuditEventType[];
  readonly field: string;
  readonly is: { readonly text: string } | { readonly above: number } | 'present';
};

/** Records that agree in type and action, which is empty where they have none. */
export type SampleKind = {
  readonly type: AuditEventType;
  readonly action: string;
  readonly records: number;
  readonly firstIndex: number;
  readonly lastIndex: number;
};

export type Sample = {
  /** Whether all was looked at. A sample of a part must not be taken for one of the whole. */
  readonly end: 'whole' | 'too_many' | 'time_up';
  readonly records: number;
  readonly kinds: readonly SampleKind[];
  /** By rank, the lowest first. */
  readonly drawn: readonly AuditRow[];
  /** The newest first, of each population. */
  readonly marked: readonly AuditRow[];
};

/** A step through one population, from the newest record on. */
export type SampleQuery = Population &
  Pick<SampleQuestion, 'since' | 'until' | 'seed' | 'size' | 'marks' | 'maxMarked'> & {
    /** Only entries below this index; null: all of the log. */
    readonly below: number | null;
    /** Of the drawn, only those of lower ranks are needed; null: all. */
    readonly bar: string | null;
  };

export type SampleStep = Pick<Sample, 'kinds' | 'drawn' | 'marked'> & {
  /** Entries of the log. */
  readonly size: number;
  /** The `below` of the step after this one; null at the end. */
  readonly next: number | null;
};

/** Takes one short step. */
export type ReadSample = (query: SampleQuery) => Promise<SampleStep>;

/** Whether a text can be a seed: 1 to 64 of `A-Za-z0-9._-`. */
export function isSeed(text: string): boolean {
  return /^[A-Za-z0-9._-]{1,64}$/.test(text);
}

/**
 * Where an entry stands in the order that a seed puts entries in: lower-case hex of SHA-256 of `<seed>:<index>`, the index
 * in decimal. A sample of n is the n entries of a population whose ranks are the lowest. Whoever has the
 * seed and the indexes draws it again; who made the entries could not know the seed.
 */
export function sampleRank(seed: string, index: number): string {
  return hash('sha256', `${seed}:${index}`, 'hex');
}

/** Keeps the entries of the lowest ranks while a population goes by. Memory is that of the sample. */
export function createSample<T extends { readonly index: number }>(seed: string, size: number) {
  let kept: { readonly rank: string; readonly item: T }[] = [];
  const lowest = (): typeof kept => kept.toSorted((a, b) => (a.rank < b.rank ? -1 : 1)).slice(0, size);
  return {
    /** Each entry once. */
    take: (item: T): void => {
      kept.push({ rank: sampleRank(seed, item.index), item });
      if (kept.length >= 2 * size + 64) kept = lowest();
    },
    /** By rank, the lowest first. */
    drawn: (): readonly T[] => lowest().map(({ item }) => item),
    /** The rank below which an entry has to be to come in; null: any comes in. */
    bar: (): string | null => lowest()[size - 1]?.rank ?? null,
  };
}

/**
 * Draws step by step, until all was looked at, there are too many records or the time is up. All populations are of the log
 * as the first step saw it: what comes later is in none.
 * @param isTimeUp asked after each step
 * @throws what `read` throws
 */
export async function collectSample(
  read: ReadSample,
  question: SampleQuestion,
  isTimeUp: () => boolean,
): Promise<Sample> {
  const { populations, maxRecords, maxMarked, seed, size, ...asked } = question;
  const drawing = createSample<AuditRow>(seed, size);
  const kinds = new Map<string, SampleKind>();
  const marked: AuditRow[] = [];
  let records = 0;
  let top: number | null = null;
  const sampleAt = (end: Sample['end']): Sample => ({
    end,
    records,
    kinds: [...kinds.values()],
    drawn: drawing.drawn(),
    marked,
  });
  for (const population of populations) {
    let below = top;
    do {
      const wanted = { bar: drawing.bar(), maxMarked: maxMarked - marked.length };
      const step = await read({ ...asked, ...population, seed, size, below, ...wanted });
      top ??= step.size;
      for (const row of step.drawn) drawing.take(row);
      for (const kind of step.kinds) {
        const key = JSON.stringify([kind.type, kind.action]);
        kinds.set(key, joined(kinds.get(key), kind));
        records += kind.records;
      }
      marked.push(...step.marked);
      below = step.next;
      if (records > maxRecords) return sampleAt('too_many');
      if (below !== null && isTimeUp()) return sampleAt('time_up');
    } while (below !== null);
  }
  return sampleAt('whole');
}

function joined(a: SampleKind | undefined, b: SampleKind): SampleKind {
  if (a === undefined) return b;
  return {
    ...b,
    records: a.records + b.records,
    firstIndex: Math.min(a.firstIndex, b.firstIndex),
    lastIndex: Math.max(a.lastIndex, b.lastIndex),
  };
}
