import type { AdminEvent, RecordEvents } from '../audit/event.ts';
import type { Clock } from '../clock.ts';
import { MeshError } from '../errors.ts';
import type { ReportFailure } from './problem.ts';

/** Something done, or tried, over the admin API. */
export type Attempt = Omit<AdminEvent, 'type' | 'time'>;

/**
 * Records attempts: the first of a kind at once, its repeats within a while as one event that counts them, so that
 * nobody can fill the log by knocking, or by asking every five seconds for a year.
 */
export type AttemptLog = {
  /**
   * Resolves once the attempt is in the log or counted; rejects when it could not be recorded.
   * @param whole refuses what could only be counted among many others. @throws MeshError `rate_limited`
   */
  readonly note: (attempt: Attempt, whole?: boolean) => Promise<void>;
  /** Stops, and records what is still only counted. */
  readonly close: () => Promise<void>;
};

/** How long repeats are counted before they are recorded. */
export type Repeats = 'within a minute' | 'within an hour';

/** @param report is told when the counts of a while could not be recorded. */
export function openAttemptLog(parts: {
  readonly record: RecordEvents;
  readonly clock: Clock;
  readonly report: ReportFailure;
  readonly repeats: Repeats;
}): AttemptLog {
  const { record, clock, repeats } = parts;
  const { windowMs, maxWindows } = limits[repeats];
  const windows = new Map<string, Window>();
  /** How many windows somebody has: of all who are nobody together, and of each who is somebody. */
  const heldBy = new Map<string, number>();
  const stop = new AbortController();

  const write = async (attempt: Attempt): Promise<void> => {
    await record([{ type: 'admin', time: clock.now(), ...attempt }]);
  };
  const open = (key: string, window: Window): void => {
    // Two at once may open one.
    if (!windows.has(key)) heldBy.set(window.owner, (heldBy.get(window.owner) ?? 0) + 1);
    windows.set(key, window);
  };
  const forget = (key: string, { owner }: Window): void => {
    windows.delete(key);
    const left = (heldBy.get(owner) ?? 1) - 1;
    if (left > 0) heldBy.set(owner, left);
    else heldBy.delete(owner);
  };
  const flush = async (isDue: (window: Window) => boolean): Promise<void> => {
    for (const [key, window] of windows) {
      if (!isDue(window)) continue;
      forget(key, window);
      if (window.repeats === 0) continue;
      const detail = `${window.repeats} more ${repeats}; ${window.attempt.detail}`.replace(/; $/, '');
      await write({ ...window.attempt, detail }).catch((error: unknown) => parts.report('', error));
    }
  };
  const run = async (): Promise<void> => {
    while (!stop.signal.aborted) {
      await clock.sleep(windowMs, stop.signal);
      await flush((window) => clock.now().getTime() - window.since >= windowMs);
    }
  };
  const running = run();

  return {
    note: async (attempt, whole = false) => {
      const now = clock.now().getTime();
      const own = keyOf(attempt);
      const owner = ownerOf(attempt);
      const most = owner === nobody ? maxWindows : maxWindows / shareOfOne;
      const isCrowded = (heldBy.get(owner) ?? 0) >= most && !windows.has(own);
      if (isCrowded && whole) throw tooMany(repeats);
      const key = isCrowded ? crowdKey(attempt, owner) : own;
      const window = windows.get(key);
      if (window !== undefined && Math.abs(now - window.since) < windowMs) {
        // Counted beside an event that is in the log, or not at all.
        await window.written;
        window.repeats++;
        return;
      }
      if (window !== undefined) await flush((candidate) => candidate === window);
      const kept = isCrowded ? crowd(attempt) : attempt;
      const written = write(kept);
      const opened = { owner, attempt: kept, since: now, repeats: 0, written };
      open(key, opened);
      await written.catch((error: unknown) => {
        if (windows.get(key) === opened) forget(key, opened);
        throw error;
      });
    },
    close: async () => {
      stop.abort();
      await running;
      await flush(() => true);
    },
  };
}

type Window = {
  readonly owner: string;
  readonly attempt: Attempt;
  readonly since: number;
  readonly written: Promise<void>;
  repeats: number;
};

// INVARIANT: at most `maxWindows` events of nobodies are recorded in each window, however many sources knock, and they
// leave no less room for those of somebody: whoever has a grant is always recorded by name.
const limits: Record<Repeats, { readonly windowMs: number; readonly maxWindows: number }> = {
  'within a minute': { windowMs: 60_000, maxWindows: 1_000 },
  'within an hour': { windowMs: 3_600_000, maxWindows: 4_000 },
};
/** What one who is somebody has of `maxWindows`. */
const shareOfOne = 4;
const nobody = '';

function ownerOf({ actor }: Attempt): string {
  const isNobody = actor.kind === 'anonymous' || actor.kind === 'system' || actor.role === 'none';
  return isNobody ? nobody : JSON.stringify(actor);
}

function crowdKey({ action }: Attempt, owner: string): string {
  return owner === nobody ? 'crowd' : `crowd ${action} ${owner}`;
}

function tooMany(repeats: Repeats): MeshError {
  return new MeshError('rate_limited', `there are too many different questions ${repeats}`, {
    fix: 'ask again in a minute',
  });
}

function keyOf({ action, actor, method, route, code, detail, sourceAddress }: Attempt): string {
  // Two questions to the log are two reads; two ways to be refused for one reason are one.
  const question = action === 'audit_read' ? detail : '';
  return JSON.stringify([action, actor, method, route, code, question, sourceAddress.personal]);
}

function crowd(attempt: Attempt): Attempt {
  const isSomebody = ownerOf(attempt) !== nobody;
  return {
    ...attempt,
    actor: isSomebody ? attempt.actor : { kind: 'anonymous' },
    route: manyRoutes,
    detail: `too many ${isSomebody ? 'calls' : 'sources'} at once to be told apart`,
    sourceAddress: { personal: '' },
  };
}

const manyRoutes = '(many)';
