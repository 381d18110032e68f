import { MeshError } from '../errors.ts';
import type { Database } from './database.ts';
import { largeTrees } from './large-tables.ts';

/** A database of this size, 256 MiB, is read within some seconds from any disk: it is checked whole before it is served. */
export const defaultWholeCheckBytes = 268_435_456;

/** Checks every page of the database, which takes as long as reading all of it. @throws MeshError `store_corrupt` */
export function checkWhole(db: Database): void {
  demandOk(db, 'quick_check(1)');
}

/**
 * Checks what issuing stands on: every table that does not grow with the log, however large the log is.
 * @throws MeshError `store_corrupt`
 */
export function checkSmallTables(db: Database): void {
  const large = new Set(largeTrees.map(({ table }) => table));
  const tables = db
    .prepare<[], string>("SELECT name FROM sqlite_schema WHERE type = 'table' AND rootpage > 0 ORDER BY name")
    .pluck()
    .all();
  for (const table of ['sqlite_schema', ...tables]) {
    if (!large.has(table)) demandOk(db, `quick_check(${table})`);
  }
}

/** The bytes of the database, those in its WAL among them. */
export function readDatabaseBytes(db: Database): number {
  return Number(db.pragma('page_count', { simple: true })) * Number(db.pragma('page_size', { simple: true }));
}

/** The pages of the database are not what was written. */
export function corrupt(cause: unknown): MeshError {
  return new MeshError('store_corrupt', 'the database is damaged', {
    fix: 'restore the data directory from a backup; keep the damaged one for the auditor',
    cause,
  });
}

function demandOk(db: Database, check: string): void {
  const answer = db.pragma(check, { simple: true });
  if (answer !== 'ok') throw corrupt(new Error(String(answer)));
}
