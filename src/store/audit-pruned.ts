import { leafHash } from '../audit/leaf.ts';
import { hashBytes, perfectRoot, tileWidth } from '../audit/merkle-tree.ts';
import { typesOf, type PrunedClass, spanEntries } from '../audit/retention.ts';
import { MeshError } from '../errors.ts';
import { damaged } from './audit-checkpoint.ts';
import { wipePersonal } from './audit-personal.ts';
import { forgetDerived, type StoredLeaf } from './audit-derived.ts';
import type { Database } from './database.ts';

/** What goes of a span. */
export type AnnouncedSpan = {
  readonly class: PrunedClass;
  readonly first: number;
  readonly entries: number;
};

/** What was announced last; null when nothing was. Only that may not be done yet. */
export function readLastPruned(db: Database): { readonly first: number; readonly class: PrunedClass } | null {
  return (
    db
      .prepare<[], { first: number; class: PrunedClass }>(
        'SELECT first, class FROM audit_pruned ORDER BY event_idx DESC LIMIT 1',
      )
      .get() ?? null
  );
}

/**
 * Notes that the leaf at `eventIndex` has announced what goes of a span, inside the caller's transaction.
 * INVARIANT: that leaf is the last of the log, and says the same; the schema refuses anything else.
 */
export function notePruned(
  db: Database,
  { first, class: pruned, entries }: AnnouncedSpan,
  eventIndex: number,
): void {
  db.prepare('INSERT INTO audit_pruned (first, class, types, entries, event_idx) VALUES (?, ?, ?, ?, ?)').run(
    first,
    pruned,
    typeText(pruned),
    entries,
    eventIndex,
  );
}

/**
 * Takes the contents of one part of a span, inside the caller's transaction: a bounded step that may be repeated. What goes
 * is proven first: an entry that was changed is evidence, and stays.
 * @param part 0 to {@link partsOfSpan} - 1
 * @throws MeshError `audit_log_damaged`; then nothing of the part goes
 */
export function prunePart(
  db: Database,
  { first: span, class: pruned, part }: { first: number; class: PrunedClass; part: number },
): void {
  const types = db
    .prepare<[number, string], string>('SELECT types FROM audit_pruned WHERE first = ? AND class = ?')
    .pluck()
    .get(span, pruned);
  if (types === undefined || part < 0 || part >= partsOfSpan) {
    throw new MeshError('internal', 'what was not announced is not pruned');
  }
  const first = span + part * tilesOfPart * tileWidth;
  const end = first + tilesOfPart * tileWidth;
  for (let at = first; at < end; at += tileWidth) keepHashes(db, at);
  const what = `idx >= ? AND idx < ? AND instr(?, ' ' || type || ' ') > 0`;
  const given = [first, end, types] as const;
  const doomed = `(SELECT idx FROM audit_leaves NOT INDEXED WHERE ${what})`;
  wipePersonal(db, `idx IN ${doomed}`, given);
  db.prepare(`DELETE FROM audit_personal WHERE idx IN ${doomed}`).run(...given);
  db.prepare(`DELETE FROM decision_ids WHERE span = ? AND idx IN ${doomed}`).run(
    span / spanEntries,
    ...given,
  );
  forgetDerived(
    db,
    db
      .prepare<[number, number, string], StoredLeaf>(
        `SELECT idx, leaf, type, source FROM audit_leaves NOT INDEXED WHERE ${what}`,
      )
      .all(...given),
  );
  db.prepare(`DELETE FROM audit_leaves WHERE ${what}`).run(...given);
}

/** Hashes of leaves of which some are gone; undefined when one is not kept. */
export function readPrunedHashes(
  db: Database,
  first: number,
  count: number,
): readonly Uint8Array[] | undefined {
  const tiles = db
    .prepare<[number, number], { tile: number; hashes: Uint8Array }>(
      'SELECT tile, hashes FROM audit_pruned_tiles WHERE tile BETWEEN ? AND ?',
    )
    .all(Math.floor(first / tileWidth), Math.floor((first + count - 1) / tileWidth));
  const found = new Map(tiles.map(({ tile, hashes }) => [tile, hashes]));
  const rows = db
    .prepare<[number, number], { idx: number; hash: Uint8Array }>(
      'SELECT idx, hash FROM audit_leaves WHERE idx >= ? AND idx < ?',
    )
    .all(first, first + count);
  const held = new Map(rows.map(({ idx, hash }) => [idx, hash]));
  const hashes: Uint8Array[] = [];
  for (let idx = first; idx < first + count; idx++) {
    const tile = found.get(Math.floor(idx / tileWidth));
    const at = (idx % tileWidth) * hashBytes;
    const hash = held.get(idx) ?? tile?.subarray(at, at + hashBytes);
    if (hash === undefined) return undefined;
    hashes.push(hash);
  }
  return hashes;
}

/** Whether entries of a tile have lost their contents, as was announced. */
export function isPrunedTile(db: Database, tile: number): boolean {
  return db.prepare('SELECT 1 FROM audit_pruned_tiles WHERE tile = ?').get(tile) !== undefined;
}

/** Proves a full tile, and keeps its hashes apart from its leaves. */
function keepHashes(db: Database, first: number): void {
  db.prepare('INSERT OR IGNORE INTO audit_pruned_tiles (tile, hashes) VALUES (?, ?)').run(
    first / tileWidth,
    Buffer.concat(proveTile(db, first)),
  );
}

/**
 * Proves 256 leaves, of which some may be gone, by what the tree has over them.
 * @param first a multiple of 256
 * @returns their hashes
 * @throws MeshError `audit_log_damaged`
 */
export function proveTile(db: Database, first: number): readonly Uint8Array[] {
  const rows = db
    .prepare<[number, number], { idx: number; leaf: Uint8Array; hash: Uint8Array }>(
      'SELECT idx, leaf, hash FROM audit_leaves WHERE idx >= ? AND idx < ? ORDER BY idx',
    )
    .all(first, first + tileWidth);
  for (const { idx, leaf, hash } of rows) demandLeaf(idx, leaf, hash);
  const isWhole = rows.length === tileWidth;
  const hashes = isWhole ? rows.map(({ hash }) => hash) : readPrunedHashes(db, first, tileWidth);
  const node = db
    .prepare<[number], Uint8Array>('SELECT hash FROM audit_nodes WHERE level = 1 AND idx = ?')
    .pluck()
    .get(first / tileWidth);
  if (hashes === undefined || node === undefined || Buffer.compare(perfectRoot(hashes), node) !== 0) {
    throw damaged(`the entries ${first} to ${first + tileWidth - 1} are not what their hash was made of`);
  }
  return hashes;
}

/**
 * Proves a leaf by its hash. A damaged page is read as NULL, or as a text, without a word.
 * @throws MeshError `audit_log_damaged`
 */
export function demandLeaf(index: number, leaf: Uint8Array, hash: Uint8Array): void {
  const isRead = [leaf, hash].every((value: unknown) => value instanceof Uint8Array);
  if (!isRead || Buffer.compare(leafHash(leaf), hash) !== 0)
    throw damaged(`entry ${index} is not what its hash was made of`);
}

/** The types of a class, with a space before and after each. */
export function typeText(pruned: PrunedClass): string {
  return ` ${typesOf(pruned).join(' ')} `;
}

/** The steps that a span takes. Each holds the writer for some milliseconds. */
export const partsOfSpan = 32;
const tilesOfPart = spanEntries / tileWidth / partsOfSpan;
