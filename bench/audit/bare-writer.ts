import { parentPort, workerData } from 'node:worker_threads';
import SqliteDatabase from 'better-sqlite3';

// A thread that commits batches of leaves durably into one table, and does nothing else with them.
const db = new SqliteDatabase(workerData as string);
db.pragma('journal_mode = WAL');
db.pragma('synchronous = FULL');
db.pragma('wal_autocheckpoint = 8000');
db.exec('CREATE TABLE leaves (idx INTEGER PRIMARY KEY, leaf BLOB NOT NULL) STRICT');
const insert = db.prepare('INSERT INTO leaves (leaf) VALUES (?)');
const commit = db.transaction((leaves: readonly Uint8Array[]) =>
  leaves.map((leaf) => Number(insert.run(leaf).lastInsertRowid)),
);

parentPort?.on('message', (leaves: readonly Uint8Array[] | null) => {
  if (leaves === null) {
    db.close();
    parentPort?.close();
    return;
  }
  parentPort?.postMessage(commit(leaves), []);
});
