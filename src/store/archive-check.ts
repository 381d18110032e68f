import { lstatSync, readdirSync } from 'node:fs';
import { hash } from 'node:crypto';
import { join } from 'node:path';
import SqliteDatabase from 'better-sqlite3';
import { openCheckpoint } from '../audit/checkpoint.ts';
import type { LogCensus } from '../audit/log-gaps.ts';
import { parseVerifierKey } from '../audit/note.ts';
import { verifyLog } from '../audit/verify-log.ts';
import { MeshError, quote } from '../errors.ts';
import { digestFile, readSmallFile } from './archive-files.ts';
import {
  databaseName,
  invalid,
  type Manifest,
  manifestName,
  maxKeyBytes,
  maxManifestBytes,
  parseManifest,
  sealingKeyName,
} from './archive-manifest.ts';
import { checkSigned, readCheckpoint } from './audit-checkpoint.ts';
import { readAuditSize } from './audit-log.ts';
import { readRemains, readTile } from './audit-proofs.ts';
import { type Database, storageError } from './database.ts';
import { describeSchema, makeSchema, schemaVersion } from './migrations.ts';
import { readMeta } from './state-tables.ts';

/** What a backup must be, as far as somebody knows. */
export type Expected = {
  /** SHA-256 of the manifest, lower-case hex, as it was printed when the backup was made. */
  readonly digest: string | null;
  /** The key that verifies the log, as text. */
  readonly verifierKey: string | null;
  readonly trustDomain: string | null;
};

/** A backup that is whole. */
export type CheckedArchive = {
  readonly manifest: Manifest;
  readonly digest: string;
  readonly census: LogCensus;
};

/**
 * Proves a backup: its manifest, each file, the database with its schema, the whole log against its checkpoint, and that the
 * keys that the database needs are there.
 * @throws MeshError `backup_invalid`, `store_newer`, `store_corrupt`, `audit_log_*`, `audit_signature_invalid`, `file_missing`,
 *   `file_permissions`
 */
export async function checkArchive(dir: string, expected: Expected): Promise<CheckedArchive> {
  const { manifest, digest } = readArchiveManifest(dir, expected);
  for (const { name, bytes, sha256 } of manifest.files) {
    const found = digestFile(join(dir, name), bytes);
    if (found.bytes !== bytes) throw invalid(`${name} has ${found.bytes} of ${bytes} bytes`);
    if (found.sha256 !== sha256) throw invalid(`${name} is not what was backed up`);
  }
  const db = openUnknown(join(dir, databaseName));
  try {
    checkDatabase(db, manifest);
    checkKeys(dir, db, manifest);
    return { manifest, digest, census: await checkLog(db, manifest) };
  } catch (error) {
    throw storageError(error) ?? error;
  } finally {
    db.close();
  }
}

/** Reads and judges the manifest, and which files are there. @throws MeshError `backup_invalid`, `store_newer`, `file_missing` */
export function readArchiveManifest(
  dir: string,
  expected: Expected,
): { readonly manifest: Manifest; readonly digest: string; readonly bytes: Uint8Array } {
  if (lstatSync(dir, { throwIfNoEntry: false })?.isDirectory() !== true) {
    throw new MeshError('file_missing', `there is no backup ${quote(dir)}`, {
      fix: 'name the directory that countersign backup has made, no link',
    });
  }
  const bytes = readSmallFile(join(dir, manifestName), maxManifestBytes);
  const digest = hash('sha256', bytes, 'hex');
  if (expected.digest !== null && expected.digest !== digest) {
    throw invalid('its manifest is another one than when it was made');
  }
  const manifest = parseManifest(bytes.toString('utf8'));
  if (manifest.schema > schemaVersion) {
    throw new MeshError(
      'store_newer',
      `the backup has schema ${manifest.schema}, this program knows up to ${schemaVersion}`,
      { fix: 'run the version that made it, or a later one' },
    );
  }
  const { trustDomain, verifierKey } = expected;
  if (trustDomain !== null && manifest.trustDomain !== trustDomain) {
    throw invalid(`it is of the trust domain ${quote(manifest.trustDomain)}`);
  }
  if (verifierKey !== null && manifest.log.verifierKey !== verifierKey) {
    throw invalid('its log has another key than the one given');
  }
  refuseOthers(dir, manifest);
  return { manifest, digest, bytes };
}

