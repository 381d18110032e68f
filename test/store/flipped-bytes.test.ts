import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import SqliteDatabase from 'better-sqlite3';
import { expect, test } from 'vitest';
import { type Checkpoint, openCheckpoint } from '../../src/audit/checkpoint.ts';
import { decodeBundle } from '../../src/audit/entry-bundle.ts';
import { type ReadTile, verifyLog } from '../../src/audit/verify-log.ts';
import { MeshError } from '../../src/errors.ts';
import { readCheckpoint } from '../../src/store/audit-checkpoint.ts';
import { readTile } from '../../src/store/audit-proofs.ts';
import { type Database, openForReading } from '../../src/store/database.ts';
import { decision, issuance } from '../audit/events.ts';
import { logKey, logSigner } from '../audit/log-files.ts';
import { seeded } from '../harness/seeded.ts';
import { newDirectory, openTestStore } from './directories.ts';

const entries = 1_300;
const pageBytes = 4_096;
const file = 'countersign.db';

/** What somebody with the file can do to it. `at(n)` is a number below n. */
const changes: readonly (readonly [string, (bytes: Buffer, at: (end: number) => number) => Buffer])[] = [
  [
    'a bit flipped',
    (bytes, at) => {
      const place = at(bytes.length);
      bytes.writeUInt8(bytes.readUInt8(place) ^ (1 << at(8)), place);
      return bytes;
    },
  ],
  [
    'sixteen bytes zeroed',
    (bytes, at) => {
      const place = at(bytes.length - 16);
      return bytes.fill(0, place, place + 16);
    },
  ],
  [
    'nine bytes put in, so that all behind them are moved',
    (bytes, at) => {
      const place = at(bytes.length - 9);
      bytes.copyWithin(place + 9, place, bytes.length - 9);
      return bytes;
    },
  ],
  [
    'two pages that have changed places',
    (bytes, at) => {
      const one = at(bytes.length / pageBytes) * pageBytes;
      const other = at(bytes.length / pageBytes) * pageBytes;
      const kept = Buffer.from(bytes.subarray(one, one + pageBytes));
      bytes.copyWithin(one, other, other + pageBytes);
      kept.copy(bytes, other);
      return bytes;
    },
  ],
  ['the end cut off', (bytes, at) => bytes.subarray(0, at(bytes.length))],
];

test('whatever is done to the bytes of the database, the log is refused, or does not verify, or is what it was', async () => {
  const seed = Number(process.env['SEED'] ?? Date.now() % 1_000_000);
  const { whole, head, leaves } = await makeLog();
  const random = seeded(seed);
  const at = (end: number): number => Math.floor(random() * end);
  const seen = new Map<string, number>();
  for (let round = 0; round < 150; round++) {
    const [name, change] = changes[round % changes.length] ?? ['none', (bytes: Buffer) => bytes];
    const bytes = change(Buffer.from(whole), at);
    const outcome = await outcomeOf(bytes, head, leaves, `seed ${seed}, round ${round}: ${name}`);
    seen.set(outcome, (seen.get(outcome) ?? 0) + 1);
  }
  // Each of the three was met: otherwise this shows nothing.
  expect([...seen.keys()].sort(), `seed ${seed}`).toEqual(['refused', 'tampered', 'unchanged']);
}, 180_000);

async function makeLog(): Promise<{ whole: Buffer; head: Checkpoint; leaves: readonly string[] }> {
  const dir = newDirectory();
  const store = await openTestStore(dir);
  await store.signLog(logSigner.name, logSigner.privateKey);
  await store.recordEvents(
    Array.from({ length: entries }, (_, number) =>
      number % 7 === 0
        ? issuance({ serial: number.toString(16).padStart(32, '0') })
        : decision({ decisionId: `d-${number}` }),
    ),
  );
  await store.close();
  const whole = readFileSync(join(dir, file));
  const db = openForReading(dir);
  const head = openCheckpoint(readCheckpoint(db)?.note ?? '', logKey);
  const leaves = await readLeaves(head, async (tile) => readTile(db, tile) ?? undefined);
  db.close();
  return { whole, head, leaves };
}

/** `refused` before a proof is tried, `tampered` by the proof, or `unchanged`: then every entry was compared. */
async function outcomeOf(
  bytes: Buffer,
  head: Checkpoint,
  leaves: readonly string[],
  where: string,
): Promise<'refused' | 'tampered' | 'unchanged'> {
  const dir = newDirectory();
  mkdirSync(dir, { recursive: true });
  writeFileSync(join(dir, file), bytes);
  let db: Database | undefined;
  try {
    const opened = (db = openForReading(dir));
    const read: ReadTile = async (tile) => readTile(opened, tile) ?? undefined;
    // Against what somebody wrote down before: a checkpoint of the file itself may have been cut off with the rest.
    await verifyLog(head, read);
    expect(await readLeaves(head, read), where).toEqual(leaves);
    return 'unchanged';
  } catch (error) {
    if (error instanceof SqliteDatabase.SqliteError) return 'refused';
    if (!(error instanceof MeshError)) throw error;
    if (error.code !== 'audit_log_invalid') return 'refused';
    expect(error.message, where).toMatch(/entr(y|ies) \d+|tile\//);
    return 'tampered';
  } finally {
    db?.close();
    rmSync(dir, { recursive: true, force: true });
  }
}

async function readLeaves(head: Checkpoint, read: ReadTile): Promise<readonly string[]> {
  const leaves: string[] = [];
  for (let first = 0; first < head.size; first += 256) {
    const width = Math.min(256, head.size - first);
    const bundle = await read({ level: 'entries', index: first / 256, width });
    for (const entry of decodeBundle(bundle ?? new Uint8Array()).entries) {
      leaves.push(Buffer.from(entry).toString('utf8'));
    }
  }
  return leaves;
}
