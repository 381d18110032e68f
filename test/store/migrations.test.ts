import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import SqliteDatabase from 'better-sqlite3';
import { describe, expect, test } from 'vitest';
import { encodeEvent } from '../../src/audit/canonical.ts';
import { leafHash } from '../../src/audit/leaf.ts';
import type { JwtSlot } from '../../src/ca/jwt-slot.ts';
import type { Ban } from '../../src/identity/ban.ts';
import { foundation } from '../../src/store/migrations/0001-foundation.ts';
import { schemaVersion } from '../../src/store/migrations.ts';
import { issuance, jwtIssuance, noon } from '../audit/events.ts';
import { newDirectory, openTestStore } from './directories.ts';

const web = issuance().spiffeId;
const ban: Ban = {
  kind: 'spiffe-id',
  value: web,
  reason: "it's “odd”",
  until: new Date('2026-02-01T00:00:00.000Z'),
  createdAt: noon,
  actor: { kind: 'token', tokenId: '0123456789abcdef', role: 'operator' },
  revision: 6,
};
const jwtKey: JwtSlot = {
  keyId: jwtIssuance().keyId,
  keyType: 'rsa-2048',
  publicKey: new Uint8Array([0x30, 0]),
  state: 'active',
  publishedAt: noon,
  activatedAt: noon,
  stoppedAt: null,
};
const change = {
  expectRevision: 5,
  revision: 6,
  putEntries: [],
  deleteEntries: [],
  putPolicies: [],
  deletePolicies: [],
  putBans: [],
  deleteBans: [],
  putAliases: [],
  deleteAliases: [],
  events: [],
};

describe('a database of schema 1', () => {
  test('is brought forward, keeps what it holds, and takes bans', async () => {
    const dataDir = newDirectory();
    makeFirstDatabase(dataDir);
    const store = await openTestStore(dataDir);
    expect(await store.loadMesh()).toMatchObject({ revision: 5, bans: new Map() });
    expect(await store.auditSize()).toBe(1);
    // The index of the migration serves rows that were there before it.
    expect(await store.latestExpiries([web, 'spiffe://example.org/none'], noon)).toEqual([
      issuance().notAfter,
      null,
    ]);
    const serial: Ban = { ...ban, kind: 'serial', value: '40ab', until: null };
    await store.commitMesh({ ...change, putBans: [ban, serial] });
    const expected = new Map([
      [`spiffe-id ${web}`, ban],
      ['serial 40ab', serial],
    ]);
    expect(await store.loadMesh()).toMatchObject({ revision: 6, bans: expected });
    await store.close();
    expect(versionOf(dataDir)).toBe(schemaVersion);
    const again = await openTestStore(dataDir);
    expect((await again.loadMesh()).bans).toEqual(expected);
    await again.commitMesh({ ...change, expectRevision: 6, revision: 7, deleteBans: [ban] });
    expect([...(await again.loadMesh()).bans.keys()]).toEqual(['serial 40ab']);
  });

  test('the CA keeps its keys: what was retired may still have leaves, which have no known issuer', async () => {
    const dataDir = newDirectory();
    makeFirstDatabase(dataDir);
    const store = await openTestStore(dataDir);
    const shown = (await store.loadAuthorities()).map(
      ({ keyId, kind, rootKeyId, state, tainted, publishedIn }) =>
        `${kind} ${keyId} under ${rootKeyId} ${state} ${tainted} ${publishedIn}`,
    );
    expect(shown).toEqual([
      'root aa under aa active false 1',
      'intermediate bb under aa retiring false 0',
      'intermediate cc under aa active false 0',
    ]);
    expect(await store.readMeta('bundle_sequence')).toBe('1');
    expect(await store.unexpiredCertificates(noon)).toMatchObject([{ entryId: 'web', issuerKeyId: '' }]);
    expect(await store.loadCoverage()).toEqual([]);
  });

  test('it has no JWT keys yet, and takes them with their tokens', async () => {
    const dataDir = newDirectory();
    makeFirstDatabase(dataDir);
    const store = await openTestStore(dataDir);
    expect([await store.loadJwtKeys(), await store.jwtExpiries()]).toEqual([[], new Map()]);
    expect(await store.readMeta('jwt_bundle_sequence')).toBeNull();
    await store.commitJwtKeys([jwtKey], 1, [jwtIssuance()]);
    expect(await store.loadJwtKeys()).toEqual([jwtKey]);
    expect(await store.jwtExpiries()).toEqual(new Map([[jwtKey.keyId, jwtIssuance().notAfter]]));
  });

  test('a ban and its event are one: when one is refused, neither is there', async () => {
    const dataDir = newDirectory();
    makeFirstDatabase(dataDir);
    const store = await openTestStore(dataDir);
    const event = { ...issuance(), serial: issuance().serial };
    await expect(store.commitMesh({ ...change, putBans: [ban], events: [event] })).rejects.toMatchObject({
      code: 'internal',
    });
    expect(await store.loadMesh()).toMatchObject({ revision: 5, bans: new Map() });
    expect(await store.auditSize()).toBe(1);
  });
});

test.each([
  ['a kind we do not know', "UPDATE bans SET kind = 'node'"],
  ['another form of its serial', "UPDATE bans SET kind = 'serial', value = '40AB'"],
  ['no SPIFFE ID', "UPDATE bans SET value = 'web'"],
  ['an actor that is no JSON', "UPDATE bans SET actor = '{'"],
])('a stored ban with %s stops the start', async (_, sql) => {
  const dataDir = newDirectory();
  const store = await openTestStore(dataDir);
  await store.commitMesh({ ...change, expectRevision: 0, revision: 1, putBans: [ban] });
  await store.close();
  const db = new SqliteDatabase(join(dataDir, 'countersign.db'));
  db.exec(sql);
  db.close();
  const again = await openTestStore(dataDir);
  await expect(again.loadMesh()).rejects.toMatchObject({ code: 'store_corrupt' });
});

/** As the first version left it: one change, one certificate. */
function makeFirstDatabase(dataDir: string): void {
  const umask = process.umask(0o077);
  const db = new SqliteDatabase(join(dataDir, 'countersign.db'));
  process.umask(umask);
  db.pragma('journal_mode = WAL');
  db.exec(foundation);
  db.pragma('user_version = 1');
  db.exec('UPDATE mesh SET revision = 5');
  db.exec(`INSERT INTO authorities VALUES
    ('aa', 'root', x'30', 0, 9, 'active'),
    ('bb', 'intermediate', x'30', 1, 9, 'retired'),
    ('cc', 'intermediate', x'30', 2, 9, 'active')`);
  const event = issuance();
  const { leaf } = encodeEvent(event, randomBytes);
  db.prepare("INSERT INTO audit_leaves (idx, leaf, hash, type, time_ms) VALUES (0, ?, ?, 'issuance', 0)").run(
    leaf,
    leafHash(leaf),
  );
  db.prepare('INSERT INTO audit_blocks VALUES (0, 0, 0)').run();
  db.prepare('INSERT INTO certificates VALUES (?, ?, ?, ?)').run(
    event.serial,
    event.spiffeId,
    event.entryId,
    event.notAfter.getTime(),
  );
  db.close();
}

function versionOf(dataDir: string): unknown {
  const db = new SqliteDatabase(join(dataDir, 'countersign.db'));
  try {
    return db.pragma('user_version', { simple: true });
  } finally {
    db.close();
  }
}
