import { randomBytes } from 'node:crypto';
import {
  closeSync,
  constants,
  fchmodSync,
  fchownSync,
  fsyncSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { MeshError, quote } from '../errors.ts';
import { type ClaimedDirectory, directoryFailure } from './files-directory.ts';

/** A file to lay down. */
export type NewFile = {
  /** A plain name that does not begin with a dot. */
  readonly name: string;
  readonly text: string;
  readonly mode: number;
  /** Null leaves it with whom this process is. */
  readonly uid: number | null;
  readonly gid: number | null;
};

/**
 * Lays files down, all at once: each name is a link through `..data`, which points to a directory of one version and is
 * swapped by one rename, as Kubernetes does it. After a crash at any moment there is the old version or the new one,
 * whole. No file is ever readable by more than its mode says. Earlier versions stay: see {@link keepVersions}.
 * @returns the name of the new version
 * @throws MeshError `file_permissions` when a name is taken by something this did not make, or an owner may not be
 *   given; `store_unavailable` when the disk takes no more. Then everything is as it was.
 */
export function writeVersion(directory: ClaimedDirectory, files: readonly NewFile[]): string {
  const version = `${versionPrefix}${randomBytes(8).toString('hex')}`;
  try {
    demandOwnNames(directory, files);
    layDown(directory, version, files);
    // INVARIANT: what a link names is durable before the link is.
    directory.sync();
    pointTo(directory, dataLink, version);
  } catch (cause) {
    rmSync(directory.at(version), { recursive: true, force: true });
    throw directoryFailure(directory.name, cause);
  }
  try {
    for (const { name } of files) {
      if (linkAt(directory, name) !== `${dataLink}/${name}`) pointTo(directory, name, `${dataLink}/${name}`);
    }
    for (const name of ownLinks(directory)) {
      if (!files.some((file) => file.name === name)) rmSync(directory.at(name), { force: true });
    }
    directory.sync();
  } catch (cause) {
    throw directoryFailure(directory.name, cause);
  }
  return version;
}

/** Whether the current version holds just these files, and every name leads to it. */
export function holdsFiles(directory: ClaimedDirectory, files: readonly NewFile[]): boolean {
  const version = currentVersion(directory);
  if (version === undefined || ownLinks(directory).length !== files.length) return false;
  try {
    return files.every(({ name, text, mode, uid, gid }) => {
      const path = join(directory.at(version), name);
      const found = lstatSync(path);
      return (
        linkAt(directory, name) === `${dataLink}/${name}` &&
        found.isFile() &&
        (found.mode & 0o7777) === mode &&
        found.uid === (uid ?? process.geteuid?.()) &&
        (gid === null || found.gid === gid) &&
        readFileSync(path, 'utf8') === text
      );
    });
  } catch {
    return false;
  }
}

/** The version that the names lead to, or undefined when there is none. */
export function currentVersion(directory: ClaimedDirectory): string | undefined {
  return versionAt(directory, dataLink);
}

/** The version that {@link noteHooked} was last called for. */
export function hookedVersion(directory: ClaimedDirectory): string | undefined {
  return versionAt(directory, doneLink);
}

/** Keeps in mind, beyond the end of this process, that everybody was told of a version. */
export function noteHooked(directory: ClaimedDirectory, version: string): void {
  try {
    pointTo(directory, doneLink, version);
    directory.sync();
  } catch (cause) {
    throw directoryFailure(directory.name, cause);
  }
}

/** Removes every version but these, and what a run that was killed left behind. */
export function keepVersions(directory: ClaimedDirectory, kept: readonly (string | undefined)[]): void {
  try {
    for (const name of readdirSync(directory.at('.'))) {
      if (!ownName.test(name) || kept.includes(name)) continue;
      rmSync(directory.at(name), { recursive: true, force: true });
    }
  } catch (cause) {
    throw directoryFailure(directory.name, cause);
  }
}

/** Removes every file and version that this made, and nothing else. */
export function removeFiles(directory: ClaimedDirectory): void {
  try {
    const links = ownLinks(directory);
    // First the way to the files, then what they hold.
    for (const name of [dataLink, doneLink, ...links]) {
      if (linkAt(directory, name) !== undefined) rmSync(directory.at(name), { force: true });
    }
  } catch (cause) {
    throw directoryFailure(directory.name, cause);
  }
  keepVersions(directory, []);
  directory.sync();
}

/** Reads a file of the current version. @throws Error of the kernel when it cannot be read */
export function readCurrent(directory: ClaimedDirectory, name: string): string {
  return readFileSync(join(directory.at(dataLink), name), 'utf8');
}

function demandOwnNames(directory: ClaimedDirectory, files: readonly NewFile[]): void {
  const own = [dataLink, doneLink, ...files.map(({ name }) => name)];
  for (const name of own) {
    if (lstatSync(directory.at(name), { throwIfNoEntry: false }) === undefined) continue;
    const target = linkAt(directory, name);
    const expected =
      name === dataLink || name === doneLink ? versionName.test(target ?? '') : isOwn(name, target);
    if (expected) continue;
    throw new MeshError(
      'file_permissions',
      `${quote(join(directory.name, name))} is there already, and was not written by this command`,
      { fix: 'name a directory of your own, with nothing else in it' },
    );
  }
}

function layDown(directory: ClaimedDirectory, version: string, files: readonly NewFile[]): void {
  const path = directory.at(version);
  mkdirSync(path, 0o700);
  for (const file of files) writeNew(join(path, file.name), file);
  const fd = openSync(path, constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW);
  try {
    // Who may come this far is for the directory above to say.
    fchmodSync(fd, 0o755);
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}

function writeNew(path: string, { text, mode, uid, gid }: NewFile): void {
  const fd = openSync(path, 'wx', 0o600);
  try {
    writeFileSync(fd, text);
    // INVARIANT: the owner changes before the mode does, so that no group but the named one can ever read.
    if (uid !== null || gid !== null) fchownSync(fd, uid ?? -1, gid ?? -1);
    fchmodSync(fd, mode);
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}

/** A link cannot be changed; one of another name can be moved over it. */
function pointTo(directory: ClaimedDirectory, name: string, target: string): void {
  const next = directory.at(`${dataLink}_${randomBytes(8).toString('hex')}`);
  symlinkSync(target, next);
  try {
    renameSync(next, directory.at(name));
  } catch (error) {
    rmSync(next, { force: true });
    throw error;
  }
}

function ownLinks(directory: ClaimedDirectory): readonly string[] {
  return readdirSync(directory.at('.')).filter((name) => isOwn(name, linkAt(directory, name)));
}

function isOwn(name: string, target: string | undefined): boolean {
  return !name.startsWith('..') && target === `${dataLink}/${name}`;
}

function versionAt(directory: ClaimedDirectory, link: string): string | undefined {
  const target = linkAt(directory, link) ?? '';
  const found = versionName.test(target)
    ? lstatSync(directory.at(target), { throwIfNoEntry: false })
    : undefined;
  return found?.isDirectory() === true ? target : undefined;
}

function linkAt(directory: ClaimedDirectory, name: string): string | undefined {
  const path = directory.at(name);
  return lstatSync(path, { throwIfNoEntry: false })?.isSymbolicLink() === true
    ? readlinkSync(path)
    : undefined;
}

const dataLink = '..data';
const doneLink = '..done';
const versionPrefix = '..svid_';
const versionName = /^\.\.svid_[0-9a-f]{16}$/;
const ownName = /^\.\.(?:svid|data)_[0-9a-f]{16}$/;
