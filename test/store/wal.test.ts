import { randomBytes } from 'node:crypto';
import { renameSync, statSync, truncateSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Worker } from 'node:worker_threads';
import SqliteDatabase from 'better-sqlite3';
import { afterEach, describe, expect, test } from 'vitest';
import { parseAuditQuery } from '../../src/audit/question.ts';
import { systemClock } from '../../src/clock.ts';
import { backfillWal, openForBackfill, openForReading, openForWriting } from '../../src/store/database.ts';
import { leafRecord } from '../../src/store/leaf-record.ts';
import type { WriteBatch } from '../../src/store/protocol.ts';
import { openStore, type Store } from '../../src/store/store.ts';
import { defaultWholeCheckBytes } from '../../src/store/start-check.ts';
import { startThreads, type StoreThreads } from '../../src/store/threads.ts';
import { createBatchWriter } from '../../src/store/writer.ts';
import { decision, issuance, noon } from '../audit/events.ts';
import { eventually } from '../harness/eventually.ts';
import { noFileMayGrow } from '../harness/full-disk.ts';
import { newDirectory } from './directories.ts';
import { checkedLog } from './log-check.ts';

const code = (name: string) => expect.objectContaining({ code: name });
const frameBytes = 4_096 + 24;
const fileOf = (dataDir: string) => join(dataDir, 'countersign.db');
const walBytes = (dataDir: string) => statSync(`${fileOf(dataDir)}-wal`).size;
const serial = () => randomBytes(16).toString('hex');

test('SQLite is one in which a commit that begins the WAL anew does not confuse a second checkpoint', () => {
  // https://sqlite.org/wal.html#walresetbug: mended in 3.51.3.
  const db = new SqliteDatabase(':memory:');
  const version = String(db.prepare('SELECT sqlite_version()').pluck().get());
  db.close();
  const [major = 0, minor = 0, patch = 0] = version.split('.').map(Number);
  expect(major * 1_000_000 + minor * 1_000 + patch).toBeGreaterThanOrEqual(3_051_003);
});

describe('copying from the WAL', () => {
  const setUp = () => {
    const dataDir = newDirectory();
    const db = openForWriting(dataDir, noon);
    const write = createBatchWriter(db);
    const beside = openForBackfill(dataDir);
    const commit = () => write(batchOf(1));
    const state = () => backfillWal(beside, Number.POSITIVE_INFINITY);
    const close = () => {
      beside.close();
      db.close();
    };
    return { dataDir, db, beside, commit, state, close };
  };

  test('is done beside the writer, and the next commit begins it anew', () => {
    const { db, beside, commit, state, close } = setUp();
    for (let i = 0; i < 20; i++) commit();
    const { frames = 0 } = state() ?? {};
    expect([frames > 40, state()?.backfilled]).toEqual([true, 0]);
    expect(backfillWal(beside, frames)).toEqual({ frames, backfilled: 0 });
    expect(backfillWal(beside, frames - 1)).toEqual({ frames, backfilled: frames });
    commit();
    expect(state()).toEqual({ frames: expect.any(Number), backfilled: 0 });
    expect(state()?.frames).toBeLessThan(frames);
    expect(db.pragma('integrity_check', { simple: true })).toBe('ok');
    close();
  });

  test('leaves what somebody reads, and waits for nobody', () => {
    const { dataDir, beside, commit, state, close } = setUp();
    commit();
    const reader = openForReading(dataDir);
    const read = () => reader.prepare('SELECT count(*) FROM audit_leaves').pluck().get();
    reader.exec('BEGIN');
    expect(read()).toBe(1);
    const { frames = 0 } = state() ?? {};
    commit();
    expect(backfillWal(beside, 0)).toEqual({ frames: expect.any(Number), backfilled: frames });
    expect([read(), (state()?.frames ?? 0) > frames]).toEqual([1, true]);
    reader.exec('COMMIT');
    const all = state()?.frames;
    expect(backfillWal(beside, 0)).toEqual({ frames: all, backfilled: all });
    reader.close();
    close();
  });

  test('is refused by a disk without room, which takes nothing away', () => {
    const { db, beside, commit, state, close } = setUp();
    commit();
    const before = state();
    noFileMayGrow.fill(process.pid, '');
    try {
      expect(backfillWal(beside, 0)).toBeNull();
    } finally {
      noFileMayGrow.free(process.pid, '');
    }
    expect(state()).toEqual(before);
    const all = before?.frames;
    expect(backfillWal(beside, 0)).toEqual({ frames: all, backfilled: all });
    expect(db.pragma('integrity_check', { simple: true })).toBe('ok');
    close();
  });

  test('is done by a commit when nobody else does it', () => {
    const { dataDir, db, commit, state, close } = setUp();
    let most = 0;
    let begunAnew = 0;
    for (let before = 0; begunAnew < 2;) {
      commit();
      const frames = state()?.frames ?? 0;
      if (frames < before) begunAnew += 1;
      most = Math.max(most, frames);
      before = frames;
    }
    expect(most).toBeGreaterThan(16_000);
    expect(most).toBeLessThan(17_000);
    expect(walBytes(dataDir)).toBeLessThan(17_000 * frameBytes);
    expect(db.pragma('integrity_check', { simple: true })).toBe('ok');
    close();
  }, 120_000);
});

