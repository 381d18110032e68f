import { afterEach, expect, test } from 'vitest';
import { type Database, openForReading, openForWriting } from '../../src/store/database.ts';
import { largeTrees, type Tree } from '../../src/store/large-tables.ts';
import { walkTree } from '../../src/store/tree-walk.ts';
import { noon } from '../audit/events.ts';
import { newDirectory } from './directories.ts';

const open: Database[] = [];
afterEach(() => {
  for (const db of open.splice(0)) db.close();
});

/** A database, and another connection that walks through it. */
function setUp(): { db: Database; walk: (name: string) => Generator } {
  const dataDir = newDirectory();
  const db = openForWriting(dataDir, noon);
  const beside = openForReading(dataDir);
  open.push(beside, db);
  return { db, walk: (name) => walkTree(beside, treeOf(name)) };
}

function treeOf(name: string): Tree {
  const tree = largeTrees.find(({ table, index }) => (index ?? table) === name);
  if (tree === undefined) throw new Error(`there is no tree ${name}`);
  return tree;
}

/** Entries 0 to 599 of the source a, 600 to 1,199 of b: a piece has 512 rows. */
function addEntries(db: Database): void {
  db.exec(`
    WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 1199)
    INSERT INTO audit_leaves (idx, leaf, hash, type, time_ms, source)
    SELECT i, x'00', zeroblob(32), 'decision', 0, CASE WHEN i < 600 THEN 'a' ELSE 'b' END FROM n;
    DROP TRIGGER audit_leaves_no_delete;`);
}

test.each([
  ['all of its source', "source = 'a'"],
  ['the rest of its source', "source = 'a' AND idx >= 512"],
  ['the rest of its source but the last', "source = 'a' AND idx BETWEEN 512 AND 598"],
  ['the entry itself', 'idx = 512'],
  ['all that is behind it', 'idx >= 512'],
  ['everything', 'true'],
])('entries are in order for a walk that stands at one of them while retention takes %s', (_, which) => {
  const { db, walk } = setUp();
  addEntries(db);
  const pieces = walk('audit_by_source');
  pieces.next();
  db.exec(`DELETE FROM audit_leaves WHERE ${which}`);
  expect([...pieces].length).toBeGreaterThan(0);
});

test('pages of a word index are in order when their numbers are no safe integers', () => {
  const { db, walk } = setUp();
  const last = db.prepare('SELECT max(id) FROM audit_words_data').pluck().safeIntegers();
  db.exec(`
    INSERT INTO audit_words (rowid, words) VALUES (1, 'a word'), (2, 'another');
    DELETE FROM audit_words WHERE rowid = 1;`);
  const gone = last.get();
  expect(gone).toBeGreaterThan(Number.MAX_SAFE_INTEGER);
  // Retention leaves some of these. Here are so many that pieces end at them.
  db.unsafeMode();
  db.prepare(
    `WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1100)
     INSERT INTO audit_words_data (id, block) SELECT ? + i, x'00' FROM n`,
  ).run(gone);
  expect([...walk('audit_words_data')]).toHaveLength(3);
  // Now pieces end at the next pages: of two one is odd.
  db.prepare('DELETE FROM audit_words_data WHERE id = ?').run(gone);
  expect([...walk('audit_words_data')]).toHaveLength(3);
});
