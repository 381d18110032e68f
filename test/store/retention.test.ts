import { randomBytes } from 'node:crypto';
import { copyFileSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import SqliteDatabase from 'better-sqlite3';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { openCheckpoint } from '../../src/audit/checkpoint.ts';
import type { AuditEvent } from '../../src/audit/event.ts';
import type { LogCensus } from '../../src/audit/log-gaps.ts';
import { verifyInclusion } from '../../src/audit/merkle-proof.ts';
import { callTypes } from '../../src/audit/columns.ts';
import { auditEventTypes, parseAuditQuery } from '../../src/audit/question.ts';
import { collectSample, type SampleQuestion } from '../../src/audit/sample.ts';
import { verifyLog } from '../../src/audit/verify-log.ts';
import type { Clock } from '../../src/clock.ts';
import { openStore, type Store } from '../../src/store/store.ts';
import { retainOnce, type RetentionTimes } from '../../src/up-retention.ts';
import { allowedCalls, decision, noon } from '../audit/events.ts';
import { retention } from '../audit/retention-events.ts';
import { logKey, logSigner } from '../audit/log-files.ts';
import { newDirectory, openTestStore, standingClock } from './directories.ts';

const code = (name: string) => expect.objectContaining({ code: name });
const dayMs = 86_400_000;
const never = new AbortController().signal;
const forEver: RetentionTimes = { retainCallsDays: 0, retainPersonalDays: 0, retainRecordsDays: 0 };
const clockAt = (day: number): Clock => ({
  now: () => new Date(noon.getTime() + day * dayMs),
  sleep: async () => {},
});
const log = {} as Parameters<typeof retainOnce>[0]['log'];

/** Of each four a denial, counted calls, a call of the admin API and a lifecycle; a new one every minute or so. */
const kinds: readonly ((n: number) => AuditEvent)[] = [
  (n) => decision({ decisionId: `d-${n}`, path: { personal: `/people/${n}/home` } }),
  () => allowedCalls(),
  (n) => ({
    type: 'admin',
    time: noon,
    action: 'called',
    actor: { kind: 'oidc', issuer: 'https://login.example.org', subject: `person-${n % 7}`, role: 'admin' },
    method: 'GET',
    route: '/v1/status',
    code: '',
    detail: '',
    sourceAddress: { personal: `192.0.2.${n % 200}:4711` },
  }),
  () => ({ type: 'lifecycle', time: noon, action: 'started', version: '1.0.0' }),
];
const minutesEach = 5;

const name = logSigner.verifierKey.slice(0, logSigner.verifierKey.indexOf('+'));
let made = '';

// Once: it takes some seconds.
beforeAll(async () => {
  made = mkdtempSync(join(tmpdir(), 'countersign-retention-'));
  const store = await openStore({ dataDir: made, clock: standingClock, randomBytes });
  await store.signLog(name, logSigner.privateKey);
  const events = Array.from({ length: entries }, (_, n) => ({
    ...kinds[n % kinds.length]!(n),
    time: new Date(noon.getTime() + n * minutesEach * 60_000),
  }));
  for (let at = 0; at < entries; at += 2_048) await store.recordEvents(events.slice(at, at + 2_048));
  await store.close();
}, 120_000);

afterAll(() => rmSync(made, { recursive: true, force: true }));

async function openLog(dataDir = newDirectory()): Promise<Store> {
  copyFileSync(join(made, 'countersign.db'), join(dataDir, 'countersign.db'));
  const store = await openTestStore(dataDir);
  await store.signLog(name, logSigner.privateKey);
  return store;
}

async function verify(store: Store): Promise<LogCensus> {
  const checkpoint = openCheckpoint((await store.auditCheckpoint()) ?? '', logKey);
  const quiet = async (read: Promise<Uint8Array | null>) => (await read) ?? undefined;
  return verifyLog(
    checkpoint,
    (tile) =>
      quiet(store.auditTile(tile)).catch((error: { code?: string }) => {
        if (error.code === 'audit_entries_pruned') return undefined;
        throw error;
      }),
    null,
    undefined,
    (tile) => quiet(store.auditRemains(tile)),
  );
}

const span = 8_192;
// 8,192 entries are 28.4 days.
const entries = 4 * span + 100;
const days = (entries * minutesEach) / 1_440;

describe('contents past their time', () => {
  test.each<[string, Partial<RetentionTimes>, number, LogCensus, number]>([
    ['are kept when nothing is set', {}, days + 900, { pruned: 0, prunedRanges: [] }, 0],
    [
      'are kept while a span has one that is young',
      { retainCallsDays: 90 },
      90 + 28,
      { pruned: 0, prunedRanges: [] },
      0,
    ],
    [
      'calls go, a span at a time',
      { retainCallsDays: 90 },
      90 + 29,
      { pruned: 4_096, prunedRanges: [{ first: 0, last: span - 1, entries: 4_096 }] },
      0,
    ],
    [
      'calls go, all but the last two spans',
      { retainCallsDays: 1 },
      days + 1_000,
      { pruned: 12_288, prunedRanges: [{ first: 0, last: 3 * span - 1, entries: 12_288 }] },
      0,
    ],
    [
      'records go and calls stay',
      { retainRecordsDays: 90 },
      90 + 29,
      { pruned: 4_096, prunedRanges: [{ first: 0, last: span - 1, entries: 4_096 }] },
      0,
    ],
    [
      'all go',
      { retainCallsDays: 90, retainRecordsDays: 90, retainPersonalDays: 30 },
      90 + 29,
      { pruned: 8_192, prunedRanges: [{ first: 0, last: span - 1, entries: 8_192 }] },
      // Three spans are older than 30 days, and the first went with its entries. Of each four entries two have values: three.
      2 * 2_048 * 3,
    ],
    ['personal values go', { retainPersonalDays: 30 }, 30 + 29, { pruned: 0, prunedRanges: [] }, 2_048 * 3],
  ])(
    '%s',
    async (_, times, day, census, values) => {
      const store = await openLog();
      const parts = { store, config: { ...forEver, ...times }, clock: clockAt(day), doubt: () => null, log };
      const done = await retainOnce(parts, never);
      expect(done).toEqual({ entries: census.pruned, values });
      expect(await verify(store)).toEqual(census);
      expect(await retainOnce(parts, never)).toEqual({ entries: 0, values: 0 });
    },
    60_000,
  );
});

test('no sample is drawn from what is gone', async () => {
  const store = await openLog();
  const question: SampleQuestion = {
    ...{ since: null, until: null, seed: 's', size: 200, marks: [], maxMarked: 0, maxRecords: Infinity },
    populations: [{ types: ['admin', 'lifecycle'], action: null }],
  };
  const draw = () => collectSample(store.sampleAudit, question, () => false);
  const before = await draw();
  const config = { ...forEver, retainRecordsDays: 90, retainPersonalDays: 60 };
  await retainOnce({ store, config, clock: clockAt(90 + 29), doubt: () => null, log }, never);
  const after = await draw();
  expect([before.records, after.records]).toEqual([entries / 2, entries / 2 - span / 2]);
  expect(after.kinds.map(({ firstIndex }) => firstIndex >= span)).toEqual([true, true]);
  expect(after.drawn.filter(({ index }) => index < span)).toEqual([]);
  expect(after.drawn.some(({ shredded }) => shredded.length > 0)).toBe(true);
});

test('what is left is proven, listed and found; what is gone says so', async () => {
  const store = await openLog();
  const config = { ...forEver, retainCallsDays: 90, retainPersonalDays: 60 };
  await retainOnce({ store, config, clock: clockAt(90 + 29), doubt: () => null, log }, never);
  const page = await store.queryAudit(parseAuditQuery({ order: 'oldest', limit: 3 }, noon));
  expect(page.rows.map(({ index, shredded }) => [index, shredded])).toEqual([
    [2, ['sourceAddress']],
    [3, []],
    [6, ['sourceAddress']],
  ]);
  const gone = {
    ...{ class: 'calls', entries: 4_096, firstIndex: 0, lastIndex: span - 1 },
    ...{ from: noon, to: new Date(noon.getTime() + (span - 1) * minutesEach * 60_000) },
  };
  expect(page.coverage.pruned).toEqual([gone]);
  const since = gone.to.toISOString();
  const [touching, later] = await Promise.all(
    [since, new Date(gone.to.getTime() + 1).toISOString()].map((time) =>
      store.queryAudit(parseAuditQuery({ since: time, limit: 1 }, noon)),
    ),
  );
  expect([touching?.coverage.pruned, later?.coverage.pruned]).toEqual([[gone], []]);
  const [announced] = (
    await store.queryAudit(parseAuditQuery({ types: ['retention'], order: 'oldest' }, noon))
  ).rows;
  expect(JSON.parse(announced?.leaf ?? '')).toMatchObject({
    action: 'pruned',
    class: 'calls',
    first: 0,
    last: span - 1,
    entries: 4_096,
    types: auditEventTypes.filter((type) => callTypes.has(type)),
    reason: 'retainCallsDays=90',
  });
  expect(await store.findDecisions('d-0', 9)).toMatchObject({ rows: [] });
  expect((await store.findDecisions(`d-${span}`, 9)).rows).toHaveLength(1);
  await expect(store.auditTile({ level: 'entries', index: 0, width: 256 })).rejects.toThrow(
    code('audit_entries_pruned'),
  );
  expect(await store.auditTile({ level: 0, index: 0, width: 256 })).toHaveLength(8_192);
  expect(await store.auditRemains({ level: 'entries', index: 32, width: 256 })).toBeNull();
  const checkpoint = openCheckpoint((await store.auditCheckpoint()) ?? '', logKey);
  for (const index of [0, 2, span - 1, span, checkpoint.size - 1]) {
    const proof = await store.proveEntry(index);
    expect([index, proof?.leaf === null]).toEqual([index, index < span && index % 4 < 2]);
    expect(verifyInclusion({ ...proof!, root: checkpoint.root })).toBe(true);
  }
});

test('a start that was cut off goes on, and room is used again', async () => {
  const dataDir = newDirectory();
  const store = await openLog(dataDir);
  const due = await store.dueSpan({ class: 'calls', beforeMs: Number.MAX_SAFE_INTEGER, from: 0 });
  expect(due).toEqual({ first: 0, entries: 4_096, fault: null });
  await store.announcePruning({ ...due!, class: 'calls' }, retention({ entries: 4_096 }));
  await store.close();
  const again = await openTestStore(dataDir);
  await again.signLog(name, logSigner.privateKey);
  // Announced, and all there.
  expect(await verify(again)).toEqual({ pruned: 0, prunedRanges: [] });
  const config = { ...forEver, retainCallsDays: 36_500 };
  await retainOnce({ store: again, config, clock: clockAt(0), doubt: () => null, log }, never);
  expect((await verify(again)).pruned).toBe(4_096);
  await again.close();
  const db = new SqliteDatabase(join(dataDir, 'countersign.db'));
  expect(Number(db.pragma('freelist_count', { simple: true }))).toBeGreaterThan(300);
  expect(db.pragma('integrity_check', { simple: true })).toBe('ok');
  db.close();
});

describe('nobody else takes anything', () => {
  const announce =
    "INSERT INTO audit_pruned VALUES (0, 'calls', ' decision ', 4096, (SELECT max(idx) FROM audit_leaves))";
  const refused: readonly (readonly [what: string, sql: string, message: RegExp])[] = [
    ['an entry', 'DELETE FROM audit_leaves WHERE idx = 3', /append-only/],
    ['the last', 'DELETE FROM audit_leaves WHERE idx = (SELECT max(idx) FROM audit_leaves)', /append-only/],
    ['the contents of one', "UPDATE audit_leaves SET leaf = x'' WHERE idx = 0", /append-only/],
    ['a span that nobody announced', announce.replace('0,', '8192,'), /announced in the log first/],
    ['what an older entry announces', announce.replace('max(idx)', 'min(idx)'), /announced in the log first/],
    ['announcements', announce.replace(' decision ', ' retention '), /CHECK/],
    ['values, by others', "UPDATE audit_personal SET value = 'x'", /kept as it is, or shredded/],
    ['salts only', 'UPDATE audit_personal SET salt = zeroblob(32)', /kept as it is, or shredded/],
    ['what was announced, without its hash', 'DELETE FROM audit_leaves WHERE idx = 1', /append-only/],
    ['an announcement', 'DELETE FROM audit_pruned', /stays/],
    ['what it says', 'UPDATE audit_pruned SET entries = 9', /stays/],
    [
      'what was announced, with another hash',
      'INSERT INTO audit_pruned_tiles VALUES (0, zeroblob(8192)); DELETE FROM audit_leaves WHERE idx = 1',
      /append-only/,
    ],
  ];

  test('by any of these statements', async () => {
    const dataDir = newDirectory();
    const store = await openLog(dataDir);
    await store.announcePruning({ first: 0, entries: 4_096, class: 'calls' }, retention({ entries: 4_096 }));
    await store.close();
    const db = new SqliteDatabase(join(dataDir, 'countersign.db'));
    for (const [what, sql, message] of refused) expect(() => db.exec(sql), what).toThrow(message);
    db.close();
  });

  // As somebody who can write the file, and cannot sign.
  test.each<[what: string, sql: string, message: RegExp]>([
    [
      'the contents of an entry',
      "DROP TRIGGER audit_leaves_no_update; UPDATE audit_leaves SET leaf = x'7b7d' WHERE idx = 300",
      /entry 300 is not/,
    ],
    [
      'a type, so that a record goes as a call',
      "DROP TRIGGER audit_leaves_no_update; UPDATE audit_leaves SET type = 'decision' WHERE idx = 3",
      /entry 3 of the audit log is no decision/,
    ],
    [
      'the age of a block',
      'DROP TRIGGER IF EXISTS audit_blocks_no_update; UPDATE audit_blocks SET min_ms = 0, max_ms = 0 WHERE block = 7',
      /is younger than what stands beside it says/,
    ],
  ])(
    'what somebody has changed is evidence and stays, and holds up no other span: %s',
    async (_, sql, message) => {
      const dataDir = newDirectory();
      await (await openLog(dataDir)).close();
      const db = new SqliteDatabase(join(dataDir, 'countersign.db'));
      db.exec(sql);
      db.close();
      const store = await openTestStore(dataDir);
      await store.signLog(name, logSigner.privateKey);
      const config = { ...forEver, retainCallsDays: 90 };
      const isAge = sql.includes('max_ms');
      // Of the first span the last block alone would be too young.
      const parts = { store, config, clock: clockAt(isAge ? 90 + 27 : 200), doubt: () => null, log };
      await expect(retainOnce(parts, never)).rejects.toThrow(code('audit_log_damaged'));
      await expect(retainOnce(parts, never)).rejects.toThrow(message);
      // All else goes on.
      expect(store.health()).toEqual({ ok: true });
      const { rows } = await store.queryAudit(parseAuditQuery({ types: ['retention'] }, noon));
      expect(rows.map(({ leaf }) => JSON.parse(leaf).first)).toEqual(isAge ? [] : [2 * span, span]);
      if (sql.includes('leaf = ')) await expect(verify(store)).rejects.toThrow(/^entry 300 is not/);
      else expect(await verify(store)).toMatchObject({ pruned: isAge ? 0 : span });
    },
  );
});

test.each<[what: string, index: number, back: number | null, message: RegExp]>([
  [
    'of a span that nothing was announced of',
    span + 1,
    null,
    /contents of 1 are missing, and .* announced 0$/,
  ],
  ['more than was announced', 2, null, /the contents of 4097 are missing, and .* announced 4096$/],
  ['in the place of one that is brought back', 2, 1, /4096 are missing, .* of which 1 are there: others/],
])('contents that were taken without a word are noticed: %s', async (_, index, back, message) => {
  const dataDir = newDirectory();
  const store = await openLog(dataDir);
  const config = { ...forEver, retainCallsDays: 90 };
  await retainOnce({ store, config, clock: clockAt(90 + 29), doubt: () => null, log }, never);
  await store.close();
  const db = new SqliteDatabase(join(dataDir, 'countersign.db'));
  db.exec('DROP TRIGGER audit_leaves_no_delete');
  if (back !== null) {
    db.exec(`ATTACH '${join(made, 'countersign.db')}' AS before`);
    db.exec('DROP TRIGGER audit_leaves_append');
    db.exec(`INSERT INTO audit_leaves SELECT * FROM before.audit_leaves WHERE idx = ${back}`);
  }
  const first = index - (index % 256);
  const hashes = db
    .prepare<[number, number], Buffer>('SELECT hash FROM audit_leaves WHERE idx >= ? AND idx < ?')
    .pluck()
    .all(first, first + 256);
  if (hashes.length === 256) {
    db.prepare('INSERT INTO audit_pruned_tiles VALUES (?, ?)').run(first / 256, Buffer.concat(hashes));
  }
  db.exec(`DELETE FROM audit_personal WHERE idx = ${index}; DELETE FROM audit_leaves WHERE idx = ${index}`);
  db.close();
  const again = await openTestStore(dataDir);
  await again.signLog(name, logSigner.privateKey);
  const refusal = await verify(again).catch((error: unknown) => error);
  expect(refusal).toMatchObject({ code: 'audit_log_invalid', message: expect.stringMatching(message) });
});

describe('shredded values', () => {
  const nothing = { address: null, subject: null, indexes: [], beforeMs: null };
  const hundredth = noon.getTime() + 100 * minutesEach * 60_000;
  test.each<[string, object, (n: number) => boolean]>([
    ['an address', { address: '192.0.2.102' }, (n) => n % 4 === 2 && n % 200 === 102],
    ['who did it', { subject: 'person-3' }, (n) => n % 4 === 2 && n % 7 === 3],
    ['whose call it was', { subject: decision().source, beforeMs: hundredth }, (n) => n % 4 === 0 && n < 100],
    ['entries', { indexes: [0, 2, 3, 70_000] }, (n) => n === 0 || n === 2],
    ['a time', { beforeMs: hundredth }, (n) => n < 100 && n % 2 === 0],
    ['all that is given', { address: '192.0.2.102', subject: 'person-4' }, (n) => n % 1_400 === 102],
  ])('are found by %s, and their bytes are nowhere', async (_, given, isMeant) => {
    const dataDir = newDirectory();
    const store = await openLog(dataDir);
    const expected = Array.from({ length: entries }, (__, n) => n).filter(isMeant);
    let gone = 0;
    for (let from: number | null = 0; from !== null;) {
      const found = await store.findPersonal({ ...nothing, ...given }, from);
      from = found.next;
      if (found.ids.length === 0) continue;
      const event = retention({ action: 'shredded', class: 'personal', values: found.ids.length });
      await store.shredPersonal(found, event);
      await expect(store.shredPersonal(found, event)).rejects.toThrow(code('revision_conflict'));
      gone += found.entries;
    }
    expect(gone).toBe(expected.length);
    expect(await store.foldLog()).toBe(true);
    const { rows } = await store.queryAudit(parseAuditQuery({ order: 'oldest', limit: 100 }, noon));
    for (const { index, personal, shredded } of rows) {
      const isGone = isMeant(index);
      expect([index, shredded.length > 0]).toEqual([index, isGone]);
      if (isGone) expect(personal).toEqual({});
    }
    const bytes = readdirSync(dataDir).map((file) => readFileSync(join(dataDir, file)).toString('latin1'));
    const left = expected.filter(
      (n) => n % 4 === 0 && bytes.some((text) => text.includes(`/people/${n}/home`)),
    );
    expect(left).toEqual([]);
    const where = bytes.some((text) => /192\.0\.2\.102(?![0-9])/.test(text));
    expect(where).toBe(!('address' in given) || 'subject' in given);
  });
});
