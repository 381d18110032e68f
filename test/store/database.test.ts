import {
  chmodSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import SqliteDatabase from 'better-sqlite3';
import { describe, expect, test } from 'vitest';
import { encodeEvent } from '../../src/audit/canonical.ts';
import { auditColumns } from '../../src/audit/columns.ts';
import { rollupOf } from '../../src/audit/rollup.ts';
import { readAuditSize } from '../../src/store/audit-log.ts';
import { openForReading, openForWriting } from '../../src/store/database.ts';
import { leafRecord } from '../../src/store/leaf-record.ts';
import { schemaVersion } from '../../src/store/migrations.ts';
import type { WriteRequest } from '../../src/store/protocol.ts';
import { openStore } from '../../src/store/store.ts';
import { createBatchWriter } from '../../src/store/writer.ts';
import { decision, issuance, noon, oneOfEach } from '../audit/events.ts';
import { logSigner } from '../audit/log-files.ts';
import { newDirectory, openTestStore, standingClock } from './directories.ts';

const code = (name: string) => expect.objectContaining({ code: name });
const file = (dir: string) => join(dir, 'countersign.db');
const open = (dataDir: string) => openStore({ dataDir, clock: standingClock, randomBytes });

describe('every open', () => {
  test.each([
    ['journal_mode', 'wal'],
    ['synchronous', 2],
    ['foreign_keys', 1],
    ['busy_timeout', 5_000],
    ['trusted_schema', 0],
    ['cell_size_check', 1],
    ['wal_autocheckpoint', 0],
    ['cache_size', -65_536],
    ['journal_size_limit', 67_108_864],
    ['mmap_size', 0],
    ['temp_store', 2],
  ])('has %s=%s: the first, the next and the reader', (pragma, expected) => {
    const dir = newDirectory();
    openForWriting(dir, noon).close();
    // The trap: an ordinary open of an existing WAL database gives NORMAL.
    const ordinary = new SqliteDatabase(file(dir));
    expect(ordinary.pragma('synchronous', { simple: true })).toBe(1);
    ordinary.close();
    const again = openForWriting(dir, noon);
    expect(again.pragma(pragma, { simple: true })).toBe(expected);
    const reader = openForReading(dir);
    expect(reader.pragma(pragma, { simple: true })).toBe(expected);
    expect(() => reader.exec('DELETE FROM meta')).toThrow(
      expect.objectContaining({ code: 'SQLITE_READONLY' }),
    );
    reader.close();
    again.close();
  });

  test.each([0o022, 0o000, 0o077])('keeps all files to ourselves under umask %o', async (umask) => {
    const dataDir = join(newDirectory(), 'data');
    const before = process.umask(umask);
    try {
      const store = await openTestStore(dataDir);
      await store.recordEvents(oneOfEach);
      expect(statSync(dataDir).mode & 0o777).toBe(0o700);
      const modes = readdirSync(dataDir).map((name) => [name, statSync(join(dataDir, name)).mode & 0o177]);
      expect(modes).toHaveLength(5);
      expect(modes.filter(([, wide]) => wide !== 0)).toEqual([]);
    } finally {
      process.umask(before);
    }
  });
});

describe('a data directory is refused when', () => {
  test.each<[string, string, (dir: string) => void]>([
    ['it is open to others', 'file_permissions', (dir) => chmodSync(dir, 0o750)],
    ['the database is open to others', 'file_permissions', (dir) => chmodSync(file(dir), 0o640)],
    [
      'the WAL is open to others',
      'file_permissions',
      (dir) => writeFileSync(`${file(dir)}-wal`, '', { mode: 0o644 }),
    ],
    ['the database is newer', 'store_newer', (dir) => setVersion(dir, schemaVersion + 1)],
    ["the database is another program's", 'store_corrupt', (dir) => setVersion(dir, 0)],
    ['the database is no database', 'store_corrupt', (dir) => writeFileSync(file(dir), 'x'.repeat(8_192))],
    [
      'the database is cut short',
      'store_corrupt',
      (dir) => writeFileSync(file(dir), readFileSync(file(dir)).subarray(0, 20_000)),
    ],
    ['pages of the database are damaged', 'store_corrupt', damage],
  ])('%s', async (_, expected, spoil) => {
    const dataDir = newDirectory();
    const store = await open(dataDir);
    await store.recordEvents(Array.from({ length: 200 }, () => decision()));
    await store.close();
    spoil(dataDir);
    const before = readFileSync(file(dataDir));
    await expect(open(dataDir)).rejects.toThrow(code(expected));
    expect(readFileSync(file(dataDir)).equals(before)).toBe(true);
    // Refusing does not hold the directory.
    await expect(open(dataDir)).rejects.toThrow(code(expected));
  });

  test('the database is a link', async () => {
    const dataDir = newDirectory();
    const elsewhere = join(newDirectory(), 'x');
    writeFileSync(elsewhere, '', { mode: 0o600 });
    symlinkSync(elsewhere, file(dataDir));
    await expect(open(dataDir)).rejects.toThrow(code('file_permissions'));
  });

  test('it is a file', async () => {
    const dataDir = join(newDirectory(), 'x');
    writeFileSync(dataDir, '');
    await expect(open(dataDir)).rejects.toThrow();
    mkdirSync(`${dataDir}.d`, { mode: 0o700 });
    symlinkSync(`${dataDir}.d`, `${dataDir}.link`);
    await expect(open(`${dataDir}.link`)).rejects.toThrow(code('file_permissions'));
  });
});

describe('the log', () => {
  const next = oneOfEach.length;

  test.each([
    ['UPDATE audit_leaves SET leaf = hash WHERE idx = 3', 'append-only'],
    ['UPDATE audit_leaves SET source = NULL', 'append-only'],
    ['DELETE FROM audit_leaves WHERE idx = 8', 'append-only'],
    ['INSERT OR REPLACE INTO audit_leaves SELECT * FROM audit_leaves WHERE idx = 3', 'no gaps'],
    [
      `INSERT INTO audit_leaves (idx, leaf, hash, type, time_ms) VALUES (${next + 1}, x'', zeroblob(32), 'loss', 0)`,
      'no gaps',
    ],
    [
      "INSERT INTO audit_leaves (idx, leaf, hash, type, time_ms) VALUES (-1, x'', zeroblob(32), 'loss', 0)",
      'no gaps',
    ],
    [
      `INSERT INTO audit_leaves (idx, leaf, hash, type, time_ms) VALUES (${next}, zeroblob(65536), zeroblob(32), 'loss', 0)`,
      'CHECK',
    ],
    [
      `INSERT INTO audit_leaves (idx, leaf, hash, type, time_ms) VALUES (${next}, x'', x'00', 'loss', 0)`,
      'CHECK',
    ],
  ])('forbids %s', (sql, why) => {
    const db = openWithEvents();
    expect(() => db.exec(sql)).toThrow(why);
    expect(db.prepare('SELECT count(*) FROM audit_leaves').pluck().get()).toBe(oneOfEach.length);
    db.close();
  });

  test('forgets a personal value and keeps its leaf', () => {
    const db = openWithEvents();
    db.exec("DELETE FROM audit_personal WHERE field = 'path'");
    const addressed = oneOfEach.flatMap((event, index) => ('sourceAddress' in event ? [index] : []));
    expect(addressed).not.toEqual([]);
    expect(db.prepare('SELECT idx, field FROM audit_personal').raw().all()).toEqual(
      addressed.map((index) => [index, 'sourceAddress']),
    );
    expect(db.prepare('SELECT count(*) FROM audit_leaves').pluck().get()).toBe(oneOfEach.length);
    db.close();
  });
});

describe('a batch with a refused request', () => {
  const unknown: WriteRequest = { change: { kind: 'join_token_revoked', id: 'none' }, leaves: [] };
  const request = (serial: number): WriteRequest => {
    const event = issuance({ serial: `${serial}`.padStart(40, '4'), notAfter: new Date(60_000) });
    return { change: { kind: 'none' }, leaves: [leafRecord(event, randomBytes)] };
  };

  test.each([1, 2])('sweeps what has expired like any other, with %i of them', (count) => {
    const db = openForWriting(newDirectory(), noon);
    const write = createBatchWriter(db);
    const left = db.prepare('SELECT count(*) FROM certificates').pluck();
    for (const serial of [1, 2]) write({ requests: [request(serial)], nowMs: 0 });
    expect(left.get()).toBe(2);
    const requests = Array.from({ length: count }, () => unknown);
    for (let batch = 0; batch < 63; batch++) write({ requests, nowMs: noon.getTime() });
    expect(left.get()).toBe(0);
    db.close();
  });

  test.each([[[request(1)]], [[request(1), unknown]], [[]]])(
    'is another matter than a log that cannot be signed',
    (requests) => {
      const db = openForWriting(newDirectory(), noon);
      const sign = () => {
        throw new Error('no signature');
      };
      const write = createBatchWriter(db, () => ({ ...logSigner, sign }));
      expect(() => write({ requests, nowMs: 0 })).toThrow('no signature');
      expect(readAuditSize(db)).toBe(0);
      db.close();
    },
  );
});

function openWithEvents(): SqliteDatabase.Database {
  const db = openForWriting(newDirectory(), noon);
  const leaves = oneOfEach.map((event) => ({
    ...encodeEvent(event, randomBytes),
    columns: auditColumns(event),
    certificate: null,
    token: null,
    rollup: rollupOf(event),
  }));
  const answers = createBatchWriter(db)({ requests: [{ change: { kind: 'none' }, leaves }], nowMs: 0 });
  expect(answers).toEqual([{ firstIndex: 0 }]);
  return db;
}

function setVersion(dir: string, version: number): void {
  const db = new SqliteDatabase(file(dir));
  db.pragma(`user_version = ${version}`);
  db.close();
}

function damage(dir: string): void {
  const bytes = readFileSync(file(dir));
  bytes.fill(0xa5, 3 * 4_096 + 8, bytes.length - 4_096);
  writeFileSync(file(dir), bytes);
}
