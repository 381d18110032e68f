import { callTypes } from '../audit/columns.ts';
import { factFields } from '../audit/asked-fields.ts';
import { hourMs, textsAt } from '../audit/filter.ts';
import { eventOfLeaf, rollupOf } from '../audit/rollup.ts';
import { leafWords, textsBarrier } from '../audit/words.ts';
import { type Database, inTransaction } from './database.ts';
import type { LeafRecord } from './protocol.ts';
import { type KindBounds, openKinds } from './rollup-kinds.ts';

/** Derives from leaves what questions are answered from: facts, words and counts. All within the caller's transaction. */
export type Deriver = {
  /** Remembers a leaf until {@link Deriver.finish}. */
  readonly take: (idx: number, record: DerivedLeaf) => void;
  /** Writes what is derived from the leaves that were taken. Once in a transaction: it costs as much for few as for many. */
  readonly finish: () => void;
  readonly taken: () => number;
  /** Forgets what was taken beyond a number, and what a transaction that was rolled back has written. */
  readonly rewind: (taken: number) => void;
};

/** What is needed of a leaf. */
export type DerivedLeaf = Pick<LeafRecord, 'leaf' | 'rollup'> & {
  readonly columns: Pick<LeafRecord['columns'], 'type' | 'timeMs' | 'source'>;
};

/** Facts about longer values are of their beginnings. */
export const maxFactLength = 200;

/** The number of a field in `audit_facts`, or undefined when no facts are kept of it. */
export function factNumber(field: string): number | undefined {
  const at = factFields.findIndex((known) => known === field);
  return at === -1 ? undefined : at;
}

/**
 * Prepares to derive, for the one writer. What an earlier release has not derived is derived now, some leaves at a time.
 * @param bounds of the kinds that counts are kept by
 */
export function openDeriver(db: Database, size: number, bounds?: KindBounds): Deriver {
  const deriver = createDeriver(db, bounds);
  const derived = Number(db.prepare('SELECT size FROM audit_derived').pluck().get());
  for (let at = derived; at < size; at += leavesOfStep) {
    inTransaction(db, () => {
      for (const [idx, record] of storedLeaves(db, at, Math.min(size, at + leavesOfStep)))
        deriver.take(idx, record);
      deriver.finish();
    });
  }
  return deriver;
}

function createDeriver(db: Database, bounds: KindBounds | undefined): Deriver {
  const insertFact = db.prepare('INSERT OR IGNORE INTO audit_facts (field, value, idx) VALUES (?, ?, ?)');
  const insertWords = db.prepare('INSERT INTO audit_words (rowid, words) VALUES (?, ?)');
  const setSize = db.prepare('UPDATE audit_derived SET size = ?');
  const addCounts = prepareCounts(db, bounds);
  const taken: { readonly idx: number; readonly record: DerivedLeaf }[] = [];
  /** Whether what was taken last is in the tables, so far as its transaction is. */
  let isWritten = false;

  function deriveRare(idx: number, { leaf, columns }: DerivedLeaf): void {
    const event: unknown = JSON.parse(decoder.decode(leaf));
    for (const [number, value] of factsOf(event, columns.source)) insertFact.run(number, value, idx);
    insertWords.run(idx, leafWords(event).join(textsBarrier));
  }

  return {
    take: (idx, record) => {
      if (taken.length === 0) isWritten = false;
      taken.push({ idx, record });
    },
    finish: () => {
      const last = taken.at(-1);
      if (last === undefined) return;
      isWritten = true;
      for (const { idx, record } of taken) if (!callTypes.has(record.columns.type)) deriveRare(idx, record);
      addCounts.add(taken);
      setSize.run(last.idx + 1);
      taken.length = 0;
    },
    taken: () => taken.length,
    rewind: (count) => {
      taken.length = Math.min(taken.length, count);
      if (isWritten) addCounts.forget();
    },
  };
}

/** Takes away what was derived from leaves that go, other than counts. Within the caller's transaction. */
export function forgetDerived(db: Database, leaves: Iterable<StoredLeaf>): void {
  const deleteFact = db.prepare('DELETE FROM audit_facts WHERE field = ? AND value = ? AND idx = ?');
  const deleteWords = db.prepare('DELETE FROM audit_words WHERE rowid = ?');
  for (const { idx, leaf, type, source } of leaves) {
    if (callTypes.has(type)) continue;
    for (const [number, value] of factsOf(JSON.parse(decoder.decode(leaf)), source))
      deleteFact.run(number, value, idx);
    deleteWords.run(idx);
  }
}

