import {
  type AuditCoverage,
  type Downtime,
  type LossGroup,
  maxDowntimes,
  maxLossesRead,
  maxLossGroups,
  type PrunedGroup,
} from '../audit/coverage.ts';
import type { LossEvent } from '../audit/event.ts';
import type { LogHead } from '../audit/query.ts';
import { type PrunedClass, spanEntries } from '../audit/retention.ts';
import { damaged, readCheckpoint } from './audit-checkpoint.ts';
import type { AuditFilters } from './audit-plan.ts';
import { readProxiesCovered } from './audit-proxies.ts';
import { blockBits } from './audit-log.ts';
import type { Database } from './database.ts';

/** What the log is proven under, within the caller's transaction. */
export function readHead(db: Database, size: number): LogHead {
  const signed = readCheckpoint(db);
  // A commit that extends the log signs it, once there is a key.
  return signed === null || signed.size !== size
    ? { size, root: '', checkpoint: '' }
    : { size, root: Buffer.from(signed.root).toString('hex'), checkpoint: signed.note };
}

/** What an answer about a window of time can know, within the caller's transaction. */
export function readAuditCoverage(db: Database, question: AuditFilters): AuditCoverage {
  const { since, until } = question;
  const window = { from: since?.getTime() ?? -Infinity, to: until?.getTime() ?? Infinity };
  const first = firstIndexSince(db, since);
  return {
    since,
    until,
    begins: timeAt(db, 'min'),
    ends: timeAt(db, 'max'),
    ...readLosses(db, first, window),
    ...readDowntimes(db, first, window),
    pruned: readPruned(db, window),
    folded: { count: 0, records: 0 },
    proxies: readProxiesCovered(db, question),
    notSearched: [],
  };
}

type Span = { readonly from: number; readonly to: number };

/** Losses are recorded after they happen, some long after: all from the beginning of the window on are looked at. */
function readLosses(db: Database, first: number, window: Span): Pick<AuditCoverage, 'losses' | 'moreLosses'> {
  const indexes = db
    .prepare<[number, number], number>(
      `SELECT idx FROM audit_leaves INDEXED BY audit_by_type
       WHERE type = 'loss' AND idx >= ? ORDER BY idx LIMIT ?`,
    )
    .pluck()
    .all(first, maxLossesRead + 1);
  const groups = new Map<string, LossGroup>();
  let moreLosses = indexes.length > maxLossesRead;
  const read = noteReader(db);
  for (const idx of indexes.slice(0, maxLossesRead)) {
    const { loss } = read(idx);
    const [from, to] = [new Date(loss.from), new Date(loss.to)];
    if (to.getTime() < window.from || from.getTime() >= window.to) continue;
    const key = JSON.stringify([loss.what, loss.cause]);
    const before = groups.get(key);
    if (before === undefined && groups.size >= maxLossGroups) {
      moreLosses = true;
      continue;
    }
    groups.set(key, {
      what: loss.what,
      cause: loss.cause,
      count: (before?.count ?? 0) + loss.count,
      records: (before?.records ?? 0) + 1,
      from: before === undefined || from < before.from ? from : before.from,
      to: before === undefined || to > before.to ? to : before.to,
      firstIndex: before?.firstIndex ?? idx,
      lastIndex: idx,
    });
  }
  return { losses: [...groups.values()], moreLosses };
}

type StoredLoss = Pick<LossEvent, 'what' | 'cause' | 'count'> & {
  readonly from: string;
  readonly to: string;
};

function readDowntimes(
  db: Database,
  first: number,
  window: Span,
): Pick<AuditCoverage, 'downtimes' | 'moreDowntimes'> {
  const steps = db
    .prepare<[number, number], number>(
      `SELECT idx FROM audit_leaves INDEXED BY audit_by_type
       WHERE type = 'lifecycle' AND idx >= ? ORDER BY idx DESC LIMIT ?`,
    )
    .pluck()
    .all(first, maxLifecyclesRead);
  const timeBefore = db
    .prepare<[number], number>('SELECT time_ms FROM audit_leaves WHERE idx < ? ORDER BY idx DESC LIMIT 1')
    .pluck();
  const stepBefore = db
    .prepare<[number], number>(
      `SELECT idx FROM audit_leaves INDEXED BY audit_by_type
       WHERE type = 'lifecycle' AND idx < ? ORDER BY idx DESC LIMIT 1`,
    )
    .pluck();
  const read = noteReader(db);
  const downtimes: Downtime[] = [];
  for (const [at, idx] of steps.entries()) {
    const { action, timeMs } = read(idx);
    if (action !== 'started') continue;
    const beforeIdx = steps[at + 1] ?? stepBefore.get(idx);
    // The first start of a log ends no downtime.
    if (beforeIdx === undefined) continue;
    const before = read(beforeIdx);
    const clean = before.action === 'stopped';
    const fromMs = clean ? before.timeMs : timeBefore.get(idx);
    if (fromMs === undefined || timeMs <= window.from || fromMs >= window.to) continue;
    downtimes.push({ from: new Date(Math.min(fromMs, timeMs)), to: new Date(timeMs), clean, index: idx });
    if (downtimes.length > maxDowntimes) break;
  }
  const moreDowntimes = downtimes.length > maxDowntimes || steps.length === maxLifecyclesRead;
  return { downtimes: downtimes.slice(0, maxDowntimes), moreDowntimes };
}

