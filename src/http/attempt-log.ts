import type { AdminEvent, RecordEvents } from '../audit/event.ts';
import type { Clock } from '../clock.ts';
import type { ReportFailure } from './problem.ts';

/** Something done, or tried, over the admin API. */
export type Attempt = Omit<AdminEvent, 'type' | 'time'>;

/**
 * Records attempts: the first of a kind at once, its repeats within a while as one event that counts them, so that
 * nobody can fill the log by knocking, or by asking every five seconds for a year.
 */
export type AttemptLog = {
  /** Resolves once the attempt is in the log or counted; rejects when it could not be recorded. */
  readonly note: (attempt: Attempt) => Promise<void>;
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
  const stop = new AbortController();

  const write = async (attempt: Attempt): Promise<void> => {
    await record([{ type: 'admin', time: clock.now(), ...attempt }]);
  };
  const flush = async (isDue: (window: Window) => boolean): Promise<void> => {
    for (const [key, window] of windows) {
      if (!isDue(window)) continue;
      windows.delete(key);
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
    note: async (attempt) => {
      const now = clock.now().getTime();
      const own = keyOf(attempt);
      const isCrowded = windows.size >= maxWindows && !windows.has(own);
      const key = isCrowded ? crowdKey : own;
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
      const opened = { attempt: kept, since: now, repeats: 0, written };
      windows.set(key, opened);
      await written.catch((error: unknown) => {
        if (windows.get(key) === opened) windows.delete(key);
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
  readonly attempt: Attempt;
  readonly since: number;
  readonly written: Promise<void>;
  repeats: number;
};

// INVARIANT: at most `maxWindows` events in each window are recorded at once, however many sources knock.
const limits: Record<Repeats, { readonly windowMs: number; readonly maxWindows: number }> = {
  'within a minute': { windowMs: 60_000, maxWindows: 1_000 },
  'within an hour': { windowMs: 3_600_000, maxWindows: 4_000 },
};
const crowdKey = 'crowd';

function keyOf({ action, actor, method, route, code, detail, sourceAddress }: Attempt): string {
  // Two questions to the log are two reads; two ways to be refused for one reason are one.
  const question = action === 'audit_read' ? detail : '';
  return JSON.stringify([action, actor, method, route, code, question, sourceAddress.personal]);
}

function crowd(attempt: Attempt): Attempt {
  return {
    ...attempt,
    actor: { kind: 'anonymous' },
    route: manyRoutes,
    detail: 'too many sources at once to be told apart',
    sourceAddress: { personal: '' },
  };
}

const manyRoutes = '(many)';
