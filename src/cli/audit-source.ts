import { existsSync, mkdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { tileWidth } from '../audit/merkle-tree.ts';
import { type NoteKey, parseVerifierKey } from '../audit/note.ts';
import { formatTilePath, type TileName } from '../audit/tile-path.ts';
import type { ReadTile } from '../audit/verify-log.ts';
import { MeshError, quote } from '../errors.ts';
import { diskError } from '../store/disk-error.ts';
import { makeDirectory } from '../store/key-files.ts';
import type { AdminClient } from './client.ts';
import { readText } from './read-text.ts';

/** A log somewhere: its latest checkpoint as it was signed, and its tiles. */
export type LogSource = {
  /** For people. */
  readonly name: string;
  readonly checkpoint: () => Promise<string>;
  readonly read: ReadTile;
  /** What is left of bundles that have lost contents. */
  readonly readRemains: ReadTile;
};

/** The log of a server. @param isWitnessed its checkpoint is the latest that a quorum of its witnesses has cosigned */
export function serverLog(client: AdminClient, isWitnessed = false): LogSource {
  const checkpoint = `/v1/audit/log/${isWitnessed ? 'witnessed' : checkpointName}`;
  return {
    name: client.address,
    checkpoint: async () => decodeText(await client.getBytes(checkpoint, maxTextBytes), 'the checkpoint'),
    read: async (tile) => {
      try {
        const maxBytes = tile.level === 'entries' ? maxTileBytes : maxTextBytes;
        return await client.getBytes(`/v1/audit/log/${formatTilePath(tile)}`, maxBytes);
      } catch (error) {
        if (isAbsent(error)) return undefined;
        throw error;
      }
    },
    readRemains: async (tile) => {
      try {
        return await client.getBytes(`/v1/audit/log/${formatTilePath(tile)}?pruned=empty`, maxTileBytes);
      } catch (error) {
        if (isAbsent(error)) return undefined;
        throw error;
      }
    },
  };
}

function isAbsent(error: unknown): boolean {
  if (!(error instanceof MeshError)) return false;
  return error.code === 'audit_tile_not_found' || error.code === 'audit_entries_pruned';
}

/** Beside the tiles and not among them: a bundle with nothing for some of its entries is none as others know them. */
function remainsPath(tile: TileName): string {
  return formatTilePath(tile).replace(/^tile/, 'remains');
}

/** An exported log: a directory with `checkpoint` and `tile/`. */
export function directoryLog(directory: string): LogSource {
  return {
    name: directory,
    checkpoint: async () => readText(join(directory, checkpointName), join(directory, checkpointName)),
    read: async (tile) => readTileFile(join(directory, formatTilePath(tile))),
    readRemains: async (tile) => readTileFile(join(directory, remainsPath(tile))),
  };
}

/** An export that is being made: what is there already is read, what is missing comes from elsewhere and is kept. */
export function openExport(directory: string, from: LogSource) {
  writing(directory, () => makeDirectory(directory, 0o700));
  const own = directoryLog(directory);
  const added: string[] = [];
  let isUndone = false;
  const keeping =
    (readOwn: ReadTile, readFrom: ReadTile, pathOf: (tile: TileName) => string): ReadTile =>
    async (tile) => {
      const kept = await readOwn(tile);
      const bytes = kept ?? (await readFrom(tile));
      if (kept === undefined && bytes !== undefined && !isUndone) {
        const path = pathOf(tile);
        writeWhole(directory, path, bytes);
        added.push(path);
      }
      return bytes;
    };
  return {
    /** The checkpoint of the export that was made here before; null for none. */
    before: async (): Promise<string | null> =>
      statSync(join(directory, checkpointName), { throwIfNoEntry: false }) === undefined
        ? null
        : own.checkpoint(),
    read: keeping(own.read, from.read, formatTilePath),
    readRemains: keeping(own.readRemains, from.readRemains, remainsPath),
    /** Takes away what was added, and adds no more of what was asked ahead. */
    undo: (): void => {
      isUndone = true;
      for (const path of added) rmSync(join(directory, path), { force: true });
    },
    /** Last: a directory with a checkpoint is whole. */
    finish: (checkpoint: string): void =>
      writeWhole(directory, checkpointName, Buffer.from(checkpoint), { flush: true }),
  };
}

/**
 * Keeps a checkpoint beside another file, as proof against its log.
 * @returns where; a file that is there already is kept too, for it was found first
 */
export function keepEvidence(beside: string, checkpoint: string): string {
  for (let at = 0; at < maxEvidence; at++) {
    const file = `${beside}.forked${at === 0 ? '' : `.${at}`}`;
    if (existsSync(file)) {
      if (readText(file, file) === checkpoint) return file;
      continue;
    }
    writing(file, () => writeFileSync(file, checkpoint, { mode: 0o600, flag: 'wx', flush: true }));
    return file;
  }
  return `${beside}.forked`;
}

/** Keeps a checkpoint in the place of an older one. */
export function saveCheckpoint(file: string, checkpoint: string): void {
  replaceFile(file, checkpoint);
}

/** Writes a file in the place of what is there: however the process ends, it is the one or the other. */
export function replaceFile(file: string, text: string): void {
  writeWhole(dirname(file), basename(file), Buffer.from(text), { flush: true });
}

/**
 * A verifier key, as it is or in a file.
 * @throws MeshError `audit_note_invalid`, and what reading a file throws
 */
export function readVerifierKey(text: string): NoteKey {
  return parseVerifierKey(verifierKeyText(text));
}

/** The same, not read yet. */
export function verifierKeyText(text: string): string {
  return /^[^+]+\+[0-9a-f]{8}\+/.test(text) ? text : readText(text, text).replace(/\r?\n$/, '');
}

/** @throws MeshError `audit_note_invalid` */
function decodeText(bytes: Uint8Array, what: string): string {
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch (cause) {
    throw new MeshError('audit_note_invalid', `${what} is not UTF-8 text`, { cause });
  }
}

function readTileFile(path: string): Uint8Array | undefined {
  try {
    const stats = statSync(path);
    if (!stats.isFile()) {
      throw new MeshError('file_permissions', `${quote(path)} is no regular file`, {
        fix: 'export the log anew',
      });
    }
    if (stats.size > maxTileBytes) {
      throw new MeshError('input_too_large', `${quote(path)} is larger than a tile can be`, {
        fix: 'export the log anew',
      });
    }
    return readFileSync(path);
  } catch (error) {
    if (error instanceof MeshError) throw error;
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT' || code === 'ENOTDIR') return undefined;
    throw new MeshError('file_permissions', `${quote(path)} cannot be read (${code})`, {
      fix: 'check its owner and mode',
      cause: error,
    });
  }
}

/** However the process ends, the file is whole, or as it was; with `flush` after a power cut too. */
function writeWhole(directory: string, name: string, bytes: Uint8Array, { flush = false } = {}): void {
  const path = join(directory, name);
  const next = `${path}.new`;
  writing(path, () => {
    mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
    rmSync(next, { force: true });
    // Exclusive: in a directory of many users nobody's link is followed.
    writeFileSync(next, bytes, { mode: 0o600, flag: 'wx', flush });
    renameSync(next, path);
  });
}

function writing(path: string, work: () => void): void {
  try {
    work();
  } catch (cause) {
    if (cause instanceof MeshError) throw cause;
    throw (
      diskError(cause, path) ??
      new MeshError(
        'file_permissions',
        `${quote(path)} cannot be written (${(cause as NodeJS.ErrnoException).code})`,
        {
          fix: 'name a directory of your own',
          cause,
        },
      )
    );
  }
}

const maxEvidence = 16;
const checkpointName = 'checkpoint';
const maxTileBytes = tileWidth * (2 + 65_535);
// A note, a tile of hashes, or why there is none.
const maxTextBytes = 65_536;
