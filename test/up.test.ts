import { chmodSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { type Clock, systemClock } from '../src/clock.ts';
import { type Config, type ConfigText, loadConfig } from '../src/config.ts';
import type { ErrorCode } from '../src/errors.ts';
import { openLog } from '../src/log.ts';
import { type Running, startUp } from '../src/up.ts';
import { ask } from './harness/http.ts';

let directory: string;
let running: Running[];
const log = openLog('error');

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'cs-up-'));
  running = [];
});

afterEach(async () => {
  for (const one of running) await one.close();
  rmSync(directory, { recursive: true, force: true });
});

function config(flags: ConfigText = {}): Config {
  return loadConfig({
    flags: {
      dataDir: join(directory, 'data'),
      workloadSocket: join(directory, 'w.sock'),
      adminSocket: join(directory, 'a.sock'),
      adminAddress: 'off',
      shutdownGraceSeconds: '0',
      ...flags,
    },
    environment: {},
    file: null,
    isRoot: false,
  });
}

async function start(flags: ConfigText = {}): Promise<Running> {
  const one = await startUp(config(flags), log);
  running.push(one);
  return one;
}

const refused = (code: ErrorCode): Error =>
  expect.objectContaining({ code, fix: expect.any(String) as string }) as Error;

test('a first start creates a trust domain, a root and an intermediate, and says so', async () => {
  const status = await (await start()).status();
  expect(status).toMatchObject({
    trustDomain: 'mesh.internal',
    ready: true,
    revision: 0,
    entries: 0,
    policies: 0,
  });
  expect(status.authorities.map(({ kind }) => kind).sort()).toEqual(['intermediate', 'root']);
  expect(status.custody).toContain('fit for one machine');
});

test('a second start continues from the stored state', async () => {
  const first = await start({ trustDomain: 'shop.test' });
  const entry = { id: 'web', spiffeId: 'spiffe://shop.test/web', selectors: ['unix:uid:4000'] };
  const created = await ask({
    to: join(directory, 'a.sock'),
    method: 'POST',
    path: '/v1/entries',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(entry),
  });
  expect(created.status).toBe(201);
  const before = await first.status();
  await first.close();
  const after = await (await start()).status();
  expect(after).toMatchObject({
    trustDomain: 'shop.test',
    revision: 1,
    entries: 1,
    authorities: before.authorities,
  });
  expect(after.auditSize).toBe(before.auditSize + 2);
});

test('keys on disk are sealed, and nobody else can read what is kept', async () => {
  await (await start()).close();
  const data = join(directory, 'data');
  expect(statSync(data).mode & 0o777).toBe(0o700);
  const files = readdirSync(data, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile());
  expect(files.length).toBeGreaterThan(3);
  for (const { parentPath, name } of files) {
    const path = join(parentPath, name);
    expect([name, statSync(path).mode & 0o177]).toEqual([name, 0]);
    if (name.endsWith('.json'))
      expect(JSON.parse(readFileSync(path, 'utf8'))).toMatchObject({ cipher: 'aes-256-gcm' });
  }
});

test('a second authority on the same data is refused, and the first goes on', async () => {
  const first = await start();
  await expect(
    start({ workloadSocket: join(directory, 'w2.sock'), adminSocket: join(directory, 'a2.sock') }),
  ).rejects.toThrow(refused('store_locked'));
  expect((await first.status()).ready).toBe(true);
});

test('a second authority on the same sockets is refused, and the first keeps them', async () => {
  await start();
  await expect(start({ dataDir: join(directory, 'other') })).rejects.toThrow(refused('socket_in_use'));
  expect((await ask({ to: join(directory, 'a.sock'), path: '/readyz' })).status).toBe(200);
});

