import type { Database } from './database.ts';
import type { Tree } from './large-tables.ts';
import { corrupt } from './start-check.ts';

/**
 * Reads a B-tree from its beginning to its end, each page of it, a bounded piece for each `next`: nobody reads an older
 * state for longer, so that the WAL is not held up. SQLite looks at each page and each cell that it comes by; of the rows of
 * a table it is seen that each column holds what it may hold. What others write meanwhile does no harm.
 * @throws MeshError `store_corrupt`, and errors of SQLite
 */
export function* walkTree(db: Database, tree: Tree): Generator<undefined, void> {
  const steps = prepareSteps(db, tree);
  const grows = db
    .prepare<unknown[], number>(`SELECT (${marksOf(tree.key)}) > (${marksOf(tree.key)})`)
    .pluck();
  const countOdd = tree.index === null ? prepareOddCount(db, tree) : undefined;
  let version = 0;

  function piece(from: Key | undefined): Key | undefined {
    const begin = from ?? steps.first();
    if (begin === undefined) return undefined;
    const before = version;
    version = Number(db.pragma('data_version', { simple: true }));
    // Whoever is led past a row by a damaged page would never see what is there.
    const isLost = from !== undefined && version === before && !isSame(steps.at(begin), begin);
    const end = steps.next(begin);
    const isBehind = end !== undefined && grows.get(...end, ...begin) !== 1;
    // Going by keys stops at one that is out of place; going from page to page does not.
    const isAstray = end !== undefined && steps.between(begin, end) !== rowsOfPiece + 1;
    if (isLost || isBehind || isAstray) throw disorder(tree.index ?? tree.table);
    if (countOdd !== undefined && countOdd(begin, end) > 0) throw oddValues(tree.table);
    return end;
  }

  let at: Key | undefined;
  do {
    const from = at;
    at = db.transaction(() => piece(from))();
    yield;
  } while (at !== undefined);
}

/**
 * SQL that is true of a row in which a column does not hold what its declaration says. To tell, all of the row is read.
 * @param table one of ours
 */
export function oddRowOf(db: Database, table: string): string {
  const columns = db.pragma(`table_xinfo(${table})`) as {
    readonly name: string;
    readonly type: string;
    readonly notnull: 0 | 1;
    readonly pk: number;
  }[];
  const odd = columns.map(({ name, type, notnull, pk }) => {
    // Those of FTS5 declare nothing.
    const kinds = type === '' ? "'integer', 'text', 'blob'" : `'${type.toLowerCase()}'`;
    const nothing = notnull === 1 || pk > 0 ? '' : ", 'null'";
    // The type stands at the beginning of the row, and the length too; its last bytes may be pages away.
    const read = type === 'INTEGER' ? '' : ` OR length(CAST(${name} AS BLOB)) < 0`;
    return `typeof(${name}) NOT IN (${kinds}${nothing})${read}`;
  });
  return `(${odd.join(' OR ')})`;
}

/** A row of a table holds what its declaration does not allow. */
export function oddValues(table: string): Error {
  return corrupt(new Error(`${table} has values of another type`));
}

function disorder(name: string): Error {
  return corrupt(new Error(`${name} is not in order`));
}

/** Whole numbers as bigint: FTS5 gives pages numbers beyond 2^53, and one that is rounded is another page. */
type Key = readonly (bigint | number | string | Uint8Array)[];

type Steps = {
  readonly first: () => Key | undefined;
  /** The row of a key, or the next one there is. */
  readonly at: (key: Key) => Key | undefined;
  /** The key that is a piece further; undefined when the tree ends before. All in between was read. */
  readonly next: (key: Key) => Key | undefined;
  /** The rows from a key to the next one, both counted, found by their keys: a piece and one, where they are in order. */
  readonly between: (begin: Key, end: Key) => number | undefined;
};

