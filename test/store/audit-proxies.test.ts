import { afterAll, describe, expect, test } from 'vitest';
import { parseCountQuery } from '../../src/audit/count-question.ts';
import type { AuditEvent } from '../../src/audit/event.ts';
import type { AuditQueryFields } from '../../src/audit/question.ts';
import { parseAuditQuery } from '../../src/audit/question.ts';
import type { Log } from '../../src/log.ts';
import { createCoverageCompletion } from '../../src/up-proxy-coverage.ts';
import { decision, noon } from '../audit/events.ts';
import { proxyCoverage } from '../audit/proxy-events.ts';
import { openForWriting } from '../../src/store/database.ts';
import { readProxiesCovered } from '../../src/store/audit-proxies.ts';
import { createScope } from '../harness/scope.ts';
import { makeTempDir } from '../harness/temp.ts';
import { openTestStore, standingClock } from './directories.ts';

const scope = createScope();
afterAll(() => scope.close());

const ledger = proxyCoverage().destination;
const orders = 'spiffe://example.org/ns/shop/sa/orders';
const log = {} as Log;
const hourMs = 3_600_000;
const at = (hours: number) => new Date(noon.getTime() + hours * hourMs);

describe('what proxies counted', () => {
  /** One record an hour for three days: 100 calls at each of two services, of which one loses ten each day at noon. */
  async function threeDays() {
    const store = await openTestStore();
    const complete = createCoverageCompletion({ store, clock: standingClock, log });
    const events: AuditEvent[] = [];
    for (let hour = 0; hour < 72; hour++) {
      const span = { time: at(hour), to: at(hour), from: at(hour - 1), started: at(-100), count: 100 };
      const counted = (hour + 1) * 100;
      const missing = hour % 24 === 0 ? 10 : 0;
      events.push(
        ...(await complete([
          proxyCoverage({ ...span, counted, missing }),
          proxyCoverage({ ...span, counted, missing: 0, destination: orders }),
        ])),
      );
    }
    // At once: a disk that is busy is slow to keep each.
    await store.recordEvents(events);
    await store.recordEvents([decision({ time: at(72) })]);
    return store;
  }

  test('is told with answers about verdicts, of the hours that they touch and the service asked for', async () => {
    const store = await threeDays();
    const read = async (asked: AuditQueryFields) =>
      (await store.queryAudit(parseAuditQuery(asked, at(72)))).coverage.proxies;
    const count = async (asked: AuditQueryFields) => {
      const { filters } = parseCountQuery(asked, at(72));
      return (await store.countAudit({ filters, by: ['destination'], cursor: null })).coverage.proxies;
    };
    const until = (hours: number) => ({ until: at(hours).toISOString() });
    const since = (hours: number) => ({ since: at(hours).toISOString() });
    const rows: readonly [AuditQueryFields, object | null][] = [
      [{}, { counted: 14_400, missing: 30 }],
      [{ types: ['decision'] }, { counted: 14_400, missing: 30 }],
      [{ verdict: 'deny' }, { counted: 14_400, missing: 30 }],
      [{ destination: ledger }, { counted: 7_200, missing: 30 }],
      [{ destination: orders }, { counted: 7_200, missing: 0 }],
      [{ destination: 'spiffe://example.org/ns/a/sa/b' }, null],
      [
        { ...since(24), destination: ledger },
        { counted: 4_800, missing: 20 },
      ],
      [
        { ...since(24.5), destination: ledger },
        { counted: 4_800, missing: 20 },
      ],
      [
        { ...since(25), destination: ledger },
        { counted: 4_700, missing: 10 },
      ],
      [
        { ...until(24), destination: ledger },
        { counted: 2_400, missing: 10 },
      ],
      [
        { ...since(5), ...until(5.5), destination: ledger },
        { counted: 100, missing: 0 },
      ],
      [
        { ...since(5), ...until(60), destination: ledger },
        { counted: 5_500, missing: 20 },
      ],
      [since(71.9), { counted: 200, missing: 0 }],
      [{ ...since(-50), ...until(-49) }, null],
      // About no verdicts.
      [{ types: ['issuance'] }, null],
      [{ types: ['ban', 'outcome'] }, null],
      [{ where: ['policy=shop/orders'] }, null],
    ];
    for (const [asked, expected] of rows) {
      expect(await read(asked), JSON.stringify(asked)).toEqual(expected);
      expect(await count(asked), JSON.stringify(asked)).toEqual(expected);
    }
  });

  test('by more services than are looked at is never said to be told of whole', () => {
    const db = openForWriting(makeTempDir(scope), noon);
    scope.defer(() => db.close());
    const hour = Math.floor(noon.getTime() / hourMs);
    const add = (type: string, outcome: string, services: number): void => {
      const counted = `WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < ${services})`;
      db.exec(`INSERT INTO audit_rollup_keys (type, outcome, source, destination, reason, rule, protocol)
        ${counted} SELECT '${type}', '${outcome}', '', 'spiffe://example.org/s' || i, '', '', '' FROM n`);
    };
    add('proxy_coverage', 'counted', 5_000);
    add('loss', 'proxy_verdict', 1);
    db.exec(`INSERT INTO audit_rollup (level, start, key, count, records, first_idx, last_idx, first_ms, last_ms)
      SELECT spans.level, spans.start, id, 10, 1, 0, 0, 0, 0 FROM audit_rollup_keys,
        (SELECT 0 AS level, ${hour} AS start UNION ALL SELECT 2, 0) AS spans`);
    const ofHour = { since: noon.toISOString(), until: at(1).toISOString() };
    for (const asked of [{}, ofHour]) {
      const { filters } = parseCountQuery(asked, at(2));
      expect(readProxiesCovered(db, filters)).toEqual({ counted: 40_960, missing: 10 });
    }
  });

  test('before an agent began is looked up, of the same process alone', async () => {
    const store = await openTestStore();
    const complete = createCoverageCompletion({ store, clock: standingClock, log });
    const started = at(-1);
    const caller = { pid: 7, uid: 1, gid: 1, node: 'web-1' };
    await store.recordEvents([proxyCoverage({ caller, started, counted: 500, count: 500, to: at(-0.5) })]);
    const first = proxyCoverage({ caller, started, from: started, counted: 800, count: 800, missing: 520 });
    const counts = async (change: object) =>
      (await complete([{ ...first, ...change }])).map((event) => 'count' in event && event.count);
    expect(await counts({})).toEqual([300, 20]);
    // A second or two apart: uptimes are in whole seconds, and arrive a little later.
    const soon = new Date(started.getTime() + 2_000);
    expect(await counts({ started: soon, from: soon })).toEqual([300, 20]);
    for (const other of [
      { caller: { ...caller, pid: 8 } },
      { caller: { ...caller, node: 'web-2' } },
      { caller: { ...caller, uid: 2 } },
      { caller: { pid: 7, uid: 1, gid: 1 } },
      { destination: orders },
      { started: at(-0.7), from: at(-0.7) },
    ]) {
      expect(await counts(other), JSON.stringify(other)).toEqual([800, 520]);
    }
    // It counts less than before: another one.
    expect(await counts({ counted: 400, count: 400, missing: 0 })).toEqual([400]);
  });
});
