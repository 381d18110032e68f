import type { AuditEvent } from './audit/event.ts';
import { type AuditQueryFields, parseAuditQuery } from './audit/question.ts';
import type { CandidateCallsEvent } from './audit/rollout-event.ts';
import type { Clock } from './clock.ts';
import { publicError } from './errors.ts';
import type { MeshHolder } from './identity/current-mesh.ts';
import { liveRollout } from './identity/rollout.ts';
import type { RolloutEdits } from './identity/rollout-edits.ts';
import type { EndingCall } from './identity/rollout-step.ts';
import { createRolloutTally, findEnding, type RolloutCounts } from './identity/rollout-tally.ts';
import type { Log } from './log.ts';
import type { Store } from './store/store.ts';

/** Watches what doors tell of the candidate, and ends the rollout when it denies too much. */
export type RolloutWatch = {
  /** Looks at events that are in the log by now. */
  readonly look: (events: readonly AuditEvent[]) => void;
  /** What is counted of the last rollout beside the revision in force. */
  readonly counts: () => RolloutCounts;
  readonly close: () => Promise<void>;
};

/** Opens the watch; what the log has of a rollout that was begun before this start is counted again. */
export async function openRolloutWatch(parts: {
  readonly store: Pick<Store, 'queryAudit'>;
  readonly holder: MeshHolder;
  readonly endRollout: RolloutEdits['endRollout'];
  readonly clock: Clock;
  readonly log: Log;
}): Promise<RolloutWatch> {
  const { holder, clock, log } = parts;
  const stop = new AbortController();
  let of = '';
  let tally = createRolloutTally();
  let ending: Promise<void> | undefined;

  /** INVARIANT: tried until it is over: doors fall back by themselves, but only those that have met the call. */
  const end = async (id: string, call: EndingCall): Promise<void> => {
    for (;;) {
      try {
        if (await parts.endRollout(id, call)) {
          const { source, destination, rule, place, node } = call;
          log.error(
            { rollout: id, source, destination, rule, place, node },
            'a rollout of policies was ended: its candidate denied a call that is allowed now',
          );
        }
        return;
      } catch (error) {
        if (stop.signal.aborted) return;
        log.error(publicError(error), 'a rollout could not be ended yet, and will be');
        await clock.sleep(endAgainMs, stop.signal);
      }
    }
  };

  const take = (event: CandidateCallsEvent): void => {
    const current = holder.current();
    const { rollout } = current.mesh;
    if (rollout === undefined || rollout.state.id !== event.rollout) return;
    if (of !== event.rollout) [of, tally] = [event.rollout, createRolloutTally()];
    tally.add(event, current);
    const live = liveRollout(current.mesh)?.state;
    if (live?.stage !== 'canary' || ending !== undefined) return;
    const call = findEnding(event, tally.counts(), live.maxNewDenials, current);
    if (call === undefined) return;
    ending = end(live.id, call).finally(() => {
      ending = undefined;
    });
  };

  const { rollout, rolloutReason } = holder.current().mesh;
  if (rollout !== undefined && rolloutReason !== undefined) {
    const since = rolloutReason.startedAt.toISOString();
    for (const what of ['change!=same', 'change=same']) {
      const asked = { types: ['candidate_calls'], since, where: [`rollout=${rollout.state.id}`, what] };
      for await (const event of readBack(parts.store, asked, clock)) take(event);
    }
  }
  return {
    look: (events) => {
      for (const event of events) if (event.type === 'candidate_calls') take(event);
    },
    counts: () =>
      holder.current().mesh.rollout?.state.id === of ? tally.counts() : createRolloutTally().counts(),
    close: async () => {
      stop.abort('closed');
      await ending;
    },
  };
}

/** The latest first, as far as it goes. */
async function* readBack(
  store: Pick<Store, 'queryAudit'>,
  asked: AuditQueryFields,
  clock: Clock,
): AsyncGenerator<CandidateCallsEvent> {
  let cursor: string | undefined;
  for (let page = 0; page < maxPages; page++) {
    const fields = { ...asked, limit: 1_000, ...(cursor === undefined ? {} : { cursor }) };
    const { rows, next } = await store.queryAudit(parseAuditQuery(fields, clock.now()));
    for (const { leaf } of rows) yield eventOf(leaf);
    if (next === null) return;
    cursor = next;
  }
}

function eventOf(leaf: string): CandidateCallsEvent {
  const event = JSON.parse(leaf) as Omit<CandidateCallsEvent, 'time' | 'from' | 'to'> &
    Readonly<Record<'time' | 'from' | 'to', string>>;
  const [time, from, to] = [new Date(event.time), new Date(event.from), new Date(event.to)];
  return { ...event, time, from, to };
}

const endAgainMs = 1_000;
// A start does not wait for a log of years.
const maxPages = 100;
