import { execFileSync } from 'node:child_process';
import { chmodSync, chownSync, mkdirSync, readdirSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import {
  ensureKeyEncryptionKey,
  ensurePrivateDirectory,
  maxKeyFileBytes,
  readKeyFile,
  writeKeyFile,
} from '../../src/store/key-files.ts';
import { newDirectory } from './directories.ts';

const code = (name: string) => expect.objectContaining({ code: name });

describe('a key file', () => {
  test('is written whole, 0600, and replaced', () => {
    const dir = join(newDirectory(), 'a', 'keys');
    const before = process.umask(0);
    try {
      writeKeyFile(dir, 'root.key', Buffer.from('one'));
      writeKeyFile(dir, 'root.key', Buffer.from('two'));
    } finally {
      process.umask(before);
    }
    expect(Buffer.from(readKeyFile(dir, 'root.key')).toString()).toBe('two');
    expect(statSync(dir).mode & 0o777).toBe(0o700);
    expect(statSync(join(dir, 'root.key')).mode & 0o777).toBe(0o600);
    expect(readdirSync(dir)).toEqual(['root.key']);
  });

  test.each<[string, string, (path: string) => void]>([
    ['is missing', 'file_missing', () => {}],
    ['is open to the group', 'file_permissions', (path) => writeFileSync(path, 'x', { mode: 0o640 })],
    ['is open to all', 'file_permissions', (path) => writeFileSync(path, 'x', { mode: 0o604 })],
    ['may be executed', 'file_permissions', (path) => writeFileSync(path, 'x', { mode: 0o700 })],
    ['is a link', 'file_permissions', (path) => symlinkSync(privateFile(`${path}.real`), path)],
    ['is a link to nowhere', 'file_permissions', (path) => symlinkSync(`${path}.nowhere`, path)],
    ['is a directory', 'file_permissions', (path) => mkdirSync(path, { mode: 0o700 })],
    ['is a pipe', 'file_permissions', (path) => execFileSync('mkfifo', ['-m', '600', path])],
    ['is too long', 'file_permissions', (path) => privateFile(path, maxKeyFileBytes + 1)],
  ])('is refused when it %s', (_, expected, make) => {
    const dir = newDirectory();
    make(join(dir, 'root.key'));
    expect(() => readKeyFile(dir, 'root.key')).toThrow(code(expected));
  });

  test('says how to mend its mode', () => {
    const dir = newDirectory();
    const path = join(dir, 'root.key');
    privateFile(path);
    chmodSync(path, 0o644);
    expect(() => readKeyFile(dir, 'root.key')).toThrow(expect.objectContaining({ fix: `chmod 600 ${path}` }));
  });

  test.runIf(process.geteuid?.() === 0)('is refused when it belongs to another user', () => {
    const dir = newDirectory();
    const path = privateFile(join(dir, 'root.key'));
    chownSync(path, 65_534, 65_534);
    expect(() => readKeyFile(dir, 'root.key')).toThrow(code('file_permissions'));
    chownSync(dir, 65_534, 65_534);
    expect(() => ensurePrivateDirectory(dir)).toThrow(code('file_permissions'));
  });

  test.each(['', '.', '..', 'a/b', '../a', '.hidden', 'a\0b', 'x'.repeat(129)])(
    'has no name such as %j',
    (name) => {
      const dir = newDirectory();
      expect(() => readKeyFile(dir, name)).toThrow(code('internal'));
      expect(() => writeKeyFile(dir, name, Buffer.from('x'))).toThrow(code('internal'));
    },
  );

  test('of the largest size can be read', () => {
    const dir = newDirectory();
    privateFile(join(dir, 'root.key'), maxKeyFileBytes);
    expect(readKeyFile(dir, 'root.key')).toHaveLength(maxKeyFileBytes);
  });
});

describe('a private directory', () => {
  test.each([0o755, 0o710, 0o701, 0o777])('is refused with mode %o', (mode) => {
    const dir = newDirectory();
    chmodSync(dir, mode);
    expect(() => ensurePrivateDirectory(dir)).toThrow(
      expect.objectContaining({ code: 'file_permissions', fix: `chmod 700 ${dir}` }),
    );
    expect(() => writeKeyFile(dir, 'root.key', Buffer.from('x'))).toThrow(code('file_permissions'));
    expect(readdirSync(dir)).toEqual([]);
  });
});

describe('the key encryption key', () => {
  test('is made once, 32 bytes, 0600', () => {
    const dir = join(newDirectory(), 'data');
    const key = ensureKeyEncryptionKey(dir);
    expect(key).toHaveLength(32);
    expect(ensureKeyEncryptionKey(dir)).toEqual(key);
    expect(ensureKeyEncryptionKey(newDirectory())).not.toEqual(key);
    expect(statSync(join(dir, 'key-encryption-key')).mode & 0o777).toBe(0o600);
    expect(readdirSync(dir)).toEqual(['key-encryption-key']);
  });

  test('is never made anew over a damaged one', () => {
    const dir = newDirectory();
    privateFile(join(dir, 'key-encryption-key'), 16);
    expect(() => ensureKeyEncryptionKey(dir)).toThrow(code('file_permissions'));
    const other = newDirectory();
    symlinkSync(join(other, 'nowhere'), join(other, 'key-encryption-key'));
    expect(() => ensureKeyEncryptionKey(other)).toThrow(code('file_permissions'));
  });
});

function privateFile(path: string, size = 1): string {
  writeFileSync(path, 'x'.repeat(size), { mode: 0o600 });
  return path;
}
