import { chmodSync, mkdirSync, mkdtempSync, openSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { type ConfigText, loadConfig } from '../src/config.ts';
import { custodyOf, readPassphrase, readSealingSecret } from '../src/up-secret.ts';
import { runCli } from './cli/run-cli.ts';

let directory: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'cs-secret-'));
});
afterEach(() => rmSync(directory, { recursive: true, force: true }));

const code = (expected: string) => expect.objectContaining({ code: expected }) as Error;
const path = (name: string) => join(directory, name);
const sources = (flags: ConfigText, environment: Record<string, string> = {}) =>
  loadConfig({ flags: { dataDir: path('data'), ...flags }, environment, file: null, isRoot: false });

function file(name: string, text: string, mode: number): string {
  writeFileSync(path(name), text);
  chmodSync(path(name), mode);
  return path(name);
}

function credentials(mode: number, fileMode: number): Record<string, string> {
  mkdirSync(path('credentials'));
  file('credentials/passphrase', 'from systemd\n', fileMode);
  chmodSync(path('credentials'), mode);
  return { CREDENTIALS_DIRECTORY: path('credentials') };
}

describe('a passphrase', () => {
  test.each<[string, () => ReturnType<typeof readPassphrase>]>([
    ['a file', () => readPassphrase(sources({ passphraseFile: file('p', 'from systemd\n', 0o600) }))],
    [
      'a file descriptor',
      () => {
        const fd = openSync(file('p', 'from systemd\r\n', 0o644), 'r');
        return readPassphrase(sources({ passphraseFd: `${fd}` }));
      },
    ],
    [
      'a credential',
      () => readPassphrase(sources({ passphraseCredential: 'passphrase' }, credentials(0o500, 0o400))),
    ],
    [
      'a credential under an ACL',
      () => readPassphrase(sources({ passphraseCredential: 'passphrase' }, credentials(0o550, 0o440))),
    ],
  ])('comes from %s, without its line break', (_, read) => {
    const secret = read();
    expect([secret?.kind, Buffer.from(secret?.bytes ?? []).toString()]).toEqual([
      'passphrase',
      'from systemd',
    ]);
  });

  test('of no source is a key file of this data directory', () => {
    expect(readPassphrase(sources({}))).toBeUndefined();
    mkdirSync(path('keys'), { mode: 0o700 });
    const secret = readSealingSecret(sources({}), path('keys'));
    expect([secret.kind, secret.bytes.length]).toEqual(['random_key', 32]);
    expect(custodyOf(sources({}))).toContain('fit for one machine');
    expect(custodyOf(sources({ passphraseFd: '3' }))).toContain('from a file descriptor');
  });

  test.each<[string, () => ConfigText, () => Record<string, string>, string]>([
    [
      'two sources',
      () => ({ passphraseFile: file('p', 'x', 0o600), passphraseFd: '9' }),
      () => ({}),
      'config_invalid',
    ],
    [
      'a file others may read',
      () => ({ passphraseFile: file('p', 'x', 0o644) }),
      () => ({}),
      'file_permissions',
    ],
    [
      'a link',
      () => {
        symlinkSync(file('p', 'x', 0o600), path('link'));
        return { passphraseFile: path('link') };
      },
      () => ({}),
      'file_permissions',
    ],
    ['a file that is not there', () => ({ passphraseFile: path('none') }), () => ({}), 'file_missing'],
    ['a descriptor nobody opened', () => ({ passphraseFd: '901' }), () => ({}), 'config_invalid'],
    [
      'no credentials directory',
      () => ({ passphraseCredential: 'passphrase' }),
      () => ({}),
      'config_invalid',
    ],
    [
      'a credential that is not there',
      () => ({ passphraseCredential: 'none' }),
      () => credentials(0o500, 0o400),
      'file_missing',
    ],
    [
      'a credential others may read',
      () => ({ passphraseCredential: 'passphrase' }),
      () => credentials(0o500, 0o444),
      'file_permissions',
    ],
    [
      'a credential its group may write',
      () => ({ passphraseCredential: 'passphrase' }),
      () => credentials(0o500, 0o460),
      'file_permissions',
    ],
    [
      'a directory others may enter',
      () => ({ passphraseCredential: 'passphrase' }),
      () => credentials(0o555, 0o400),
      'file_permissions',
    ],
  ])('is refused from %s', (_, flags, environment, expected) => {
    const given = environment();
    expect(() => readPassphrase(sources(flags(), given))).toThrow(code(expected));
  });

  test('of more than 64 KiB is refused', () => {
    const fd = openSync(file('p', 'x'.repeat(65_537), 0o600), 'r');
    expect(() => readPassphrase(sources({ passphraseFd: `${fd}` }))).toThrow(code('config_invalid'));
  });
});

test.each<[string, ConfigText]>([
  ['a descriptor for output', { passphraseFd: '1' }],
  ['a descriptor that is no number', { passphraseFd: '-1' }],
  ['a credential with a path', { passphraseCredential: '../passphrase' }],
  ['a credential without a name', { passphraseCredential: '.' }],
  ['an unknown kind of key', { authorityKeyType: 'ed25519' }],
  ['an unknown kind of constraints', { nameConstraints: 'dns' }],
])('%s is no configuration', (_, flags) => {
  expect(() => sources(flags)).toThrow(code('config_invalid'));
});

test('a passphrase is never on the line, and a root is not made without one', async () => {
  const help = await runCli(['ca', 'root', 'create', '--help']);
  expect(help.out).not.toMatch(/--passphrase[ =<]/);
  const root = ['ca', 'root', 'create', '--trust-domain', 'mesh.test', '--dir', path('root')];
  const env = { COUNTERSIGN_PASSPHRASE_FILE: file('p', 'that of the server', 0o600) };
  const bare = await runCli(root, { env });
  // What seals the keys of a server is not taken for the root by accident.
  expect([bare.code, bare.err]).toEqual([64, expect.stringContaining('a root needs a passphrase') as string]);
  const short = await runCli([...root, '--passphrase-fd', '0'], { stdin: 'short\n' });
  expect([short.code, short.err]).toEqual([2, expect.stringContaining('needs a passphrase of 8') as string]);
});
