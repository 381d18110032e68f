import type { AllowedCallsEvent } from '../audit/event.ts';
import type { Clock } from '../clock.ts';

/** One allowed call, as it is counted. */
export type AllowedCall = Omit<AllowedCallsEvent, 'type' | 'from' | 'to' | 'count'>;

/** Counts allowed calls of one kind together. */
export type CallCounter = {
  /** Counts a call in memory and returns at once. */
  readonly add: (call: AllowedCall) => void;
  /** Kinds of calls that are counted and not told yet. */
  readonly held: () => number;
  /** Tells what was counted until now. */
  readonly flush: () => void;
};

/**
 * Counts calls that agree in everything but their time, and tells of each kind once a window has passed since the first of
 * all. Callers choose methods, and so how many kinds there are: too many of one caller by one rule are told at once, and so
 * are all when they are too many together.
 * @param options `windowMs` 1 to 300,000
 */
export function createCallCounter(options: {
  readonly windowMs: number;
  readonly clock: Clock;
  readonly tell: (event: AllowedCallsEvent) => void;
  readonly maxKinds?: number;
}): CallCounter {
  const { windowMs, clock, tell, maxKinds = 4_096 } = options;
  let window = new AbortController();
  let held = 0;
  /** By caller and rule, which are the same strings call after call; what else tells them apart is few. */
  let kinds = new Map<string, Map<string, Kind[]>>();

  return { add, held: () => held, flush };

  function add(call: AllowedCall): void {
    const timeMs = call.time.getTime();
    const known = kinds
      .get(call.source)
      ?.get(call.rule)
      ?.find((kind) => isSame(kind.call, call));
    if (known === undefined) return hold(call, timeMs);
    known.count += 1;
    // Clocks are put back.
    if (timeMs > known.toMs) known.toMs = timeMs;
    else if (timeMs < known.fromMs) known.fromMs = timeMs;
  }

  function hold(call: AllowedCall, timeMs: number): void {
    if (held >= maxKinds) flush();
    const crowd = kinds.get(call.source)?.get(call.rule) ?? [];
    // INVARIANT: who makes up methods cuts short the windows of nobody else.
    if (crowd.length >= maxAlike) tellOf(crowd.splice(0));
    if (held === 0) void open();
    held += 1;
    const ofSource = kinds.get(call.source) ?? new Map<string, Kind[]>();
    kinds.set(call.source, ofSource);
    const alike = ofSource.get(call.rule) ?? [];
    ofSource.set(call.rule, alike);
    alike.push({ call, count: 1, fromMs: timeMs, toMs: timeMs });
  }

  async function open(): Promise<void> {
    const { signal } = (window = new AbortController());
    await clock.sleep(windowMs, signal);
    if (!signal.aborted) flush();
  }

  function flush(): void {
    const told = kinds;
    kinds = new Map();
    for (const ofSource of told.values()) for (const alike of ofSource.values()) tellOf(alike);
  }

  function tellOf(alike: readonly Kind[]): void {
    held -= alike.length;
    if (held === 0) {
      window.abort('told');
      kinds = new Map();
    }
    for (const kind of alike) tell(eventOf(kind));
  }
}

type Kind = { readonly call: AllowedCall; count: number; fromMs: number; toMs: number };

function isSame(a: AllowedCall, b: AllowedCall): boolean {
  return (
    a.pathPattern === b.pathPattern &&
    a.method === b.method &&
    a.destination === b.destination &&
    a.sourceSerial === b.sourceSerial &&
    a.sourceTbsSha256 === b.sourceTbsSha256 &&
    a.revision === b.revision &&
    a.port === b.port &&
    a.protocol === b.protocol &&
    a.reason === b.reason &&
    a.caller.pid === b.caller.pid &&
    a.caller.uid === b.caller.uid &&
    a.caller.gid === b.caller.gid
  );
}

function eventOf({ call, count, fromMs, toMs }: Kind): AllowedCallsEvent {
  const to = new Date(toMs);
  return { ...call, type: 'allowed_calls', time: to, from: new Date(fromMs), to, count };
}

/** Of one caller by one rule; more would make each call dearer. */
const maxAlike = 64;