/** A leaf as it is stored, as far as something is derived from it. */
export type StoredLeaf = {
  readonly idx: number;
  readonly leaf: Uint8Array;
  readonly type: LeafRecord['columns']['type'];
  readonly source: string | null;
};

function* factsOf(
  event: unknown,
  source: string | null,
): Generator<readonly [number: number, value: string]> {
  for (const { number, field, first } of facts) {
    if (field !== 'source' && !hasMember(event, first)) continue;
    const texts = field === 'source' ? [source ?? ''] : textsAt(event, field);
    for (const text of texts) if (text !== '') yield [number, factValue(text)];
  }
}

function hasMember(event: unknown, name: string): boolean {
  return typeof event === 'object' && event !== null && Object.hasOwn(event, name);
}

/** A value as it stands in `audit_facts`. */
export function factValue(text: string): string {
  return text.slice(0, maxFactLength).toWellFormed();
}

type Counts = {
  readonly key: number;
  readonly start: number;
  count: number;
  records: number;
  readonly firstIdx: number;
  lastIdx: number;
  firstMs: number;
  lastMs: number;
};

function prepareCounts(db: Database, bounds: KindBounds | undefined) {
  const upsert = db.prepare(
    `INSERT INTO audit_rollup (level, start, key, count, records, first_idx, last_idx, first_ms, last_ms)
     VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
     ON CONFLICT (level, start, key) DO UPDATE SET
       count = count + excluded.count, records = records + excluded.records,
       first_idx = min(first_idx, excluded.first_idx), last_idx = max(last_idx, excluded.last_idx),
       first_ms = min(first_ms, excluded.first_ms), last_ms = max(last_ms, excluded.last_ms)`,
  );
  const kinds = openKinds(db, bounds);

  return {
    add: (taken: readonly { readonly idx: number; readonly record: DerivedLeaf }[]): void => {
      const hours = new Map<string, Counts>();
      for (const { idx, record } of taken) {
        const { rollup, columns } = record;
        const start = Math.floor(columns.timeMs / hourMs);
        const key = kinds.numberOf(rollup, start);
        const place = `${start}/${key}`;
        const counts = hours.get(place);
        if (counts === undefined) {
          const at = { firstIdx: idx, lastIdx: idx, firstMs: columns.timeMs, lastMs: columns.timeMs };
          hours.set(place, { key, start, count: rollup.count, records: 1, ...at });
        } else {
          counts.count += rollup.count;
          counts.records++;
          counts.lastIdx = idx;
          counts.firstMs = Math.min(counts.firstMs, columns.timeMs);
          counts.lastMs = Math.max(counts.lastMs, columns.timeMs);
        }
      }
      for (const counts of hours.values()) {
        const { key, start, count, records, firstIdx, lastIdx, firstMs, lastMs } = counts;
        for (const [level, begin] of spansOf(start))
          upsert.run(level, begin, key, count, records, firstIdx, lastIdx, firstMs, lastMs);
      }
    },
    forget: kinds.forget,
  };
}

/** The spans that an hour is counted in: its own, its day, and all of the log. */
function spansOf(hour: number): readonly (readonly [level: number, start: number])[] {
  return [
    [0, hour],
    [1, Math.floor(hour / 24) * 24],
    [2, 0],
  ];
}

function* storedLeaves(db: Database, begin: number, end: number): Generator<[number, DerivedLeaf]> {
  type Row = {
    idx: number;
    leaf: Uint8Array;
    type: LeafRecord['columns']['type'];
    timeMs: number;
    source: string | null;
  };
  const rows = db
    .prepare<[number, number], Row>(
      'SELECT idx, leaf, type, time_ms AS timeMs, source FROM audit_leaves WHERE idx >= ? AND idx < ? ORDER BY idx',
    )
    .all(begin, end);
  for (const { idx, leaf, type, timeMs, source } of rows) {
    const rollup = rollupOf(eventOfLeaf(JSON.parse(decoder.decode(leaf))));
    yield [idx, { leaf, rollup, columns: { type, timeMs, source } }];
  }
}

/** Of most of them an event has none. */
const facts = factFields.map((field, number) => ({ number, field, first: field.split('.', 1)[0] ?? '' }));
const decoder = new TextDecoder();
const leavesOfStep = 8_192;