/** What was announced is taken for gone: it goes at once, or after the next start. */
function readPruned(db: Database, { from, to }: Span): readonly PrunedGroup[] {
  type Row = {
    class: PrunedClass;
    entries: number;
    firstIndex: number;
    lastIndex: number;
    fromMs: number;
    toMs: number;
  };
  const blocks = spanEntries / 2 ** blockBits;
  return db
    .prepare<[number, number], Row>(
      `SELECT p.class AS class, sum(p.entries) AS entries, min(p.first) AS firstIndex,
              max(p.first) + ${spanEntries - 1} AS lastIndex, min(b.fromMs) AS fromMs, max(b.toMs) AS toMs
       FROM (SELECT block / ${blocks} * ${spanEntries} AS first, min(min_ms) AS fromMs, max(max_ms) AS toMs
             FROM audit_blocks WHERE block < (SELECT coalesce(max(first), -1) / ${spanEntries} + 1 FROM audit_pruned) * ${blocks}
             GROUP BY 1) b
       JOIN audit_pruned p ON p.first = b.first
       WHERE b.toMs >= ? AND b.fromMs < ? GROUP BY p.class`,
    )
    .all(Math.max(from, -farMs), Math.min(to, farMs))
    .map(({ fromMs, toMs, ...row }) => ({ ...row, from: new Date(fromMs), to: new Date(toMs) }));
}

/** What answers tell of a loss or of a step of the server. */
type Note = { readonly timeMs: number; readonly action: unknown; readonly loss: StoredLoss };

/** Losses and steps of the server. Each step of each question tells of them; what a leaf says does not change. */
function noteReader(db: Database): (idx: number) => Note {
  const notes = remembered.get(db) ?? new Map<number, Note>();
  remembered.set(db, notes);
  const select = db.prepare<[number], { timeMs: number; leaf: Uint8Array }>(
    'SELECT time_ms AS timeMs, leaf FROM audit_leaves WHERE idx = ?',
  );
  return (idx) => {
    const known = notes.get(idx);
    if (known !== undefined) return known;
    const row = select.get(idx);
    if (row === undefined) throw damaged(`entry ${idx} is in an index and not in the log`);
    const { action, what, cause, count, from, to } = JSON.parse(decoder.decode(row.leaf)) as StoredLoss & {
      readonly action?: unknown;
    };
    const note = { timeMs: row.timeMs, action, loss: { what, cause, count, from, to } };
    if (notes.size >= maxRemembered) notes.clear();
    notes.set(idx, note);
    return note;
  };
}

const remembered = new WeakMap<Database, Map<number, Note>>();

function firstIndexSince(db: Database, since: Date | null): number {
  if (since === null) return 0;
  const block = db
    .prepare<[number], number | null>('SELECT min(block) FROM audit_blocks WHERE max_ms >= ?')
    .pluck()
    .get(since.getTime());
  return typeof block === 'number' ? block * 2 ** blockBits : Number.MAX_SAFE_INTEGER;
}

function timeAt(db: Database, end: 'min' | 'max'): Date | null {
  const timeMs = db
    .prepare<[], number>(
      `SELECT time_ms FROM audit_leaves WHERE idx = (SELECT ${end}(idx) FROM audit_leaves)`,
    )
    .pluck()
    .get();
  return timeMs === undefined ? null : new Date(timeMs);
}

const decoder = new TextDecoder();
const maxLifecyclesRead = 256;
// What two windows tell of.
const maxRemembered = 2 * (maxLossesRead + maxLifecyclesRead);
// Beyond any time JavaScript knows.
const farMs = 8_640_000_000_000_001;