function prepareSteps(db: Database, { table, index, key, where }: Tree): Steps {
  const keys = key.join(', ');
  const rows = `FROM ${table} ${index === null ? 'NOT INDEXED' : `INDEXED BY ${index}`} WHERE ${where ?? 'true'}`;
  const one = `ORDER BY ${keys} LIMIT 1`;
  const step = (sql: string) =>
    db.prepare<unknown[], Key>(`SELECT ${keys} ${rows} ${sql}`).raw().safeIntegers();
  const count = (sql: string) => db.prepare<unknown[], number>(`SELECT count(*) ${rows} ${sql}`).pluck();
  const first = step(one);
  const [group = '', idx] = key;
  if (table !== 'audit_leaves' || index === null || idx === undefined) {
    const behind = `AND (${keys}) >= (${marksOf(key)}) ${one}`;
    const [at, next] = [step(behind), step(`${behind} OFFSET ${rowsOfPiece}`)];
    const between = count(`AND (${keys}) >= (${marksOf(key)}) AND (${keys}) <= (${marksOf(key)})`);
    return {
      first: () => first.get(),
      at: (from) => at.get(...from),
      next: (from) => next.get(...from),
      between: (begin, end) => between.get(...begin, ...end),
    };
  }
  // SQLite finds no place between rows that only their number tells apart unless all else is given.
  const within = `AND ${group} = ? AND ${idx} >= ? ${one}`;
  const [at, next] = [step(within), step(`${within} OFFSET ${rowsOfPiece}`)];
  const later = step(`AND ${group} > ? ${one} OFFSET ${rowsOfPiece}`);
  const lastAhead = db
    .prepare<unknown[], number>(
      `SELECT max(${idx}) FROM (SELECT ${idx} ${rows} AND ${group} = ? AND ${idx} >= ? ORDER BY ${idx} LIMIT ${rowsOfPiece})`,
    )
    .pluck();
  const lastBack = db
    .prepare<unknown[], number>(
      `SELECT (SELECT ${idx} ${rows} AND ${group} = ? AND ${idx} >= ? ORDER BY ${idx} DESC LIMIT 1)`,
    )
    .pluck();
  const betweenOne = count(`AND ${group} = ? AND ${idx} BETWEEN ? AND ?`);
  const betweenMany = count(`AND ${group} > ? AND ${group} < ?`);
  return {
    first: () => first.get(),
    at: (from) => at.get(...from),
    next: (from) => {
      const end = next.get(...from);
      if (end !== undefined) return end;
      // What comes behind the last of a group is looked up anew: it must be the last. Both are null when all of them went.
      if (lastAhead.get(...from) !== lastBack.get(...from)) throw disorder(index);
      return later.get(from[0]);
    },
    between: ([of, from], [ofEnd, to]) =>
      of === ofEnd
        ? betweenOne.get(of, from, to)
        : (betweenMany.get(of, ofEnd) ?? 0) + (betweenOne.get(ofEnd, 0, to) ?? 0),
  };
}

function prepareOddCount(db: Database, { table, key }: Tree): (begin: Key, end: Key | undefined) => number {
  const keys = key.join(', ');
  const from = `SELECT count(*) FROM ${table} NOT INDEXED WHERE (${keys}) >= (${marksOf(key)}) AND ${oddRowOf(db, table)}`;
  const rest = db.prepare<unknown[], number>(from).pluck();
  const until = db.prepare<unknown[], number>(`${from} AND (${keys}) <= (${marksOf(key)})`).pluck();
  return (begin, end) => (end === undefined ? rest.get(...begin) : until.get(...begin, ...end)) ?? 0;
}

function marksOf(key: readonly string[]): string {
  return key.map(() => '?').join(', ');
}

function isSame(found: Key | undefined, key: Key): boolean {
  if (found === undefined) return false;
  return key.every((value, at) => {
    const other = found[at];
    const isBytes = value instanceof Uint8Array && other instanceof Uint8Array;
    return isBytes ? Buffer.compare(value, other) === 0 : value === other;
  });
}

const rowsOfPiece = 512;
