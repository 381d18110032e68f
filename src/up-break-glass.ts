import type { Decision } from './authz/decision.ts';
import type { Clock } from './clock.ts';
import { publicError } from './errors.ts';
import type { Log } from './log.ts';

/** What the log is told of checks. */
export function checkComplaints(
  clock: Clock,
  log: Log,
): {
  readonly onCheckFailure: (error: unknown) => void;
  readonly onBreakGlass: (decision: Decision) => void;
} {
  return {
    onCheckFailure: (error) => log.warn(publicError(error), 'check failed'),
    onBreakGlass: createBreakGlassLog(clock, log),
  };
}

/**
 * Warns of calls that a break-glass grant let pass: of each grant the first at once, then once a minute with how many there
 * were. The record of each decision has it too.
 */
export function createBreakGlassLog(clock: Clock, log: Log): (decision: Decision) => void {
  const said = new Map<string, { atMs: number; since: number }>();
  return ({ rule, breakGlass }) => {
    const nowMs = clock.now().getTime();
    const last = said.get(rule);
    if (last !== undefined && Math.abs(nowMs - last.atMs) < sayEveryMs) {
      last.since += 1;
      return;
    }
    if (said.size >= maxRules) said.clear();
    said.set(rule, { atMs: nowMs, since: 0 });
    log.warn({ rule, breakGlass, calls: (last?.since ?? 0) + 1 }, 'a break-glass grant let calls pass');
  };
}

const sayEveryMs = 60_000;
const maxRules = 1_024;
