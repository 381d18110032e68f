import { existsSync, mkdirSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { type PackFiles, packNames } from '../audit/pack-manifest.ts';
import { buildPackPage } from '../audit/pack-page.ts';
import { readEmbedded } from '../audit/pack-screen.ts';
import { MeshError, quote } from '../errors.ts';
import { writeNewFile } from './new-file.ts';

/**
 * Writes a pack: a directory that is new or empty, or one page with everything in it when the name ends with `.html`.
 * @throws MeshError `file_exists`, `file_permissions`, `input_too_large`
 */
export function writePack(path: string, files: PackFiles): void {
  const isSmall = sizeOf(files) <= maxEmbeddedBytes;
  if (path.endsWith('.html')) {
    if (isSmall) return writeNewFile(path, buildPackPage(files), 0o600);
    throw new MeshError('input_too_large', 'the pack is too large for one page', {
      fix: 'give --out a directory, or ask for a shorter window',
    });
  }
  makeEmptyDirectory(path);
  for (const [name, text] of files) {
    if (name.includes('/')) mkdirSync(join(path, name, '..'), { recursive: true, mode: 0o700 });
    writeNewFile(join(path, name), text, 0o600);
  }
  // Of one that is too large the page asks for the directory.
  writeNewFile(join(path, packNames.page), buildPackPage(isSmall ? files : null), 0o600);
}

/**
 * Reads a pack: a directory, or a page that has one in it. `isOurPage` tells whether its page is the one that this program
 * makes of these files.
 * @throws MeshError `file_missing`, `file_permissions`, `input_too_large`, `audit_pack_invalid`
 */
export function readPack(path: string): { readonly files: PackFiles; readonly isOurPage: boolean } {
  const found = statSync(path, { throwIfNoEntry: false });
  if (found === undefined) {
    throw new MeshError('file_missing', `${quote(path)} is not there`, { fix: 'check the path' });
  }
  if (!found.isDirectory()) {
    const page = readWhole(path);
    const files = readPage(page, path);
    return { files, isOurPage: page === buildPackPage(files) };
  }
  const files = new Map<string, string>();
  for (const name of listFiles(path)) files.set(name, readWhole(join(path, name)));
  const page = files.get(packNames.page);
  files.delete(packNames.page);
  const isOurPage = page === buildPackPage(files) || page === buildPackPage(null);
  return { files, isOurPage };
}

function readPage(page: string, path: string): PackFiles {
  const match = /<script id="pack" type="application\/json">([^<]*)<\/script>/.exec(page);
  try {
    const files = readEmbedded(match?.[1] ?? '');
    if (files.size > 0) return files;
  } catch {
    // What follows is said of it.
  }
  throw new MeshError('audit_pack_invalid', `${quote(path)} is no page with a pack in it`, {
    fix: 'give the directory or the page that countersign audit pack made',
  });
}

function listFiles(directory: string): readonly string[] {
  const entries = readdirSync(directory, { recursive: true, withFileTypes: true });
  if (entries.length > maxFiles) {
    throw new MeshError('input_too_large', `${quote(directory)} has more files than a pack`, {
      fix: 'give the directory of the pack itself',
    });
  }
  return entries
    .filter((entry) => !entry.isDirectory())
    .map((entry) => {
      const name = relative(directory, join(entry.parentPath, entry.name));
      if (entry.isFile()) return name;
      throw new MeshError('file_permissions', `${quote(name)} of the pack is no regular file`, {
        fix: 'take the pack as it was made',
      });
    });
}

function readWhole(path: string): string {
  try {
    if (statSync(path).size > maxFileBytes) {
      throw new MeshError('input_too_large', `${quote(path)} is larger than a file of a pack can be`, {
        fix: 'take the pack as it was made',
      });
    }
    // As the page reads it: a byte order mark would be missing in the hash.
    return new TextDecoder('utf-8', { ignoreBOM: true }).decode(readFileSync(path));
  } catch (cause) {
    if (cause instanceof MeshError) throw cause;
    throw new MeshError('file_permissions', `${quote(path)} cannot be read`, {
      fix: 'check its owner and mode',
      cause,
    });
  }
}

function makeEmptyDirectory(path: string): void {
  let isEmpty;
  try {
    makeDirectory(path);
    isEmpty = readdirSync(path).length === 0;
  } catch (cause) {
    throw new MeshError('file_permissions', `${quote(path)} cannot be made`, {
      fix: 'name a directory of your own',
      cause,
    });
  }
  if (isEmpty) return;
  throw new MeshError('file_exists', `the directory ${quote(path)} is not empty`, {
    fix: 'name a new one: a pack is never mixed with another',
  });
}

/** Node's own recursive way never ends where a parent takes no directories and says that it is not there, as /proc does. */
function makeDirectory(path: string): void {
  if (existsSync(path)) return;
  const parent = dirname(path);
  if (parent !== path) makeDirectory(parent);
  try {
    mkdirSync(path, { mode: 0o700 });
  } catch (error) {
    // Another command has made it meanwhile, or making its parents has: `new/..` of `new/../pack`.
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
  }
}

function sizeOf(files: PackFiles): number {
  return [...files.values()].reduce((sum, text) => sum + text.length, 0);
}

const maxEmbeddedBytes = 33_554_432;
const maxFileBytes = 536_870_000;
const maxFiles = 100_000;
