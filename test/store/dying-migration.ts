import SqliteDatabase from 'better-sqlite3';
import { inTransaction } from '../../src/store/database.ts';
import { migrate } from '../../src/store/migrations.ts';

// Migrates the database it is given, and dies before the commit.
const db = new SqliteDatabase(process.argv[2] ?? '');
db.pragma('journal_mode = WAL');
// What is changed goes to the disk before the commit, as with a database that is larger than the cache.
db.pragma('cache_size = 1');
inTransaction(db, () => {
  migrate(db);
  process.kill(process.pid, 'SIGKILL');
});
