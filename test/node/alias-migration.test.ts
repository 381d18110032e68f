import { join } from 'node:path';
import SqliteDatabase from 'better-sqlite3';
import { expect, test } from 'vitest';
import { foundation } from '../../src/store/migrations/0001-foundation.ts';
import { bans } from '../../src/store/migrations/0002-bans.ts';
import { rotation } from '../../src/store/migrations/0003-rotation.ts';
import { jwtKeys } from '../../src/store/migrations/0004-jwt-keys.ts';
import { certificateKeys } from '../../src/store/migrations/0005-certificate-keys.ts';
import { hierarchy } from '../../src/store/migrations/0006-hierarchy.ts';
import { nodes } from '../../src/store/migrations/0007-nodes.ts';
import { newDirectory, openTestStore } from '../store/directories.ts';

const [ca, own] = ['ca'.repeat(32), '0e'.repeat(32)];

test('nodes of the version before keep what is known of them, as aliases ask for it', async () => {
  const dataDir = newDirectory();
  makeSeventhDatabase(dataDir, [
    ['web-1', 'join_token', ['node:join_token:0123456789abcdef', 'node:method:join_token'], ['0a']],
    [
      `x509pop-${own}`,
      'x509pop',
      [
        'node:method:x509pop',
        `node:x509pop:ca:${ca}`,
        `node:x509pop:certificate:${own}`,
        'node:x509pop:subject:CN=box',
      ],
      ['0b', '0c'],
    ],
    ['bare', 'x509pop', [], []],
  ]);
  const store = await openTestStore(dataDir);
  expect(await store.loadNodes()).toEqual([
    node('bare', 'x509pop', [], []),
    node('web-1', 'join_token', ['join_token:id:0123456789abcdef', 'join_token:web-1'], ['0a']),
    node(
      `x509pop-${own}`,
      'x509pop',
      [`x509pop:ca:fingerprint:${ca}`, `x509pop:certificate:${own}`],
      ['0b', '0c'],
    ),
  ]);
  expect((await store.loadMesh()).aliases).toEqual(new Map());
  // A way to attest that there was not then.
  const kubernetes = node('k8s-a', 'k8s_psat', ['k8s_psat:cluster:a'], []);
  await store.putNode(kubernetes, []);
  expect(await store.loadNodes()).toContainEqual(kubernetes);
});

test.each([
  ['that asks for nothing', "'[]'"],
  ['that asks for what no node has', `'["unix:uid:1"]'`],
])('a stored alias %s stops the start', async (_, selectors) => {
  const dataDir = newDirectory();
  await (await openTestStore(dataDir)).close();
  edit(dataDir, `INSERT INTO node_aliases VALUES ('edge', ${selectors}, 1)`);
  await expect((await openTestStore(dataDir)).loadMesh()).rejects.toMatchObject({ code: 'store_corrupt' });
});

test('a stored node that was attested in an unknown way stops the start', async () => {
  const dataDir = newDirectory();
  const store = await openTestStore(dataDir);
  await store.putNode(node('web-1', 'join_token', [], []), []);
  await store.close();
  edit(dataDir, "UPDATE nodes SET method = 'tpm'");
  await expect((await openTestStore(dataDir)).loadNodes()).rejects.toMatchObject({ code: 'store_corrupt' });
});

function node(
  name: string,
  method: 'join_token' | 'x509pop' | 'k8s_psat',
  selectors: readonly string[],
  serials: readonly string[],
) {
  const [attestedAt, renewedAt, notAfter] = [new Date(1_000), new Date(2_000), new Date(3_000)];
  return { name, method, selectors, attestedAt, renewedAt, notAfter, serials, evictedAt: null };
}

function makeSeventhDatabase(
  dataDir: string,
  rows: readonly (readonly [string, string, readonly string[], readonly string[]])[],
): void {
  const umask = process.umask(0o077);
  const db = new SqliteDatabase(join(dataDir, 'countersign.db'));
  process.umask(umask);
  db.pragma('journal_mode = WAL');
  for (const sql of [foundation, bans, rotation, jwtKeys, certificateKeys, hierarchy, nodes]) db.exec(sql);
  db.pragma('user_version = 7');
  const put = db.prepare('INSERT INTO nodes VALUES (?, ?, ?, 1000, 2000, 3000, ?, NULL)');
  for (const [name, method, selectors, serials] of rows) {
    put.run(name, method, JSON.stringify(selectors), JSON.stringify(serials));
  }
  db.close();
}

function edit(dataDir: string, sql: string): void {
  const db = new SqliteDatabase(join(dataDir, 'countersign.db'));
  db.exec(sql);
  db.close();
}
