import { closeSync, constants, fchmodSync, fstatSync, lstatSync, statfsSync } from 'node:fs';
import { join } from 'node:path';
import SqliteDatabase from 'better-sqlite3';
import { MeshError, quote } from '../errors.ts';
import { backUp, type Migration, pruneBackups } from './backup.ts';
import { checkPrivateFile, ensurePrivateDirectory, openAs, syncDirectory } from './key-files.ts';
import { migrate, schemaVersion } from './migrations.ts';
import type { WalState } from './protocol.ts';
import {
  checkSmallTables,
  checkWhole,
  corrupt,
  defaultWholeCheckBytes,
  readDatabaseBytes,
} from './start-check.ts';
import { isSuspect } from './suspicion.ts';

export type Database = SqliteDatabase.Database;

/**
 * Opens the database of a data directory for writing: file 0600 in a directory 0700, every pragma set and read back,
 * the schema brought up to date after a copy was made of it, the pages checked. A database that is newer than this
 * program is not touched.
 * @param now for the name of the copy
 * @param onMigrated told when an earlier release had written it
 * @param large a database of more than so many bytes: of it only the small tables are checked, and `onLeft` is told, unless it
 *   is to be migrated or somebody has found it damaged
 * @throws MeshError `file_permissions`, `store_corrupt`, `store_newer`, `store_backup_failed`, `platform_unsupported`,
 *   `store_unavailable`
 */
export function openForWriting(
  dataDir: string,
  now: Date,
  onMigrated: (migration: Migration) => void = () => undefined,
  large: LargeDatabase = { wholeCheckBytes: defaultWholeCheckBytes, onLeft: () => undefined },
): Database {
  ensurePrivateDirectory(dataDir);
  refuseNetworkFilesystem(dataDir);
  const path = databasePath(dataDir);
  createPrivate(path);
  checkSideFiles(path);
  return translating(() => {
    refuseStrange(path);
    const db = new SqliteDatabase(path, { fileMustExist: true, timeout: busyTimeoutMs });
    try {
      setPragmas(db);
      const from = Number(db.pragma('user_version', { simple: true }));
      const isSmall = readDatabaseBytes(db) <= large.wholeCheckBytes;
      if (isSmall || from !== schemaVersion || isSuspect(dataDir)) checkWhole(db);
      else checkSmallTables(db);
      const backup = from > 0 && from < schemaVersion ? backUp(db, dataDir, from, now) : null;
      inTransaction(db, () => migrate(db));
      // The database and its WAL have their names now.
      syncDirectory(dataDir);
      if (backup !== null)
        onMigrated({ from, to: schemaVersion, backup, removed: pruneBackups(dataDir, backup) });
      if (!isSmall) large.onLeft();
      return db;
    } catch (error) {
      db.close();
      throw error;
    }
  });
}

/** What is large, and who is told that the large tables of such a database were not looked at. */
export type LargeDatabase = { readonly wholeCheckBytes: number; readonly onLeft: () => void };

/** Opens the database that {@link openForWriting} holds open for reading beside it. */
export function openForReading(dataDir: string): Database {
  const path = databasePath(dataDir);
  return translating(() => {
    const db = new SqliteDatabase(path, { readonly: true, fileMustExist: true, timeout: busyTimeoutMs });
    setPragmas(db);
    db.pragma('query_only = ON');
    return db;
  });
}

/**
 * Opens the database that {@link openForWriting} holds open for {@link backfillWal} beside it. Pages go from file to file
 * past its cache, so that is small.
 */
export function openForBackfill(dataDir: string): Database {
  const path = databasePath(dataDir);
  return translating(() => {
    const db = new SqliteDatabase(path, { fileMustExist: true, timeout: busyTimeoutMs });
    setPragmas(db, [...pragmas, ['cache_size', '-256', -256]]);
    return db;
  });
}

/** Runs `work` in one `BEGIN IMMEDIATE` transaction: all of it is committed, or none. */
export function inTransaction<T>(db: Database, work: () => T): T {
  db.exec('BEGIN IMMEDIATE');
  try {
    const result = work();
    db.exec('COMMIT');
    return result;
  } catch (error) {
    // After a full disk or an I/O error SQLite has rolled back by itself.
    if (db.inTransaction) db.exec('ROLLBACK');
    throw error;
  }
}

