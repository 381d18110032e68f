import { generateKeyPairSync, randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import SqliteDatabase from 'better-sqlite3';
import { encodeEvent } from '../../src/audit/canonical.ts';
import { openCheckpoint } from '../../src/audit/checkpoint.ts';
import { auditColumns } from '../../src/audit/columns.ts';
import { rollupOf } from '../../src/audit/rollup.ts';
import type { DecisionEvent } from '../../src/audit/event.ts';
import { createNoteSigner, parseVerifierKey } from '../../src/audit/note.ts';
import { verifyLog } from '../../src/audit/verify-log.ts';
import { directoryLog, openExport } from '../../src/cli/audit-source.ts';
import { readCheckpoint } from '../../src/store/audit-checkpoint.ts';
import { readTile } from '../../src/store/audit-proofs.ts';
import { type Database, openForReading, openForWriting } from '../../src/store/database.ts';
import type { LeafRecord } from '../../src/store/protocol.ts';
import { createBatchWriter } from '../../src/store/writer.ts';
import { printReport, type ReportRow } from '../report.ts';

const batchSize = 2_048;
const batches = Number(process.env['BENCH_BATCHES'] ?? 489);
const name = 'example.org/audit';

/** Appends a million decisions in durable batches, beside a bare insert of the same rows; then verifies the log. */
export async function measureLog(): Promise<void> {
  const dir = mkdtempSync(join(tmpdir(), 'countersign-bench-audit-'));
  try {
    const rows: ReportRow[] = [];
    const metrics: Record<string, number> = {};
    const tell = (label: string, value: number, unit: string, metric: string): void => {
      rows.push({ name: label, value, unit });
      metrics[metric] = Math.round(value * 1_000) / 1_000;
    };
    const { privateKey } = generateKeyPairSync('ed25519');
    const signer = createNoteSigner(name, privateKey);
    const logDir = join(dir, 'log');
    const db = openForWriting(logDir, new Date());
    const write = createBatchWriter(db, () => signer);
    const bare = openBare(join(dir, 'bare.db'));
    const ours: number[] = [];
    let cpuUs = 0;
    const theirs: number[] = [];
    // By turns, so that a machine which is busy is so for both.
    for (let batch = 0; batch < batches; batch++) {
      const leaves = Array.from({ length: batchSize }, (_, at) => leafOf(batch * batchSize + at));
      theirs.push(timed(() => bare.insert(batch * batchSize, leaves)));
      const before = process.cpuUsage();
      ours.push(
        timed(() => void write({ requests: [{ change: { kind: 'none' }, leaves }], nowMs: Date.now() })),
      );
      const { user, system } = process.cpuUsage(before);
      cpuUs += user + system;
    }
    const entries = batches * batchSize;
    const perSecond = (all: readonly number[]): number => (entries / sum(all)) * 1_000;
    tell('entries, tree and checkpoint, durable', perSecond(ours), '/s', 'entries_per_second');
    tell('bare insert of the same rows', perSecond(theirs), '/s', 'bare_per_second');
    tell(
      'the former of one core, by CPU time',
      (entries / cpuUs) * 1_000_000,
      '/s',
      'entries_per_cpu_second',
    );
    tell('cost beside the bare insert', sum(ours) / sum(theirs), 'x', 'cost_ratio');
    const issued = Array.from({ length: 500 }, (_, at) => {
      const requests = [{ change: { kind: 'none' as const }, leaves: [leafOf(entries + at)] }];
      return timed(() => void write({ requests, nowMs: Date.now() }));
    }).sort((a, b) => a - b);
    tell('one entry alone, p50', issued[250] ?? 0, 'ms', 'single_p50_ms');
    tell('one entry alone, p99', issued[495] ?? 0, 'ms', 'single_p99_ms');
    bare.close();
    tell(
      'opening the log again',
      timed(() => void createBatchWriter(db)),
      'ms',
      'open_ms',
    );
    db.close();

    const reader = openForReading(logDir);
    const note = readCheckpoint(reader)?.note ?? '';
    const checkpoint = openCheckpoint(note, parseVerifierKey(signer.verifierKey));
    const exported = join(dir, 'export');
    const made = openExport(exported, {
      name: 'the bench',
      checkpoint: () => Promise.resolve(note),
      read: (tile) => Promise.resolve(readTile(reader, tile) ?? undefined),
      readRemains: () => Promise.resolve(undefined),
    });
    const exporting = performance.now();
    await verifyLog(checkpoint, made.read);
    made.finish(note);
    tell(
      `exporting ${checkpoint.size} entries`,
      (performance.now() - exporting) / 1_000,
      's',
      'export_seconds',
    );
    reader.close();
    const cpu = process.cpuUsage();
    const verifying = performance.now();
    await verifyLog(checkpoint, directoryLog(exported).read);
    const { user, system } = process.cpuUsage(cpu);
    tell('verifying that export', (performance.now() - verifying) / 1_000, 's', 'verify_seconds');
    tell('the same, by CPU time', (user + system) / 1_000_000, 's', 'verify_cpu_seconds');

    const old = openForWriting(logDir, new Date());
    forgetTree(old);
    tell(
      `making the tree of ${checkpoint.size} entries anew`,
      timed(() => void createBatchWriter(old)) / 1_000,
      's',
      'build_seconds',
    );
    old.close();
    printReport('audit log', rows, metrics);
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
}

/** As an earlier release left it. */
function forgetTree(db: Database): void {
  for (const trigger of ['audit_nodes_no_delete', 'audit_checkpoint_no_delete'])
    db.exec(`DROP TRIGGER ${trigger}`);
  db.exec('DELETE FROM audit_nodes; DELETE FROM audit_checkpoint');
}

function openBare(file: string) {
  const db = new SqliteDatabase(file);
  db.pragma('journal_mode = WAL');
  db.pragma('synchronous = FULL');
  db.pragma('wal_autocheckpoint = 16000');
  db.pragma('cache_size = -65536');
  db.exec(`CREATE TABLE leaves (idx INTEGER PRIMARY KEY, leaf BLOB NOT NULL, type TEXT NOT NULL, time_ms INTEGER NOT NULL,
             source TEXT, destination TEXT, verdict TEXT, serial TEXT) STRICT`);
  for (const column of ['type', 'source', 'destination', 'serial', 'verdict']) {
    db.exec(`CREATE INDEX leaves_by_${column} ON leaves (${column})`);
  }
  const statement = db.prepare('INSERT INTO leaves VALUES (?, ?, ?, ?, ?, ?, ?, ?)');
  return {
    insert: db.transaction((first: number, leaves: readonly LeafRecord[]) => {
      for (const [at, { leaf, columns }] of leaves.entries()) {
        const { type, timeMs, source, destination, verdict, serial } = columns;
        statement.run(first + at, leaf, type, timeMs, source, destination, verdict, serial);
      }
    }),
    close: () => db.close(),
  };
}

function leafOf(at: number): LeafRecord {
  const event: DecisionEvent = {
    type: 'decision',
    time: new Date(1_800_000_000_000 + at),
    decisionId: `d-${at}`,
    verdict: at % 10 === 0 ? 'deny' : 'allow',
    reason: 'allow_rule',
    rule: 'shop/orders#0',
    why: '',
    revision: 3,
    source: `spiffe://example.org/ns/shop/sa/web-${at % 200}`,
    destination: `spiffe://example.org/ns/pay/sa/ledger-${at % 50}`,
    protocol: 'http',
    method: 'GET',
    host: 'ledger.pay',
    path: { personal: '/accounts/7' },
    port: 8_080,
    sourceSerial: (at % 4_096).toString(16).padStart(32, '0'),
    sourceAddress: { personal: '127.0.0.1:40000' },
    caller: { pid: 4_711, uid: 1_000, gid: 1_000 },
  };
  const { fitted, leaf } = encodeEvent(event, randomBytes);
  // Values beside the log are no part of it.
  return {
    leaf,
    personal: [],
    columns: auditColumns(fitted),
    certificate: null,
    token: null,
    rollup: rollupOf(fitted),
  };
}

function timed(work: () => void): number {
  const started = performance.now();
  work();
  return performance.now() - started;
}

function sum(all: readonly number[]): number {
  return all.reduce((total, one) => total + one, 0);
}
