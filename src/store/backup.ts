import {
  closeSync,
  constants,
  fchmodSync,
  fsyncSync,
  openSync,
  readdirSync,
  renameSync,
  rmSync,
  statfsSync,
} from 'node:fs';
import { join } from 'node:path';
import SqliteDatabase from 'better-sqlite3';
import { MeshError, quote } from '../errors.ts';
import { syncDirectory } from './key-files.ts';

/** What a start did to a database that an earlier release wrote. */
export type Migration = {
  readonly from: number;
  readonly to: number;
  /** The file that holds the database as it was before. */
  readonly backup: string;
  /** Older backups that made way for it. */
  readonly removed: readonly string[];
};

/**
 * Copies a database into a file of its own beside it, 0600, durably, and reads the copy back. The copy has its final name
 * only once it is known to be whole.
 * @param schema the version of the schema it has
 * @returns the path of the copy
 * @throws MeshError `store_backup_failed`; then nothing is left of the copy, and no older one was touched
 */
export function backUp(db: SqliteDatabase.Database, dataDir: string, schema: number, now: Date): string {
  const stamp = now.toISOString().replaceAll(/[:.]/g, '-');
  const path = join(dataDir, `countersign.db.schema-${schema}.${stamp}.backup`);
  const partial = `${path}.partial`;
  try {
    // Of a start that was cut off.
    for (const name of readdirSync(dataDir)) {
      if (partialName.test(name)) rmSync(join(dataDir, name));
    }
    refuseWithoutRoom(db, dataDir);
    createPrivate(partial);
    db.prepare('VACUUM INTO ?').run(partial);
    checkCopy(db, partial, schema);
    syncFile(partial);
    renameSync(partial, path);
    syncDirectory(dataDir);
    return path;
  } catch (error) {
    rmSync(partial, { force: true });
    if (error instanceof MeshError && error.code === 'store_backup_failed') throw error;
    const why = error instanceof Error ? error.message : 'unknown';
    throw failed(dataDir, `it cannot be copied first: ${why}`, error);
  }
}

/**
 * Removes all backups but the one just made and the last of the others.
 * @param made never removed: where the clock was put back its name is not the last
 * @returns those removed
 */
export function pruneBackups(dataDir: string, made: string): readonly string[] {
  const names = readdirSync(dataDir)
    .flatMap((name) => {
      const stamp = backupName.exec(name)?.[1];
      return stamp === undefined || join(dataDir, name) === made ? [] : [{ name, stamp }];
    })
    .sort((a, b) => (a.stamp < b.stamp ? -1 : 1));
  const old = names.slice(0, -keptBesides).map(({ name }) => join(dataDir, name));
  for (const path of old) rmSync(path);
  return old;
}

/** The copies that migrations have left in a data directory: what is forgotten in the database is still in them. */
export function listOldCopies(dataDir: string): readonly string[] {
  return readdirSync(dataDir).filter((name) => backupName.test(name));
}

/** A copy is at most as large as what is copied; the migration itself needs room too. */
function refuseWithoutRoom(db: SqliteDatabase.Database, dataDir: string): void {
  const bytes =
    Number(db.pragma('page_count', { simple: true })) * Number(db.pragma('page_size', { simple: true }));
  const { bavail, bsize } = statfsSync(dataDir);
  const free = bavail * bsize;
  if (free < bytes + spareBytes) {
    throw failed(dataDir, `a copy takes ${bytes} bytes, and ${free} are free on its disk`, undefined);
  }
}

function createPrivate(path: string): void {
  // VACUUM INTO takes an empty file as it is; one it made itself would have the mode that the umask leaves.
  const fd = openSync(path, constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL, 0o600);
  fchmodSync(fd, 0o600);
  closeSync(fd);
}

function checkCopy(db: SqliteDatabase.Database, path: string, schema: number): void {
  const copy = new SqliteDatabase(path, { readonly: true, fileMustExist: true });
  try {
    const leaves = 'SELECT count(*) FROM audit_leaves';
    const same =
      copy.pragma('quick_check(1)', { simple: true }) === 'ok' &&
      copy.pragma('user_version', { simple: true }) === schema &&
      copy.prepare(leaves).pluck().get() === db.prepare(leaves).pluck().get();
    if (!same) throw new Error('the copy is not what was copied');
  } finally {
    copy.close();
  }
}

function syncFile(path: string): void {
  const fd = openSync(path, constants.O_RDONLY);
  try {
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}

function failed(dataDir: string, why: string, cause: unknown): MeshError {
  return new MeshError(
    'store_backup_failed',
    `the database of ${quote(dataDir)} is of an earlier version and was left as it is: ${why}`,
    { fix: 'make room on that disk, then start again; no backup was removed', cause },
  );
}

const keptBesides = 1;
const spareBytes = 4_194_304;
const backupName = /^countersign\.db\.schema-[0-9]+\.([0-9TZ-]+)\.backup$/;
const partialName = /^countersign\.db\.schema-[0-9]+\.[0-9TZ-]+\.backup\.partial(?:-journal)?$/;
