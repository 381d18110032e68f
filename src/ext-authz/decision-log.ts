import { createEventQueue, type EventQueue, type EventQueueOptions } from '../audit/event-queue.ts';
import type { DecisionEvent } from '../audit/event.ts';
import { createStrangerLimit } from './stranger-limit.ts';

/** The bounded queue between Check, which waits for nothing, and the log, which is on a disk. */
export type DecisionLog = EventQueue<DecisionEvent>;

/** What the queue writes to, and its bounds. */
export type DecisionLogOptions = Omit<EventQueueOptions<DecisionEvent>, 'what' | 'countOf' | 'hasOwnRecord'>;

/** Starts the queue. A process without an identity that asks again and again is counted, not recorded each time. */
export function createDecisionLog(options: DecisionLogOptions): DecisionLog {
  return createEventQueue({ ...options, what: 'decision', hasOwnRecord: createStrangerLimit() });
}
