import type { Clock } from '../clock.ts';
import { MeshError } from '../errors.ts';
import type { AuditEvent, LossEvent, RecordEvents } from './event.ts';

/** A bounded queue between a door, which waits for nothing, and the log, which is on a disk or elsewhere. */
export type EventQueue<E extends AuditEvent> = {
  /**
   * Takes an event in memory and returns at once; it never throws. A full or closed queue counts a loss instead, and so
   * does an event that is not to have a record of its own.
   */
  readonly push: (event: E) => void;
  /** Events waiting or being written, those lost and not yet recorded as such, and those lost since the start. */
  readonly depth: () => { readonly queued: number; readonly lost: number; readonly lostInAll: number };
  /** Takes no more, writes what is queued and resolves; what cannot be written by then goes to `onError`. */
  readonly close: () => Promise<void>;
};

/** What the queue writes to, and its bounds. */
export type EventQueueOptions<E extends AuditEvent> = {
  readonly record: RecordEvents;
  readonly clock: Clock;
  /** What a loss is called. */
  readonly what: LossEvent['what'];
  /** How many happenings an event stands for; default: one. */
  readonly countOf?: (event: E) => number;
  /** Whether an event has a record of its own; the others are only counted. Default: all have. */
  readonly hasOwnRecord?: (event: E) => boolean;
  /** Events held at most, those being written included; 1 to 1,000,000. */
  readonly maxQueued?: number;
  /** How long an event may wait for company, 1 to 60,000. */
  readonly flushEveryMs?: number;
  /** Events written at once. Encoding one takes about 30 µs: whoever records many at once rests in between. */
  readonly maxBatch?: number;
  /** A batch that was not written (it may be tried again), or, with `lost`, records that are gone for good. */
  readonly onError: (error: unknown, lost: number) => void;
};

/** Losses not yet in the log. One record stands for all of them, so memory stays bounded. */
type Tally = { count: number; from: Date; to: Date; cause: string };

/**
 * Starts the queue. Events are kept in order and written in batches. A batch that fails for a passing reason is
 * tried again for ever while newer events are counted as lost when there is no room; one that fails for its content
 * is halved until the event that cannot be written stands alone, and that event is lost. Every loss becomes a
 * LossEvent as soon as the log takes records again.
 */
