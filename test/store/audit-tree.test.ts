import { randomBytes } from 'node:crypto';
import { cpSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { encodeEvent } from '../../src/audit/canonical.ts';
import { openCheckpoint } from '../../src/audit/checkpoint.ts';
import { auditColumns } from '../../src/audit/columns.ts';
import { rollupOf } from '../../src/audit/rollup.ts';
import { verifyConsistency } from '../../src/audit/merkle-proof.ts';
import { leafHash } from '../../src/audit/leaf.ts';
import { parseTlogProof, verifyTlogProof } from '../../src/audit/tlog-proof.ts';
import { verifyLog } from '../../src/audit/verify-log.ts';
import { checkSigned, readCheckpoint } from '../../src/store/audit-checkpoint.ts';
import { type Database, openForWriting } from '../../src/store/database.ts';
import type { LeafRecord } from '../../src/store/protocol.ts';
import type { Store } from '../../src/store/store.ts';
import { createBatchWriter } from '../../src/store/writer.ts';
import { decision, issuance, noon } from '../audit/events.ts';
import { logKey, logSigner, makeNoteSigner } from '../audit/log-files.ts';
import { newDirectory, openTestStore } from './directories.ts';

async function openSigned(dataDir = newDirectory()): Promise<Store> {
  const store = await openTestStore(dataDir);
  expect(await store.signLog(logSigner.name, logSigner.privateKey)).toBe(logSigner.verifierKey);
  return store;
}

async function headOf(store: Store) {
  return openCheckpoint((await store.auditCheckpoint()) ?? '', logKey);
}

async function verifyStored(
  store: Store,
  since = null as Awaited<ReturnType<typeof headOf>> | null,
): Promise<number> {
  const head = await headOf(store);
  await verifyLog(head, async (tile) => (await store.auditTile(tile)) ?? undefined, since);
  return head.size;
}

function decisions(count: number, word = 'd') {
  return Array.from({ length: count }, (_, at) => decision({ decisionId: `${word}-${at}` }));
}

describe('the checkpoint', () => {
  test('is of the log as soon as an event is acknowledged, and leads on from every earlier one', async () => {
    const store = await openSigned();
    expect(await headOf(store)).toMatchObject({ origin: 'example.org/audit', size: 0 });
    let before = await headOf(store);
    for (const count of [1, 2, 252, 1, 1, 255, 513]) {
      await store.recordEvents(decisions(count));
      const head = await headOf(store);
      expect(head.size).toBe(before.size + count);
      const proof = await store.proveConsistency(before.size);
      expect(
        verifyConsistency({
          from: before.size,
          to: head.size,
          fromRoot: before.root,
          toRoot: head.root,
          path: proof?.path ?? [],
        }),
      ).toBe(true);
      expect(await verifyStored(store, before)).toBe(head.size);
      before = head;
    }
    for (const index of [0, 1, 255, 256, 511, before.size - 1]) {
      const proof = (await store.proveEntry(index))!;
      expect(verifyTlogProof({ ...proof, extra: null }, proof.leafHash, logKey).size).toBe(before.size);
    }
    expect([await store.proveEntry(before.size), await store.proveConsistency(before.size + 1)]).toEqual([
      null,
      null,
    ]);
  });

  test('has nothing of a request that was refused, nor of what shares its batch', async () => {
    const store = await openSigned();
    await store.recordEvents([issuance()]);
    const answers = await Promise.allSettled([
      store.recordEvents(decisions(300, 'a')),
      store.recordEvents([...decisions(300, 'b'), issuance()]),
      store.recordEvents(decisions(300, 'c')),
    ]);
    expect(answers.map(({ status }) => status)).toEqual(['fulfilled', 'rejected', 'fulfilled']);
    expect(await verifyStored(store)).toBe(601);
  });

  test('is answered with the proof of each event that asks for it, whatever is committed with it', async () => {
    const store = await openSigned();
    // Batches of many sizes, with refused requests among them.
    for (const others of [0, 1, 5, 254, 3, 600, 2]) {
      const refused = issuance({ serial: `0${others}`.padStart(32, '1') });
      await store.recordEvents([refused]);
      const asked = Array.from({ length: 4 }, (_, at) =>
        issuance({ serial: `${others}${at}`.padStart(32, '5') }),
      );
      const proofs = Promise.all(asked.map((event) => store.recordProven(event)));
      const rest = Promise.allSettled([
        store.recordEvents(decisions(others)),
        store.recordProven(refused),
        store.recordEvents([...decisions(3), refused]),
      ]);
      const sizes = new Set<number>();
      for (const [at, text] of (await proofs).entries()) {
        const proof = parseTlogProof(text ?? '');
        expect(JSON.parse(Buffer.from(proof.extra!).toString()).serial).toBe(asked[at]!.serial);
        sizes.add(verifyTlogProof(proof, leafHash(proof.extra!), logKey).size);
      }
      expect((await rest)[1]?.status).toBe('rejected');
      // None waits for another commit: at most those that were under way.
      expect(sizes.size).toBeLessThanOrEqual(2);
      expect((await headOf(store)).size).toBeGreaterThanOrEqual(Math.max(...sizes));
    }
    await verifyStored(store);
  });

  test('cannot be proven while nobody signs', async () => {
    const store = await openTestStore(newDirectory());
    expect(await store.recordProven(issuance())).toBeNull();
  });

  test('is signed when a log that nobody signed gets its key, and goes on after a restart', async () => {
    const dataDir = newDirectory();
    const first = await openTestStore(dataDir);
    await first.recordEvents(decisions(700));
    expect([
      await first.auditCheckpoint(),
      await first.auditTile({ level: 0, index: 0, width: 256 }),
    ]).toEqual([null, null]);
    await first.close();
    const store = await openTestStore(dataDir);
    await store.signLog(logSigner.name, logSigner.privateKey, 'a-key');
    expect([await store.readMeta('audit_key'), await store.readMeta('audit_verifier_key')]).toEqual([
      'a-key',
      logSigner.verifierKey,
    ]);
    const before = await headOf(store);
    expect(before.size).toBe(700);
    await store.close();
    const again = await openSigned(dataDir);
    expect(await headOf(again)).toEqual(before);
    await again.recordEvents(decisions(400));
    expect(await verifyStored(again, before)).toBe(1_100);
  });

  test('must be of the key that the log has', () => {
    const named = makeNoteSigner('example.org/other');
    const keyed = makeNoteSigner(logSigner.name, 9);
    for (const { verifierKey } of [named, keyed]) {
      expect(() => changed(template, (db) => checkSigned(db, verifierKey, 600))).toThrow(
        expect.objectContaining({ code: 'audit_log_damaged' }),
      );
    }
    changed(template, (db) => checkSigned(db, logSigner.verifierKey, 600));
  });

  // Whoever has the file and not the key: the start would sign what they have written.
  test.each([
    ['is taken away', 'DELETE FROM audit_checkpoint', /signed none of its 600 entries/],
    ['is one of fewer entries', 'UPDATE audit_checkpoint SET size = 300', /signed 300 of its 600 entries/],
  ])('of a log that has a key is not made anew when it %s', (_, sql, message) => {
    const named = "INSERT INTO meta (key, value) VALUES ('audit_key', 'a-key')";
    changed(template, (db) => {
      forge(db, named);
      checkSigned(db, logSigner.verifierKey, 600);
      forge(db, sql);
      expect(() => checkSigned(db, logSigner.verifierKey, 600)).toThrow(
        expect.objectContaining({
          code: 'audit_log_damaged',
          message: expect.stringMatching(message) as string,
        }),
      );
      forge(db, 'DELETE FROM audit_checkpoint');
    });
  });
});

test('there is no tile beyond the log, nor wider than it', async () => {
  const store = await openSigned();
  await store.recordEvents(decisions(600));
  for (const tile of [
    { level: 0, index: 3, width: 1 },
    { level: 0, index: 2, width: 89 },
    { level: 'entries', index: 2, width: 256 },
    { level: 1, index: 0, width: 3 },
    { level: 2, index: 0, width: 1 },
    { level: 63, index: 0, width: 1 },
  ] as const) {
    expect([tile, await store.auditTile(tile)]).toEqual([tile, null]);
  }
  expect(await store.auditTile({ level: 0, index: 2, width: 88 })).toHaveLength(88 * 32);
  expect(await store.auditTile({ level: 0, index: 2, width: 3 })).toHaveLength(3 * 32);
});

// Without the threads of a store: what is tried here is what a start does before anything else.
const template = mkdtempSync(join(tmpdir(), 'countersign-store-'));
beforeAll(() => makeTemplate(template, 600));
afterAll(() => rmSync(template, { recursive: true, force: true }));

test.each([
  ['UPDATE audit_checkpoint SET size = 5', 'never goes back'],
  ['UPDATE audit_checkpoint SET root = zeroblob(32)', 'never changes'],
  ['DELETE FROM audit_checkpoint', 'stays'],
  ["INSERT INTO audit_checkpoint VALUES (1, 700, zeroblob(32), '')", 'covers the whole log'],
  // A REPLACE deletes the row that stands in its way; without the pragma no trigger of deletion is asked.
  ...['ON', 'OFF'].flatMap((asked): [string, string][] => {
    const replace = `PRAGMA recursive_triggers = ${asked}; INSERT OR REPLACE INTO`;
    return [
      [`${replace} audit_checkpoint VALUES (1, 600, zeroblob(32), '')`, 'never changes'],
      [`${replace} audit_checkpoint VALUES (1, 5, zeroblob(32), '')`, 'never goes back'],
      [`${replace} audit_nodes VALUES (1, 1, zeroblob(32))`, 'no gaps'],
      [
        `${replace} audit_leaves SELECT 599, leaf, hash, type, 0, NULL, NULL, NULL, NULL FROM audit_leaves WHERE idx = 1`,
        'no gaps',
      ],
    ];
  }),
  ['UPDATE OR REPLACE audit_leaves SET idx = 5 WHERE idx = 6', 'append-only'],
  ['UPDATE audit_nodes SET hash = zeroblob(32)', 'only grows'],
  ['DELETE FROM audit_nodes', 'only grows'],
  ['INSERT INTO audit_nodes VALUES (1, 7, zeroblob(32))', 'no gaps'],
  ['INSERT INTO audit_nodes VALUES (0, 0, zeroblob(32))', 'CHECK'],
])('the schema refuses %s', (sql, why) => {
  changed(template, (db) => expect(() => db.exec(sql)).toThrow(why));
});

// Whoever has the file may drop the triggers.
describe('a start is refused when the right edge is not what was signed', () => {
  test.each<[string, string, RegExp]>([
    ['an entry', "UPDATE audit_leaves SET leaf = x'7b7d' WHERE idx = 300", /entry 300 is not what its hash/],
    ['the last entry', "UPDATE audit_leaves SET leaf = x'7b7d' WHERE idx = 599", /entry 599 is not/],
    ['the hash of one', 'UPDATE audit_leaves SET hash = zeroblob(32) WHERE idx = 512', /entry 512 is not/],
    ['an entry left out', 'DELETE FROM audit_leaves WHERE idx = 400', /entry 400 is missing/],
    [
      'the end cut off',
      'DELETE FROM audit_leaves WHERE idx >= 590',
      /entry 590 is missing: the checkpoint is of 600/,
    ],
    [
      'a hash of the tree',
      'UPDATE audit_nodes SET hash = zeroblob(32) WHERE idx = 1',
      /entries 256 to 511 are not/,
    ],
    [
      'an older one',
      'UPDATE audit_nodes SET hash = zeroblob(32) WHERE idx = 0',
      /entries 0 to 599 do not have the root/,
    ],
    [
      'a hash left out',
      'DELETE FROM audit_nodes WHERE idx = 1',
      /level 1 of the tree is not that of 600 entries/,
    ],
    ['the root', 'UPDATE audit_checkpoint SET root = zeroblob(32)', /entries 0 to 599 do not have the root/],
    ['all of it', 'DELETE FROM audit_leaves; DELETE FROM audit_nodes', /entry 0 is missing/],
  ])('%s', (_, sql, message) => {
    expect(() => changed(template, (db) => forge(db, sql))).toThrow(
      expect.objectContaining({
        code: 'audit_log_damaged',
        message: expect.stringMatching(message) as string,
      }),
    );
  });
});

describe('a log that is older than its tree', () => {
  test.each(['idx >= 1', 'idx >= 0'])(
    'gets one that is the same, though an earlier start was cut off: %s',
    (cut) => {
      const before = changed(template, () => undefined);
      const after = changed(template, (db) => {
        forge(db, `DELETE FROM audit_nodes WHERE ${cut}; DELETE FROM audit_checkpoint`);
      });
      expect(after).toEqual(before);
      expect(before.size).toBe(600);
    },
  );

  test('gets none over an entry that is not what was recorded', () => {
    const forget = 'DELETE FROM audit_nodes; DELETE FROM audit_checkpoint';
    const sql = `${forget}; UPDATE audit_leaves SET leaf = x'7b7d' WHERE idx = 17`;
    expect(() => changed(template, (db) => forge(db, sql))).toThrow(
      expect.objectContaining({
        code: 'audit_log_damaged',
        message: expect.stringContaining('entry 17 is not') as string,
      }),
    );
  });
});

function makeTemplate(dataDir: string, count: number): void {
  const db = openForWriting(dataDir, noon);
  const leaves = decisions(count).map((event): LeafRecord => {
    const { fitted, leaf } = encodeEvent(event, randomBytes);
    return {
      leaf,
      personal: [],
      columns: auditColumns(fitted),
      certificate: null,
      token: null,
      rollup: rollupOf(fitted),
    };
  });
  createBatchWriter(db, () => logSigner)({ requests: [{ change: { kind: 'none' }, leaves }], nowMs: 0 });
  db.close();
}

/** Changes a copy, and opens it as a start does. @returns its checkpoint */
function changed(dataDir: string, change: (db: Database) => void) {
  const copy = newDirectory();
  cpSync(dataDir, copy, { recursive: true });
  const db = openForWriting(copy, noon);
  try {
    change(db);
    createBatchWriter(db, () => logSigner)({ requests: [], nowMs: 0 });
    return openCheckpoint(readCheckpoint(db)?.note ?? '', logKey);
  } finally {
    db.close();
  }
}

function forge(db: Database, sql: string): void {
  const names = db
    .prepare<[], string>("SELECT name FROM sqlite_schema WHERE type = 'trigger' AND name LIKE 'audit%'")
    .pluck()
    .all();
  for (const name of names) db.exec(`DROP TRIGGER ${name}`);
  db.exec(sql);
}
