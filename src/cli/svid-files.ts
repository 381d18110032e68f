import { createPrivateKey, randomBytes, X509Certificate } from 'node:crypto';
import {
  closeSync,
  fsyncSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readlinkSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join, resolve } from 'node:path';
import { MeshError, quote } from '../errors.ts';
import { encodePem } from '../spiffe/pem.ts';
import type { FetchedSvid } from './svid-stream.ts';

/** The names of the files, in the directory that the user names. */
export const svidFileNames = ['svid.pem', 'key.pem', 'bundle.pem'] as const;

/**
 * Writes `svid.pem`, `key.pem` (0600) and `bundle.pem`, all at once: each is a link through `..data`, which points to a
 * directory of one version and is swapped in one step. A reader that opens `..data` once, or watches it, never sees a
 * certificate with the key of another. What the files were before is removed.
 * @param into is made, 0700, when it is missing; it must belong to this user, and nobody else may write it
 * @throws MeshError `file_permissions`, `svid_invalid` when key and certificate are no pair
 */
export function writeSvidFiles(into: string, svid: FetchedSvid): void {
  const directory = resolve(into);
  const texts = { 'svid.pem': '', 'key.pem': '', 'bundle.pem': '' };
  texts['svid.pem'] = svid.certificates.map((der) => encodePem('CERTIFICATE', der)).join('');
  texts['key.pem'] = svid.privateKeyPem;
  texts['bundle.pem'] = svid.authorities.map((der) => encodePem('CERTIFICATE', der)).join('');
  demandPair(svid);
  try {
    claimDirectory(directory);
    const version = `${versionPrefix}${randomBytes(8).toString('hex')}`;
    mkdirSync(join(directory, version), 0o755);
    for (const name of svidFileNames) {
      writeNew(join(directory, version, name), texts[name], name === 'key.pem' ? 0o600 : 0o644);
    }
    syncDirectory(join(directory, version));
    pointTo(directory, dataLink, version);
    for (const name of svidFileNames) {
      if (linkTarget(join(directory, name)) !== `${dataLink}/${name}`) {
        pointTo(directory, name, `${dataLink}/${name}`);
      }
    }
    syncDirectory(directory);
    removeOthers(directory, version);
  } catch (cause) {
    if (cause instanceof MeshError) throw cause;
    throw refusal(
      directory,
      `cannot be written (${(cause as NodeJS.ErrnoException).code ?? 'unknown'})`,
      cause,
    );
  }
}

function demandPair({ certificates, privateKeyPem }: FetchedSvid): void {
  let pair = false;
  try {
    const [leaf = new Uint8Array()] = certificates;
    pair = new X509Certificate(leaf).checkPrivateKey(createPrivateKey(privateKeyPem));
  } catch {
    // Whatever cannot be loaded is no pair either; its text stays out of every message.
  }
  if (!pair) throw new MeshError('svid_invalid', 'the server sent a certificate with the key of another');
}

function claimDirectory(directory: string): void {
  mkdirSync(directory, { recursive: true, mode: 0o700 });
  const found = lstatSync(directory);
  if (!found.isDirectory()) throw refusal(directory, 'is a link, or no directory');
  if (found.uid !== process.geteuid?.()) throw refusal(directory, 'belongs to another user');
  if ((found.mode & 0o022) !== 0) throw refusal(directory, 'can be written by others');
  for (const name of [dataLink, ...svidFileNames]) {
    const entry = lstatSync(join(directory, name), { throwIfNoEntry: false });
    if (entry !== undefined && !entry.isSymbolicLink()) {
      throw refusal(join(directory, name), 'is there already, and was not written by this command');
    }
  }
}

function writeNew(file: string, text: string, mode: number): void {
  const descriptor = openSync(file, 'wx', mode);
  try {
    writeFileSync(descriptor, text);
    fsyncSync(descriptor);
  } finally {
    closeSync(descriptor);
  }
}

/** A link cannot be changed; one of another name can be moved over it. */
function pointTo(directory: string, name: string, target: string): void {
  const next = join(directory, `${dataLink}_${randomBytes(8).toString('hex')}`);
  symlinkSync(target, next);
  renameSync(next, join(directory, name));
}

function linkTarget(file: string): string | undefined {
  return lstatSync(file, { throwIfNoEntry: false })?.isSymbolicLink() === true
    ? readlinkSync(file)
    : undefined;
}

/** Earlier versions, and what a run that was killed left behind. */
function removeOthers(directory: string, version: string): void {
  for (const name of readdirSync(directory)) {
    if (!ownName.test(name) || name === version) continue;
    rmSync(join(directory, name), { recursive: true, force: true });
  }
}

function syncDirectory(directory: string): void {
  const descriptor = openSync(directory, 'r');
  try {
    fsyncSync(descriptor);
  } finally {
    closeSync(descriptor);
  }
}

function refusal(path: string, why: string, cause?: unknown): MeshError {
  return new MeshError('file_permissions', `${quote(path)} ${why}`, {
    fix: 'name a directory of your own, with nothing else in it',
    cause,
  });
}

const dataLink = '..data';
const versionPrefix = '..svid_';
const ownName = /^\.\.(?:svid|data)_[0-9a-f]{16}$/;
