import {
  type ConnectionsEvent,
  handshakeFailures,
  type OutcomeEvent,
  type OutcomesEvent,
  type SeenCall,
} from '../audit/access-event.ts';
import { isRuleName } from '../audit/closed-texts.ts';
import { isDecisionId } from '../audit/columns.ts';
import type { AuditEvent, Caller } from '../audit/event.ts';
import { MeshError } from '../errors.ts';
import type {
  Caller as WireCaller,
  CallSeen,
  Connections,
  EventBatch,
  Outcome,
  Outcomes,
} from '../wire/node.ts';
import { readProxyCalls, writeProxyCalls } from './proxy-shipment.ts';
import { checkSource, dateOf, integerOf, required } from './wire-values.ts';

/** What proxies of a node saw, as it travels. */
export type SeenOnWire = Pick<
  EventBatch,
  'outcomes' | 'outcomeCounts' | 'connections' | 'proxyVerdicts' | 'proxyCoverage'
>;

/** Whoever ships it: whose workloads the node may speak of, and how it tells of a process. */
export type SeenBy = {
  readonly isOwn: (spiffeId: string) => boolean;
  readonly callerOf: (caller: WireCaller | undefined) => Caller;
};

/**
 * Reads what proxies of a node saw.
 * @throws MeshError `message_invalid`; `identity_none` for what is about a workload that is not one of the node
 */
export function readSeen(by: SeenBy, batch: SeenOnWire): readonly AuditEvent[] {
  return [
    ...batch.outcomes.map((outcome) => outcomeFrom(by, outcome)),
    ...batch.outcomeCounts.map((outcomes) => outcomesFrom(by, outcomes)),
    ...batch.connections.map((connections) => connectionsFrom(by, connections)),
    ...readProxyCalls(by, batch),
  ];
}

/** Writes an event of those that {@link readSeen} reads. @returns whether it is one */
export function writeSeen(
  event: AuditEvent,
  toWire: (caller: Caller) => WireCaller,
  batch: SeenOnWire,
): boolean {
  if (event.type === 'outcome') batch.outcomes.push(outcomeToWire(event, toWire));
  else if (event.type === 'outcomes') batch.outcomeCounts.push(outcomesToWire(event, toWire));
  else if (event.type === 'connections') batch.connections.push(connectionsToWire(event, toWire));
  else return writeProxyCalls(event, toWire, batch);
  return true;
}

function outcomeFrom(by: SeenBy, outcome: Outcome): OutcomeEvent {
  const { decisionId, details, upstream } = outcome;
  if (decisionId !== '' && !isDecisionId(decisionId)) throw invalid('of an impossible decision');
  return {
    type: 'outcome',
    ...callFrom(by, outcome.call),
    time: dateOf(outcome.timeMs),
    decisionId,
    status: integerOf(outcome.status, 'a status'),
    details,
    upstream,
    durationMs: integerOf(outcome.durationMs, 'a duration'),
    bytesReceived: integerOf(outcome.bytesReceived, 'a number of bytes'),
    bytesSent: integerOf(outcome.bytesSent, 'a number of bytes'),
  };
}

function outcomesFrom(by: SeenBy, outcomes: Outcomes): OutcomesEvent {
  const { statusClass } = outcomes;
  if (!/^(?:[1-9]xx)?$/.test(statusClass)) throw invalid('with an impossible status');
  return {
    type: 'outcomes',
    ...callFrom(by, outcomes.call),
    ...windowFrom(outcomes),
    statusClass,
    longestMs: integerOf(outcomes.longestMs, 'a duration'),
    bytesReceived: integerOf(outcomes.bytesReceived, 'a number of bytes'),
    bytesSent: integerOf(outcomes.bytesSent, 'a number of bytes'),
  };
}

/** INVARIANT: what callers can choose is of closed lists, as it is where a proxy tells it. */
function callFrom({ isOwn, callerOf }: SeenBy, call: CallSeen | undefined): SeenCall {
  const { port, caller, ...texts } = required(call, 'call');
  const { source, destination, protocol, method, sourceSerial, flags, rule } = texts;
  const outcome = outcomes.find((known) => known === texts.outcome);
  if (outcome === undefined) throw invalid('with no outcome that there is');
  if (!isOwn(destination)) throw foreign();
  if (protocol !== 'http' && protocol !== 'tcp') throw invalid('over no protocol that there is');
  if (!/^[A-Z]{0,16}$/.test(method)) throw invalid('with an impossible method');
  if (!/^(?:[A-Z0-9]{1,8}(?:,|$)){0,32}$/.test(flags)) throw invalid('with impossible flags');
  if (rule !== '' && !isRuleName(rule)) throw invalid('of a rule with an impossible name');
  checkSource(source);
  checkSerial(sourceSerial);
  return { ...texts, outcome, port: integerOf(port, 'a port'), caller: callerOf(caller) };
}