/** The code of SQLite behind an error, such as `SQLITE_FULL`, or undefined when it is none of SQLite's. */
export function sqliteCode(error: unknown): string | undefined {
  return error instanceof SqliteDatabase.SqliteError ? error.code : undefined;
}

/**
 * What an error of SQLite means for the store, or undefined when the error is none of SQLite's.
 * @returns MeshError `store_corrupt` or `store_unavailable`; its cause names SQLite's code
 */
export function storageError(error: unknown): MeshError | undefined {
  const code = sqliteCode(error);
  if (code === undefined || !(error instanceof Error)) return undefined;
  const cause = new Error(`${error.message} (${code})`, { cause: error });
  if (isCorruption(code)) return corrupt(cause);
  const [, why = 'cannot be used'] = reasons.find(([start]) => code.startsWith(start)) ?? [];
  return new MeshError('store_unavailable', `the database ${why}`, {
    fix: `mend the disk, then start again; SQLite says ${code}`,
    cause,
  });
}

/** Whether somebody else held the database for longer than we wait: nothing was begun, so it may be tried again. */
export function isBusy(error: unknown): boolean {
  return sqliteCode(error)?.startsWith('SQLITE_BUSY') ?? false;
}

/** Whether the disk took no more: what was written before is not harmed, and nothing of the refused is kept. */
export function isOutOfRoom(error: unknown): boolean {
  const code = sqliteCode(error);
  return code === 'SQLITE_FULL' || code === 'SQLITE_IOERR_WRITE';
}

/** Writes a page of the database as it is, durably. @throws Error of SQLite */
export function touch(db: Database): void {
  inTransaction(db, () => db.pragma(`user_version = ${schemaVersion}`));
}

/**
 * Folds the WAL into the database and empties it, so that nothing of what was overwritten is left in it.
 * @returns false when somebody reads an older state at this moment: to be tried again
 */
export function foldWal(db: Database): boolean {
  return checkpointWal(db, 'TRUNCATE').isDone;
}

/**
 * Copies what was committed from the WAL into the database, as far as nobody reads an older state, and waits for nobody.
 * @param above does nothing while the WAL has no more frames than that
 * @returns null when the disk has no room, or somebody else copies: nothing is lost, and it may be tried again
 * @throws Error of SQLite; then pages that were copied may be lost, and the WAL alone is whole
 */
export function backfillWal(db: Database, above: number): WalState | null {
  const { state } = checkpointWal(db, 'NOOP');
  if (state.frames <= above) return state;
  try {
    const after = checkpointWal(db, 'PASSIVE');
    return after.isDone ? after.state : null;
  } catch (error) {
    if (isOutOfRoom(error) || isBusy(error)) return null;
    throw error;
  }
}

function checkpointWal(
  db: Database,
  mode: 'NOOP' | 'PASSIVE' | 'TRUNCATE',
): { readonly isDone: boolean; readonly state: WalState } {
  const [row] = db.pragma(`wal_checkpoint(${mode})`) as WalRow[];
  return { isDone: row?.busy === 0, state: { frames: row?.log ?? 0, backfilled: row?.checkpointed ?? 0 } };
}

type WalRow = { readonly busy: 0 | 1; readonly log: number; readonly checkpointed: number };

function isCorruption(code: string): boolean {
  return code.startsWith('SQLITE_CORRUPT') || code.startsWith('SQLITE_NOTADB');
}

function databasePath(dataDir: string): string {
  return join(dataDir, 'countersign.db');
}

function checkSideFiles(path: string): void {
  for (const side of [`${path}-wal`, `${path}-shm`]) {
    const stats = lstatSync(side, { throwIfNoEntry: false });
    if (stats !== undefined) checkPrivateFile(side, stats);
  }
}

function createPrivate(path: string): void {
  // Made by us and not by SQLite, so that no umask decides its mode; SQLite gives -wal and -shm the same one.
  const fd = openAs(path, constants.O_RDWR | constants.O_CREAT | constants.O_NONBLOCK, 'a regular file');
  try {
    const stats = fstatSync(fd);
    checkPrivateFile(path, stats);
    if (stats.size === 0) fchmodSync(fd, 0o600);
  } finally {
    closeSync(fd);
  }
}

