import type { CandidateCallsEvent } from '../audit/rollout-event.ts';
import type { Clock } from '../clock.ts';

/** One call that a candidate was asked about as well. */
export type CandidateCall = Omit<CandidateCallsEvent, 'type' | 'from' | 'to' | 'count'>;

/** Counts calls of one kind together while a rollout is under way. */
export type CandidateCounter = {
  /** Counts a call in memory and returns at once. */
  readonly add: (call: CandidateCall) => void;
  readonly flush: () => void;
};

/**
 * Counts calls that agree in everything but their time and tells of each kind once a window has passed. The first ever of a kind
 * is told at once: it may have to end the rollout everywhere. Callers choose methods, and so how many kinds there are: when
 * they are too many, all are told.
 * @param options `windowMs` 1 to 300,000
 */
export function createCandidateCounter(options: {
  readonly windowMs: number;
  readonly clock: Clock;
  readonly tell: (event: CandidateCallsEvent) => void;
  readonly maxKinds?: number;
}): CandidateCounter {
  const { windowMs, clock, tell, maxKinds = 4_096 } = options;
  let window = new AbortController();
  let kinds = new Map<string, Kind>();
  let known = new Set<string>();

  const flush = (): void => {
    const told = kinds;
    kinds = new Map();
    window.abort('told');
    for (const kind of told.values()) if (kind.count > 0) tell(eventOf(kind));
  };
  const open = async (): Promise<void> => {
    const { signal } = (window = new AbortController());
    await clock.sleep(windowMs, signal);
    if (!signal.aborted) flush();
  };
  return {
    add: (call) => {
      const timeMs = call.time.getTime();
      const key = keyOf(call);
      const held = kinds.get(key);
      if (held !== undefined) {
        if (held.count === 0) held.fromMs = timeMs;
        held.count += 1;
        held.fromMs = Math.min(held.fromMs, timeMs);
        held.toMs = Math.max(held.toMs, timeMs);
        return;
      }
      if (kinds.size >= maxKinds) flush();
      if (kinds.size === 0) void open();
      const kind: Kind = { call, count: 1, fromMs: timeMs, toMs: timeMs };
      kinds.set(key, kind);
      if (known.has(key)) return;
      if (known.size >= maxKinds) known = new Set();
      known.add(key);
      tell(eventOf(kind));
      kind.count = 0;
    },
    flush,
  };
}

type Kind = { readonly call: CandidateCall; count: number; fromMs: number; toMs: number };

function keyOf(call: CandidateCall): string {
  const { rollout, change, applied, destination, revision, caller } = call;
  const common = `${rollout}\n${change}\n${applied}\n${destination}\n${revision}\n${caller.pid}`;
  if (change === 'same') return common;
  const { source, method, pathPattern, rule, candidateRule, reason, candidateReason, port, protocol } = call;
  return `${common}\n${source}\n${method}\n${pathPattern}\n${rule}\n${candidateRule}\n${reason}\n${candidateReason}\n${port}\n${protocol}`;
}

function eventOf({ call, count, fromMs, toMs }: Kind): CandidateCallsEvent {
  const to = new Date(toMs);
  return { ...call, type: 'candidate_calls', time: to, from: new Date(fromMs), to, count };
}