function connectionsFrom({ isOwn, callerOf }: SeenBy, connections: Connections): ConnectionsEvent {
  const { source, sourceSerial, claimedSource, claimedSerial, destination } = connections;
  const kind = kinds.find((known) => known === connections.kind);
  if (kind === undefined) throw invalid('of no kind that there is');
  if (!isOwn(destination)) throw foreign();
  const failure = [...handshakeFailures, '' as const].find((known) => known === connections.failure);
  if (failure === undefined) throw invalid('that failed for no reason that there is');
  // INVARIANT: a claim is never told as an identity.
  const isProven = kind === 'mtls' || kind === 'foreign';
  if (!isProven && source + sourceSerial !== '') throw invalid('whose claim is told as an identity');
  checkSource(source);
  checkSerial(sourceSerial);
  checkSerial(claimedSerial);
  return {
    type: 'connections',
    ...windowFrom(connections),
    kind,
    source,
    sourceSerial,
    claimedSource,
    claimedSerial,
    failure,
    destination,
    port: integerOf(connections.port, 'a port'),
    sourceAddress: { personal: connections.sourceAddress },
    caller: callerOf(connections.caller),
  };
}

function windowFrom({ fromMs, toMs, count: n }: Pick<Outcomes, 'fromMs' | 'toMs' | 'count'>) {
  const count = integerOf(n, 'a count');
  if (count === 0 || fromMs > toMs) throw invalid('that never happened');
  const to = dateOf(toMs);
  return { time: to, from: dateOf(fromMs), to, count };
}

function outcomeToWire(event: OutcomeEvent, toWire: (caller: Caller) => WireCaller): Outcome {
  const { decisionId, details, upstream } = event;
  return {
    call: callToWire(event, toWire),
    timeMs: BigInt(event.time.getTime()),
    decisionId,
    status: BigInt(event.status),
    details,
    upstream,
    durationMs: BigInt(event.durationMs),
    bytesReceived: BigInt(event.bytesReceived),
    bytesSent: BigInt(event.bytesSent),
  };
}

function outcomesToWire(event: OutcomesEvent, toWire: (caller: Caller) => WireCaller): Outcomes {
  return {
    call: callToWire(event, toWire),
    ...windowToWire(event),
    statusClass: event.statusClass,
    longestMs: BigInt(event.longestMs),
    bytesReceived: BigInt(event.bytesReceived),
    bytesSent: BigInt(event.bytesSent),
  };
}

function callToWire(event: SeenCall, toWire: (caller: Caller) => WireCaller): CallSeen {
  const { source, destination, protocol, method, sourceSerial, outcome, flags, rule } = event;
  const texts = { source, destination, protocol, method, sourceSerial, outcome, flags, rule };
  return { ...texts, port: BigInt(event.port), caller: toWire(event.caller) };
}

function connectionsToWire(event: ConnectionsEvent, toWire: (caller: Caller) => WireCaller): Connections {
  const { kind, source, sourceSerial, claimedSource, claimedSerial, failure, destination } = event;
  return {
    ...windowToWire(event),
    kind,
    source,
    sourceSerial,
    claimedSource,
    claimedSerial,
    failure,
    destination,
    port: BigInt(event.port),
    sourceAddress: event.sourceAddress.personal,
    caller: toWire(event.caller),
  };
}

function windowToWire({
  from,
  to,
  count,
}: {
  readonly from: Date;
  readonly to: Date;
  readonly count: number;
}) {
  return { fromMs: BigInt(from.getTime()), toMs: BigInt(to.getTime()), count: BigInt(count) };
}

function checkSerial(serial: string): void {
  if (!/^[0-9a-f]{0,64}$/.test(serial)) throw invalid('with an impossible serial');
}

function invalid(why: string): MeshError {
  return new MeshError('message_invalid', `the batch of events has something seen ${why}`);
}

function foreign(): MeshError {
  return new MeshError('identity_none', 'something seen is about a workload that is not one of this node');
}

const outcomes: readonly SeenCall['outcome'][] = ['ok', 'denied', 'error'];
const kinds: readonly ConnectionsEvent['kind'][] = ['mtls', 'foreign', 'plaintext', 'tls_failed'];