describe('a store under steady writes', () => {
  let stores: Store[] = [];
  afterEach(async () => {
    for (const store of stores) await store.close();
    stores = [];
  });

  /** With its threads in the order they were started, so that a test may end one. */
  async function open(dataDir: string): Promise<{ store: Store; workers: Worker[]; gone: string[] }> {
    const workers: Worker[] = [];
    const gone: string[] = [];
    const note = (worker: Worker) => void workers.push(worker);
    process.on('worker', note);
    try {
      const store = await openStore({
        dataDir,
        clock: systemClock,
        randomBytes,
        onCheckpointerGone: (cause) => gone.push(cause),
      });
      stores.push(store);
      // A third one starts with the first question to the log, and the last one with the first long WAL.
      await store.queryAudit(parseAuditQuery({}, noon));
      expect(workers).toHaveLength(3);
      while (workers.length < 4) {
        await store.recordEvents(Array.from({ length: 500 }, () => issuance({ serial: serial() })));
        await sleep(20);
      }
      return { store, workers, gone };
    } finally {
      process.off('worker', note);
    }
  }

  /** Commits on and on, each alone. @returns the largest the WAL file was, in bytes */
  async function writeUntil(
    store: Store,
    dataDir: string,
    isEnough: (commits: number) => boolean,
  ): Promise<number> {
    let most = 0;
    for (let commits = 0; !isEnough(commits); commits++) {
      await store.recordEvents([issuance({ serial: serial() })]);
      most = Math.max(most, walBytes(dataDir));
    }
    return most;
  }

  test('has a short WAL, also after somebody has read for long', async () => {
    const dataDir = newDirectory();
    const { store, gone } = await open(dataDir);
    const beside = openForReading(dataDir);
    const framesNow = () => backfillWal(beside, Number.POSITIVE_INFINITY)?.frames ?? 0;
    // How long it was each time it was begun anew.
    const lengths: number[] = [];
    let before = 0;
    const most = await writeUntil(store, dataDir, () => {
      const now = framesNow();
      if (now < before) lengths.push(before);
      before = now;
      return lengths.length === 4;
    });
    expect(Math.min(...lengths)).toBeGreaterThan(8_000);
    // A commit has copied what is longer.
    expect(Math.min(...lengths)).toBeLessThan(16_000);
    expect(most).toBeLessThan(17_000 * frameBytes);

    beside.exec('BEGIN');
    beside.prepare('SELECT count(*) FROM audit_leaves').pluck().get();
    await writeUntil(store, dataDir, () => walBytes(dataDir) > 80 * 1_048_576);
    beside.exec('COMMIT');
    await eventually('a WAL begun anew', async () => {
      await store.recordEvents([decision()]);
      return framesNow() < 8_000;
    });
    // What is more than 64 MiB is given back.
    expect(walBytes(dataDir)).toBeLessThanOrEqual(64 * 1_048_576);
    expect(beside.pragma('quick_check(1)', { simple: true })).toBe('ok');
    beside.close();
    expect([store.health(), gone]).toEqual([{ ok: true }, []]);
    await checkedLog(store);
  }, 180_000);

  test('goes on without its checkpointer, and says so once', async () => {
    const dataDir = newDirectory();
    const { store, workers, gone } = await open(dataDir);
    expect(workers).toHaveLength(4);
    await workers[3]?.terminate();
    await eventually('a word of it', () => gone.length > 0);
    for (let commit = 0; commit < 3; commit++) {
      await store.recordEvents([decision()]);
      await sleep(150);
    }
    expect([store.health(), gone]).toEqual([{ ok: true }, [expect.stringMatching('a store thread ended$')]]);
    expect(await store.foldLog()).toBe(true);
    expect(walBytes(dataDir)).toBe(0);
    await checkedLog(store);
  }, 60_000);

  test.each([0, 1, 2])('stops for good when another of its threads ends: %i', async (at) => {
    const dataDir = newDirectory();
    const { store, workers, gone } = await open(dataDir);
    expect(workers).toHaveLength(4);
    await store.recordEvents([decision()]);
    await workers[at]?.terminate();
    await eventually('it to stop', () => !store.health().ok);
    await expect(store.recordEvents([decision()])).rejects.toThrow(code('store_unavailable'));
    expect([await store.foldLog(), gone]).toEqual([false, []]);
    await store.close();
    // Nobody has folded it.
    expect(walBytes(dataDir)).toBeGreaterThan(0);
  });
});

