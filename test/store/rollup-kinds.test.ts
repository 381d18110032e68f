import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type CountQueryFields, parseCountQuery } from '../../src/audit/count-question.ts';
import type { AuditEvent } from '../../src/audit/event.ts';
import { readAuditCounts } from '../../src/store/audit-count.ts';
import { openDeriver } from '../../src/store/audit-derived.ts';
import { type Database, openForReading, openForWriting } from '../../src/store/database.ts';
import { leafRecord } from '../../src/store/leaf-record.ts';
import type { KindBounds } from '../../src/store/rollup-kinds.ts';
import { allowedCalls, decision, issuance, noon } from '../audit/events.ts';

let dir: string;
let db: Database;
beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), 'countersign-kinds-'));
  db = openForWriting(join(dir, 'data'), noon);
});
afterAll(() => {
  db.close();
  rmSync(dir, { recursive: true });
});

const wide: KindBounds = { all: 1_000, ofDestination: 1_000, ofDay: 1_000 };
const id = (name: string) => `spiffe://example.org/ns/shop/sa/${name}`;
const calls = (from: number, to: number, destination: string, more: object = {}) =>
  Array.from({ length: to - from }, (_, at) =>
    allowedCalls({ source: id(`caller-${from + at}`), destination: id(destination), count: 2, ...more }),
  );
const claims = (many: number) =>
  Array.from({ length: many }, (_, at) =>
    decision({ verdict: 'deny', reason: 'destination_forged', destination: `claim ${at}`, source: '' }),
  );

/** Counts events as if they had been appended, so many in a transaction. */
function derive(events: readonly AuditEvent[], bounds: Partial<KindBounds>, together = 7): void {
  db.exec(
    'DELETE FROM audit_facts; DELETE FROM audit_words; DELETE FROM audit_rollup; DELETE FROM audit_rollup_keys',
  );
  db.exec('UPDATE audit_derived SET size = 0');
  let deriver = openDeriver(db, 0, { ...wide, ...bounds });
  for (let at = 0; at < events.length; at += together) {
    for (const [n, event] of events.slice(at, at + together).entries())
      deriver.take(
        at + n,
        leafRecord(event, (bytes) => new Uint8Array(bytes)),
      );
    deriver.finish();
    // Whatever is remembered between two commits is in the tables as well.
    if (at % 2 === 0) deriver = openDeriver(db, 0, { ...wide, ...bounds });
  }
}

const ask = (fields: CountQueryFields) => {
  // A handle of its own: kinds never change under one that has read them.
  const reader = openForReading(join(dir, 'data'));
  const { groups, coverage } = readAuditCounts(reader, parseCountQuery(fields, noon));
  reader.close();
  const counts = groups.map(({ values, count }) => [
    ...values.map((value) => value?.split('/').at(-1) ?? null),
    count,
  ]);
  return { counts: counts.sort((a, b) => (`${a[0]}` < `${b[0]}` ? -1 : 1)), folded: coverage.folded.count };
};

describe('of one destination with too many callers', () => {
  const events = [...calls(0, 20, 'orders'), ...calls(0, 3, 'ledger'), ...claims(10)];
  test.each<[string, CountQueryFields, (string | number)[][], number]>([
    [
      'others are told apart as before',
      { by: ['source'], destination: id('ledger') },
      [0, 1, 2].map((n) => [`caller-${n}`, 2]),
      6,
    ],
    [
      'those beyond are one, and the answer says so',
      { by: ['source'], destination: id('orders') },
      [['*', 32], ...[0, 1, 2, 3].map((n) => [`caller-${n}`, 2])],
      38,
    ],
    [
      'the sum by destination is right, what strangers claim apart',
      { by: ['destination'] },
      [['*', 6], ...[0, 1, 2, 3].map((n) => [`claim ${n}`, 1]), ['ledger', 6], ['orders', 40]],
      6,
    ],
    ['a caller that is told apart has its count', { by: [], source: id('caller-1') }, [[4]], 38],
    ['one that is not is in no group, and the answer says so', { by: [], source: id('caller-9') }, [], 38],
    [
      'a question about something else is whole',
      { by: ['verdict'] },
      [
        ['allow', 46],
        ['deny', 10],
      ],
      0,
    ],
    [
      'so is one that leaves them out otherwise',
      { by: ['source'], verdict: 'allow', destination: id('ledger'), where: ['reason=allow_rule'] },
      [0, 1, 2].map((n) => [`caller-${n}`, 2]),
      0,
    ],
  ])('%s', (_, fields, counts, folded) => {
    derive(events, { ofDestination: 4 });
    expect(ask(fields)).toEqual({ counts, folded });
  });
});

