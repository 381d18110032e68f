import { randomBytes } from 'node:crypto';
import {
  closeSync,
  copyFileSync,
  existsSync,
  mkdtempSync,
  openSync,
  readFileSync,
  readSync,
  rmSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import SqliteDatabase from 'better-sqlite3';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { AuditEvent } from '../../src/audit/event.ts';
import type { Clock } from '../../src/clock.ts';
import { openForReading, storageError } from '../../src/store/database.ts';
import { largeTrees } from '../../src/store/large-tables.ts';
import { checkLargeTables, createLaterCheck } from '../../src/store/later-check.ts';
import { openStore, type Store } from '../../src/store/store.ts';
import { retainOnce } from '../../src/up-retention.ts';
import { decision, issuance, noon, oneOfEach } from '../audit/events.ts';
import { logSigner } from '../audit/log-files.ts';
import { newDirectory, standingClock } from './directories.ts';

const code = (name: string) => expect.objectContaining({ code: name });
const file = (dataDir: string) => join(dataDir, 'countersign.db');
const note = (dataDir: string) => join(dataDir, 'countersign.db.suspect');
const pageBytes = 4_096;
const dayMs = 86_400_000;

/** Some of everything, so that no large table fits into a page. */
function eventAt(n: number): AuditEvent {
  const time = new Date(noon.getTime() + n * 60_000);
  if (n % 10 < 6) return { ...decision({ decisionId: `d-${n}`, path: { personal: `/people/${n}` } }), time };
  const serial = n.toString(16).padStart(32, '0');
  if (n % 10 < 8) return { ...issuance({ serial, notAfter: new Date(noon.getTime() + 1e12) }), time };
  const destination = `spiffe://example.org/ns/a/sa/${n % 997}`;
  if (n % 10 === 8) return { ...decision({ decisionId: `e-${n}`, destination }), time };
  return { ...oneOfEach[n % oneOfEach.length]!, time };
}

/** A log of three spans and a bit, for what is told apart by many rows, and one that is read sooner. */
let long = '';
let short = '';

beforeAll(async () => {
  long = mkdtempSync(join(tmpdir(), 'countersign-check-'));
  short = mkdtempSync(join(tmpdir(), 'countersign-check-'));
  await makeLog(long, 3 * 8_192 + 100);
  await makeLog(short, 5_000);
}, 120_000);

afterAll(() => {
  for (const dir of [long, short]) rmSync(dir, { recursive: true, force: true });
});

async function makeLog(dataDir: string, entries: number): Promise<void> {
  const store = await openStore({ dataDir, clock: standingClock, randomBytes });
  await store.signLog(logSigner.name, logSigner.privateKey);
  const events = Array.from({ length: entries }, (_, n) => eventAt(n)).map((event, n) =>
    event.type === 'issuance' ? { ...event, serial: n.toString(16).padStart(32, '0') } : event,
  );
  for (let at = 0; at < entries; at += 2_048) await store.recordEvents(events.slice(at, at + 2_048));
  await store.close();
}

function copy(from = short): string {
  const dataDir = newDirectory();
  copyFileSync(file(from), file(dataDir));
  return dataDir;
}

const open: Store[] = [];
afterAll(async () => {
  for (const store of open) await store.close();
});

/** Opens a log as a large one. */
async function openLarge(dataDir: string, clock: Clock = standingClock, wholeCheckBytes = 0): Promise<Store> {
  const store = await openStore({ dataDir, clock, randomBytes, wholeCheckBytes });
  open.push(store);
  await store.signLog(logSigner.name, logSigner.privateKey);
  return store;
}

function pagesOf(dataDir: string, name: string): readonly number[] {
  const db = new SqliteDatabase(file(dataDir), { readonly: true });
  const pages = db
    .prepare("SELECT pageno FROM dbstat WHERE name = ? AND pagetype = 'leaf' ORDER BY path")
    .pluck()
    .all(name);
  db.close();
  return pages as number[];
}

/** Goes through all that a start leaves. @returns what is wrong with entries */
function checkAll(dataDir: string): readonly string[] {
  const db = openForReading(dataDir);
  try {
    return [...checkLargeTables(db)].filter((damage) => damage !== undefined);
  } catch (error) {
    throw storageError(error) ?? error;
  } finally {
    db.close();
  }
}

function withFile<T>(dataDir: string, work: (fd: number) => T): T {
  const fd = openSync(file(dataDir), 'r+');
  try {
    return work(fd);
  } finally {
    closeSync(fd);
  }
}

function spoil(dataDir: string, page: number): void {
  withFile(dataDir, (fd) =>
    writeSync(fd, Buffer.alloc(pageBytes, 0xa5), 0, pageBytes, (page - 1) * pageBytes),
  );
}

function exchange(dataDir: string, one: number, other: number): void {
  withFile(dataDir, (fd) => {
    const [a, b] = [Buffer.alloc(pageBytes), Buffer.alloc(pageBytes)];
    readSync(fd, a, 0, pageBytes, (one - 1) * pageBytes);
    readSync(fd, b, 0, pageBytes, (other - 1) * pageBytes);
    writeSync(fd, a, 0, pageBytes, (other - 1) * pageBytes);
    writeSync(fd, b, 0, pageBytes, (one - 1) * pageBytes);
  });
}

/** Writes as somebody who has the file: what forbids it is taken away and put back. */
function rewrite(dataDir: string, sql: string): void {
  const db = new SqliteDatabase(file(dataDir));
  const triggers = db
    .prepare<[], { name: string; sql: string }>("SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'")
    .all();
  db.pragma('foreign_keys = OFF');
  db.unsafeMode();
  for (const { name } of triggers) db.exec(`DROP TRIGGER ${name}`);
  expect(db.prepare(sql).run().changes).toBeGreaterThan(0);
  for (const trigger of triggers) db.exec(trigger.sql);
  db.close();
}

/** Changes a byte of the content of an entry, and nothing else. */
function flipEntry(dataDir: string, idx: number): void {
  const db = new SqliteDatabase(file(dataDir), { readonly: true });
  const leaf = db.prepare<[number], Buffer>('SELECT leaf FROM audit_leaves WHERE idx = ?').pluck().get(idx)!;
  db.close();
  const bytes = readFileSync(file(dataDir));
  const at = bytes.indexOf(leaf);
  expect(at).toBeGreaterThan(0);
  bytes.writeUInt8(bytes.readUInt8(at + 9) ^ 1, at + 9);
  writeFileSync(file(dataDir), bytes);
}

describe('the large tables', () => {
  test('have every B-tree of theirs in the list, and are all there', () => {
    const db = new SqliteDatabase(file(short), { readonly: true });
    const tables = new Set(largeTrees.map(({ table }) => table));
    const trees = db
      .prepare<[], { name: string; tbl_name: string }>(
        'SELECT name, tbl_name FROM sqlite_schema WHERE rootpage > 0',
      )
      .all()
      .filter((tree) => tables.has(tree.tbl_name));
    const listed = largeTrees.map(({ table, index }) => index ?? table);
    expect(listed.toSorted()).toEqual(trees.map(({ name }) => name).sort());
    db.close();
  });
});

describe('a large database', () => {
  test('that is sound is served, and then found to be sound', async () => {
    const store = await openLarge(copy());
    expect(await store.check.ended).toMatchObject({ outcome: 'sound', damage: null, cause: null });
    expect(store.health()).toEqual({ ok: true });
  });

  test('that is not so large was checked whole before', async () => {
    const store = await openLarge(copy(), standingClock, 1e9);
    expect(await store.check.ended).toMatchObject({ outcome: 'whole' });
  });

  test.each(['meta', 'authorities', 'nodes', 'policy_revisions', 'jwt_expiries'])(
    'is refused at the start when its small table %s is damaged',
    async (table) => {
      const dataDir = copy();
      for (const page of pagesOf(dataDir, table)) spoil(dataDir, page);
      await expect(openLarge(dataDir)).rejects.toThrow(code('store_corrupt'));
    },
  );

  const deep = largeTrees
    .map(({ table, index }) => index ?? table)
    // These have a page at most.
    .filter(
      (name) => !['audit_pruned', 'audit_pruned_tiles', 'audit_words_idx', 'audit_nodes'].includes(name),
    );

  test.each(deep)('is seen to be damaged where a page of %s is', (name) => {
    const dataDir = copy();
    const pages = pagesOf(dataDir, name);
    spoil(dataDir, pages[Math.floor(pages.length / 2)] ?? 0);
    expect(() => checkAll(dataDir)).toThrow(code('store_corrupt'));
  });

  test.each(['audit_leaves', 'audit_words_data', 'certificates_by_key'])(
    'starts when %s is damaged, stops when it has seen it, and then starts no more',
    async (name) => {
      const dataDir = copy();
      const pages = pagesOf(dataDir, name);
      const page = pages[Math.floor(pages.length / 2)] ?? 0;
      spoil(dataDir, page);
      const store = await openLarge(dataDir);
      const { outcome, cause } = await store.check.ended;
      expect([outcome, cause]).toEqual(['failed', expect.stringContaining('the database is damaged')]);
      expect(store.health()).toEqual({
        ok: false,
        cause: expect.stringContaining('the database is damaged'),
      });
      await expect(store.recordEvents([decision()])).rejects.toThrow(code('store_unavailable'));
      await store.close();
      expect(existsSync(note(dataDir))).toBe(true);
      await expect(openLarge(dataDir)).rejects.toThrow(code('store_corrupt'));
      expect(existsSync(note(dataDir))).toBe(true);
    },
  );

  test.each([
    'audit_leaves',
    'audit_facts',
    'certificates',
    'decision_ids',
    'audit_by_source',
    'audit_by_serial',
  ])('is seen to be damaged where two pages of %s have changed places', (name) => {
    const dataDir = copy(long);
    const leaves = pagesOf(dataDir, name);
    expect(leaves.length).toBeGreaterThan(12);
    exchange(dataDir, leaves[2]!, leaves[leaves.length >> 1]!);
    expect(() => checkAll(dataDir)).toThrow(code('store_corrupt'));
  });

  test.each<[string, (dataDir: string) => void, RegExp]>([
    [
      'an entry is gone that nobody announced',
      (dataDir) => rewrite(dataDir, 'DELETE FROM audit_leaves WHERE idx = 700'),
      /of the entries 512 to 767 some are missing/,
    ],
    [
      'a column holds what it must not',
      (dataDir) => rewrite(dataDir, "UPDATE audit_words_docsize SET sz = 'x' WHERE id = 1509"),
      /audit_words_docsize has values of another type/,
    ],
  ])('starts when %s, and stops when it has seen it', async (_, damage, why) => {
    const dataDir = copy();
    damage(dataDir);
    const store = await openLarge(dataDir);
    expect(await store.check.ended).toMatchObject({ outcome: 'failed', cause: expect.stringMatching(why) });
    expect(store.health()).toEqual({ ok: false, cause: expect.stringMatching(why) });
  });

  test.each<[string, (dataDir: string) => void, string]>([
    ['an entry', (dataDir) => flipEntry(dataDir, 700), 'entry 700 is not what its hash was made of'],
    [
      'an entry and its hash',
      (dataDir) => rewrite(dataDir, 'UPDATE audit_leaves SET hash = zeroblob(32) WHERE idx = 700'),
      'entry 700 is not what its hash was made of',
    ],
  ])('goes on when %s was changed, says so, and says so again after a start', async (_, change, what) => {
    const dataDir = copy();
    change(dataDir);
    for (let start = 0; start < 2; start++) {
      const store = await openLarge(dataDir);
      expect(store.check.damage()).toBeNull();
      const damage = `the audit log is damaged: ${what}`;
      expect(await store.check.ended).toMatchObject({ outcome: 'sound', damage });
      expect([store.check.damage(), store.health()]).toEqual([damage, { ok: true }]);
      await store.recordEvents([decision()]);
      await store.close();
    }
  });

  test('is sound for a check that others write beside, that take contents away and shred values', async () => {
    const clock: Clock = { ...standingClock, now: () => new Date(noon.getTime() + 400 * dayMs) };
    const store = await openLarge(copy(long), clock);
    const config = { retainCallsDays: 90, retainPersonalDays: 30, retainRecordsDays: 0 };
    const log = {} as Parameters<typeof retainOnce>[0]['log'];
    let isOver = false;
    const ended = store.check.ended.finally(() => (isOver = true));
    const retained = retainOnce(
      { store, config, clock, doubt: () => null, log },
      new AbortController().signal,
    );
    let written = 0;
    while (!isOver) {
      await store.recordEvents(Array.from({ length: 20 }, () => decision({ decisionId: `w-${written++}` })));
    }
    expect(await ended).toMatchObject({ outcome: 'sound', damage: null });
    const { entries: gone, values } = await retained;
    expect([gone > 10_000, values > 0, written > 100, store.health()]).toEqual([
      true,
      true,
      true,
      { ok: true },
    ]);
  }, 60_000);

  test('is sound when contents are gone', async () => {
    const dataDir = copy(long);
    const clock: Clock = { ...standingClock, now: () => new Date(noon.getTime() + 400 * dayMs) };
    const first = await openLarge(dataDir, clock, 1e9);
    const config = { retainCallsDays: 90, retainPersonalDays: 30, retainRecordsDays: 0 };
    const log = {} as Parameters<typeof retainOnce>[0]['log'];
    await retainOnce({ store: first, config, clock, doubt: () => null, log }, new AbortController().signal);
    await first.close();
    const store = await openLarge(dataDir, clock);
    expect(await store.check.ended).toMatchObject({ outcome: 'sound', damage: null });
    await store.close();
    // One that nobody announced, beside those.
    rewrite(dataDir, 'DELETE FROM audit_leaves WHERE idx = (SELECT min(idx) FROM audit_leaves)');
    expect(checkAll(dataDir)).toEqual([
      'the audit log is damaged: of the entries 0 to 8191 more are missing than was announced',
    ]);
  }, 60_000);

  test('is looked at from the beginning when somebody held it, and not found to be sound for that', () => {
    const dataDir = copy();
    flipEntry(dataDir, 700);
    // Without a WAL whoever writes keeps all others out.
    const holder = new SqliteDatabase(file(dataDir));
    holder.pragma('journal_mode = DELETE');
    const db = new SqliteDatabase(file(dataDir), { readonly: true, timeout: 0 });
    const step = createLaterCheck(db, 0);
    const steps = [step()];
    holder.exec('BEGIN EXCLUSIVE');
    steps.push(step());
    holder.exec('ROLLBACK');
    expect(steps.map(({ isDone }) => isDone)).toEqual([false, false]);
    while (steps.at(-1)?.isDone === false) steps.push(step());
    expect(steps.flatMap(({ damage }) => damage ?? [])).toEqual([expect.stringContaining('entry 700')]);
    db.close();
    holder.close();
  });

  test.each([
    ['before it began', 0],
    ['in the middle of it', 1],
  ])('stops at once when its check is stopped %s', async (_, steps) => {
    let rests = 0;
    const reached = Promise.withResolvers<void>();
    const clock: Clock = {
      now: () => noon,
      sleep: (_ms, signal) => {
        if (rests++ < steps) return Promise.resolve();
        reached.resolve();
        return new Promise((resolve) => signal?.addEventListener('abort', () => resolve()));
      },
    };
    const store = await openLarge(copy(long), clock);
    await reached.promise;
    const began = performance.now();
    await store.close();
    expect(await store.check.ended).toMatchObject({ outcome: 'stopped', damage: null, cause: null });
    expect(performance.now() - began).toBeLessThan(5_000);
  });
});

describe('a database that was found damaged', () => {
  test('and is sound again is read whole before it is served, and forgotten', async () => {
    const dataDir = copy();
    writeFileSync(note(dataDir), 'it was\n', { mode: 0o600 });
    const store = await openLarge(dataDir);
    expect(existsSync(note(dataDir))).toBe(false);
    expect(await store.check.ended).toMatchObject({ outcome: 'sound' });
  });

  test('is refused when others could have said so', async () => {
    const dataDir = copy();
    writeFileSync(note(dataDir), '', { mode: 0o644 });
    await expect(openLarge(dataDir)).rejects.toThrow(code('file_permissions'));
  });
});
