import { createPrivateKey, X509Certificate } from 'node:crypto';
import {
  chmodSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { findAccount } from '../../src/cli/files-account.ts';
import type { FilesOutput } from '../../src/cli/files-configuration.ts';
import { openTarget } from '../../src/cli/files-target.ts';
import { defaultFiles } from '../../src/cli/svid-files.ts';
import type { FetchedSvid } from '../../src/cli/svid-stream.ts';
import { makeTestAuthority, type TestAuthority } from '../ca/test-authority.ts';
import { startChild } from '../harness/child.ts';
import { eventually } from '../harness/eventually.ts';
import { mayMount, noFileMayGrow, smallDisk } from '../harness/full-disk.ts';
import { createScope } from '../harness/scope.ts';
import { makeTempDir } from '../harness/temp.ts';
import { issueSvid } from './files-svid.ts';

const scope = createScope();
afterAll(() => scope.close());
const directory = makeTempDir(scope);
const asRoot = test.skipIf(process.geteuid?.() !== 0);

let ca: TestAuthority;
let svids: FetchedSvid[];
let number = 0;
let output: FilesOutput;
beforeAll(async () => {
  ca = await makeTestAuthority(new Date());
  svids = await Promise.all([1, 2, 3].map(() => issueSvid(ca)));
});
beforeEach(() => {
  number += 1;
  output = outputAt(join(directory, `files-${number}`));
});
const svid = (i: number): FetchedSvid => svids[i] as FetchedSvid;
const hook = { kind: 'run', argv: ['true'] } as const;

test('a version stays until the hook has succeeded with a newer one, and no longer', () => {
  const target = openTarget({ ...output, hook });
  target.put(svid(0), new Date());
  target.noteHooked();
  for (const i of [1, 2, 1, 2]) {
    expect(target.put(svid(i), new Date())).toBe('written');
    expectPair(output.directory);
  }
  expect(target.isHookDue()).toBe(true);
  expect(versions()).toHaveLength(2);
  target.noteHooked();
  expect([versions().length, target.isHookDue()]).toEqual([1, false]);
  target.release();
  // The next process knows what this one had told whom.
  const next = openTarget({ ...output, hook });
  expect([next.isHookDue(), next.certificate()?.spiffeId]).toEqual([false, 'spiffe://example.org/web']);
  expect(next.put(svid(2), new Date())).toBe('unchanged');
  next.put(svid(0), new Date());
  next.release();
  const third = openTarget({ ...output, hook });
  expect(third.isHookDue()).toBe(true);
  third.release();
});

test('names follow the configuration, and what is not ours stays', () => {
  const first = openTarget(output);
  first.put(svid(0), new Date());
  first.release();
  writeFileSync(join(output.directory, 'nginx.conf'), 'mine');
  symlinkSync('nginx.conf', join(output.directory, 'other.pem'));
  const files = [['combined', 'haproxy.pem'] as const, ['bundle', 'ca.pem'] as const];
  const second = openTarget({ ...output, files });
  expect(second.put(svid(0), new Date())).toBe('written');
  const shown = readdirSync(output.directory).filter((name) => !name.startsWith('..'));
  expect(shown.toSorted()).toEqual(['ca.pem', 'haproxy.pem', 'nginx.conf', 'other.pem']);
  const combined = readFileSync(join(output.directory, 'haproxy.pem'), 'utf8');
  expect(
    new X509Certificate(combined).checkPrivateKey(
      createPrivateKey(combined.slice(combined.indexOf('-----BEGIN PRIVATE'))),
    ),
  ).toBe(true);
  expect(statSync(join(output.directory, 'haproxy.pem')).mode & 0o777).toBe(0o600);
  expect(second.certificate()?.serial).toBeDefined();
  second.clear();
  expect(readdirSync(output.directory).toSorted()).toEqual(['nginx.conf', 'other.pem']);
  second.release();
});

asRoot('owner, group and mode are those asked for, and the group can get in', () => {
  const target = openTarget({ ...output, uid: 4_001, gid: 4_002, keyMode: 0o640 });
  target.put(svid(0), new Date());
  const [dir, key, cert] = ['', 'key.pem', 'svid.pem'].map((name) => statSync(join(output.directory, name)));
  expect([dir?.uid, dir?.gid, (dir?.mode ?? 0) & 0o777]).toEqual([0, 4_002, 0o750]);
  expect([key?.uid, key?.gid, (key?.mode ?? 0) & 0o777]).toEqual([4_001, 4_002, 0o640]);
  expect([cert?.uid, cert?.gid, (cert?.mode ?? 0) & 0o777]).toEqual([4_001, 4_002, 0o644]);
  target.release();
  // Another mode is another version.
  const next = openTarget({ ...output, gid: 4_003, keyMode: 0o440 });
  expect(next.put(svid(0), new Date())).toBe('written');
  expect(statSync(join(output.directory, 'key.pem')).mode & 0o777).toBe(0o440);
  next.release();
});

describe('is refused:', () => {
  test.each<[string, () => void, string]>([
    ['a directory that others write', () => mkdir(0o777), 'file_permissions'],
    ['a directory that its group writes', () => mkdir(0o770), 'file_permissions'],
    ['a link', () => symlinkSync(directory, output.directory), 'file_permissions'],
    ['a file', () => writeFileSync(output.directory, ''), 'file_permissions'],
    ['a way through a file', () => (output = outputAt('/dev/null/x')), 'file_permissions'],
    ['a place where nothing can be made', () => (output = outputAt('/proc/x/y')), 'file_permissions'],
    [
      'a name that is too long',
      () => (output = outputAt(join(directory, 'x'.repeat(300)))),
      'file_permissions',
    ],
    [
      'a group that cannot get in',
      () => (mkdir(0o700), (output = { ...output, gid: 0 })),
      'file_permissions',
    ],
  ])('%s', (_, spoil, code) => {
    spoil();
    expect(() => openTarget(output)).toThrow(expect.objectContaining({ code }));
  });

  test.each<[string, (at: string) => void]>([
    ['a file in the place of a link', (at) => writeFileSync(join(at, 'key.pem'), 'mine')],
    ['a link that leads elsewhere', (at) => symlinkSync('/etc/passwd', join(at, 'key.pem'))],
    ['a link of ours under another name', (at) => symlinkSync('..data/key.pem', join(at, 'svid.pem'))],
    ['..data that leads elsewhere', (at) => symlinkSync('/etc', join(at, '..data'))],
    ['..data that is a directory', (at) => mkdirSync(join(at, '..data'))],
    ['..done that is a file', (at) => writeFileSync(join(at, '..done'), '')],
  ])('%s', (_, spoil) => {
    mkdir(0o700);
    spoil(output.directory);
    const before = readdirSync(output.directory);
    const target = openTarget(output);
    expect(() => target.put(svid(0), new Date())).toThrow(
      expect.objectContaining({ code: 'file_permissions' }),
    );
    expect(readdirSync(output.directory)).toEqual(before);
    target.release();
  });

  test('a directory that somebody holds already, in this process or another', async () => {
    const target = openTarget(output);
    expect(() => openTarget(output)).toThrow(expect.objectContaining({ code: 'directory_in_use' }));
    target.release();
    const writer = startWriter();
    await eventually('the writer', () => writer.output().includes('ready'));
    expect(() => openTarget(output)).toThrow(expect.objectContaining({ code: 'directory_in_use' }));
    writer.kill('SIGKILL');
    await writer.exited;
    // A lock of the dead holds nobody up.
    openTarget(output).release();
  });

  test('a key of another certificate, an expired certificate, one without its root', async () => {
    const target = openTarget(output);
    const now = new Date();
    const wrong: readonly [FetchedSvid, Date][] = [
      [{ ...svid(0), privateKeyPem: svid(1).privateKeyPem }, now],
      [{ ...svid(0), privateKeyPem: 'junk' }, now],
      [{ ...svid(0), certificates: [] }, now],
      [{ ...svid(0), authorities: [] }, now],
      [svid(0), new Date(now.getTime() + 86_400_000)],
    ];
    for (const [given, at] of wrong) {
      expect(() => target.put(given, at)).toThrow(expect.objectContaining({ code: 'svid_invalid' }));
    }
    expect(readdirSync(output.directory)).toEqual([]);
    target.release();
  });
});

test('a directory that is replaced by a link meanwhile gets nothing, and gets it when it is back', () => {
  const target = openTarget(output);
  target.put(svid(0), new Date());
  const elsewhere = join(directory, `elsewhere-${number}`);
  mkdirSync(elsewhere, { mode: 0o700 });
  renameSync(output.directory, `${output.directory}.away`);
  symlinkSync(elsewhere, output.directory);
  expect(() => target.put(svid(1), new Date())).toThrow(
    expect.objectContaining({ code: 'file_permissions' }),
  );
  expect(readdirSync(elsewhere)).toEqual([]);
  rmSync(output.directory);
  renameSync(`${output.directory}.away`, output.directory);
  expect(target.put(svid(1), new Date())).toBe('written');
  expectPair(output.directory);
  // One that is removed is made anew.
  rmSync(output.directory, { recursive: true });
  expect(target.put(svid(1), new Date())).toBe('written');
  expectPair(output.directory);
  target.release();
});

test('a writer that is killed at any moment leaves a pair, and a reader meets nothing else meanwhile', async () => {
  const seed = Math.floor(Math.random() * 1_000);
  let [reads, swaps] = [0, new Set<string>()];
  for (let round = 0; round < 6; round++) {
    const writer = startWriter();
    await eventually('a first pair', () => lstatSync(join(output.directory, 'key.pem')).isSymbolicLink());
    const end = performance.now() + 150 + ((seed * (round + 1)) % 97);
    while (performance.now() < end) {
      const version = readlinkSync(join(output.directory, '..data'));
      swaps.add(version);
      if (expectVersion(version)) reads += 1;
      const mode = lstatSync(join(output.directory, version, 'key.pem'), { throwIfNoEntry: false })?.mode;
      expect([0o600, undefined]).toContain(mode === undefined ? mode : mode & 0o777);
      await new Promise((resolve) => setImmediate(resolve));
    }
    writer.kill('SIGKILL');
    await writer.exited;
    expectPair(output.directory);
  }
  console.log(`seed ${seed}: ${reads} reads of ${swaps.size} versions, 6 kills`);
  expect(reads).toBeGreaterThan(50);
  const target = openTarget({ ...output, hook });
  target.put(svid(0), new Date());
  target.noteHooked();
  expect(versions()).toHaveLength(1);
  target.release();
}, 60_000);

test('a full disk leaves the old pair, and is got over', async () => {
  const disk = mayMount() ? smallDisk : noFileMayGrow;
  const home = join(directory, `disk-${number}`);
  mkdirSync(home, { mode: 0o700 });
  output = outputAt(join(home, 'files'));
  const writer = startWriter(disk.wrapper(home));
  const inside = join(`/proc/${writer.pid}/root`, output.directory);
  await eventually('a first pair', () => statSync(join(inside, 'key.pem')).isFile());
  disk.fill(writer.pid, home);
  // Where no file may grow, its log does not either.
  if (disk === noFileMayGrow) await new Promise((resolve) => setTimeout(resolve, 500));
  else {
    // The writer may have been caught with an old version still to remove, and so have room again.
    await eventually('the disk to be full', () => {
      disk.fill(writer.pid, home);
      return writer.output().includes('store_unavailable');
    });
  }
  for (let i = 0; i < 20; i++) {
    expectPair(inside);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  disk.free(writer.pid, home);
  const before = readlinkSync(join(inside, '..data'));
  await eventually('a swap', () => readlinkSync(join(inside, '..data')) !== before);
  writer.kill('SIGSTOP');
  expectPair(inside);
  writer.kill('SIGKILL');
  await writer.exited;
}, 90_000);

test.each([
  ['passwd', 'root', { id: 0, gid: 0 }],
  ['passwd', '0', { id: 0, gid: 0 }],
  ['passwd', '4000000000', { id: 4_000_000_000, gid: null }],
  ['group', 'root', { id: 0, gid: 0 }],
  ['group', '4242', { id: 4_242, gid: null }],
  ['passwd', 'no-such-user', undefined],
  ['group', 'no-such-group', undefined],
  ['passwd', '', undefined],
  ['passwd', '-s', undefined],
  ['passwd', 'root:x', undefined],
  ['passwd', '4294967295', undefined],
  ['passwd', '01', undefined],
  ['passwd', '-1', undefined],
] as const)('the %s account %j is %j', (kind, name, account) => {
  expect(findAccount(kind, name)).toEqual(account);
});

function outputAt(at: string): FilesOutput {
  return {
    name: 'test',
    identity: 'default',
    directory: at,
    files: defaultFiles,
    keyMode: 0o600,
    uid: null,
    gid: null,
    hook: null,
    hookTimeoutSeconds: 30,
    onBan: 'remove',
  };
}

function mkdir(mode: number): void {
  mkdirSync(output.directory);
  chmodSync(output.directory, mode);
}

function versions(): readonly string[] {
  return readdirSync(output.directory).filter((name) => name.startsWith('..svid_'));
}

function startWriter(wrapper: readonly string[] = []) {
  const file = join(directory, 'svids.json');
  const encode = (der: Uint8Array): string => Buffer.from(der).toString('base64');
  const encoded = svids.map(({ certificates, privateKeyPem, authorities }) => ({
    certificates: certificates.map(encode),
    privateKeyPem,
    authorities: authorities.map(encode),
  }));
  writeFileSync(file, JSON.stringify(encoded));
  const script = [join(import.meta.dirname, 'files-writer.ts'), JSON.stringify({ ...output, hook }), file];
  const [command = process.execPath, ...args] = [...wrapper, process.execPath, ...script];
  return startChild(scope, { command, args, logFile: join(directory, `writer-${number}.log`) });
}

/** Reads the three of one version, as far as it is still there. */
function expectVersion(version: string): boolean {
  const read = (name: string): string => readFileSync(join(output.directory, version, name), 'utf8');
  let texts: readonly [string, string];
  try {
    texts = [read('svid.pem'), read('key.pem')];
  } catch (error) {
    expect((error as NodeJS.ErrnoException).code).toBe('ENOENT');
    return false;
  }
  expect(new X509Certificate(texts[0]).checkPrivateKey(createPrivateKey(texts[1]))).toBe(true);
  return true;
}

function expectPair(at: string): void {
  for (let tries = 0; ; tries++) {
    const version = readlinkSync(join(at, '..data'));
    try {
      const [cert, key] = ['svid.pem', 'key.pem'].map((name) =>
        readFileSync(join(at, version, name), 'utf8'),
      );
      expect(new X509Certificate(cert ?? '').checkPrivateKey(createPrivateKey(key ?? ''))).toBe(true);
      return;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT' || tries > 50) throw error;
    }
  }
}
