import { type AccessLog, createAccessLog } from './access-log/access-log.ts';
import { createEventQueue } from './audit/event-queue.ts';
import type { AuditEvent, RefusalEvent } from './audit/event.ts';
import type { Clock } from './clock.ts';
import { publicError } from './errors.ts';
import { createDecisionLog, type DecisionLog } from './ext-authz/decision-log.ts';
import type { Log } from './log.ts';
import { createEventShipper } from './node/event-shipper.ts';
import { createComplaints } from './up-complaints.ts';
import type { NodeClient } from './wire/node.ts';

/** The way of what happens at an agent into the server's log. */
export type AgentShipping = {
  readonly decisions: DecisionLog;
  readonly accessLog: AccessLog;
  /** Takes refusals without waiting; they are in the log of the agent, too, at the level info. */
  readonly recordQuietly: (events: readonly AuditEvent[]) => void;
  /** Events that are not in the server's log yet, and those lost since the start. */
  readonly depth: () => { readonly queued: number; readonly lost: number };
  /** Ships what it can within a few seconds; what is lost then is said. */
  readonly close: () => Promise<void>;
};

/** @param epoch 32 lower-case hex digits, new with each process */
export function createAgentShipping(parts: {
  readonly client: () => NodeClient;
  readonly epoch: string;
  readonly clock: Clock;
  readonly log: Log;
  readonly allowedCallsWindowSeconds: number;
}): AgentShipping {
  const { clock, log, allowedCallsWindowSeconds } = parts;
  const shipper = createEventShipper(parts);
  const complain = createComplaints(clock, (detail, message) => log.warn(detail, message));
  const onError = (error: unknown, lost: number): void => {
    const detail = { lost, ...publicError(error) };
    if (lost > 0) log.warn(detail, 'events could not be shipped');
    else complain(detail.code, 'events could not be shipped', detail);
  };
  const decisions = createDecisionLog({
    record: shipper.record,
    clock,
    allowedCallsWindowSeconds,
    onError,
  });
  const accessLog = createAccessLog({
    record: shipper.record,
    clock,
    allowedCallsWindowSeconds,
    onError,
  });
  const refusals = createEventQueue<RefusalEvent>({
    record: shipper.record,
    clock,
    what: 'refusal',
    countOf: ({ count }) => count,
    // Each of the doors makes some thousands a minute at most, whoever asks for whatever.
    maxQueued: 4_000,
    flushEveryMs: 1_000,
    onError,
  });
  return {
    decisions,
    accessLog,
    recordQuietly: (events) => {
      for (const event of events) {
        log.info({ event }, 'refused');
        if (event.type === 'refusal') refusals.push(event);
      }
    },
    depth: () => {
      const all = [decisions, accessLog, refusals].map(({ depth }) => depth());
      return {
        queued: all.reduce((sum, { queued }) => sum + queued, shipper.inHand()),
        lost: all.reduce((sum, { lostInAll }) => sum + lostInAll, shipper.refused()),
      };
    },
    close: async () => {
      // A server that takes connections and says nothing would hold up the end for minutes, call by call.
      const closed = new AbortController();
      void clock.sleep(closeMs, closed.signal).then(shipper.giveUp);
      await Promise.all([decisions.close(), accessLog.close(), refusals.close()]);
      await shipper.close().catch((error: unknown) => {
        log.error({ lost: shipper.inHand(), ...publicError(error) }, 'events were lost');
      });
      closed.abort('closed');
    },
  };
}

const closeMs = 5_000;
