import { join } from 'node:path';
import SqliteDatabase from 'better-sqlite3';
import { expect, test } from 'vitest';
import type { AuditEvent } from '../../src/audit/event.ts';
import type { MeshChange, PolicyDocument } from '../../src/identity/mesh.ts';
import { revisionEvent } from '../../src/identity/policy-revision.ts';
import { readDecisions } from '../../src/store/decision-table.ts';
import { decisionIds } from '../../src/store/migrations/0012-decision-ids.ts';
import { decision, issuance, noon, outcome } from '../audit/events.ts';
import { unsignedRevision } from '../harness/policy-signer.ts';
import { newDirectory, openTestStore } from './directories.ts';

const idOf = (i: number): string => `id-${(i * 7_919) % 20_000}`;

test('a decision is found by its ID, in whatever span it stands', async () => {
  const store = await openTestStore();
  // Three spans: the second has no decisions at all.
  const events: AuditEvent[] = Array.from({ length: 20_000 }, (_, i) =>
    i >= 8_192 && i < 16_384
      ? issuance({ serial: i.toString(16).padStart(8, '0') })
      : decision({ decisionId: idOf(i), port: i % 60_000 }),
  );
  for (let at = 0; at < events.length; at += 2_000) await store.recordEvents(events.slice(at, at + 2_000));
  for (const i of [0, 1, 8_191, 16_384, 19_999]) {
    const { rows, more } = await store.findDecisions(idOf(i), 4);
    expect([rows.map(({ index }) => index), more]).toEqual([[i], false]);
    expect(JSON.parse(rows[0]?.leaf ?? '')).toMatchObject({ decisionId: idOf(i), port: i });
    expect(rows[0]?.personal).toMatchObject({ path: '/accounts/7' });
  }
  expect(await store.findDecisions(idOf(10_000), 4)).toEqual({ rows: [], more: false });
  // What a proxy tells of the call is no decision.
  await store.recordEvents([outcome({ decisionId: idOf(7) })]);
  expect((await store.findDecisions(idOf(7), 4)).rows.map(({ index }) => index)).toEqual([7]);
  // One that was used again, long after.
  await store.recordEvents([1, 2, 3].map(() => decision({ decisionId: idOf(5) })));
  const again = await store.findDecisions(idOf(5), 3);
  expect([again.rows.map(({ index }) => index), again.more]).toEqual([[5, 20_001, 20_002], true]);
});

test.each(['', 'a b', 'a'.repeat(65), "'; --", 'é', 'a\u0000'])(
  'one that no door makes is kept, and not found: %j',
  async (decisionId) => {
    const store = await openTestStore();
    await store.recordEvents([decision({ decisionId })]);
    expect(await store.findDecisions(decisionId, 4)).toEqual({ rows: [], more: false });
    expect(await store.auditSize()).toBe(1);
  },
);

test('every search goes along the key', async () => {
  const dataDir = newDirectory();
  await (await openTestStore(dataDir)).close();
  const db = new SqliteDatabase(join(dataDir, 'countersign.db'));
  const plans: string[] = [];
  const spied = Object.create(db, {
    prepare: {
      value: (sql: string) => {
        const plan = db.prepare<unknown[], { detail: string }>(`EXPLAIN QUERY PLAN ${sql}`);
        if (sql.includes('decision_ids')) plans.push(...plan.all('x', 1).map(({ detail }) => detail));
        return db.prepare(sql);
      },
    },
  }) as SqliteDatabase.Database;
  readDecisions(spied, { id: 'x', limit: 1 });
  const looks = plans.filter((detail) => /found|later/.test(detail));
  expect(looks).toContainEqual(expect.stringMatching(/SEARCH found USING PRIMARY KEY \(span=\? AND id=\?\)/));
  expect(looks).toContainEqual(expect.stringMatching(/SEARCH later USING .*\(span>\?\)/));
  expect(plans.join('\n')).not.toMatch(/SCAN (found|later|decision_ids)/);
  db.close();
});

const policy = (key: string): PolicyDocument => ({
  ...{
    key,
    source: `# ${key}\n`,
    file: 'p.yaml',
    line: 1,
    sha256: Buffer.from(key).toString('hex').padEnd(64, '0'),
  },
  revision: 1,
});
const step = (revision: number, change: Partial<MeshChange>): MeshChange => ({
  ...{ expectRevision: revision - 1, revision },
  ...{ putEntries: [], deleteEntries: [], putPolicies: [], deletePolicies: [], putBans: [], deleteBans: [] },
  ...{ putAliases: [], deleteAliases: [], events: [], ...change },
});

test('a mesh revision leads to the policies of then, also after a migration and when they are dropped', async () => {
  const dataDir = newDirectory();
  const store = await openTestStore(dataDir);
  const [a, b, other] = [policy('pay/a'), policy('pay/b'), policy('pay.x/a')];
  const first = unsignedRevision(undefined, [a, other], noon);
  await store.commitMesh(step(1, {}));
  await store.commitMesh(
    step(2, {
      putPolicies: [a, other],
      policyRevision: first,
      events: [revisionEvent('edited', first.record, 2)],
    }),
  );
  await store.commitMesh(step(3, {}));
  const second = unsignedRevision(first.record, [a, b, other], noon);
  await store.commitMesh(
    step(4, {
      putPolicies: [b],
      policyRevision: second,
      events: [revisionEvent('edited', second.record, 4)],
    }),
  );
  const expected = [null, null, 1, 1, 2, 2];
  const found = async (from: typeof store) =>
    Promise.all([0, 1, 2, 3, 4, 99].map((at) => from.revisionAt(at)));
  expect(await found(store)).toEqual(expected);
  const keys = async (number: number, ...namespaces: string[]) =>
    (await store.policiesIn(number, namespaces)).map(({ key }) => key);
  expect(await keys(1, 'pay')).toEqual(['pay/a']);
  expect(await keys(2, 'pay', 'pay')).toEqual(['pay/a', 'pay/b']);
  expect(await keys(2, 'pay.x', 'none')).toEqual(['pay.x/a']);
  await store.dropRevisions(1, []);
  expect(await found(store)).toEqual(expected);
  await store.recordEvents([decision({ decisionId: 'before' }), decision({ decisionId: 'no ID' })]);
  await store.close();

  // As it was before: the migration finds both in the log.
  const db = new SqliteDatabase(join(dataDir, 'countersign.db'));
  db.exec('DROP TABLE decision_ids; DROP TABLE policy_revision_starts');
  db.exec(decisionIds);
  db.close();
  const again = await openTestStore(dataDir);
  expect(await found(again)).toEqual(expected);
  expect((await again.findDecisions('before', 4)).rows.map(({ index }) => index)).toEqual([2]);
});
