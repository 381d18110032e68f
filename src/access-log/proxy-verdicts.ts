import type { ProxyJudged, ProxyVerdictEvent, ProxyVerdictsEvent } from '../audit/proxy-event.ts';
import type { Clock } from '../clock.ts';
import type { Reporter } from './access-log.ts';
import { createClaims } from './claims.ts';
import type { Call, JudgedCall } from './entry.ts';
import { createWindow } from './window.ts';

/** What proxies say that they decided by themselves, on its way to the log. */
export type ProxyVerdicts = {
  /** Takes down a call; one that was not decided so is left out. */
  readonly add: (call: Call, reporter: Reporter) => void;
  /** Kinds of calls that are counted and not told yet. */
  readonly held: () => number;
  /** Tells what was counted until now. */
  readonly flush: () => void;
};

/**
 * Starts it. A denial has a record of its own, as long as its proxy has not told of too many; all else that agrees is counted
 * together.
 * @param options `windowMs` 0 to 300,000; 0 for a record of each call
 */
export function createProxyVerdicts(options: {
  readonly windowMs: number;
  readonly clock: Clock;
  readonly tell: (event: ProxyVerdictEvent | ProxyVerdictsEvent) => void;
  /** Whether a proxy may have another record of its own. */
  readonly isOwnRecord: (destination: string, now: Date) => boolean;
}): ProxyVerdicts {
  const { windowMs, clock, tell, isOwnRecord } = options;
  const leaves = createClaims(maxLeaves);
  const window = createWindow<Counted>({
    windowMs: Math.max(windowMs, leastWindowMs),
    clock,
    tell,
    ended: leaves.clear,
  });
  return {
    held: window.held,
    flush: window.flush,
    add: (call, reporter) => {
      if (call.judged === undefined) return;
      const { destination } = reporter;
      const isDenial = call.judged.verdict === 'deny';
      if (windowMs === 0 || (isDenial && isOwnRecord(destination, clock.now())))
        return tell(verdictOf(call, call.judged, reporter));
      // INVARIANT: a proxy that makes up leaves of policies makes no more kinds than there is room for.
      const isKept = leaves.fold(destination, call.judged.leaf) !== '*';
      const judged = isKept ? call.judged : { ...call.judged, rule: '', leaf: '*' };
      const first = (): Counted => verdictsOf(call, judged, reporter);
      window.count(`${call.source} ${destination}`, keyOf(call, judged, reporter), first, (known) => {
        known.count += 1;
        if (call.time > known.to) known.time = known.to = call.time;
        if (call.time < known.from) known.from = call.time;
      });
    },
  };
}

/** An event that grows until it is told. */
type Counted = { -readonly [K in keyof ProxyVerdictsEvent]: ProxyVerdictsEvent[K] };

function judgedOf(call: Call, judged: JudgedCall, { destination, caller }: Reporter): ProxyJudged {
  const { verdict, reason, rule, leaf, revision } = judged;
  const { source, protocol, method, port, sourceSerial } = call;
  const of = { source, destination, protocol, method, port, sourceSerial, caller };
  return { verdict, reason, rule, leaf, revision, ...of };
}

function verdictOf(call: Call, judged: JudgedCall, reporter: Reporter): ProxyVerdictEvent {
  const { host, path, sourceAddress } = judged;
  return {
    type: 'proxy_verdict',
    time: call.time,
    ...judgedOf(call, judged, reporter),
    host,
    path: { personal: path },
    sourceAddress: { personal: sourceAddress },
  };
}

function verdictsOf(call: Call, judged: JudgedCall, reporter: Reporter): Counted {
  const { time } = call;
  const counted = { from: time, to: time, count: 1, pathPattern: patternOf(judged) };
  return { type: 'proxy_verdicts', time, ...judgedOf(call, judged, reporter), ...counted };
}

function keyOf(call: Call, judged: JudgedCall, { caller }: Reporter): string {
  const { protocol, method, port, sourceSerial } = call;
  const { verdict, leaf, rule } = judged;
  const who = `${caller.pid} ${caller.uid} ${caller.gid}`;
  return [protocol, method, port, sourceSerial, verdict, leaf, rule, patternOf(judged), who].join(' ');
}

function patternOf({ verdict, pathPattern = '*' }: JudgedCall): string {
  return verdict === 'allow' ? pathPattern : '*';
}

const leastWindowMs = 1_000;
const maxLeaves = 256;
