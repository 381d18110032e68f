import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { mkdtempSync, rmSync } from 'node:fs';
import { randomBytes } from 'node:crypto';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { auditColumns } from '../../src/audit/columns.ts';
import type { AuditEvent } from '../../src/audit/event.ts';
import { auditEventTypes, parseAuditQuery, type AuditQueryFields } from '../../src/audit/question.ts';
import type { AuditQuery, AuditRow } from '../../src/audit/query.ts';
import { planSearches } from '../../src/store/audit-query.ts';
import { openForReading } from '../../src/store/database.ts';
import { openStore, type Store } from '../../src/store/store.ts';
import { allowedCalls, decision, issuance, noon, oneOfEach } from '../audit/events.ts';
import { newDirectory, openTestStore, standingClock } from './directories.ts';

const ids = ['web', 'orders', 'ledger'].map((name) => `spiffe://example.org/ns/shop/sa/${name}`);

// 3,000 events whose times wander back and forth over 100 minutes, so that several blocks overlap in time.
const events: readonly AuditEvent[] = Array.from({ length: 3_000 }, (_, i) => {
  const time = new Date(noon.getTime() - 6_000_000 + i * 2_000 + ((i * 7_919) % 601) * 1_000);
  const [source, destination] = [ids[i % 3]!, ids[(i >> 2) % 3]!];
  if (i % 10 === 0) return issuance({ time, spiffeId: source, serial: i.toString(16).padStart(8, '0') });
  if (i % 10 === 1) return { ...oneOfEach[((i / 10) % 9) | 0]!, time, serial: `ff${i}` } as AuditEvent;
  if (i % 10 === 2) return allowedCalls({ time, source, destination, sourceSerial: (i - 2).toString(16) });
  return decision({
    time,
    source: i % 7 === 0 ? '' : source,
    destination,
    verdict: i % 13 === 0 ? 'deny' : 'allow',
    sourceSerial: (i - (i % 10)).toString(16).padStart(8, '0'),
  });
});

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

const times = fc.option(
  fc.integer({ min: -110, max: 20 }).map((minutes) => new Date(noon.getTime() + minutes * 60_000)),
);
const queries: fc.Arbitrary<AuditQuery> = fc.record({
  types: fc.subarray([...auditEventTypes]),
  since: times,
  until: times,
  source: fc.option(fc.constantFrom(...ids, 'spiffe://example.org/none')),
  destination: fc.option(fc.constantFrom(...ids)),
  verdict: fc.option(fc.constantFrom('allow' as const, 'deny' as const)),
  serial: fc.option(fc.constantFrom('00000000', '00000064', 'dead'), { freq: 1 }),
  limit: fc.constantFrom(1, 7, 100, 1_000),
  order: fc.constantFrom('newest' as const, 'oldest' as const),
  cursor: fc.constant(null),
});

describe('a question', () => {
  test('finds what a walk through all events finds, page by page', async () => {
    await fc.assert(
      fc.asyncProperty(queries, async (query) => {
        const expected = naive(query);
        const found: AuditRow[] = [];
        let cursor: string | null = null;
        do {
          const page = await store.queryAudit({ ...query, cursor });
          expect(page.size).toBe(events.length);
          expect(page.rows.length).toBeLessThanOrEqual(query.limit);
          found.push(...page.rows);
          cursor = page.next;
        } while (cursor !== null && found.length < 40);
        expect(found.map(({ index }) => index)).toEqual(
          cursor === null ? expected : expected.slice(0, found.length),
        );
      }),
      { numRuns: 120 },
    );
  });

  test('is answered along an index, whatever it asks', () => {
    const db = openForReading(dataDir);
    fc.assert(
      fc.property(queries, (query) => {
        for (const { sql, values } of planSearches(query, { first: 5, last: 2_500 })) {
          const plan = db
            .prepare(`EXPLAIN QUERY PLAN ${sql}`)
            .all(...values)
            .map((row) => (row as { detail: string }).detail)
            .join('; ');
          expect(plan).toMatch(/^SEARCH audit_leaves USING [^;]*rowid>\? AND rowid<\?\)$/);
          const filtered =
            query.types.length +
              [query.source, query.destination, query.verdict, query.serial].filter(Boolean).length >
            0;
          expect(/USING (COVERING )?INDEX audit_/.test(plan)).toBe(filtered);
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
  const indexes = events.flatMap((event, index) => {
    const columns = auditColumns(event);
    const holds =
      (query.types.length === 0 || query.types.includes(columns.type)) &&
      (query.since === null || event.time >= query.since) &&
      (query.until === null || event.time < query.until) &&
      (query.source === null || columns.source === query.source) &&
      (query.destination === null || columns.destination === query.destination) &&
      (query.verdict === null || columns.verdict === query.verdict) &&
      (query.serial === null || columns.serial === query.serial);
    return holds ? [index] : [];
  });
  return query.order === 'oldest' ? indexes : indexes.reverse();
}