function refuseOthers(dir: string, { files }: Manifest): void {
  const known = new Set([manifestName, 'keys', ...files.map(({ name }) => name)]);
  const keys = lstatSync(join(dir, 'keys'), { throwIfNoEntry: false });
  if (keys !== undefined && !keys.isDirectory()) throw invalid('keys is no directory');
  const found = [
    ...readdirSync(dir),
    ...(keys === undefined ? [] : readdirSync(join(dir, 'keys')).map((name) => `keys/${name}`)),
  ];
  const stranger = found.find((name) => !known.has(name));
  if (stranger !== undefined) throw invalid(`${quote(stranger)} is in it, and was not backed up`);
}

/** INVARIANT: read only, and whatever its schema says is not trusted. */
function openUnknown(path: string): Database {
  try {
    const db = new SqliteDatabase(path, { readonly: true, fileMustExist: true });
    for (const pragma of ['trusted_schema = OFF', 'cell_size_check = ON', 'query_only = ON', 'mmap_size = 0'])
      db.pragma(pragma);
    return db;
  } catch (error) {
    throw storageError(error) ?? error;
  }
}

function checkDatabase(db: Database, manifest: Manifest): void {
  if (db.pragma('user_version', { simple: true }) !== manifest.schema || manifest.schema === 0)
    throw invalid('its database has another schema than its manifest says');
  // A trigger too many would act on the first write, and one too few would let the log be changed.
  const right = new SqliteDatabase(':memory:');
  try {
    makeSchema(right, manifest.schema);
    const [want, have] = [describeSchema(right), describeSchema(db)];
    const odd = [...new Set([...want.keys(), ...have.keys()])].find(
      (name) => want.get(name) !== have.get(name),
    );
    if (odd !== undefined) throw invalid(`the ${quote(odd)} of its database is not ours`);
  } finally {
    right.close();
  }
  if (db.pragma('integrity_check(1)', { simple: true }) !== 'ok') throw invalid('its database is damaged');
  if (readMeta(db, 'trust_domain') !== manifest.trustDomain)
    throw invalid('its database is of another trust domain');
}

async function checkLog(db: Database, { log }: Manifest): Promise<LogCensus> {
  const stored = readCheckpoint(db);
  const verifierKey = readMeta(db, 'audit_verifier_key');
  if (stored?.note !== log.checkpoint || stored.size !== log.size || verifierKey !== log.verifierKey)
    throw invalid('its log is not the one that its manifest tells of');
  checkSigned(db, log.verifierKey, readAuditSize(db));
  const checkpoint = openCheckpoint(stored.note, parseVerifierKey(log.verifierKey));
  return verifyLog(
    checkpoint,
    (tile) => Promise.resolve(unlessPruned(() => readTile(db, tile))),
    null,
    undefined,
    (tile) => Promise.resolve(readRemains(db, tile) ?? undefined),
  );
}

function unlessPruned(read: () => Uint8Array | null): Uint8Array | undefined {
  try {
    return read() ?? undefined;
  } catch (error) {
    if (error instanceof MeshError && error.code === 'audit_entries_pruned') return undefined;
    throw error;
  }
}

/** That the keys that a start opens are there, and say that they are what their names say. */
function checkKeys(dir: string, db: Database, { files, trustDomain, seal }: Manifest): void {
  const names = new Set(files.map(({ name }) => name));
  const needed = [
    readMeta(db, 'audit_key'),
    readMeta(db, 'policy_key'),
    ...db
      .prepare<[], string>("SELECT key_id FROM authorities WHERE kind = 'intermediate' AND state = 'active'")
      .pluck()
      .all(),
    ...db.prepare<[], string>("SELECT key_id FROM jwt_keys WHERE state = 'active'").pluck().all(),
  ];
  for (const keyId of needed) {
    if (keyId !== null && !names.has(`keys/${keyId}.json`))
      throw invalid(`the key ${quote(keyId)} is missing`);
  }
  if (seal === 'key_file' && !names.has(`keys/${sealingKeyName}`))
    throw invalid('the file that opens its keys is missing');
  for (const name of names) {
    const keyId = /^keys\/(.*)\.json$/.exec(name)?.[1];
    if (keyId === undefined) continue;
    const envelope = readEnvelope(join(dir, name));
    if (envelope.keyId !== keyId || envelope.trustDomain !== trustDomain)
      throw invalid(`${name} is the key of something else`);
  }
}

/** What a sealed key says of itself. @throws MeshError `backup_invalid` */
export function readEnvelope(path: string): {
  readonly keyId: unknown;
  readonly trustDomain: unknown;
  readonly v: unknown;
} {
  try {
    const { keyId, trustDomain, v } = Object(
      JSON.parse(readSmallFile(path, maxKeyBytes).toString('utf8')),
    ) as Record<string, unknown>;
    return { keyId, trustDomain, v };
  } catch (error) {
    if (error instanceof MeshError) throw error;
    throw invalid(`${quote(path)} is no sealed key`, error);
  }
}
