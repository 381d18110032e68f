import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import SqliteDatabase from 'better-sqlite3';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { encodeEvent } from '../../src/audit/canonical.ts';
import { openCheckpoint } from '../../src/audit/checkpoint.ts';
import { auditColumns } from '../../src/audit/columns.ts';
import { rollupOf } from '../../src/audit/rollup.ts';
import { verifyConsistency } from '../../src/audit/merkle-proof.ts';
import type { HeldCheckpoint } from '../../src/audit/witness.ts';
import { readCheckpoint } from '../../src/store/audit-checkpoint.ts';
import { openForWriting } from '../../src/store/database.ts';
import type { LeafRecord, WriteRequest } from '../../src/store/protocol.ts';
import { createBatchWriter } from '../../src/store/writer.ts';
import { decision, noon } from '../audit/events.ts';
import { logKey, logSigner } from '../audit/log-files.ts';
import { newDirectory, openTestStore } from './directories.ts';

const origin = 'other.example/audit';
function checkpoint(size: number, byte = size, cosignedAt = noon): HeldCheckpoint {
  return { origin, size, root: new Uint8Array(32).fill(byte), note: `of ${size}`, cosignedAt };
}

describe('what is cosigned of a log', () => {
  test('is kept in one step with the check of what is held, and after a restart', async () => {
    const dataDir = newDirectory();
    const store = await openTestStore(dataDir);
    expect(await store.heldCheckpoint(origin)).toBeNull();
    expect(await store.keepHeld(checkpoint(5), 4)).toBe(false);
    expect(await store.keepHeld(checkpoint(5), null)).toBe(true);
    expect(await store.keepHeld(checkpoint(6), null)).toBe(false);
    // All in one transaction, as many callers at once have it.
    const kept = await Promise.all([9, 7, 9, 12].map((size) => store.keepHeld(checkpoint(size), 5)));
    expect(kept).toEqual([true, false, false, false]);
    expect(await store.keepHeld({ ...checkpoint(9), note: 'again' }, 9)).toBe(true);
    await store.close();
    const again = await openTestStore(dataDir);
    expect(await again.heldCheckpoint(origin)).toEqual({
      ...checkpoint(9),
      root: new Uint8Array(32).fill(9),
      note: 'again',
    });
    expect((await again.heldCheckpoints()).map(({ size }) => size)).toEqual([9]);
    expect(await again.heldCheckpoint('none.example')).toBeNull();
  });

  test.each<[string, HeldCheckpoint]>([
    ['fewer entries', checkpoint(8)],
    ['another root', checkpoint(9, 1)],
  ])('never has %s, even when the program asks for it', async (_, next) => {
    const store = await openTestStore();
    await store.keepHeld(checkpoint(9), null);
    await expect(store.keepHeld(next, 9)).rejects.toMatchObject({ code: 'internal' });
    expect((await store.heldCheckpoint(origin))?.root).toEqual(new Uint8Array(32).fill(9));
    expect(store.health()).toEqual({ ok: true });
  });

  test.each([
    ['UPDATE witnessed_logs SET size = 8', 'never goes back'],
    ['UPDATE witnessed_logs SET root = zeroblob(32)', 'never changes its word'],
    ["UPDATE witnessed_logs SET origin = 'x'", 'never goes back'],
    ['DELETE FROM witnessed_logs', 'does not forget'],
    [`INSERT OR REPLACE INTO witnessed_logs VALUES ('${origin}', 1, zeroblob(32), '', 0)`, 'in one row'],
  ])('is not changed by %s', async (sql, why) => {
    const dataDir = newDirectory();
    const store = await openTestStore(dataDir);
    await store.keepHeld(checkpoint(9), null);
    await store.close();
    const db = new SqliteDatabase(join(dataDir, 'countersign.db'));
    expect(() => db.exec(sql)).toThrow(why);
    db.close();
  });

  test('is two notes for ever when the log was caught with two histories', async () => {
    const store = await openTestStore();
    await store.keepFork({ origin, held: 'a', other: 'b' }, noon);
    await store.keepFork({ origin, held: 'a', other: 'c' }, new Date(0));
    expect(await store.forks()).toEqual([{ origin, held: 'a', other: 'b', seenAt: noon }]);
  });
});

test('of what was cosigned of our log the latest is kept', async () => {
  const store = await openTestStore();
  expect(await store.witnessedCheckpoint()).toBeNull();
  for (const [size, note] of [
    [5, 'five'],
    [4, 'four'],
    [5, 'five again'],
  ] as const) {
    await store.keepWitnessed(size, note);
  }
  expect(await store.witnessedCheckpoint()).toBe('five again');
});

test('our log is shown to go on from any size to any other, and not beyond its checkpoint', async () => {
  const store = await openTestStore();
  await store.signLog(logSigner.name, logSigner.privateKey);
  const heads = new Map<number, Uint8Array>();
  for (const count of [3, 254, 1, 300]) {
    await store.recordEvents(Array.from({ length: count }, () => decision()));
    const { size, root } = openCheckpoint((await store.auditCheckpoint())!, logKey);
    heads.set(size, root);
  }
  for (const [from, fromRoot] of heads) {
    for (const [to, toRoot] of heads) {
      const path = await store.proveGrowth(from, to);
      if (from > to) expect(path).toBeNull();
      else expect(verifyConsistency({ from, to, fromRoot, toRoot, path: path! })).toBe(true);
    }
  }
  expect([await store.proveGrowth(0, 558), await store.proveGrowth(0, 559)]).toEqual([[], null]);
});

test('of one size only one root is ever signed, whatever is refused and however often it starts', () => {
  const request = fc.record({ leaves: fc.nat({ max: 3 }), isRefused: fc.boolean() });
  const batch = fc.record({ requests: fc.array(request, { maxLength: 4 }), restarts: fc.boolean() });
  let count = 0;
  const leaf = (): LeafRecord => {
    const { fitted, leaf: bytes } = encodeEvent(decision({ decisionId: `d-${count++}` }), randomBytes);
    return {
      leaf: bytes,
      personal: [],
      columns: auditColumns(fitted),
      certificate: null,
      token: null,
      rollup: rollupOf(fitted),
    };
  };
  fc.assert(
    fc.property(fc.array(batch, { minLength: 1, maxLength: 8 }), (batches) => {
      const dataDir = newDirectory();
      const open = () => {
        const db = openForWriting(dataDir, noon);
        return { db, write: createBatchWriter(db, () => logSigner) };
      };
      const roots = new Map<number, string>();
      let { db, write } = open();
      for (const { requests, restarts } of batches) {
        const made = requests.map(({ leaves, isRefused }): WriteRequest => ({
          change: isRefused ? { kind: 'token_revoked', id: 'none' } : { kind: 'none' },
          leaves: Array.from({ length: leaves }, leaf),
        }));
        const refused = write({ requests: made, nowMs: 0 }).filter((answer) => 'failure' in answer);
        expect(refused).toHaveLength(requests.filter(({ isRefused }) => isRefused).length);
        const head = readCheckpoint(db);
        if (restarts) {
          db.close();
          ({ db, write } = open());
        }
        if (head === null) continue;
        const root = Buffer.from(openCheckpoint(head.note, logKey).root).toString('hex');
        expect(roots.get(head.size) ?? root).toBe(root);
        roots.set(head.size, root);
      }
      db.close();
    }),
    { numRuns: 20 },
  );
});