describe('a thread that copies from the WAL', () => {
  const start = async (dataDir: string) => {
    const told: string[] = [];
    const tell = (who: string) => (cause: string) => void told.push(`${who}: ${cause}`);
    const handlers = {
      onWriteLost: tell('write'),
      onLost: tell('all'),
      onCheckpointerGone: tell('checkpointer'),
    };
    return {
      told,
      threads: await startThreads(
        { dataDir, nowMs: noon.getTime(), wholeCheckBytes: defaultWholeCheckBytes },
        handlers,
      ),
    };
  };
  const backfill = { kind: 'backfill', above: 0 } as const;
  const write = (threads: StoreThreads) => threads.writer.call({ kind: 'write', batch: batchOf(1) });

  test.each([
    ['checkpointer', 'all'],
    ['writer', 'write'],
  ] as const)('and finds the database damaged ends all writing: the %s', async (name, who) => {
    const dataDir = newDirectory();
    const { told, threads } = await start(dataDir);
    await write(threads);
    await threads[name].call(backfill);
    expect(await threads.writer.call({ kind: 'fold' })).toBe(true);
    await write(threads);
    // Its pages are gone, and those in the WAL are too few to be all that is missing.
    truncateSync(fileOf(dataDir), 0);
    await expect(threads[name].call(backfill)).rejects.toThrow(code('store_corrupt'));
    expect(told).toEqual([expect.stringMatching(`^${who}: .*SQLITE_CORRUPT`)]);
    if (name === 'writer') {
      await expect(write(threads)).rejects.toThrow(code('store_unavailable'));
      await expect(threads.writer.call({ kind: 'fold' })).rejects.toThrow(code('store_unavailable'));
      expect(await threads.writer.call({ kind: 'resume' })).toBe('never');
    }
    await threads.close(false);
    // The WAL is as it was: whoever closed last has not folded it.
    expect(walBytes(dataDir)).toBeGreaterThan(0);
  });

  test('starts when the WAL is long, and is tried once', async () => {
    const dataDir = newDirectory();
    const { told, threads } = await start(dataDir);
    await write(threads);
    const starts: Worker[] = [];
    const note = (worker: Worker) => void starts.push(worker);
    process.on('worker', note);
    try {
      const state = await threads.checkpointer.call({ kind: 'backfill', above: 8_000 });
      expect([starts, state]).toEqual([[], { frames: expect.any(Number), backfilled: 0 }]);
      // What it would open is not there any more.
      renameSync(fileOf(dataDir), `${fileOf(dataDir)}.away`);
      for (let time = 0; time < 2; time++)
        await expect(threads.checkpointer.call(backfill)).rejects.toThrow(code('store_unavailable'));
      expect(starts).toHaveLength(1);
      expect(told).toEqual([expect.stringMatching('^checkpointer: it did not start: .*SQLITE_CANTOPEN')]);
    } finally {
      process.off('worker', note);
      renameSync(`${fileOf(dataDir)}.away`, fileOf(dataDir));
    }
    await threads.close(true);
  });

  test('is refused while another one does, and it is no failure', async () => {
    const dataDir = newDirectory();
    const { told, threads } = await start(dataDir);
    await write(threads);
    const reader = openForReading(dataDir);
    reader.exec('BEGIN');
    reader.prepare('SELECT count(*) FROM audit_leaves').pluck().get();
    await write(threads);
    let folded: Promise<unknown> | undefined;
    await eventually('a refusal', async () => {
      // Waits for the reader.
      folded = threads.writer.call({ kind: 'fold' });
      await sleep(100);
      return (await threads.checkpointer.call(backfill)) === null;
    });
    reader.exec('COMMIT');
    reader.close();
    expect(await folded).toBe(true);
    await write(threads);
    expect([told, await threads.checkpointer.call(backfill)]).toEqual([[], expect.anything()]);
    await threads.close(true);
  });
});

function batchOf(count: number): WriteBatch {
  const requests = Array.from({ length: count }, () => ({
    change: { kind: 'none' as const },
    leaves: [leafRecord(issuance({ serial: serial() }), randomBytes)],
  }));
  return { requests, nowMs: noon.getTime() };
}
