import {
  closeSync,
  constants,
  fchmodSync,
  fsyncSync,
  lstatSync,
  openSync,
  readdirSync,
  renameSync,
  rmSync,
} from 'node:fs';
import { hash } from 'node:crypto';
import { dirname, join, resolve } from 'node:path';
import SqliteDatabase from 'better-sqlite3';
import { MeshError, quote } from '../errors.ts';
import {
  type CheckedArchive,
  checkArchive,
  readArchiveManifest,
  type Expected,
  readEnvelope,
} from './archive-check.ts';
import { copyFile, demandRoom, digestFile, failed, openStaging, writeFile } from './archive-files.ts';
import {
  databaseName,
  type FileRecord,
  invalid,
  type Manifest,
  manifestName,
  maxKeyBytes,
  sealingKeyName,
} from './archive-manifest.ts';
import { readCheckpoint } from './audit-checkpoint.ts';
import { isOutOfRoom, storageError } from './database.ts';
import { openAs, syncDirectory } from './key-files.ts';
import { readMeta } from './state-tables.ts';

/** What becomes of the file that opens the keys, where no passphrase does. */
export type SealingKey = 'refuse' | 'include' | 'leave_out';

/**
 * Copies a data directory into a new directory, whole and proven, whether a server runs on it or not. The database is as it was
 * at one moment; nobody waits for it.
 * @param options.target a directory that is not there yet
 * @throws MeshError `file_exists`, `file_missing`, `file_permissions`, `directory_in_use`, `backup_unsealed`, `backup_failed`,
 *   and what {@link checkArchive} throws; then nothing is left of the copy
 */
export async function makeArchive(options: {
  readonly dataDir: string;
  readonly target: string;
  readonly sealingKey: SealingKey;
  readonly now: Date;
  readonly version: string;
}): Promise<CheckedArchive> {
  const { dataDir } = options;
  const target = resolve(options.target);
  if (lstatSync(target, { throwIfNoEntry: false }) !== undefined) {
    throw new MeshError('file_exists', `${quote(options.target)} exists already`, {
      fix: 'name a new directory',
    });
  }
  // Without it there is nothing to back up, whatever else is there.
  closeSync(openAs(join(dataDir, databaseName), constants.O_RDONLY | constants.O_NONBLOCK, 'a regular file'));
  const staging = openStaging(target, '.partial');
  try {
    const keys = new Map<string, FileRecord>();
    // Before the database and after it: a key that it names may be forgotten meanwhile, and one may be new.
    const seal = takeKeys(dataDir, staging.path, options.sealingKey, keys);
    copyDatabase(dataDir, staging.path);
    const sealAfter = takeKeys(dataDir, staging.path, options.sealingKey, keys);
    const manifest = describe(staging.path, keys, {
      ...options,
      seal: sealAfter === 'none' ? seal : sealAfter,
    });
    const bytes = Buffer.from(`${JSON.stringify(manifest, null, 2)}\n`);
    writeFile(join(staging.path, manifestName), bytes);
    const checked = await checkArchive(staging.path, { ...anything, digest: hash('sha256', bytes, 'hex') });
    syncDirectory(join(staging.path, 'keys'));
    place(staging.path, target);
    staging.keep();
    return checked;
  } catch (error) {
    throw error instanceof MeshError ? error : failed(options.target, error);
  } finally {
    staging.drop();
  }
}

/**
 * Makes a data directory from a backup. Everything is copied, and proven as a copy, before it has its name: however this ends,
 * the data directory is all there or not there.
 * @param options.dataDir not there yet, or empty
 * @throws MeshError `restore_refused`, `directory_in_use`, `backup_failed`, and what {@link checkArchive} throws
 */
export async function restoreArchive(options: {
  readonly from: string;
  readonly dataDir: string;
  readonly expected: Expected;
  readonly now: Date;
}): Promise<CheckedArchive> {
  const { from, expected } = options;
  const dataDir = resolve(options.dataDir);
  refuseTaken(dataDir);
  const { manifest, bytes } = readArchiveManifest(from, expected);
  const staging = openStaging(dataDir, '.restoring');
  try {
    demandRoom(
      staging.path,
      manifest.files.reduce((sum, file) => sum + file.bytes, 0),
    );
    for (const { name, bytes: size, sha256 } of manifest.files) {
      const copied = copyFile(join(from, name), join(staging.path, name), size);
      if (copied.bytes !== size || copied.sha256 !== sha256)
        throw invalid(`${name} is not what was backed up`);
    }
    writeFile(join(staging.path, manifestName), bytes);
    // Of the copy: what it was copied from may change at any time.
    const checked = await checkArchive(staging.path, expected);
    markRestored(staging.path, manifest, options.now);
    syncDirectory(join(staging.path, 'keys'));
    rmSync(join(staging.path, manifestName));
    refuseTaken(dataDir);
    place(staging.path, dataDir);
    staging.keep();
    return checked;
  } catch (error) {
    throw error instanceof MeshError ? error : failed(options.dataDir, error);
  } finally {
    staging.drop();
  }
}