export function createEventQueue<E extends AuditEvent>(options: EventQueueOptions<E>): EventQueue<E> {
  const { record, clock, what, countOf = () => 1, hasOwnRecord = () => true, onError } = options;
  const maxQueued = options.maxQueued ?? 20_000;
  const flushEveryMs = options.flushEveryMs ?? 50;
  const maxBatch = options.maxBatch ?? 250;
  let queue: E[] = [];
  let writing = 0;
  let tally: Tally | undefined;
  let lostInAll = 0;
  let closed = false;
  let wake: () => void = () => {};
  let hurry = new AbortController();
  /** Failed writes since the last good one. */
  let failures = 0;

  const running = run();
  return {
    push: (event) => {
      if (closed) lose([event], 'closed');
      else if (!hasOwnRecord(event)) {
        lose([event], 'repeated');
        wake();
      } else if (queue.length + writing >= maxQueued) lose([event], 'queue_full');
      else {
        queue.push(event);
        if (queue.length === 1) wake();
        if (queue.length >= maxBatch && failures === 0 && !hurry.signal.aborted) hurry.abort(enough);
      }
    },
    depth: () => ({ queued: queue.length + writing, lost: tally?.count ?? 0, lostInAll }),
    close: async () => {
      closed = true;
      hurry.abort(enough);
      wake();
      await running;
    },
  };

  async function run(): Promise<void> {
    for (;;) {
      if (queue.length === 0 && tally === undefined) {
        if (closed) return;
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
        wake = () => {};
      }
      // Losses alone are no hurry: one record a second tells of them.
      const everyMs = queue.length === 0 ? Math.max(lossesEveryMs, flushEveryMs) : flushEveryMs;
      await pause(Math.min(everyMs * 2 ** Math.min(failures, 16), Math.max(maxBackOffMs, flushEveryMs)));
      await flush();
      if (closed && failures >= attemptsWhenClosing) return abandon();
    }
  }

  async function pause(ms: number): Promise<void> {
    // A full batch or the end cuts the wait for company short; neither cuts short the wait after a failure.
    if (failures === 0 && (closed || queue.length >= maxBatch)) return;
    hurry = new AbortController();
    await clock.sleep(closed ? Math.min(ms, backOffWhenClosingMs) : ms, hurry.signal);
  }

  async function flush(): Promise<void> {
    do {
      if (!(await writeTally())) return;
      const batch = queue.slice(0, maxBatch);
      queue = queue.slice(maxBatch);
      writing = batch.length;
      const left = await write(batch);
      writing = 0;
      if (left.length > 0) {
        queue = [...left, ...queue];
        return;
      }
    } while (queue.length >= maxBatch);
    await writeTally();
  }

  /** Writes what it can of the events, in order; what it gives back is to be tried again. */
  async function write(events: readonly E[]): Promise<readonly E[]> {
    if (events.length === 0) return [];
    try {
      await record(events);
      failures = 0;
      return [];
    } catch (error) {
      failures++;
      if (mayPass(error, failures)) {
        onError(error, 0);
        return events;
      }
      if (events.length === 1) {
        lose(events, causeOf(error));
        onError(error, 1);
        return [];
      }
      const middle = events.length >> 1;
      const left = await write(events.slice(0, middle));
      return left.length > 0 ? [...left, ...events.slice(middle)] : write(events.slice(middle));
    }
  }

  async function writeTally(): Promise<boolean> {
    if (tally === undefined) return true;
    const told = tally;
    tally = undefined;
    try {
      await record([{ type: 'loss', time: clock.now(), what, ...told }]);
      failures = 0;
      return true;
    } catch (error) {
      failures++;
      tally = tally === undefined ? told : merge(told, tally);
      onError(error, 0);
      return false;
    }
  }

  function lose(events: readonly E[], cause: string): void {
    for (const event of events) {
      const one = { count: countOf(event), from: beginningOf(event), to: event.time, cause };
      tally = tally === undefined ? one : merge(tally, one);
      lostInAll += one.count;
    }
  }

  function abandon(): void {
    lose(queue, 'closed');
    queue = [];
    if (tally !== undefined) {
      onError(
        new MeshError('store_unavailable', `${what}s were lost: the log could not be written before the end`),
        tally.count,
      );
    }
  }
}

/**
 * Whether the same events may be taken later. An error that is not ours to understand is given some tries: it may be
 * the disk, and it may be an event that no log will ever take, behind which all others would wait.
 */
function mayPass(error: unknown, failures: number): boolean {
  if (!(error instanceof MeshError) || error.kind === 'internal') return failures < triesOfUnknown;
  return error.kind !== 'invalid' && error.kind !== 'too_large';
}

/** One that stands for several happenings began with the first of them. */
function beginningOf(event: AuditEvent): Date {
  return 'from' in event ? event.from : event.time;
}

function causeOf(error: unknown): string {
  return error instanceof MeshError ? error.code : 'internal';
}

function merge(a: Tally, b: Tally): Tally {
  return {
    count: a.count + b.count,
    from: a.from < b.from ? a.from : b.from,
    to: a.to > b.to ? a.to : b.to,
    cause: a.cause.split(',').includes(b.cause) ? a.cause : `${a.cause},${b.cause}`,
  };
}

// Without a reason each abort makes an error with a stack of its own.
const enough = 'enough';
const maxBackOffMs = 2_000;
const lossesEveryMs = 1_000;
const backOffWhenClosingMs = 100;
const attemptsWhenClosing = 5;
const triesOfUnknown = 8;
