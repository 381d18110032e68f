import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import {
  appendFileSync,
  chmodSync,
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import SqliteDatabase from 'better-sqlite3';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { makeArchive, restoreArchive, type SealingKey } from '../../src/store/archive.ts';
import { checkArchive, type Expected } from '../../src/store/archive-check.ts';
import { parseManifest } from '../../src/store/archive-manifest.ts';
import { openStore } from '../../src/store/store.ts';
import { decision, noon } from '../audit/events.ts';
import { logSigner } from '../audit/log-files.ts';
import { newDirectory, openTestStore, standingClock } from './directories.ts';

const code = (name: string) => expect.objectContaining({ code: name });
const anything: Expected = { digest: null, verifierKey: null, trustDomain: null };
const name = logSigner.verifierKey.slice(0, logSigner.verifierKey.indexOf('+'));
const [logKeyId, otherKeyId] = ['aa'.repeat(20), 'bb'.repeat(20)];
const envelope = (keyId: string, v = 1, trustDomain = 'example.org') =>
  JSON.stringify({ v, keyId, trustDomain });

/** A data directory with 700 entries in its log, and two keys. */
async function fill(dataDir: string, v = 1) {
  const store = await openTestStore(dataDir);
  await store.commitMeta('trust_domain', 'example.org', []);
  await store.commitMeta('witness_key', otherKeyId, []);
  await store.signLog(name, logSigner.privateKey, logKeyId);
  await store.recordEvents(Array.from({ length: 700 }, (_, n) => decision({ decisionId: `d-${n}` })));
  mkdirSync(join(dataDir, 'keys'), { mode: 0o700 });
  for (const keyId of [logKeyId, otherKeyId]) {
    writeFileSync(join(dataDir, 'keys', `${keyId}.json`), envelope(keyId, v), { mode: 0o600 });
  }
  writeFileSync(join(dataDir, 'keys', 'key-encryption-key'), Buffer.alloc(32, 7), { mode: 0o600 });
  return store;
}

function backUp(dataDir: string, target: string, sealingKey: SealingKey = 'refuse') {
  return makeArchive({ dataDir, target, sealingKey, now: noon, version: '1.0.0' });
}

function restore(from: string, dataDir: string, expected: Partial<Expected> = {}) {
  return restoreArchive({ from, dataDir, expected: { ...anything, ...expected }, now: noon });
}

/** One backup for many: it is copied before it is changed. */
let made = '';
const places: string[] = [];
beforeAll(async () => {
  const dataDir = join(mkdtemp(), 'data');
  const store = await openStore({ dataDir, clock: standingClock, randomBytes: (n) => new Uint8Array(n) });
  await store.close();
  await (await fill(dataDir)).close();
  made = join(mkdtemp(), 'backup');
  await backUp(dataDir, made);
});
afterAll(() => {
  for (const place of places) rmSync(place, { recursive: true, force: true });
});
function mkdtemp(): string {
  const place = newDirectory();
  // newDirectory removes its own after the first test.
  const kept = `${place}-kept`;
  mkdirSync(kept, { mode: 0o700 });
  places.push(kept);
  return kept;
}

function modesOf(dir: string): readonly string[] {
  return readdirSync(dir, { recursive: true, encoding: 'utf8' })
    .sort()
    .map((file) => `${file} ${(statSync(join(dir, file)).mode & 0o777).toString(8)}`);
}

describe('a backup', () => {
  test('is made while the server writes, and restored with all that was committed before', async () => {
    const place = newDirectory();
    const dataDir = join(place, 'data');
    const store = await fill(dataDir);
    let writes = true;
    const writing = (async () => {
      while (writes) await store.recordEvents([decision()]);
    })();
    const umask = process.umask(0);
    const { manifest, census } = await backUp(dataDir, join(place, 'backup'));
    process.umask(umask);
    writes = false;
    await writing;
    expect(manifest).toMatchObject({ trustDomain: 'example.org', seal: 'passphrase', by: '1.0.0' });
    expect([manifest.log.size >= 700, census]).toEqual([true, { pruned: 0, prunedRanges: [] }]);
    expect(modesOf(join(place, 'backup'))).toEqual([
      'countersign.db 600',
      'keys 700',
      `keys/${logKeyId}.json 600`,
      `keys/${otherKeyId}.json 600`,
      'manifest.json 600',
    ]);
    // Whatever a copy on another disk has made of modes, the data directory is closed.
    for (const file of readdirSync(join(place, 'backup'))) chmodSync(join(place, 'backup', file), 0o755);
    await restore(join(place, 'backup'), join(place, 'again'));
    expect(modesOf(join(place, 'again'))).toEqual([
      'countersign.db 600',
      'keys 700',
      `keys/${logKeyId}.json 600`,
      `keys/${otherKeyId}.json 600`,
    ]);
    const again = await openTestStore(join(place, 'again'));
    expect([await again.auditSize(), await again.readMeta('witness_key')]).toEqual([manifest.log.size, null]);
    expect(JSON.parse((await again.readMeta('restored')) ?? '')).toMatchObject({ size: manifest.log.size });
    expect(readdirSync(place).sort()).toEqual(['again', 'backup', 'data']);
  });

  test.each<[SealingKey, object]>([
    ['include', { seal: 'key_file', files: 4 }],
    ['leave_out', { seal: 'key_file_left_out', files: 3 }],
  ])('of keys that a key file opens has that file only when asked: %s', async (sealingKey, expected) => {
    const place = newDirectory();
    await fill(join(place, 'data'), 2);
    await expect(backUp(join(place, 'data'), join(place, 'refused'))).rejects.toThrow(
      code('backup_unsealed'),
    );
    const { manifest } = await backUp(join(place, 'data'), join(place, 'backup'), sealingKey);
    expect({ seal: manifest.seal, files: manifest.files.length }).toEqual(expected);
    expect(readdirSync(place).sort()).toEqual(['backup', 'data']);
  });

  test.each<[string, (place: string) => unknown, string]>([
    ['into what is there', (place) => mkdirSync(join(place, 'backup')), 'file_exists'],
    ['into a link', (place) => symlinkSync('/nowhere', join(place, 'backup')), 'file_exists'],
    ['of nothing', (place) => rmSync(join(place, 'data/countersign.db')), 'file_missing'],
    ['of a key that is a link', (place) => linkKey(join(place, 'data')), 'file_permissions'],
    [
      'without a key that the log needs',
      (place) => rmSync(join(place, 'data/keys', `${logKeyId}.json`)),
      'backup_invalid',
    ],
    [
      'of a log that was changed',
      (place) => edit(join(place, 'data/countersign.db'), changeLeaf),
      'backup_invalid',
    ],
  ])('is not made %s, and nothing is left of it', async (_, spoil, expected) => {
    const place = newDirectory();
    await (await fill(join(place, 'data'))).close();
    spoil(place);
    const before = readdirSync(place).sort();
    await expect(backUp(join(place, 'data'), join(place, 'backup'))).rejects.toThrow(code(expected));
    expect(readdirSync(place).sort()).toEqual(before);
  });
});

const changeLeaf =
  "DROP TRIGGER audit_leaves_no_update; UPDATE audit_leaves SET leaf = x'7b7d' WHERE idx = 300";

function linkKey(dir: string): void {
  const path = join(dir, 'keys', `${logKeyId}.json`);
  rmSync(path);
  symlinkSync(`${otherKeyId}.json`, path);
}

function edit(path: string, sql: string): void {
  const db = new SqliteDatabase(path);
  db.exec(sql);
  db.close();
}

type Draft = {
  version: number;
  schema: number;
  trustDomain: string;
  log: { size: number };
  files: { name: string; bytes: number; sha256: string }[];
};

/** Changes the manifest, and nothing that it is held against. */
function editManifest(dir: string, change: (manifest: Draft) => void): void {
  const path = join(dir, 'manifest.json');
  const manifest = JSON.parse(readFileSync(path, 'utf8')) as Draft;
  change(manifest);
  writeFileSync(path, JSON.stringify(manifest));
}

/** Changes a file, and the manifest with it: as somebody does who knows how. */
function forge(dir: string, file: string, change: (path: string) => void): void {
  change(join(dir, file));
  const bytes = readFileSync(join(dir, file));
  editManifest(dir, ({ files }) => {
    const record = files.find((one) => one.name === file)!;
    record.bytes = bytes.length;
    record.sha256 = createHash('sha256').update(bytes).digest('hex');
  });
}

const database = 'countersign.db';
const key = `keys/${logKeyId}.json`;

describe('a backup that is not whole is neither verified nor restored', () => {
  test.each<[string, (dir: string) => void, string]>([
    ['a byte that was flipped', (dir) => flip(join(dir, database), 9_000), 'backup_invalid'],
    ['a database that was cut', (dir) => truncateSync(join(dir, database), 8_192), 'backup_invalid'],
    ['a database that is longer', (dir) => appendFileSync(join(dir, database), 'x'), 'backup_invalid'],
    ['a key that was cut', (dir) => truncateSync(join(dir, key), 9), 'backup_invalid'],
    ['a key that is missing', (dir) => rmSync(join(dir, key)), 'file_missing'],
    ['no manifest', (dir) => rmSync(join(dir, 'manifest.json')), 'file_missing'],
    ['half a manifest', (dir) => truncateSync(join(dir, 'manifest.json'), 99), 'backup_invalid'],
    [
      'a manifest of 5 MB',
      (dir) => writeFileSync(join(dir, 'manifest.json'), ' '.repeat(5_000_000)),
      'backup_invalid',
    ],
    ['a later format', (dir) => editManifest(dir, (m) => (m.version = 2)), 'store_newer'],
    ['a later schema', (dir) => editManifest(dir, (m) => (m.schema = 9_999)), 'store_newer'],
    ['another schema', (dir) => editManifest(dir, (m) => m.schema--), 'backup_invalid'],
    ['a name that leads out', (dir) => rename(dir, '../../evil'), 'backup_invalid'],
    ['a name from the root', (dir) => rename(dir, '/etc/passwd'), 'backup_invalid'],
    ['a name in disguise', (dir) => rename(dir, 'keys/../../evil.json'), 'backup_invalid'],
    ['a name with a line break', (dir) => rename(dir, `${key}\n`), 'backup_invalid'],
    ['a name twice', (dir) => rename(dir, database), 'backup_invalid'],
    [
      'a size beyond all disks',
      (dir) => editManifest(dir, (m) => (m.files[0]!.bytes = Number.MAX_SAFE_INTEGER)),
      'backup_invalid',
    ],
    ['a size below zero', (dir) => editManifest(dir, (m) => (m.files[0]!.bytes = -1)), 'backup_invalid'],
    [
      'a key as large as a disk',
      (dir) => editManifest(dir, (m) => (m.files[1]!.bytes = 1e15)),
      'backup_invalid',
    ],
    ['a link in the place of a key', (dir) => linkKey(dir), 'file_permissions'],
    [
      'a link in the place of the database',
      (dir) => {
        rmSync(join(dir, database));
        symlinkSync(join(made, database), join(dir, database));
      },
      'file_permissions',
    ],
    [
      'a link in the place of the keys',
      (dir) => {
        rmSync(join(dir, 'keys'), { recursive: true });
        symlinkSync(join(made, 'keys'), join(dir, 'keys'));
      },
      'backup_invalid',
    ],
    ['a file too many', (dir) => writeFileSync(join(dir, 'keys', 'evil'), ''), 'backup_invalid'],
    ['a WAL beside the database', (dir) => writeFileSync(join(dir, `${database}-wal`), ''), 'backup_invalid'],
    [
      'a file of zeros',
      (dir) => forge(dir, database, (path) => writeFileSync(path, Buffer.alloc(8_192))),
      '',
    ],
    [
      'an entry that was changed, in a manifest that knows',
      (dir) =>
        forge(dir, database, (path) => {
          const trigger = "SELECT sql FROM sqlite_schema WHERE name = 'audit_leaves_no_update'";
          const db = new SqliteDatabase(path);
          const sql = String(db.prepare(trigger).pluck().get());
          db.exec(`${changeLeaf}; ${sql}`);
          db.close();
        }),
      'audit_log_invalid',
    ],
    [
      'a trigger too many',
      (dir) =>
        forge(dir, database, (path) =>
          edit(path, 'CREATE TRIGGER evil AFTER INSERT ON meta BEGIN DELETE FROM bans; END'),
        ),
      'backup_invalid',
    ],
    [
      'a trigger too few',
      (dir) => forge(dir, database, (path) => edit(path, 'DROP TRIGGER audit_nodes_no_delete')),
      'backup_invalid',
    ],
    ['a log that was cut', (dir) => editManifest(dir, (m) => (m.log.size = 3)), 'backup_invalid'],
    [
      'another trust domain',
      (dir) => editManifest(dir, (m) => (m.trustDomain = 'evil.example')),
      'backup_invalid',
    ],
    [
      'a key of another trust domain',
      (dir) => forge(dir, key, (path) => writeFileSync(path, envelope(logKeyId, 1, 'evil.example'))),
      'backup_invalid',
    ],
    [
      'a key in the place of another',
      (dir) => forge(dir, key, (path) => writeFileSync(path, envelope(otherKeyId))),
      'backup_invalid',
    ],
  ])('%s', async (_, spoil, expected) => {
    const place = newDirectory();
    const dir = join(place, 'backup');
    cpSync(made, dir, { recursive: true });
    spoil(dir);
    const refusal = expected === '' ? { name: 'MeshError' } : { code: expected };
    await expect(checkArchive(dir, anything)).rejects.toMatchObject(refusal);
    // Restored, it is refused as well, perhaps for what is found sooner, and leaves nothing.
    await expect(restore(dir, join(place, 'data'))).rejects.toMatchObject({ name: 'MeshError' });
    expect(readdirSync(place)).toEqual(['backup']);
    expect(existsSync(join(dirname(place), 'evil'))).toBe(false);
  });

  test('what somebody knows of it is held against it', async () => {
    const { digest, manifest } = await checkArchive(made, anything);
    const right: Expected = { digest, verifierKey: manifest.log.verifierKey, trustDomain: 'example.org' };
    expect((await checkArchive(made, right)).digest).toBe(digest);
    for (const wrong of [
      { digest: '0'.repeat(64) },
      { verifierKey: manifest.log.verifierKey.replace('A', 'B') },
      { trustDomain: 'evil.example' },
    ]) {
      await expect(checkArchive(made, { ...right, ...wrong })).rejects.toThrow(code('backup_invalid'));
    }
    expect(() => parseManifest('null')).toThrow(code('backup_invalid'));
  });
});

function flip(path: string, at: number): void {
  const bytes = readFileSync(path);
  bytes[at] = (bytes[at] ?? 0) ^ 1;
  writeFileSync(path, bytes);
}

function rename(dir: string, to: string): void {
  editManifest(dir, (manifest) => (manifest.files[1]!.name = to));
}

const program = join(import.meta.dirname, 'restoring.ts');

test.each(['backup', 'restore'])('a %s that has no room says so, and leaves nothing', async (what) => {
  const place = newDirectory();
  if (what === 'backup') await (await fill(join(place, 'data'))).close();
  const [from, to] =
    what === 'backup' ? [join(place, 'data'), join(place, 'new')] : [made, join(place, 'new')];
  const before = readdirSync(place);
  // The database has a megabyte; files may have a hundred kilobytes.
  const script = `trap '' XFSZ; ulimit -f 200; exec "$0" "$@"`;
  const child = spawn('/bin/sh', ['-c', script, process.execPath, program, what, from, to]);
  let said = '';
  child.stdout.on('data', (bytes: Buffer) => (said += bytes.toString()));
  await once(child, 'close');
  expect(said).toBe('backup_failed');
  expect(readdirSync(place)).toEqual(before);
});

describe('a restore', () => {
  test.each<[string, (dataDir: string) => void, string]>([
    [
      'a directory with something in it',
      (dir) => mkdirSync(join(dir, 'x'), { recursive: true }),
      'restore_refused',
    ],
    ['a file', (dir) => writeFileSync(dir, ''), 'restore_refused'],
    ['a link', (dir) => symlinkSync('/nowhere', dir), 'restore_refused'],
  ])('does not touch %s', async (_, put, expected) => {
    const dataDir = join(newDirectory(), 'data');
    put(dataDir);
    await expect(restore(made, dataDir)).rejects.toThrow(code(expected));
    expect(existsSync(`${dataDir}.restoring`)).toBe(false);
  });

  test('takes an empty directory', async () => {
    const dataDir = join(newDirectory(), 'data');
    mkdirSync(dataDir);
    await restore(made, dataDir);
    expect(statSync(dataDir).mode & 0o777).toBe(0o700);
  });

  test('that is killed leaves nothing that a server would take, and the next one goes through', async () => {
    const dataDir = join(newDirectory(), 'data');
    const child = spawn(process.execPath, [program, 'restore', made, dataDir]);
    const ended = once(child, 'exit');
    const isOver = () => child.exitCode !== null || existsSync(join(`${dataDir}.restoring`, database));
    while (!isOver()) await new Promise((resolve) => setImmediate(resolve));
    child.kill('SIGKILL');
    await ended;
    if (existsSync(dataDir)) expect(existsSync(join(dataDir, database))).toBe(true);
    else await restore(made, dataDir);
    expect(existsSync(`${dataDir}.restoring`)).toBe(false);
    expect(await (await openTestStore(dataDir)).auditSize()).toBe(700);
  });
});