// Read-only, because closing a writable WAL database folds its WAL into it: a newer one is to stay as it is.
function refuseStrange(path: string): void {
  const db = new SqliteDatabase(path, { readonly: true, fileMustExist: true, timeout: busyTimeoutMs });
  try {
    const version = Number(db.pragma('user_version', { simple: true }));
    if (version > schemaVersion) {
      throw new MeshError(
        'store_newer',
        `${quote(path)} has schema ${version}, this program knows up to ${schemaVersion}`,
        {
          fix: 'run the version that wrote it, or a later one',
        },
      );
    }
    const tables = db.prepare('SELECT count(*) FROM sqlite_schema').pluck().get();
    if (version === 0 && tables !== 0) {
      throw new MeshError('store_corrupt', `${quote(path)} is not a database of this program`, {
        fix: 'give another data directory',
      });
    }
  } finally {
    db.close();
  }
}

function setPragmas(db: Database, wanted: readonly Pragma[] = pragmas): void {
  for (const [name, value, expected] of wanted) {
    db.pragma(`${name} = ${value}`);
    const actual = db.pragma(name, { simple: true });
    if (actual !== expected) {
      throw new MeshError(
        'store_unavailable',
        `the database answers ${name}=${String(actual)} instead of ${expected}`,
      );
    }
  }
}

function translating<T>(work: () => T): T {
  try {
    return work();
  } catch (error) {
    throw storageError(error) ?? error;
  }
}

function refuseNetworkFilesystem(dataDir: string): void {
  const name = networkFilesystems.get(statfsSync(dataDir).type);
  if (name !== undefined) {
    throw new MeshError(
      'platform_unsupported',
      `${quote(dataDir)} lies on ${name}, where locks do not hold`,
      {
        fix: 'put the data directory on a local disk',
      },
    );
  }
}

type Pragma = readonly [name: string, value: string, expected: string | number];

const busyTimeoutMs = 5_000;

// The beginning of SQLite's code, and what it means here.
const reasons: readonly (readonly [string, string])[] = [
  ['SQLITE_FULL', 'cannot be written: its disk is full'],
  ['SQLITE_READONLY', 'cannot be written: its disk or its files are read-only'],
  ['SQLITE_CANTOPEN', 'cannot be opened'],
  ['SQLITE_IOERR_LOCK', 'lies on a filesystem without locks'],
  ['SQLITE_IOERR_RDLOCK', 'lies on a filesystem without locks'],
  ['SQLITE_IOERR', 'cannot be read or written'],
];

// INVARIANT: on every open. This SQLite falls back to synchronous=NORMAL whenever it opens an existing WAL database, and
// then a power cut takes back what was promised.
const pragmas: readonly Pragma[] = [
  ['journal_mode', 'WAL', 'wal'],
  ['synchronous', 'FULL', 2],
  ['foreign_keys', 'ON', 1],
  ['busy_timeout', '5000', busyTimeoutMs],
  ['trusted_schema', 'OFF', 0],
  // A REPLACE asks the triggers of deletion too.
  ['recursive_triggers', 'ON', 1],
  ['cell_size_check', 'ON', 1],
  // SQLite would do it within a commit, and say nothing when it fails. See writer.ts and wal-pacing.ts.
  ['wal_autocheckpoint', '0', 0],
  ['cache_size', '-65536', -65_536],
  ['journal_size_limit', '67108864', 67_108_864],
  ['mmap_size', '0', 0],
  ['temp_store', 'MEMORY', 2],
  // What is deleted is overwritten: contents that are kept no longer, and copies that SQLite makes when it moves rows.
  ['secure_delete', 'ON', 1],
];

// statfs(2): f_type
const networkFilesystems: ReadonlyMap<number, string> = new Map([
  [0x6969, 'NFS'],
  [0x517b, 'SMB'],
  [0xfe53_4d42, 'SMB'],
  [0xff53_4d42, 'CIFS'],
]);