test('kinds beyond those of a day are one, and those of the day go on', () => {
  derive([...calls(0, 5, 'orders'), ...calls(0, 9, 'ledger'), ...calls(0, 5, 'orders')], { ofDay: 6 });
  expect(ask({ by: ['destination'] })).toEqual({
    counts: [
      ['*', 16],
      ['ledger', 2],
      ['orders', 20],
    ],
    folded: 16,
  });
  const nextDay = new Date(noon.getTime() + 86_400_000);
  derive([...calls(0, 9, 'orders'), ...calls(0, 9, 'orders', { time: nextDay, to: nextDay })], { ofDay: 6 });
  expect(ask({ by: ['destination'] })).toEqual({
    counts: [
      ['*', 12],
      ['orders', 24],
    ],
    folded: 12,
  });
});

test('no kinds of what is not about calls are counted together', () => {
  const issued = Array.from({ length: 9 }, (_, at) =>
    issuance({ spiffeId: id(`own-${at}`), serial: `0${at}` }),
  );
  derive([...calls(0, 9, 'orders'), ...issued], { all: 4, ofDestination: 2, ofDay: 1 });
  expect(ask({ by: ['source'], types: ['issuance'] }).counts).toHaveLength(9);
});

test('whatever is made up, nothing is missing from a sum, and kinds are few', () => {
  const call = fc.record({
    source: fc.nat(40).map((n) => id(`caller-${n}`)),
    destination: fc.nat(5).map((n) => id(`service-${n}`)),
    rule: fc.nat(9).map((n) => `shop/orders rule[${n}]`),
    time: fc.nat(3).map((days) => new Date(noon.getTime() - days * 86_400_000)),
  });
  const bounds = fc.record({ all: fc.nat(30), ofDestination: fc.nat(9), ofDay: fc.nat(20) });
  fc.assert(
    fc.property(
      fc.array(call, { maxLength: 80 }),
      bounds,
      fc.integer({ min: 1, max: 30 }),
      (made, most, n) => {
        derive(
          made.map((one) => allowedCalls({ ...one, to: one.time, count: 1 })),
          most,
          n,
        );
        for (const by of [[], ['source', 'rule'], ['destination', 'day']])
          expect(ask({ by }).counts.reduce((sum, row) => sum + Number(row.at(-1)), 0)).toBe(made.length);
        const kinds = Number(db.prepare('SELECT count(*) FROM audit_rollup_keys').pluck().get());
        // One more for each of the destinations, and one for all.
        expect(kinds).toBeLessThanOrEqual(most.all + 7);
        const ofDay = db.prepare(
          'SELECT max(n) FROM (SELECT count(*) n FROM audit_rollup WHERE level = 1 GROUP BY start)',
        );
        expect(Number(ofDay.pluck().get() ?? 0)).toBeLessThanOrEqual(most.ofDay + 7);
      },
    ),
    { numRuns: 60 },
  );
});

test('many kinds are read in steps, by more questions at once than are remembered', () => {
  derive(
    [...calls(0, 5_000, 'orders'), ...claims(20)],
    { all: 9_999, ofDestination: 9_999, ofDay: 9_999 },
    1_000,
  );
  const reader = openForReading(join(dir, 'data'));
  const asked = ['source', 'destination', 'verdict', 'rule', 'reason', 'protocol'].map((field) => ({
    query: parseCountQuery({ by: [field] }, noon),
    steps: 0,
    count: 0,
  }));
  let left = asked;
  // Without a budget a step does the least that it may.
  for (let round = 0; left.length > 0 && round < 100; round++) {
    for (const one of left) {
      const page = readAuditCounts(reader, one.query, { ms: 0, events: 100 });
      one.steps += 1;
      one.count += page.groups.reduce((sum, { count }) => sum + count, 0);
      one.query = { ...one.query, cursor: page.next };
    }
    left = left.filter(({ query }) => query.cursor !== null);
  }
  reader.close();
  expect(asked.map(({ count }) => count)).toEqual(asked.map(() => 10_020));
  expect(Math.max(...asked.map(({ steps }) => steps))).toBeGreaterThan(3);
});
