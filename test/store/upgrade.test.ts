import { fork, spawnSync } from 'node:child_process';
import { chmodSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import SqliteDatabase from 'better-sqlite3';
import { describe, expect, test } from 'vitest';
import { parseAuditQuery } from '../../src/audit/question.ts';
import { leafHash } from '../../src/audit/leaf.ts';
import { parseAuthorization, provesToken, secretSha256 } from '../../src/http/bearer-token.ts';
import { scopeOf } from '../../src/identity/access.ts';
import { createAdministration } from '../../src/identity/administration.ts';
import { compileStoredMesh, createMeshHolder } from '../../src/identity/current-mesh.ts';
import { TrustDomain } from '../../src/spiffe/id.ts';
import { openForWriting } from '../../src/store/database.ts';
import { schemaVersion } from '../../src/store/migrations.ts';
import { noon } from '../audit/events.ts';
import { makePolicySigner } from '../harness/policy-signer.ts';
import { newDirectory, openTestStore, standingClock } from './directories.ts';

// Each pair of files was made by the release that had the schema: see test/vectors/make-store.ts.
const vectors = new URL('../vectors/', import.meta.url);
const schemas = readdirSync(vectors)
  .flatMap((name) => /^store-schema-([0-9]+)\.json$/.exec(name)?.[1] ?? [])
  .map(Number);

type Expected = {
  readonly leafHashes: readonly string[];
  readonly tokens: Readonly<Record<'viewer' | 'operator' | 'admin', string>>;
  readonly entries: readonly string[];
  readonly nodes: readonly string[];
};

function layOut(schema: number): { readonly dataDir: string; readonly expected: Expected } {
  const dataDir = newDirectory();
  chmodSync(dataDir, 0o700);
  const packed = readFileSync(new URL(`store-schema-${schema}.db.gz`, vectors));
  writeFileSync(databaseOf(dataDir), gunzipSync(packed), { mode: 0o600 });
  const expected = JSON.parse(
    readFileSync(new URL(`store-schema-${schema}.json`, vectors), 'utf8'),
  ) as Expected;
  return { dataDir, expected };
}

const databaseOf = (dataDir: string) => join(dataDir, 'countersign.db');
const backupsOf = (dataDir: string) => readdirSync(dataDir).filter((name) => name.includes('.backup'));

function inspect<T>(file: string, read: (db: SqliteDatabase.Database) => T): T {
  const db = new SqliteDatabase(file, { readonly: true });
  try {
    return read(db);
  } finally {
    db.close();
  }
}

const versionOf = (file: string) => inspect(file, (db) => db.pragma('user_version', { simple: true }));
const hashesOf = (file: string) =>
  inspect(file, (db) =>
    db
      .prepare<[], { leaf: Buffer; hash: Buffer }>('SELECT leaf, hash FROM audit_leaves ORDER BY idx')
      .all()
      .map(({ leaf, hash }) => [leafHash(leaf), hash].map((bytes) => Buffer.from(bytes).toString('hex'))),
  );

test('there is data of an earlier release', () => {
  expect(schemas).toContain(7);
});

describe.each(schemas)('data of schema %i', (schema) => {
  test('is taken over: entries, policies, bans, nodes, tokens, and every leaf of the log', async () => {
    const { dataDir, expected } = layOut(schema);
    const store = await openTestStore(dataDir);
    const mesh = await store.loadMesh();
    expect([...mesh.entries.keys()]).toEqual(expected.entries);
    expect([[...mesh.policies.keys()], [...mesh.bans.keys()]]).toEqual([['shop/all'], ['serial 40ab']]);
    expect(mesh.policies.get('shop/all')).toMatchObject({ file: 'p.yaml', line: 1, revision: 1 });
    expect(mesh.policies.get('shop/all')?.source).toContain('kind: AuthorizationPolicy');
    // A revision takes a signature, which a migration cannot give.
    expect([mesh.policyRevision, await store.keptRevisions()]).toEqual([undefined, []]);
    expect((await store.loadNodes()).map(({ name }) => name)).toEqual(expected.nodes);
    const { rows } = await store.queryAudit(parseAuditQuery({ order: 'oldest', limit: 1_000 }, noon));
    expect(rows.map((row) => row.leafHash)).toEqual(expected.leafHashes);
    await store.close();
    expect(hashesOf(databaseOf(dataDir))).toEqual(expected.leafHashes.map((hash) => [hash, hash]));
    expect(versionOf(databaseOf(dataDir))).toBe(schemaVersion);
  });

  test('has policies that become the first revision, to which there is a way back', async () => {
    const { dataDir } = layOut(schema);
    const store = await openTestStore(dataDir);
    const trustDomain = TrustDomain.parse('example.org');
    const settings = { trustDomain, rootNamespace: 'istio-system', ttlSeconds: 3_600 };
    const holder = createMeshHolder(compileStoredMesh(await store.loadMesh(), settings));
    const mesh = createAdministration({
      holder,
      settings,
      commit: store.commitMesh,
      signer: makePolicySigner(),
      history: { revision: store.policyRevision, past: store.policyPast },
      latestExpiry: store.latestExpiry,
      latestExpiries: store.latestExpiries,
      clock: standingClock,
    });
    await mesh.adoptPolicies();
    const [first] = await store.policyRevisions(10, 10);
    expect(first).toMatchObject({
      record: { number: 1, parent: null, author: { kind: 'system' } },
      changes: [{ namespace: 'shop', created: 1, updated: 0, deleted: 0 }],
    });
    const before = mesh.current().policies.get('shop/all');
    await mesh.deletePolicy('shop/all', { kind: 'system' });
    await mesh.activatePolicies('previous', { kind: 'system' }, { message: '', dryRun: false });
    expect(mesh.current().policyRevision).toMatchObject({ number: 3, id: first?.record.id });
    expect(mesh.current().policies.get('shop/all')?.source).toBe(before?.source);
  });

  test('has tokens that may do what they could', async () => {
    const { dataDir, expected } = layOut(schema);
    const store = await openTestStore(dataDir);
    const may = async (role: keyof Expected['tokens'], ...permissions: Parameters<typeof scopeOf>[1][]) => {
      const presented = parseAuthorization(`Bearer ${expected.tokens[role]}`)!;
      const token = await store.findToken(secretSha256(presented));
      expect(provesToken(presented, token)).toBe(true);
      return permissions.map((permission) => scopeOf(token?.grants ?? [], permission));
    };
    const [all, no] = ['everywhere', undefined];
    expect(await may('viewer', 'status:read', 'audit:read', 'entries:write')).toEqual([all, all, no]);
    // Before schema 9 each role included those before it.
    const writes = schema < 9 ? all : no;
    expect(await may('operator', 'entries:write', 'policies:write', 'ca:write')).toEqual([all, writes, no]);
    expect(await may('admin', 'ca:write', 'grants:write')).toEqual([all, all]);
  });

  test('is copied first, and the copy is what it was, for its owner alone', async () => {
    const { dataDir, expected } = layOut(schema);
    const store = await openTestStore(dataDir);
    const [backup = '', ...more] = backupsOf(dataDir);
    expect(more).toEqual([]);
    const path = join(dataDir, backup);
    expect(store.migration).toEqual({ from: schema, to: schemaVersion, backup: path, removed: [] });
    expect(statSync(path).mode & 0o777).toBe(0o600);
    expect(versionOf(path)).toBe(schema);
    expect(hashesOf(path)).toEqual(expected.leafHashes.map((hash) => [hash, hash]));
    await store.close();
    const again = await openTestStore(dataDir);
    expect([again.migration, backupsOf(dataDir)]).toEqual([null, [backup]]);
  });

  test('survives a death in the middle of migrating as it was, and the next start takes it over', async () => {
    const { dataDir, expected } = layOut(schema);
    const child = fork(new URL('dying-migration.ts', import.meta.url), [databaseOf(dataDir)], {
      stdio: 'ignore',
    });
    const signal = await new Promise((resolve) => {
      child.once('exit', (_, by) => resolve(by));
    });
    expect(signal).toBe('SIGKILL');
    expect(versionOf(databaseOf(dataDir))).toBe(schema);
    expect(hashesOf(databaseOf(dataDir)).map(([hash]) => hash)).toEqual(expected.leafHashes);
    const store = await openTestStore(dataDir);
    expect(await store.auditSize()).toBe(expected.leafHashes.length);
    expect((await store.listTokens()).length).toBe(3);
  });
});

test('the copy that was just made is kept, whatever the clock said when others were', () => {
  const { dataDir } = layOut(7);
  const name = (year: number) => `countersign.db.schema-6.${year}-01-01T00-00-00-000Z.backup`;
  for (const year of [2030, 2031]) writeFileSync(join(dataDir, name(year)), '');
  openForWriting(dataDir, noon).close();
  expect(backupsOf(dataDir).sort()).toEqual([
    name(2031),
    'countersign.db.schema-7.2026-01-31T12-00-00-000Z.backup',
  ]);
});

test('the last two copies are kept, and what made way is told', () => {
  const { dataDir } = layOut(7);
  const name = (day: number) => `countersign.db.schema-6.2025-01-0${day}T00-00-00-000Z.backup`;
  for (const day of [1, 2, 3]) writeFileSync(join(dataDir, name(day)), '');
  for (const end of ['', '-journal']) {
    writeFileSync(join(dataDir, `${name(4)}.partial${end}`), 'of a start that was cut off');
  }
  writeFileSync(join(dataDir, 'mine.backup'), '');
  let removed: readonly string[] = [];
  openForWriting(dataDir, noon, (migration) => {
    removed = migration.removed;
  }).close();
  expect(removed).toEqual([1, 2].map((day) => join(dataDir, name(day))));
  expect(backupsOf(dataDir).sort()).toEqual([
    name(3),
    'countersign.db.schema-7.2026-01-31T12-00-00-000Z.backup',
    'mine.backup',
  ]);
});

test('where no copy can be made nothing is migrated and no copy goes', () => {
  const { dataDir } = layOut(7);
  const old = [1, 2, 3].map((day) => `countersign.db.schema-6.2025-01-0${day}T00-00-00-000Z.backup`);
  for (const name of old) writeFileSync(join(dataDir, name), '');
  const database = new URL('../../src/store/database.ts', import.meta.url);
  const program = `import { openForWriting } from '${database.href}';
    try { openForWriting(process.argv[1], new Date(0)); } catch (error) { console.log(error.code, error.fix); }`;
  // No file may have more than 96 KiB: the database is larger.
  const { stdout } = spawnSync(
    'bash',
    ['-c', 'ulimit -f 96; exec "$0" --input-type=module -e "$1" "$2"', process.execPath, program, dataDir],
    { encoding: 'utf8' },
  );
  expect(statSync(databaseOf(dataDir)).size).toBeGreaterThan(98_304);
  expect(stdout).toContain('store_backup_failed make room on that disk');
  expect(versionOf(databaseOf(dataDir))).toBe(7);
  expect(backupsOf(dataDir).sort()).toEqual(old);
});

test('a database of a later release is refused by name, and not touched', () => {
  const { dataDir } = layOut(7);
  const db = new SqliteDatabase(databaseOf(dataDir));
  db.pragma(`user_version = ${schemaVersion + 1}`);
  db.close();
  const before = readFileSync(databaseOf(dataDir));
  let caught: unknown;
  try {
    openForWriting(dataDir, noon);
  } catch (error) {
    caught = error;
  }
  expect(caught).toMatchObject({ code: 'store_newer' });
  expect(String(caught)).toContain('countersign.db');
  expect(String(caught)).toContain(`schema ${schemaVersion + 1}`);
  expect(readFileSync(databaseOf(dataDir)).equals(before)).toBe(true);
  expect(backupsOf(dataDir)).toEqual([]);
});

test('a new database needs no copy', () => {
  const dataDir = newDirectory();
  openForWriting(dataDir, noon).close();
  expect(backupsOf(dataDir)).toEqual([]);
});
