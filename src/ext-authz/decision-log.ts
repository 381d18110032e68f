import { createEventQueue, type EventQueue, type EventQueueOptions } from '../audit/event-queue.ts';
import type { AllowedCallsEvent, DecisionEvent } from '../audit/event.ts';
import type { CandidateCallsEvent } from '../audit/rollout-event.ts';
import { type AllowedCall, createCallCounter } from './call-counter.ts';
import { type CandidateCall, createCandidateCounter } from './candidate-counter.ts';
import { createStrangerLimit } from './stranger-limit.ts';

/** The bounded queue between Check, which waits for nothing, and the log, which is on a disk. */
export type DecisionLog = EventQueue<DecisionEvent> & {
  /** Counts an allowed call with others of its kind; undefined when each decision is to have a record of its own. */
  readonly count: ((call: AllowedCall) => void) | undefined;
  /** Counts a call that a candidate was asked about, beside its record. */
  readonly compare: (call: CandidateCall) => void;
};

/** What the queue writes to, and its bounds. */
export type DecisionLogOptions = Omit<EventQueueOptions<Told>, 'what' | 'countOf' | 'hasOwnRecord'> & {
  /** For how long allowed calls of one kind are counted together, 0 to 300; 0 for a record of each. */
  readonly allowedCallsWindowSeconds: number;
};

type Told = DecisionEvent | AllowedCallsEvent | CandidateCallsEvent;

/** What a store that rests while it encodes may be given at once: more decisions for each wait for the disk. */
export const decisionsOfCommit = 1_000;

/** Starts the queue. A process without an identity that asks again and again is counted, not recorded each time. */
export function createDecisionLog(options: DecisionLogOptions): DecisionLog {
  const { allowedCallsWindowSeconds, clock } = options;
  const isOwnRecord = createStrangerLimit();
  const queue = createEventQueue<Told>({
    ...options,
    what: 'decision',
    countOf: (event) => (event.type === 'decision' ? 1 : event.count),
    hasOwnRecord: (event) => event.type !== 'decision' || isOwnRecord(event),
  });
  const windowMs = allowedCallsWindowSeconds * 1_000;
  let isClosed = false;
  const candidates = createCandidateCounter({
    windowMs: windowMs || comparedMs,
    clock,
    tell: queue.push,
  });
  const compare = (call: CandidateCall): void => {
    candidates.add(call);
    if (isClosed) candidates.flush();
  };
  const close = (): Promise<void> => {
    isClosed = true;
    candidates.flush();
    return queue.close();
  };
  if (allowedCallsWindowSeconds === 0) return { ...queue, count: undefined, compare, close };
  const calls = createCallCounter({ windowMs, clock, tell: queue.push });
  return {
    push: queue.push,
    count: (call) => {
      calls.add(call);
      // What is decided after the end is lost like any other decision, and waits for no window.
      if (isClosed) calls.flush();
    },
    compare,
    depth: () => {
      const depth = queue.depth();
      return { ...depth, queued: depth.queued + calls.held() };
    },
    close: () => {
      isClosed = true;
      calls.flush();
      return close();
    },
  };
}

// Where each allowed call has a record of its own.
const comparedMs = 10_000;
