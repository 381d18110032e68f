import { MeshError, quote } from '../errors.ts';

/** What a backup says of itself. It is not signed: whoever can write the backup can write it too. */
export type Manifest = {
  readonly format: 'countersign-backup';
  readonly version: 1;
  /** RFC 3339 in UTC. */
  readonly madeAt: string;
  /** Of the program that made it. */
  readonly by: string;
  /** Of the database. */
  readonly schema: number;
  readonly trustDomain: string;
  /** What opens the keys: a passphrase, or the key file, which is in the backup or was left out. */
  readonly seal: 'passphrase' | 'key_file' | 'key_file_left_out' | 'none';
  readonly log: { readonly size: number; readonly checkpoint: string; readonly verifierKey: string };
  readonly files: readonly FileRecord[];
};

/** A file of a backup; `name` is `countersign.db` or `keys/<file>`. */
export type FileRecord = { readonly name: string; readonly bytes: number; readonly sha256: string };

export const manifestName = 'manifest.json';
export const databaseName = 'countersign.db';
export const sealingKeyName = 'key-encryption-key';
/** The most bytes of a manifest, and of a key file. */
export const maxManifestBytes = 4_194_304;
export const maxKeyBytes = 65_536;

/**
 * Reads a manifest of unknown origin: no name leads anywhere but into the backup, none comes twice.
 * @throws MeshError `backup_invalid`
 */
export function parseManifest(text: string): Manifest {
  const value = parseJson(text);
  const { log, files } = value;
  const isOne =
    value['format'] === 'countersign-backup' &&
    value['version'] === 1 &&
    isText(value['madeAt']) &&
    /^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]{8,12}Z$/.test(value['madeAt']) &&
    isText(value['by']) &&
    isText(value['trustDomain']) &&
    seals.has(String(value['seal'])) &&
    isCount(value['schema']) &&
    isLog(log) &&
    Array.isArray(files);
  if (!isOne) {
    throw value['format'] === 'countersign-backup' && isCount(value['version']) && value['version'] > 1
      ? new MeshError('store_newer', `the backup has format ${value['version']}, this program knows 1`, {
          fix: 'run the version that made it, or a later one',
        })
      : invalid('its manifest is none of ours');
  }
  if (files.length > maxFiles) throw invalid(`it names more than ${maxFiles} files`);
  const records = files.map(parseFile);
  const names = new Set(records.map(({ name }) => name));
  if (names.size < records.length) throw invalid('it names a file twice');
  if (!names.has(databaseName)) throw invalid(`it has no ${databaseName}`);
  return { ...(value as unknown as Manifest), files: records };
}

/** That a backup is not what it should be. */
export function invalid(why: string, cause?: unknown): MeshError {
  return new MeshError('backup_invalid', `the backup is not whole: ${why}`, {
    fix: 'use another backup; keep this one until you know what happened to it',
    ...(cause === undefined ? {} : { cause }),
  });
}

function parseFile(value: unknown): FileRecord {
  const { name, bytes, sha256 } = Object(value) as Record<string, unknown>;
  if (!isText(name) || (name !== databaseName && !keyName.test(name))) {
    throw invalid(`it names the file ${quote(String(name))}`);
  }
  const isRecord = isCount(bytes) && isText(sha256) && /^[0-9a-f]{64}$/.test(sha256);
  if (!isRecord || (name !== databaseName && bytes > maxKeyBytes)) {
    throw invalid(`what it says of ${quote(name)} cannot be`);
  }
  return { name, bytes, sha256 };
}

function parseJson(text: string): Readonly<Record<string, unknown>> {
  try {
    return Object(JSON.parse(text)) as Record<string, unknown>;
  } catch (cause) {
    throw invalid('its manifest is no JSON', cause);
  }
}

function isLog(value: unknown): boolean {
  const { size, checkpoint, verifierKey } = Object(value) as Record<string, unknown>;
  return isCount(size) && isText(checkpoint) && isText(verifierKey);
}

function isText(value: unknown): value is string {
  return typeof value === 'string' && value.length <= maxText;
}

function isCount(value: unknown): value is number {
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0;
}

const seals: ReadonlySet<string> = new Set<Manifest['seal']>([
  'passphrase',
  'key_file',
  'key_file_left_out',
  'none',
]);
const keyName = /^keys\/(?:[0-9a-f]{8,128}\.json|key-encryption-key)$/;
const maxFiles = 10_000;
const maxText = 65_536;
