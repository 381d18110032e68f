import type { ConnectionsEvent, OutcomeEvent, OutcomesEvent, SeenCall } from '../audit/access-event.ts';
import { createEventQueue, type EventQueue, type EventQueueOptions } from '../audit/event-queue.ts';
import type { Caller, LossEvent } from '../audit/event.ts';
import type { ProxyCoverageEvent, ProxyVerdictEvent, ProxyVerdictsEvent } from '../audit/proxy-event.ts';
import type { Clock } from '../clock.ts';
import { createClaims } from './claims.ts';
import { type Call, type Connection, readAddress } from './entry.ts';
import { createProxyTally, type ProxyTally } from './proxy-tally.ts';
import { createProxyVerdicts } from './proxy-verdicts.ts';
import { createRecordLimit } from './record-limit.ts';
import { createWindow } from './window.ts';

/** What proxies saw, on its way to the log. Nothing waits for a disk here, and memory is bounded. */
export type AccessLog = Pick<EventQueue<AccessEvent>, 'depth' | 'close'> & {
  readonly call: (call: Call, reporter: Reporter) => void;
  readonly connection: (connection: Connection, reporter: Reporter) => void;
  /** Counts what was told and could not be kept. */
  readonly lose: (count: number, cause: AccessLoss) => void;
  /** How much of what policy in proxies judged is told here. */
  readonly tally: ProxyTally;
};

/** The proxy that tells, and whom it stands for. */
export type Reporter = { readonly destination: string; readonly caller: Caller };

/**
 * Why something is not in the log: an entry or a message that cannot be read, a stream that ended in the middle (counted
 * once: how many entries were on their way nobody knows), or a process that stands for nobody any more.
 */
export type AccessLoss = 'undecodable' | 'stream_broken' | 'reporter_unknown';

/** What the queue writes to, and how things are counted together. */
export type AccessLogOptions = Pick<
  EventQueueOptions<AccessEvent>,
  'record' | 'clock' | 'onError' | 'maxQueued' | 'flushEveryMs'
> & {
  /** For how long what is alike is counted together, 0 to 300; 0 for a record of each call. */
  readonly allowedCallsWindowSeconds: number;
};

type AccessEvent =
  | OutcomeEvent
  | OutcomesEvent
  | ConnectionsEvent
  | ProxyVerdictEvent
  | ProxyVerdictsEvent
  | ProxyCoverageEvent
  | LossEvent;

/**
 * Starts it. A call has a record of its own when it was denied, when the decision about it has one, and when it failed, as
 * long as its caller and callee have not failed too often and its proxy has not told of too many; all others are counted together. Connections always are: whoever
 * can connect can make any number of them.
 */
export function createAccessLog(options: AccessLogOptions): AccessLog {
  const { clock, allowedCallsWindowSeconds } = options;
  const queue = createEventQueue<AccessEvent>({
    ...options,
    what: 'access_log',
    countOf: (event) => (singles.has(event.type) || !('count' in event) ? 1 : event.count),
  });
  const windowMs = allowedCallsWindowSeconds * 1_000;
  const claims = createClaims();
  const isOwnError = createRecordLimit();
  // INVARIANT: a proxy that makes up recorded calls leaves room in the queue for what others tell.
  const isOwnRecord = createRecordLimit(recordsAtOnce, recordsPerSecond);
  const calls = createWindow<Counted<OutcomesEvent>>({
    windowMs: Math.max(windowMs, leastWindowMs),
    clock,
    tell: queue.push,
  });
  const connections = createWindow<Counted<ConnectionsEvent>>({
    windowMs: Math.max(windowMs, leastWindowMs),
    clock,
    tell: queue.push,
    ended: claims.clear,
  });
  const verdicts = createProxyVerdicts({ windowMs, clock, tell: queue.push, isOwnRecord });
  const tally = createProxyTally({
    clock,
    tell: queue.push,
    everyMs: Math.max(windowMs, leastWindowMs) * windowsOfTally,
  });
  const losses = createLossTally(clock, queue.push);
  let isClosed = false;
  const flush = (): void => {
    calls.flush();
    connections.flush();
    verdicts.flush();
    tally.flush();
    losses.flush();
  };
  const inTime = (): void => {
    // What is told after the end is lost like anything else, and waits for no window.
    if (isClosed) flush();
  };

  return {
    call: (call, reporter) => {
      const owner = `${call.source} ${reporter.destination}`;
      const { destination } = reporter;
      verdicts.add(call, reporter);
      // A denial that the proxy decided has that record.
      const isTold = call.judged?.verdict === 'deny';
      const isOwn =
        windowMs === 0 ||
        ((call.isRecorded || (call.outcome !== 'ok' && !isTold && isOwnError(owner, clock.now()))) &&
          isOwnRecord(destination, clock.now()));
      if (isOwn) return queue.push(outcomeOf(call, reporter));
      const first = (): Counted<OutcomesEvent> => outcomesOf(call, reporter);
      calls.count(owner, keyOfCall(call, reporter), first, (known) => addCall(known, call));
      inTime();
    },
    connection: (connection, reporter) => {
      const { destination, caller } = reporter;
      const told = foldNames(connection, (what) => claims.fold(destination, what));
      const { kind, source, sourceSerial, claimedSource, failure, port } = told;
      const key = JSON.stringify([kind, source, sourceSerial, claimedSource, failure, port, keyOf(caller)]);
      const first = (): Counted<ConnectionsEvent> => connectionsOf(told, reporter);
      connections.count(destination, key, first, (known) => addConnection(known, told));
      inTime();
    },
    lose: (count, cause) => {
      losses.add(count, cause);
      inTime();
    },
    tally,
    depth: () => {
      const depth = queue.depth();
      return { ...depth, queued: depth.queued + calls.held() + connections.held() + verdicts.held() };
    },
    close: () => {
      isClosed = true;
      flush();
      return queue.close();
    },
  };
}

