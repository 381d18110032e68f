import type { Caller as EventCaller } from '../audit/event.ts';
import type { CandidateCallsEvent } from '../audit/rollout-event.ts';
import { MeshError } from '../errors.ts';
import type { CandidateCalls, Caller } from '../wire/node.ts';
import { dateOf, integerOf } from './wire-values.ts';

type Judgement = Pick<CandidateCalls, 'reason' | 'rule' | 'source' | 'protocol'>;

/** Who ships: see event-shipment.ts. */
type ShippedBy = {
  readonly isOwn: (spiffeId: string) => boolean;
  /** Proves the words of a verdict. @throws MeshError `message_invalid` */
  readonly judgementOf: (said: Judgement) => Judgement;
  readonly callerOf: (caller: Caller | undefined) => EventCaller;
};

/** What a candidate said of calls to workloads of a node. @throws MeshError `message_invalid`, `identity_none` */
export function candidateCallsOf(
  { isOwn, judgementOf, callerOf }: ShippedBy,
  calls: CandidateCalls,
): CandidateCallsEvent {
  const { fromMs, toMs, revision, port, caller, ...texts } = calls;
  // INVARIANT: a node speaks for its own workloads alone, or any of them could end everybody's rollout by a name.
  if (!isOwn(calls.destination)) {
    throw new MeshError('identity_none', 'calls are about a workload that is not one of this node');
  }
  const change = changes.find((known) => known === texts.change);
  const applied = appliers.find((known) => known === texts.applied);
  const count = integerOf(calls.count, 'a count');
  if (
    change === undefined ||
    applied === undefined ||
    count === 0 ||
    fromMs > toMs ||
    !/^[0-9a-f]{32}$/.test(texts.rollout)
  ) {
    throw new MeshError('message_invalid', 'the batch of events has calls of no rollout');
  }
  const to = dateOf(toMs);
  const { candidateReason: reason, candidateRule: rule } = texts;
  const own = change === 'same' ? nothingSaid : judgementOf(texts);
  const tried = change === 'same' ? nothingSaid : judgementOf({ ...texts, reason, rule });
  return {
    ...texts,
    ...own,
    candidateReason: tried.reason,
    candidateRule: tried.rule,
    type: 'candidate_calls',
    time: to,
    from: dateOf(fromMs),
    to,
    count,
    change,
    applied,
    revision: integerOf(revision, 'a revision'),
    port: integerOf(port, 'a port'),
    caller: callerOf(caller),
  };
}

/** The same as it travels. */
export function candidateCallsToWire(
  { from, to, caller, ...event }: CandidateCallsEvent,
  callerToWire: (caller: EventCaller) => Caller,
): CandidateCalls {
  return {
    ...event,
    fromMs: BigInt(from.getTime()),
    toMs: BigInt(to.getTime()),
    count: BigInt(event.count),
    revision: BigInt(event.revision),
    port: BigInt(event.port),
    caller: callerToWire(caller),
  };
}

const nothingSaid: Judgement = { reason: '', rule: '', source: '', protocol: '' };
const changes: readonly CandidateCallsEvent['change'][] = ['same', 'newly_denied', 'newly_allowed'];
const appliers: readonly CandidateCallsEvent['applied'][] = ['active', 'candidate', 'fallback'];