/** @returns what opens the keys that are there */
function takeKeys(
  dataDir: string,
  staging: string,
  sealingKey: SealingKey,
  taken: Map<string, FileRecord>,
): Manifest['seal'] {
  const dir = join(dataDir, 'keys');
  let seal: Manifest['seal'] = 'none';
  for (const file of list(dir)) {
    if (!/^[0-9a-f]{8,128}\.json$/.test(file)) continue;
    const name = `keys/${file}`;
    if (!taken.has(name)) {
      try {
        taken.set(name, { name, ...copyFile(join(dir, file), join(staging, name), maxKeyBytes) });
      } catch (error) {
        // Forgotten since the directory was listed.
        if (error instanceof MeshError && error.code === 'file_missing') continue;
        throw error;
      }
    }
    if (readEnvelope(join(staging, name)).v !== 2) seal = seal === 'none' ? 'passphrase' : seal;
    else seal = sealingKey === 'include' ? 'key_file' : 'key_file_left_out';
  }
  const isNeeded = seal === 'key_file' || seal === 'key_file_left_out';
  if (isNeeded && sealingKey === 'refuse') {
    throw new MeshError(
      'backup_unsealed',
      'the keys are sealed with a key file of this data directory: whoever has both has the CA',
      {
        fix: 'give --unsealed to take it along, and keep the backup as you would the CA; or --without-seal, and keep it elsewhere',
      },
    );
  }
  const name = `keys/${sealingKeyName}`;
  if (seal === 'key_file' && !taken.has(name))
    taken.set(name, { name, ...copyFile(join(dir, sealingKeyName), join(staging, name), maxKeyBytes) });
  return seal;
}

/** The names in a directory; none when it is not there. */
function list(dir: string): readonly string[] {
  return lstatSync(dir, { throwIfNoEntry: false })?.isDirectory() === true ? readdirSync(dir) : [];
}

function copyDatabase(dataDir: string, staging: string): void {
  const path = join(dataDir, databaseName);
  const copy = join(staging, databaseName);
  const source = new SqliteDatabase(path, { readonly: true, fileMustExist: true, timeout: busyTimeoutMs });
  try {
    demandRoom(
      staging,
      Number(source.pragma('page_count', { simple: true })) *
        Number(source.pragma('page_size', { simple: true })),
    );
    // Made by us, so that no umask decides its mode; VACUUM INTO takes an empty file as it is.
    const fd = openSync(copy, constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL, 0o600);
    fchmodSync(fd, 0o600);
    closeSync(fd);
    source.prepare('VACUUM INTO ?').run(copy);
    const written = openSync(copy, constants.O_RDONLY);
    fsyncSync(written);
    closeSync(written);
  } catch (error) {
    if (!isOutOfRoom(error)) throw storageError(error) ?? error;
    throw new MeshError('backup_failed', 'the disk of the backup is full', {
      fix: 'make room, or name a directory on another disk; nothing was left half done',
      cause: error,
    });
  } finally {
    source.close();
  }
}

function describe(
  staging: string,
  keys: ReadonlyMap<string, FileRecord>,
  { now, version, seal }: { readonly now: Date; readonly version: string; readonly seal: Manifest['seal'] },
): Manifest {
  const path = join(staging, databaseName);
  const db = new SqliteDatabase(path, { readonly: true, fileMustExist: true });
  try {
    const checkpoint = readCheckpoint(db);
    const verifierKey = readMeta(db, 'audit_verifier_key');
    const trustDomain = readMeta(db, 'trust_domain');
    if (checkpoint === null || verifierKey === null || trustDomain === null) {
      throw new MeshError(
        'backup_failed',
        'the data directory has not been started yet, or not since an earlier release',
        {
          fix: 'start the server on it once',
        },
      );
    }
    return {
      format: 'countersign-backup',
      version: 1,
      madeAt: now.toISOString(),
      by: version,
      schema: Number(db.pragma('user_version', { simple: true })),
      trustDomain,
      seal,
      log: { size: checkpoint.size, checkpoint: checkpoint.note, verifierKey },
      files: [{ name: databaseName, ...digestFile(path, Number.MAX_SAFE_INTEGER) }, ...keys.values()],
    };
  } finally {
    db.close();
  }
}

function refuseTaken(dataDir: string): void {
  const found = lstatSync(dataDir, { throwIfNoEntry: false });
  if (found === undefined || (found.isDirectory() && readdirSync(dataDir).length === 0)) return;
  throw new MeshError('restore_refused', `${quote(dataDir)} is there, and is not an empty directory`, {
    fix: 'name a new directory, or move the old one away: it is evidence',
  });
}

/** The next start tells the log of it. INVARIANT: a witness that forgot what it cosigned is another witness: it gets a new key. */
function markRestored(staging: string, { madeAt, log }: Manifest, now: Date): void {
  const db = new SqliteDatabase(join(staging, databaseName), { fileMustExist: true });
  try {
    db.pragma('synchronous = FULL');
    const value = JSON.stringify({ at: now.toISOString(), madeAt, size: log.size });
    db.prepare('INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)').run('restored', value);
    db.exec("DELETE FROM meta WHERE key IN ('witness_key', 'witness_verifier_key')");
  } finally {
    db.close();
  }
}

/** INVARIANT: a rename replaces an empty directory and nothing else. */
function place(staging: string, target: string): void {
  syncDirectory(staging);
  try {
    renameSync(staging, target);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code !== 'EBUSY' && code !== 'EXDEV') throw error;
    throw new MeshError('restore_refused', `${quote(target)} is where something is mounted`, {
      fix: 'name a new directory inside it',
      cause: error,
    });
  }
  syncDirectory(dirname(target));
}

const anything: Expected = { digest: null, verifierKey: null, trustDomain: null };
const busyTimeoutMs = 5_000;
