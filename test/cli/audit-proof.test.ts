import {
  cpSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { decodeBundle, encodeBundle } from '../../src/audit/entry-bundle.ts';
import { parseTlogProof } from '../../src/audit/tlog-proof.ts';
import { decision } from '../audit/events.ts';
import { logSigner, makeLogFiles, makeNoteSigner, someEntries } from '../audit/log-files.ts';
import { createScope } from '../harness/scope.ts';
import { makeTempDir } from '../harness/temp.ts';
import { type Harness, startHarness } from '../http/harness.ts';
import { openCli, type Outcome } from './run-cli.ts';

const scope = createScope();
const directory = makeTempDir(scope);
let harness: Harness;
beforeAll(async () => {
  harness = await startHarness();
  scope.defer(() => harness.close());
  await record(600);
  writeFileSync(at('log.key'), `${logSigner.verifierKey}\n`);
  writeFileSync(at('other.key'), `${makeNoteSigner(logSigner.name, 5).verifierKey}\n`);
});
afterAll(() => scope.close());

const at = (name: string) => join(directory, name);
const run = openCli(scope, { cwd: directory });
const cli = (...args: string[]): Promise<Outcome> =>
  run(['--socket', harness.unix.address, 'audit', ...args]);
const json = async (...args: string[]) => JSON.parse((await cli(...args, '-o', 'json')).out);

function record(count: number) {
  return harness.store.recordEvents(
    Array.from({ length: count }, (_, i) => decision({ decisionId: `d-${i}` })),
  );
}

test('the key is printed, and verifies the log of the server', async () => {
  expect((await cli('key')).out).toBe(`${logSigner.verifierKey}\n`);
  const { code, out, err } = await cli('verify', '--key', 'log.key');
  expect([code, err]).toEqual([0, '']);
  expect(out).toMatch(
    /^log +example\.org\/audit\ncheckpoint +6\d\d entries, signed by example\.org\/audit\+[0-9a-f]{8}\n/,
  );
  expect(out).toMatch(/\nentries +all hashed anew: as the checkpoint says\n$/);
  expect(await json('verify', '--key', logSigner.verifierKey)).toMatchObject({ verified: true, since: null });
  const without = await cli('verify');
  expect([without.code, without.err]).toEqual([
    0,
    expect.stringMatching(/^warning: the key comes from the server/),
  ]);
  const other = await cli('verify', '--key', 'other.key');
  expect([other.code, other.err]).toEqual([1, expect.stringContaining('error[audit_signature_invalid]')]);
});

test('an export is a directory that verifies without the server, grows, and goes on from itself', async () => {
  const made = await cli('export', 'export', '--key', 'log.key');
  expect([made.code, made.out]).toEqual([0, expect.stringContaining('written to  export')]);
  expect(statSync(at('export')).mode & 0o777).toBe(0o700);
  cpSync(at('export/checkpoint'), at('old'));
  const first = await json('verify', 'export', '--key', 'log.key');
  await record(300);
  const grown = await json('export', 'export', '--key', 'log.key');
  expect(grown).toMatchObject({ since: first.size });
  const since = await cli('verify', 'export', '--key', 'log.key', '--since', 'old');
  expect([since.code, since.out]).toEqual([
    0,
    expect.stringContaining(`the ${first.size} entries of then are unchanged`),
  ]);
  const saved = ['--since', 'export/checkpoint', '--save', 'saved'];
  expect((await cli('verify', '--key', 'log.key', ...saved)).code).toBe(0);
  const [, size] = readFileSync(at('saved'), 'utf8').split('\n');
  expect(`${(await json('verify', '--key', 'log.key', '--since', 'saved')).since}`).toBe(size);
  // A server that was set back to an older state.
  cpSync(at('export'), at('back'), { recursive: true });
  cpSync(at('old'), at('back/checkpoint'));
  const back = await cli('verify', 'back', '--key', 'log.key', '--since', 'export/checkpoint');
  expect([back.code, back.err]).toEqual([1, expect.stringContaining('error[audit_log_shorter]')]);
  // Another history under the same key.
  const fork = makeLogFiles(someEntries(grown.size + 5));
  writeFileSync(at('forked'), makeLogFiles(someEntries(20)).note);
  mkdirSync(at('fork'));
  for (const [path, bytes] of fork.files) {
    mkdirSync(join(at('fork'), path, '..'), { recursive: true });
    writeFileSync(join(at('fork'), path), bytes);
  }
  writeFileSync(at('fork/checkpoint'), fork.note);
  expect((await cli('verify', 'fork', '--key', 'log.key', '--since', 'forked')).code).toBe(0);
  const forked = await cli('verify', 'fork', '--key', 'log.key', '--since', 'export/checkpoint');
  expect([forked.code, forked.err]).toEqual([1, expect.stringContaining('error[audit_log_forked]')]);
  // Both checkpoints prove it, and stay.
  expect(forked.err).toContain('kept the other checkpoint in export/checkpoint.forked\n');
  expect(readFileSync(at('export/checkpoint.forked'), 'utf8')).toBe(fork.note);
  // It would be kept as the next state of this export.
  cpSync(at('export'), at('mixed'), { recursive: true });
  cpSync(at('fork/checkpoint'), at('mixed/checkpoint'));
  await record(300);
  const before = readdirSync(at('mixed'), { recursive: true, withFileTypes: true }).filter((one) =>
    one.isFile(),
  );
  const mixed = await cli('export', 'mixed', '--key', 'log.key');
  expect([mixed.code, mixed.err]).toEqual([1, expect.stringContaining('error[audit_log_forked]')]);
  const after = readdirSync(at('mixed'), { recursive: true, withFileTypes: true }).filter((one) =>
    one.isFile(),
  );
  expect(after.map(({ name }) => name).sort()).toEqual(
    [...before.map(({ name }) => name), 'checkpoint.forked.1'].sort(),
  );
  // A checkpoint that was kept makes way for nothing that it was not held against.
  for (const held of [[], ['--since', 'export/checkpoint']]) {
    const lost = await cli('verify', '--key', 'log.key', ...held, '--save', 'old');
    expect([lost.code, lost.err]).toEqual([2, expect.stringContaining('error[file_exists]')]);
  }
  expect((await cli('verify', '--key', 'log.key', '--since', 'old', '--save', './old')).code).toBe(0);
});

describe('an export in which somebody has changed', () => {
  const bundle = 'tile/entries/001';
  test.each<[string, (dir: string) => void, number, RegExp]>([
    [
      'an entry',
      (dir) => edit(dir, (all) => all.with(44, Buffer.from('{}'))),
      1,
      /entry 300 is not what its hash/,
    ],
    ['the order', (dir) => edit(dir, (all) => all.with(2, all[3]!).with(3, all[2]!)), 1, /entry 258 is not/],
    ['the number', (dir) => edit(dir, (all) => all.toSpliced(5, 1)), 1, /entry 261 is not/],
    ['the end', (dir) => truncateSync(join(dir, bundle), 4_000), 1, /entry 2\d\d is missing/],
    [
      'the files',
      (dir) => rmSync(join(dir, bundle)),
      1,
      /entry 256 is missing: there is no tile\/entries\/001/,
    ],
    [
      'the kind of a file',
      (dir) => {
        rmSync(join(dir, bundle));
        mkdirSync(join(dir, bundle));
      },
      77,
      /is no regular file/,
    ],
    ['two files', swap, 1, /entry 0 is not/],
    ['a hash', (dir) => flip(join(dir, 'tile/0/001')), 1, /entry 256 is not/],
    ['a hash above', (dir) => flip(join(dir, 'tile/1/000.p/3')), 1, /the entries 0 to 255 are not/],
    ['the checkpoint', (dir) => flip(join(dir, 'checkpoint'), 25), 1, /audit_(signature|note)_invalid/],
    ['the checkpoint away', (dir) => rmSync(join(dir, 'checkpoint')), 2, /error\[file_missing\]/],
  ])('%s', async (_, change, code, message) => {
    const dir = at('changed');
    rmSync(dir, { recursive: true, force: true });
    cpSync(at('export'), dir, { recursive: true });
    change(dir);
    const found = await cli('verify', 'changed', '--key', 'log.key');
    expect([found.code, found.err]).toEqual([code, expect.stringMatching(message)]);
    expect(found.out).toBe('');
  });

  function edit(dir: string, change: (all: readonly Uint8Array[]) => readonly Uint8Array[]): void {
    const path = join(dir, bundle);
    writeFileSync(path, encodeBundle(change(decodeBundle(readFileSync(path)).entries)));
  }

  function swap(dir: string): void {
    const [a, b, c] = ['tile/entries/000', bundle, 'aside'].map((name) => join(dir, name)) as [
      string,
      string,
      string,
    ];
    renameSync(a, c);
    renameSync(b, a);
    renameSync(c, b);
  }

  function flip(path: string, place = 0): void {
    const bytes = readFileSync(path);
    bytes[place]! ^= 1;
    writeFileSync(path, bytes);
  }
});

test('the proof of an entry verifies without the server', async () => {
  expect((await cli('prove', '300', '--out', 'p')).code).toBe(0);
  const { leafHash, checkpoint } = await json('prove', '300');
  expect([leafHash, checkpoint]).toEqual([
    expect.stringMatching(/^[0-9a-f]{64}$/),
    expect.stringContaining('example.org/audit'),
  ]);
  const proven = await cli('verify', '--proof', 'p', '--key', 'log.key');
  expect([proven.code, proven.out]).toEqual([
    0,
    expect.stringMatching(/\nentry +300 of \d+: proven\n[^]*"type":"decision"/),
  ]);
  const text = readFileSync(at('p'), 'utf8');
  writeFileSync(at('leaf'), parseTlogProof(text).extra!);
  writeFileSync(at('bare'), text.replace(/extra .*\n/, ''));
  writeFileSync(at('moved'), text.replace('index 300', 'index 301'));
  expect((await json('verify', '--proof', 'bare', '--leaf', 'leaf', '--key', 'log.key')).index).toBe(300);
  const refused = async (...args: string[]) => {
    const { code, err } = await cli('verify', ...args);
    return [code, /error\[(\w+)\]/.exec(err)?.[1]];
  };
  expect(await refused('--proof', 'moved', '--key', 'log.key')).toEqual([1, 'audit_proof_invalid']);
  expect(await refused('--proof', 'p', '--leaf', 'log.key', '--key', 'log.key')).toEqual([
    1,
    'audit_proof_invalid',
  ]);
  expect(await refused('--proof', 'p', '--key', 'other.key')).toEqual([1, 'audit_signature_invalid']);
  expect(await refused('--proof', 'log.key', '--key', 'log.key')).toEqual([2, 'audit_note_invalid']);
  expect(await refused('--proof', 'bare', '--key', 'log.key')).toEqual([64, 'usage']);
  expect(await refused('--proof', 'p')).toEqual([64, 'usage']);
  expect(await refused('--leaf', 'leaf')).toEqual([64, 'usage']);
  expect(await refused('export')).toEqual([64, 'usage']);
  expect(await refused('none', '--key', 'log.key')).toEqual([2, 'file_missing']);
  expect(await refused('export', '--key', 'leaf')).toEqual([2, 'audit_note_invalid']);
  const beyond = await cli('prove', '999999');
  expect([beyond.code, beyond.err]).toEqual([2, expect.stringContaining('error[audit_entry_not_found]')]);
});
