import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { mkdtempSync, rmSync } from 'node:fs';
import { randomBytes } from 'node:crypto';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { AuditEvent } from '../../src/audit/event.ts';
import { auditEventTypes, parseAuditQuery, type AuditQueryFields } from '../../src/audit/question.ts';
import type { AuditQuery } from '../../src/audit/query.ts';
import { planWalks } from '../../src/store/audit-plan.ts';
import { readAuditPage } from '../../src/store/audit-query.ts';
import { columnsNeeded, walkSql } from '../../src/store/audit-walk.ts';
import { openForReading } from '../../src/store/database.ts';
import { openStore, type Store } from '../../src/store/store.ts';
import { decision, noon, oneOfEach } from '../audit/events.ts';
import { newDirectory, openTestStore, standingClock } from './directories.ts';
import { events, naiveRows, queries } from './question-log.ts';

let dataDir: string;
let store: Store;
beforeAll(async () => {
  dataDir = mkdtempSync(join(tmpdir(), 'countersign-query-'));
  store = await openStore({ dataDir, clock: standingClock, randomBytes });
  for (let at = 0; at < events.length; at += 250) await store.recordEvents(events.slice(at, at + 250));
});
afterAll(async () => {
  await store.close();
  rmSync(dataDir, { recursive: true });
});

describe('a question', () => {
  test('finds what a look at all events finds, page by page, however small the steps are', () => {
    const db = openForReading(dataDir);
    fc.assert(
      fc.property(queries, fc.constantFrom(1, 40, 100_000), (query, step) => {
        const expected = naive(query);
        const found: number[] = [];
        let cursor: string | null = null;
        do {
          const page = readAuditPage(db, { ...query, cursor }, { ms: Infinity, events: step * 37 });
          expect(page.size).toBe(events.length);
          expect(page.rows.length).toBeLessThanOrEqual(query.limit);
          found.push(...page.rows.map(({ index }) => index));
          cursor = page.next;
        } while (cursor !== null && found.length < 40);
        expect(found).toEqual(cursor === null ? expected : expected.slice(0, found.length));
      }),
      { numRuns: 300 },
    );
    db.close();
  });

  test('is answered along an index, whatever it asks', () => {
    const db = openForReading(dataDir);
    fc.assert(
      fc.property(queries, (query) => {
        const walks = planWalks(db, query, { first: 5, last: 2_500 });
        const needed = columnsNeeded(query, [], walks);
        const isWhole = walks.length === 1 && walks[0]!.types.size === auditEventTypes.length;
        for (const walk of walks) {
          const plan = db
            .prepare(`EXPLAIN QUERY PLAN ${walkSql(walk, needed, query.order)}`)
            .all(...walk.values, 5, 2_500)
            .map((row) => (row as { detail: string }).detail)
            // What another index tells of the event, by one seek in it.
            .filter((detail) => !seekOfOther.test(detail));
          // A search by equality and range of the index; what is joined is found by its index; nothing is sorted.
          expect(plan.join('; ')).toMatch(
            isWhole
              ? /^SEARCH l USING INTEGER PRIMARY KEY \(rowid>\? AND rowid<\?\)$/
              : /^(SEARCH l USING (COVERING )?INDEX \w+ \(\w+=\? AND rowid>\? AND rowid<\?\)|SEARCH f USING PRIMARY KEY \(field=\? AND value=\? AND idx>\? AND idx<\?\); SEARCH l USING INTEGER PRIMARY KEY \(rowid=\?\)|SCAN audit_words VIRTUAL TABLE INDEX \d+:M1><; SEARCH l USING INTEGER PRIMARY KEY \(rowid=\?\)|.*SEARCH d USING PRIMARY KEY \(span=\? AND id=\?.*)$/,
          );
        }
      }),
    );
    db.close();
  });

  test('with a relative time keeps its window while pages are turned', async () => {
    const fields: AuditQueryFields = { since: '60m', types: ['issuance'], limit: 10 };
    const expected = naive(parseAuditQuery(fields, noon));
    const found: number[] = [];
    let cursor: string | undefined;
    for (let turn = 0; turn === 0 || cursor !== undefined; turn++) {
      const later = new Date(noon.getTime() + turn * 600_000);
      const page = await store.queryAudit(parseAuditQuery({ ...fields, cursor }, later));
      found.push(...page.rows.map(({ index }) => index));
      cursor = page.next ?? undefined;
    }
    expect(found).toEqual(expected);
    expect(found.length).toBeGreaterThan(50);
  });
});

const seekOfOther =
  /^SEARCH o EXISTS USING (PRIMARY KEY \(field=\? AND value=\? AND idx=\?\)|COVERING INDEX \w+ \(\w+=\? AND rowid=\?\))$/;

describe('pages turned while events are appended', () => {
  test.each(['newest', 'oldest'] as const)('hold each event once, %s first', async (order) => {
    const growing = await openTestStore();
    await growing.recordEvents(Array.from({ length: 300 }, () => decision()));
    let appending = true;
    const appended = (async () => {
      for (let i = 0; i < 100 && appending; i++) await growing.recordEvents([decision(), decision()]);
    })();
    const found: number[] = [];
    let cursor: string | null = null;
    do {
      const page = await growing.queryAudit({ ...parseAuditQuery({ order, limit: 17 }, noon), cursor });
      expect(page.size).toBeGreaterThanOrEqual(300);
      found.push(...page.rows.map(({ index }) => index));
      cursor = page.next;
    } while (cursor !== null);
    appending = false;
    await appended;
    const ascending = order === 'oldest' ? found : found.toReversed();
    expect(ascending).toEqual(ascending.map((_, at) => at));
    expect(found.length).toBeGreaterThanOrEqual(300);
  });
});

test('a page of very long leaves ends early and goes on', async () => {
  const long = await openTestStore(newDirectory());
  const change = { ...oneOfEach[3]!, document: 'x'.repeat(40_000) } as AuditEvent;
  await long.recordEvents(Array.from({ length: 250 }, () => change));
  const query = parseAuditQuery({ limit: 1_000 }, noon);
  const first = await long.queryAudit(query);
  expect(first.rows.length).toBeLessThan(250);
  const second = await long.queryAudit({ ...query, cursor: first.next });
  expect(first.rows.length + second.rows.length).toBe(250);
  expect(second.next).toBeNull();
});

function naive(query: AuditQuery): readonly number[] {
  const indexes = naiveRows(query).map(({ at }) => at);
  return query.order === 'oldest' ? indexes : indexes.reverse();
}