/** An event that grows until it is told. */
type Counted<E> = { -readonly [K in keyof E]: E[K] };

function seenCall(call: Call, { destination, caller }: Reporter): SeenCall {
  const { source, protocol, method, port, sourceSerial, outcome, flags, rule } = call;
  return { source, destination, protocol, method, port, sourceSerial, outcome, flags, rule, caller };
}

function outcomeOf(call: Call, reporter: Reporter): OutcomeEvent {
  const { time, decisionId, status, details, durationMs, bytesReceived, bytesSent } = call;
  const upstream = addressOf(call.upstreamAddress);
  const parts = { time, decisionId, status, details, upstream, durationMs, bytesReceived, bytesSent };
  return { type: 'outcome', ...seenCall(call, reporter), ...parts };
}

function addressOf(bytes: Uint8Array): string {
  try {
    return readAddress(bytes);
  } catch {
    return '';
  }
}

function outcomesOf(call: Call, reporter: Reporter): Counted<OutcomesEvent> {
  const { time, durationMs: longestMs, bytesReceived, bytesSent } = call;
  const sums = { from: time, to: time, count: 1, longestMs, bytesReceived, bytesSent };
  return { type: 'outcomes', time, ...seenCall(call, reporter), statusClass: classOf(call.status), ...sums };
}

function addCall(known: Counted<OutcomesEvent>, call: Call): void {
  widen(known, call.time);
  known.longestMs = Math.max(known.longestMs, call.durationMs);
  known.bytesReceived = Math.min(maxSum, known.bytesReceived + call.bytesReceived);
  known.bytesSent = Math.min(maxSum, known.bytesSent + call.bytesSent);
}

function connectionsOf(told: Connection, { destination, caller }: Reporter): Counted<ConnectionsEvent> {
  const { time, sourceAddress, ...rest } = told;
  const counted = { from: time, to: time, count: 1, sourceAddress: { personal: sourceAddress } };
  return { type: 'connections', time, ...rest, ...counted, destination, caller };
}

function addConnection(known: Counted<ConnectionsEvent>, told: Connection): void {
  widen(known, told.time);
  if (told.claimedSerial !== '') known.claimedSerial = told.claimedSerial;
  known.sourceAddress = { personal: told.sourceAddress };
}

/** Clocks are put back, and entries do not come in the order of their ends. */
function widen(known: { time: Date; from: Date; to: Date; count: number }, time: Date): void {
  known.count += 1;
  if (time > known.to) known.time = known.to = time;
  if (time < known.from) known.from = time;
}

/**
 * INVARIANT: whoever has no certificate of ours chooses no more kinds than there is room for. One that is verified and names
 * another trust domain is bound likewise: how many there are is for others to say.
 */
function foldNames(connection: Connection, fold: (what: string) => string): Connection {
  const { kind, source, sourceSerial, claimedSource, failure, port } = connection;
  if (kind === 'mtls' || kind === 'plaintext') return connection;
  const peer = [source, claimedSource, sourceSerial].filter((part) => part !== '');
  // With all that a stranger chooses: of each name there would else be as many kinds as reasons and ports.
  if (peer.length === 0 || fold([...peer, failure, port].join(' ')) !== '*') return connection;
  return { ...connection, source: '', sourceSerial: '', claimedSource: '*' };
}

function keyOfCall(call: Call, { caller }: Reporter): string {
  const { protocol, method, port, sourceSerial, outcome, flags, status, rule } = call;
  const parts = [protocol, method, port, sourceSerial, outcome, flags, classOf(status), keyOf(caller), rule];
  return parts.join(' ');
}

function keyOf({ pid, uid, gid }: Caller): string {
  return `${pid} ${uid} ${gid}`;
}

function classOf(status: number): string {
  return status >= 100 && status < 1_000 ? `${Math.floor(status / 100)}xx` : '';
}

/** Counts losses of each cause, and tells of them once a second at most. */
function createLossTally(clock: Clock, tell: (event: LossEvent) => void) {
  const window = createWindow<Counted<LossEvent>>({ windowMs: leastWindowMs, clock, tell });
  return {
    flush: window.flush,
    add: (count: number, cause: AccessLoss): void => {
      const time = clock.now();
      const first = (): Counted<LossEvent> => ({
        type: 'loss',
        time,
        what: 'access_log',
        count,
        from: time,
        to: time,
        cause,
      });
      window.count('', cause, first, (known) => {
        known.count += count - 1;
        widen(known, time);
      });
    },
  };
}

const recordsAtOnce = 5_000;
const recordsPerSecond = 500;
const leastWindowMs = 1_000;
// Of what proxies count there is a record of each once in so many windows.
const windowsOfTally = 6;
const singles: ReadonlySet<string> = new Set(['outcome', 'proxy_verdict', 'proxy_coverage']);
const maxSum = Number.MAX_SAFE_INTEGER;
