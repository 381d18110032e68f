import type { RetentionEvent } from './audit/retention-event.ts';
import { type PrunedClass, spanEntries, typesOf } from './audit/retention.ts';
import type { Clock } from './clock.ts';
import type { Config } from './config.ts';
import { MeshError, publicError } from './errors.ts';
import type { Log } from './log.ts';
import type { Store } from './store/store.ts';

export type RetentionParts = {
  readonly store: Pick<
    Store,
    'dueSpan' | 'lastPruned' | 'announcePruning' | 'prune' | 'oldPersonal' | 'shredPersonal' | 'foldLog'
  >;
  readonly config: RetentionTimes;
  readonly clock: Clock;
  /** Why the time is not to be relied upon; null when it is. What goes does not come back. */
  readonly doubt: () => string | null;
  readonly log: Log;
};

/** How long contents are kept, in days; 0: for ever. */
export type RetentionTimes = Pick<Config, 'retainCallsDays' | 'retainPersonalDays' | 'retainRecordsDays'>;

/** Takes contents that are past their time, every hour, and first an hour after the start: by then the time is right. */
export function keepRetention(parts: RetentionParts): { readonly close: () => Promise<void> } {
  const { clock, log } = parts;
  if (keepsAll(parts.config)) return { close: async () => undefined };
  const stop = new AbortController();
  const run = async (): Promise<void> => {
    while (!stop.signal.aborted) {
      await clock.sleep(everyMs, stop.signal);
      if (stop.signal.aborted) return;
      const doubt = parts.doubt();
      if (doubt !== null) {
        log.warn({ doubt }, 'nothing of the audit log is removed while the time is in doubt');
        continue;
      }
      try {
        const { entries, values } = await retainOnce(parts, stop.signal);
        if (entries + values > 0) log.info({ entries, values }, 'contents past their time were removed');
      } catch (error) {
        log.error(publicError(error), 'contents past their time could not be removed');
      }
    }
  };
  const running = run();
  return {
    close: async () => {
      stop.abort('closed');
      await running;
    },
  };
}

/**
 * Takes all contents that are past their time now, a bounded step after the other. When it is cut off the next call goes on.
 * @throws MeshError `store_unavailable`; `audit_log_damaged` when all else is done: what is damaged stays
 */
export async function retainOnce(
  parts: RetentionParts,
  signal: AbortSignal,
): Promise<{ readonly entries: number; readonly values: number }> {
  const { store, config } = parts;
  if (keepsAll(config)) return { entries: 0, values: 0 };
  const unfinished = await store.lastPruned();
  const faults: MeshError[] = [];
  if (unfinished !== null) await unlessDamaged(store.prune(unfinished), faults);
  const entries =
    (await pruneClass(parts, 'calls', config.retainCallsDays, 'retainCallsDays', signal, faults)) +
    (await pruneClass(parts, 'records', config.retainRecordsDays, 'retainRecordsDays', signal, faults));
  const values = await shredOld(parts, config.retainPersonalDays, signal);
  const [fault] = faults;
  if (fault !== undefined) throw fault;
  return { entries, values };
}

function keepsAll({ retainCallsDays, retainPersonalDays, retainRecordsDays }: RetentionTimes): boolean {
  return [retainCallsDays, retainPersonalDays, retainRecordsDays].every((days) => days === 0);
}

async function pruneClass(
  { store, clock }: RetentionParts,
  pruned: PrunedClass,
  days: number,
  option: string,
  signal: AbortSignal,
  faults: MeshError[],
): Promise<number> {
  if (days === 0) return 0;
  const before = new Date(clock.now().getTime() - days * dayMs);
  let count = 0;
  for (let from = 0; !signal.aborted;) {
    const span = await store.dueSpan({ class: pruned, beforeMs: before.getTime(), from });
    if (span === null) break;
    from = span.first + spanEntries;
    if (span.entries === 0) continue;
    if (span.fault !== null) {
      const fix = 'keep the data directory for the auditor; see what countersign audit verify says';
      faults.push(new MeshError('audit_log_damaged', span.fault, { fix }));
      continue;
    }
    const announced = { ...span, class: pruned };
    await store.announcePruning(announced, {
      ...common(clock, before, `${option}=${days}`),
      class: pruned,
      first: span.first,
      last: span.first + spanEntries - 1,
      entries: span.entries,
      values: 0,
      types: typesOf(pruned),
    });
    if (await unlessDamaged(store.prune(announced), faults)) count += span.entries;
    await clock.sleep(restMs, signal);
  }
  return count;
}

/** One damaged span holds up no other. @returns false when it is one */
async function unlessDamaged(pruning: Promise<void>, faults: MeshError[]): Promise<boolean> {
  try {
    await pruning;
    return true;
  } catch (error) {
    if (!(error instanceof MeshError) || error.code !== 'audit_log_damaged') throw error;
    faults.push(error);
    return false;
  }
}

async function shredOld(
  { store, clock }: RetentionParts,
  days: number,
  signal: AbortSignal,
): Promise<number> {
  if (days === 0) return 0;
  const before = new Date(clock.now().getTime() - days * dayMs);
  let count = 0;
  for (let from = 0; !signal.aborted;) {
    const batch = await store.oldPersonal(before.getTime(), from);
    if (batch === null) break;
    const { ids, entries, first, last } = batch;
    from = last + 1;
    const event: RetentionEvent = {
      ...common(clock, before, `retainPersonalDays=${days}`),
      class: 'personal',
      first,
      last,
      entries,
      values: ids.length,
      types: [],
    };
    await store.shredPersonal(batch, event, true);
    count += ids.length;
    await clock.sleep(restMs, signal);
  }
  // Best effort: the WAL is written over soon enough by what comes next.
  if (count > 0) await store.foldLog();
  return count;
}

function common(clock: Clock, before: Date, reason: string) {
  return {
    type: 'retention',
    time: clock.now(),
    action: 'pruned',
    olderThan: before,
    by: [],
    reason,
    actor: { kind: 'system' },
  } as const;
}

const dayMs = 86_400_000;
const everyMs = 3_600_000;
// Others write meanwhile.
const restMs = 50;
