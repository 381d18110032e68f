import type { RecordEvents } from '../audit/event.ts';
import type { Clock } from '../clock.ts';
import { type Attempt, openAttemptLog } from './attempt-log.ts';
import type { ReportFailure } from './problem.ts';
import type { RouteAccess } from './roles.ts';

/**
 * Records every call that is not public, so that the log says who did what, and does not grow with every look at a
 * dashboard:
 * - what is refused, and what may change something: the first of a kind at once, its repeats counted each minute;
 * - reading the log, tokens, join tokens and grants: the same, and the answer waits until it is in the log;
 * - other reads: the first of a kind at once, its repeats counted each hour: 48 events a day for each who polls a route.
 *
 * A change has an event of its own besides, in one transaction with it.
 */
export type CallLog = {
  /** A call that is answered only once this resolves. Rejects when it could not be recorded, or only among many. */
  readonly demand: (attempt: Attempt) => Promise<void>;
  /** A call that is answered in any case. */
  readonly note: (attempt: Attempt, access: RouteAccess | undefined) => Promise<void>;
  /** Stops, and records what is still only counted. */
  readonly close: () => Promise<void>;
};

export function openCallLog(parts: {
  readonly record: RecordEvents;
  readonly clock: Clock;
  readonly report: ReportFailure;
}): CallLog {
  const often = openAttemptLog({ ...parts, repeats: 'within a minute' });
  const seldom = openAttemptLog({ ...parts, repeats: 'within an hour' });
  let reportedMs: number | undefined;
  return {
    // Which question it was is all that the record is for.
    demand: (attempt) => often.note(attempt, attempt.action === 'audit_read'),
    note: async (attempt, access) => {
      const isRead = attempt.action === 'called' && attempt.code === '' && ordinaryReads.has(access ?? '');
      try {
        await (isRead ? seldom : often).note(attempt);
      } catch (error) {
        // Whoever looks at the status of a server that cannot write does so again and again.
        const nowMs = parts.clock.now().getTime();
        if (reportedMs !== undefined && Math.abs(nowMs - reportedMs) < reportMs) return;
        reportedMs = nowMs;
        parts.report('', error);
      }
    },
    close: async () => {
      await Promise.all([often.close(), seldom.close()]);
    },
  };
}

/** Whether a call is recorded before it is answered, or not answered. The log's own routes do so with the question. */
export function isSensitiveRead(access: RouteAccess | undefined): boolean {
  return sensitiveReads.has(access ?? '');
}

/** Whether such a call, when it succeeds, has been recorded by the time it is answered. */
export function hasOwnRecord(access: RouteAccess | undefined): boolean {
  return (
    access === 'audit:read' ||
    access === 'audit:decisions' ||
    access === 'tokens:write' ||
    isSensitiveRead(access)
  );
}

const reportMs = 60_000;
const sensitiveReads: ReadonlySet<string> = new Set<RouteAccess>([
  'tokens:read',
  'join-tokens:read',
  'grants:read',
]);
const ordinaryReads: ReadonlySet<string> = new Set<RouteAccess>([
  'api:read',
  'trust:read',
  'jwt:validate',
  'status:read',
  'metrics:read',
  'ca:read',
  'entries:read',
  'policies:read',
  'authz:explain',
  'bans:read',
  'nodes:read',
]);
