import { claimReasons } from '../audit/claim.ts';
import { callTypes } from '../audit/columns.ts';
import { foldedText, type RollupKey, rollupFields } from '../audit/rollup.ts';
import type { Database } from './database.ts';

/** How many kinds of calls are told apart: those beyond are counted together, see {@link openKinds}. */
export type KindBounds = {
  /** In all of the log. */
  readonly all: number;
  /** Of one destination, in all of the log. What strangers claim to be is one together. */
  readonly ofDestination: number;
  /** In a day of the events. */
  readonly ofDay: number;
};

/** The numbers of kinds, by which counts are kept. */
export type Kinds = {
  /** The number of the kind that an event is counted as. @param hour since 1970, of the event */
  readonly numberOf: (key: RollupKey, hour: number) => number;
  /** Forgets what a transaction that was rolled back may have written. */
  readonly forget: () => void;
};

/** Some 300 bytes each, which a question that is new reads once, in steps: 5 to 10 µs each. */
export const kindBounds: KindBounds = { all: 262_144, ofDestination: 16_384, ofDay: 65_536 };

/**
 * Tells kinds of events apart, for the one writer. INVARIANT: counts are never removed, so that whoever makes up callers must
 * not make up rows without end: kinds of calls beyond a bound become one for each destination, without caller and rule, and one
 * for all when there are too many in a day or in the log.
 */
export function openKinds(db: Database, bounds: KindBounds = kindBounds): Kinds {
  const findKey = db
    .prepare<string[], number>(
      `SELECT id FROM audit_rollup_keys WHERE ${rollupFields.map((name) => `${name} = ?`).join(' AND ')}`,
    )
    .pluck();
  const insertKey = db.prepare(
    `INSERT INTO audit_rollup_keys (${rollupFields.join(', ')}) VALUES (${rollupFields.map(() => '?').join(', ')})`,
  );
  const countOwned = db.prepare<[], { owner: string; reason: string; kinds: number }>(
    `SELECT destination AS owner, reason, count(*) AS kinds FROM audit_rollup_keys
     WHERE type IN (${[...callTypes].map((type) => `'${type}'`).join(', ')}) GROUP BY destination, reason`,
  );
  const countAll = db.prepare<[], number>('SELECT coalesce(max(id), 0) FROM audit_rollup_keys').pluck();
  const countDay = db
    .prepare<[number], number>('SELECT count(*) FROM audit_rollup WHERE level = 1 AND start = ?')
    .pluck();
  const findInDay = db
    .prepare<[number, number], number>('SELECT 1 FROM audit_rollup WHERE level = 1 AND start = ? AND key = ?')
    .pluck();
  /** What kinds are numbered; those used of late. */
  const ids = new Map<string, number>();
  let all = 0;
  const owned = new Map<string, number>();
  /** How many kinds a day has, and those known to be among them. */
  const days = new Map<number, number>();
  const inDay = new Map<number, Set<number>>();
  let isLoaded = false;

  function load(): void {
    isLoaded = true;
    for (const known of [ids, owned, days, inDay]) known.clear();
    all = countAll.get() ?? 0;
    for (const { owner, reason, kinds } of countOwned.iterate()) {
      const name = ownerOf(owner, reason);
      owned.set(name, (owned.get(name) ?? 0) + kinds);
    }
  }

  function idOf(key: RollupKey): number | undefined {
    const text = textOf(key);
    const known = ids.get(text) ?? findKey.get(...rollupFields.map((name) => key[name]));
    if (known !== undefined) remember(text, known);
    return known;
  }

  function make(key: RollupKey): number {
    const id = Number(insertKey.run(...rollupFields.map((name) => key[name])).lastInsertRowid);
    remember(textOf(key), id);
    all += 1;
    if (callTypes.has(key.type)) {
      const owner = ownerOf(key.destination, key.reason);
      owned.set(owner, (owned.get(owner) ?? 0) + 1);
    }
    return id;
  }

  function remember(text: string, id: number): void {
    if (ids.size >= maxRemembered) ids.clear();
    ids.set(text, id);
  }

  /** Whether a kind is in a day, or there is room for one more. */
  function fits(id: number | undefined, day: number): boolean {
    const seen = seenIn(day);
    if (id !== undefined && seen.has(id)) return true;
    if (id === undefined || findInDay.get(day, id) === undefined) {
      const kinds = days.get(day) ?? 0;
      if (kinds >= bounds.ofDay) return false;
      days.set(day, kinds + 1);
    }
    if (id !== undefined) seen.add(id);
    return true;
  }

  function seenIn(day: number): Set<number> {
    const known = inDay.get(day);
    if (known !== undefined) return known;
    if (days.size >= maxDays) days.clear();
    if (!days.has(day)) days.set(day, countDay.get(day) ?? 0);
    const [oldest] = inDay.keys();
    if (oldest !== undefined && inDay.size >= maxSeenDays) inDay.delete(oldest);
    const seen = new Set<number>();
    inDay.set(day, seen);
    return seen;
  }

  /** INVARIANT: of these there are few: no part of them is text that somebody makes up. */
  function fold(key: RollupKey, isOfAll: boolean): number {
    const folded = { ...key, source: foldedText, rule: foldedText };
    const isClaim = claimReasons.has(key.reason);
    const kept = isOfAll || isClaim ? { ...folded, destination: foldedText } : folded;
    return idOf(kept) ?? make(kept);
  }

  return {
    forget: () => {
      isLoaded = false;
    },
    numberOf: (key, hour) => {
      if (!isLoaded) load();
      const known = idOf(key);
      // What others tell of themselves are few kinds: identities, actions and codes.
      if (!callTypes.has(key.type)) return known ?? make(key);
      const owner = ownerOf(key.destination, key.reason);
      if (known === undefined) {
        if (all >= bounds.all) return fold(key, true);
        if ((owned.get(owner) ?? 0) >= bounds.ofDestination) return fold(key, false);
      }
      const day = Math.floor(hour / 24) * 24;
      if (!fits(known, day)) return fold(key, true);
      if (known !== undefined) return known;
      const made = make(key);
      seenIn(day).add(made);
      return made;
    },
  };
}

function textOf(key: RollupKey): string {
  return JSON.stringify(rollupFields.map((name) => key[name]));
}

/** On whose account a kind is; no SPIFFE ID is empty. */
function ownerOf(destination: string, reason: string): string {
  return claimReasons.has(reason) ? '' : destination;
}

const maxRemembered = 8_192;
const maxDays = 65_536;
const maxSeenDays = 4;
