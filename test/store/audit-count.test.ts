import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type CountGroup, type CountQuery, mergeCounts } from '../../src/audit/count.ts';
import { parseCountQuery } from '../../src/audit/count-question.ts';
import { typesWith } from '../../src/audit/asked-fields.ts';
import { readAuditCounts } from '../../src/store/audit-count.ts';
import { forgetDerived, type StoredLeaf } from '../../src/store/audit-derived.ts';
import { keptSql } from '../../src/store/audit-kept-counts.ts';
import { type Database, openForReading, openForWriting } from '../../src/store/database.ts';
import { openStore } from '../../src/store/store.ts';
import { createBatchWriter } from '../../src/store/writer.ts';
import { allowedCalls, noon } from '../audit/events.ts';
import { openTestStore, standingClock } from './directories.ts';
import { events, naiveRows, queries, someFields, textsOf } from './question-log.ts';

let dataDir: string;
let db: Database;
beforeAll(async () => {
  dataDir = mkdtempSync(join(tmpdir(), 'countersign-count-'));
  const store = await openStore({ dataDir, clock: standingClock, randomBytes });
  for (let at = 0; at < events.length; at += 250) await store.recordEvents(events.slice(at, at + 250));
  await store.close();
  db = openForWriting(dataDir, noon);
});
afterAll(() => {
  db.close();
  rmSync(dataDir, { recursive: true });
});

const keptFields = ['type', 'source', 'destination', 'verdict', 'outcome', 'hour', 'day'] as const;
const questions: fc.Arbitrary<CountQuery> = fc
  .tuple(
    queries,
    fc.uniqueArray(fc.oneof(fc.constantFrom(...keptFields), fc.constantFrom(...someFields)), {
      maxLength: 3,
    }),
    fc.boolean(),
  )
  .map(([{ limit: _limit, order: _order, cursor: _cursor, ...filters }, by, isPlain]) => ({
    // Half of them without what no count is kept of.
    filters: isPlain ? { ...filters, serial: null, text: null, where: [] } : filters,
    by,
    cursor: null,
  }));

describe('counts', () => {
  test('are those of a look at all events, however small the steps are', () => {
    let kept = 0;
    fc.assert(
      fc.property(questions, fc.constantFrom(50, 1_000, 100_000), (query, step) => {
        const pages: (readonly CountGroup[])[] = [];
        let cursor: string | null = null;
        do {
          const page = readAuditCounts(db, { ...query, cursor }, { ms: 1_000, events: step });
          if (cursor === null && page.next === null && page.searched === null) kept++;
          pages.push(page.groups);
          expect(page.beyond).toEqual({ count: 0, records: 0 });
          cursor = page.next;
        } while (cursor !== null);
        expect(sorted(mergeCounts(pages))).toEqual(sorted(naiveCounts(query)));
      }),
      { numRuns: 300 },
    );
    expect(kept).toBeGreaterThan(20);
  });

  test.each([false, true])('that are kept are found by their spans (by time: %j)', (isByTime) => {
    const plan = db.prepare(`EXPLAIN QUERY PLAN ${keptSql(isByTime)}`).all(0, 1, 2);
    expect((plan[0] as { detail: string }).detail).toBe(
      'SEARCH audit_rollup USING PRIMARY KEY (level=? AND start>? AND start<?)',
    );
  });

  test('of an older log are made when it is opened, in steps, and are the same', () => {
    const tables = ['audit_facts', 'audit_rollup', 'audit_rollup_keys', 'audit_derived'];
    const dump = () => tables.map((table) => db.prepare(`SELECT * FROM ${table}`).all());
    const words = () =>
      ['shop', 'web', '"no entry matches"', '0123456789abcdef'].map((text) =>
        db
          .prepare('SELECT rowid FROM audit_words WHERE audit_words MATCH ? ORDER BY rowid')
          .pluck()
          .all(text),
      );
    const [before, wordsBefore] = [dump(), words()];
    expect(wordsBefore.every((found) => found.length > 0)).toBe(true);
    db.exec(
      `DELETE FROM audit_facts; DELETE FROM audit_words; DELETE FROM audit_rollup; DELETE FROM audit_rollup_keys;
       UPDATE audit_derived SET size = 0`,
    );
    createBatchWriter(db);
    expect(dump()).toEqual(before);
    expect(words()).toEqual(wordsBefore);
  });

  test('stay when leaves go, and facts and words of them do not', () => {
    const before = db.prepare('SELECT * FROM audit_rollup').all();
    db.exec('BEGIN');
    forgetDerived(db, db.prepare<[], StoredLeaf>('SELECT idx, leaf, type, source FROM audit_leaves').all());
    expect(db.prepare('SELECT count(*) FROM audit_facts').pluck().get()).toBe(0);
    expect(
      db.prepare("SELECT count(*) FROM audit_words WHERE audit_words MATCH 'shop OR web'").pluck().get(),
    ).toBe(0);
    expect(db.prepare('SELECT * FROM audit_rollup').all()).toEqual(before);
    db.exec('ROLLBACK');
  });

  test('of what was refused are not kept', async () => {
    const store = await openTestStore();
    const calls = [allowedCalls({ count: 5 })];
    const token = { id: 'a', grants: [], label: '', secretSha256: 'x', createdAt: noon, expiresAt: noon };
    const made = (events_: typeof calls) => store.createToken(token, events_);
    await made(calls);
    await Promise.allSettled([made(calls), store.recordEvents(calls), made(calls)]);
    const { groups } = await store.countAudit(parseCountQuery({ by: ['type'] }, noon));
    expect(groups).toMatchObject([
      { values: ['allowed_calls'], count: 10, records: 2, firstIndex: 0, lastIndex: 1 },
    ]);
  });
});

function naiveCounts({ filters, by }: CountQuery): readonly CountGroup[] {
  const counted = naiveRows(filters).filter(
    ({ columns }) => by.length === 0 || by.some((field) => typesWith(field).includes(columns.type)),
  );
  return mergeCounts([
    counted.map((row) => {
      const time = new Date(row.columns.timeMs);
      return {
        values: by.map((field) => {
          const texts = textsOf(row, field);
          return texts.length === 0 ? null : texts.join(', ');
        }),
        count: typeof row.leaf['count'] === 'number' ? row.leaf['count'] : 1,
        records: 1,
        firstIndex: row.at,
        lastIndex: row.at,
        first: time,
        last: time,
      };
    }),
  ]);
}

function sorted(groups: readonly CountGroup[]): readonly CountGroup[] {
  const keyed = groups.map((group) => [JSON.stringify(group.values), group] as const);
  return keyed.sort(([a], [b]) => (a < b ? -1 : 1)).map(([, group]) => group);
}

// The log is asked through a handle that only reads, too.
test('a reader counts', () => {
  const reader = openForReading(dataDir);
  const query = parseCountQuery({ by: ['verdict'], types: ['decision'] }, noon);
  expect(readAuditCounts(reader, query).groups).toHaveLength(2);
  reader.close();
});