test.each<{ what: string; flags: ConfigText; damage?: () => void; code: ErrorCode }>([
  { what: 'another trust domain', flags: { trustDomain: 'other.test' }, code: 'config_invalid' },
  {
    what: 'another passphrase',
    flags: {},
    damage: () =>
      writeFileSync(join(directory, 'data/keys/key-encryption-key'), 'x'.repeat(32), { mode: 0o600 }),
    code: 'key_passphrase_wrong',
  },
  {
    what: 'a key file that others may read',
    flags: {},
    damage: () => {
      for (const name of readdirSync(join(directory, 'data/keys')))
        chmodSync(join(directory, 'data/keys', name), 0o644);
    },
    code: 'file_permissions',
  },
  {
    what: 'a data directory that others may enter',
    flags: {},
    damage: () => chmodSync(join(directory, 'data'), 0o755),
    code: 'file_permissions',
  },
  {
    what: 'missing keys',
    flags: {},
    damage: () => {
      for (const name of readdirSync(join(directory, 'data/keys'))) {
        if (name.endsWith('.json')) rmSync(join(directory, 'data/keys', name));
      }
    },
    code: 'file_missing',
  },
])('a second start with $what is refused and leaves no socket behind', async ({ flags, damage, code }) => {
  await (await start()).close();
  damage?.();
  await expect(start(flags)).rejects.toThrow(expect.objectContaining({ code }) as Error);
  expect(readdirSync(directory)).toEqual(['data']);
});

test('a passphrase of a file opens the keys again, without the line break an editor leaves', async () => {
  const passphraseFile = join(directory, '.pass phrase');
  writeFileSync(passphraseFile, 'correct horse battery staple\n', { mode: 0o600 });
  const first = await start({ passphraseFile });
  expect((await first.status()).custody).toContain('passphrase');
  await first.close();
  writeFileSync(passphraseFile, 'correct horse battery staple', { mode: 0o600 });
  await (await start({ passphraseFile })).close();
  writeFileSync(passphraseFile, 'wrong horse battery staple', { mode: 0o600 });
  await expect(start({ passphraseFile })).rejects.toThrow(
    expect.objectContaining({ code: 'key_passphrase_wrong' }) as Error,
  );
});

test('a passphrase is its bytes: two that differ outside UTF-8 are two', async () => {
  const passphraseFile = join(directory, 'passphrase');
  writeFileSync(passphraseFile, Buffer.alloc(32, 0xfe), { mode: 0o600 });
  await (await start({ passphraseFile })).close();
  writeFileSync(passphraseFile, Buffer.alloc(32, 0xff), { mode: 0o600 });
  await expect(start({ passphraseFile })).rejects.toThrow(refused('key_passphrase_wrong'));
});

test('a part that does not close in order leaves none of the others open', async () => {
  let broken = false;
  const clock: Clock = {
    ...systemClock,
    now: () => {
      if (broken) throw new Error('no time');
      return new Date();
    },
  };
  const one = await startUp(config(), log, clock);
  broken = true;
  await expect(one.close()).rejects.toThrow('no time');
  expect((await (await start()).status()).ready).toBe(true);
});

test('a start that cannot certify its own TLS door ends, and says why', async () => {
  await (await start()).close();
  const clock: Clock = { ...systemClock, now: () => new Date(Date.now() - 86_400_000) };
  await expect(startUp(config({ adminAddress: '127.0.0.1:0' }), log, clock)).rejects.toThrow(
    expect.objectContaining({
      code: 'issuer_expired',
      fix: expect.stringContaining('clock') as string,
    }) as Error,
  );
  expect(readdirSync(directory)).toEqual(['data']);
});

test.each<{ what: string; flags: ConfigText }>([
  { what: 'a data directory below a file', flags: { dataDir: '/dev/null/data' } },
  { what: 'a workload socket below a file', flags: { workloadSocket: '/dev/null/run/w.sock' } },
  { what: 'an admin socket below a file', flags: { adminSocket: '/dev/null/run/a.sock' } },
])('a start with $what is refused', async ({ flags }) => {
  await expect(start(flags)).rejects.toThrow(refused('file_permissions'));
});

test('close is safe to call twice at once', async () => {
  const one = await start();
  await Promise.all([one.close(), one.close()]);
  expect(readdirSync(directory)).toEqual(['data']);
});
