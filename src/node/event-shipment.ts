import { claimReasons } from '../audit/claim.ts';
import { isRuleName, lossCause, otherWord } from '../audit/closed-texts.ts';
import type {
  AllowedCallsEvent,
  AuditEvent,
  DecisionEvent,
  LossEvent,
  RefusalEvent,
} from '../audit/event.ts';
import { decisionReasons } from '../authz/decision.ts';
import { errorKinds, MeshError } from '../errors.ts';
import { parseSelector } from '../identity/selector.ts';
import type { AllowedCalls, Caller, Decision, EventBatch, Loss, Refusal } from '../wire/node.ts';
import { readSeen, writeSeen } from './access-shipment.ts';
import { candidateCallsOf, candidateCallsToWire } from './candidate-shipment.ts';
import { checkSource, dateOf, integerOf, required } from './wire-values.ts';

/** A batch of events of one agent: numbered, so that one that is sent twice is kept once. */
export type Shipment = {
  readonly node: string;
  /** 32 lower-case hex digits, chosen by each start of an agent. */
  readonly epoch: string;
  readonly sequence: number;
  readonly events: readonly AuditEvent[];
};

/**
 * Stores the events, unless the node has shipped this batch or a later one of the epoch before.
 * @returns whether they were stored
 */
export type StoreShipment = (shipment: Shipment) => Promise<boolean>;

/** Who ships, and what it may speak of. */
export type Shipper = {
  readonly node: string;
  /** Whether a SPIFFE ID is that of an entry of the node. */
  readonly isOwn: (spiffeId: string) => boolean;
  readonly now: Date;
};

/** The most events in one batch, losses aside: encoding them holds up everybody else meanwhile. */
export const maxShippedEvents = 250;
const maxShippedLosses = 16;

/**
 * Reads a batch. What a node says of its own callers is taken down as what it says: the name of the node goes with it.
 * @throws MeshError `message_invalid`, `message_too_large`, and `identity_none` for a decision about a workload that is
 *   not one of the node; then nothing of the batch counts
 */
export function readShipment(shipper: Shipper, batch: EventBatch): Shipment {
  if (!/^[0-9a-f]{32}$/.test(batch.epoch)) throw invalid('has no epoch');
  const sequence = integerOf(batch.sequence, 'a sequence');
  if (sequence === 0) throw invalid('has the sequence 0');
  const { decisions, allowedCalls, outcomes, outcomeCounts, connections, refusals, losses } = batch;
  const { candidateCalls } = batch;
  const { proxyVerdicts, proxyCoverage } = batch;
  if (
    [
      ...[decisions, allowedCalls, candidateCalls, outcomes, outcomeCounts, connections, refusals],
      ...[proxyVerdicts, proxyCoverage],
    ].reduce(sumLengths, 0) > maxShippedEvents ||
    losses.length > maxShippedLosses
  ) {
    throw new MeshError(
      'message_too_large',
      `a batch has at most ${maxShippedEvents} events and ${maxShippedLosses} losses`,
    );
  }
  const by = {
    isOwn: shipper.isOwn,
    judgementOf,
    callerOf: (caller?: Caller) => callerOf(shipper.node, caller),
  };
  const events = [
    ...losses.map((loss) => lossOf(shipper, loss)),
    ...decisions.map((decision) => decisionOf(shipper, decision)),
    ...allowedCalls.map((calls) => allowedCallsOf(shipper, calls)),
    ...candidateCalls.map((calls) => candidateCallsOf(by, calls)),
    ...readSeen(by, batch),
    ...refusals.map((refusal) => refusalOf(shipper.node, refusal)),
  ];
  // A clock that is a little ahead is no lie; a record of next year would head every list until then.
  const latest = new Date(shipper.now.getTime() + aheadMs);
  if (events.some(({ time }) => time > latest)) throw invalid('has an event of the future');
  return { node: shipper.node, epoch: batch.epoch, sequence, events };
}

/** Writes a batch. @param events decisions, counts of calls, what proxies saw, refusals and losses; others are left out */
export function writeShipment({ epoch, sequence, events }: Omit<Shipment, 'node'>): EventBatch {
  const batch: EventBatch = {
    epoch,
    sequence: BigInt(sequence),
    decisions: [],
    allowedCalls: [],
    candidateCalls: [],
    outcomes: [],
    outcomeCounts: [],
    connections: [],
    proxyVerdicts: [],
    proxyCoverage: [],
    losses: [],
    refusals: [],
  };
  for (const event of events) {
    if (event.type === 'decision') batch.decisions.push(decisionToWire(event));
    else if (event.type === 'allowed_calls') batch.allowedCalls.push(allowedCallsToWire(event));
    else if (event.type === 'candidate_calls')
      batch.candidateCalls.push(candidateCallsToWire(event, callerToWire));
    else if (event.type === 'refusal') batch.refusals.push(refusalToWire(event));
    else if (event.type === 'loss') {
      const { count, from, to, cause, what } = event;
      const [fromMs, toMs] = [BigInt(from.getTime()), BigInt(to.getTime())];
      batch.losses.push({ count: BigInt(count), fromMs, toMs, cause, what });
    } else writeSeen(event, callerToWire, batch);
  }
  return batch;
}

/** What a node says of the process that asked. @throws MeshError `message_invalid` */
export function callerOf(node: string, caller: Caller | undefined): DecisionEvent['caller'] {
  const { pid, uid, gid, certificate } = required(caller, 'caller');
  if (!/^[0-9a-f]{0,64}$/.test(certificate)) throw invalid('has a caller with an impossible certificate');
  return {
    pid: integerOf(pid, 'a pid'),
    uid: integerOf(uid, 'a uid'),
    gid: integerOf(gid, 'a gid'),
    node,
    ...(certificate === '' ? {} : { certificate }),
  };
}

/** A caller as it travels; the node is told by the connection. */
export function callerToWire({ pid, uid, gid, certificate = '' }: DecisionEvent['caller']): Caller {
  return { pid: BigInt(pid), uid: BigInt(uid), gid: BigInt(gid), certificate };
}

/** Times of the future are told as now: that something was lost is on record even when a clock was wrong. */
function lossOf({ node, now }: Shipper, { count, fromMs, toMs, cause, what }: Loss): LossEvent {
  const [from, to] = [fromMs, toMs].map((ms) => (dateOf(ms) > now ? now : dateOf(ms))) as [Date, Date];
  const known = losable.find((one) => one === (what || 'decision'));
  if (known === undefined) throw invalid('has a loss of nothing we know');
  return {
    type: 'loss',
    time: to,
    what: known,
    count: integerOf(count, 'a count'),
    from,
    to,
    cause: `node ${node}: ${lossCause(cause)}`,
  };
}

function decisionOf({ node, isOwn }: Shipper, decision: Decision): DecisionEvent {
  const { timeMs, verdict, revision, path, port, sourceAddress, caller, breakGlass, ...rest } = decision;
  const { sourceTbsSha256, rollout, ...texts } = rest;
  if (!/^([0-9a-f]{32})?$/.test(rollout)) throw invalid('has a decision of no rollout');
  if (verdict !== 'allow' && verdict !== 'deny') throw invalid('has a decision that is neither');
  // INVARIANT: a node speaks for its own workloads alone. What a stranger claimed to be is told as what it claimed.
  const isClaim = verdict === 'deny' && claimReasons.has(decision.reason);
  if (!isClaim && !isOwn(decision.destination)) throw foreign();
  return {
    ...texts,
    ...judgementOf(decision),
    ...contentsOf(sourceTbsSha256),
    type: 'decision',
    time: dateOf(timeMs),
    verdict,
    revision: integerOf(revision, 'a revision'),
    path: { personal: path },
    port: integerOf(port, 'a port'),
    sourceAddress: { personal: sourceAddress },
    caller: callerOf(node, caller),
    ...(breakGlass === '' ? {} : { breakGlass }),
    ...(rollout === '' ? {} : { rollout }),
  };
}

/** INVARIANT: counts of calls are kept for ever by these, so a node has no words of its own for them. */
function judgementOf({
  reason,
  rule,
  source,
  protocol,
}: Pick<Decision, 'reason' | 'rule' | 'source' | 'protocol'>) {
  if (rule !== '' && !isRuleName(rule)) throw invalid('has a rule with an impossible name');
  if (protocol !== 'http' && protocol !== 'tcp') throw invalid('has a call over no protocol that there is');
  checkSource(source);
  return { reason: reasons.has(reason) ? reason : otherWord, rule, source, protocol };
}

/** What was signed of a certificate, if the proxy told; a node of an earlier release never does. */
function contentsOf(sourceTbsSha256: string): Pick<DecisionEvent, 'sourceTbsSha256'> {
  if (sourceTbsSha256 === '') return {};
  if (!/^[0-9a-f]{64}$/.test(sourceTbsSha256)) throw invalid('has an impossible certificate');
  return { sourceTbsSha256 };
}

function decisionToWire({
  time,
  caller,
  breakGlass = '',
  sourceTbsSha256 = '',
  rollout = '',
  ...event
}: DecisionEvent): Decision {
  return {
    ...event,
    sourceTbsSha256,
    breakGlass: breakGlass.toWellFormed(),
    rollout,
    timeMs: BigInt(time.getTime()),
    revision: BigInt(event.revision),
    path: event.path.personal.toWellFormed(),
    port: BigInt(event.port),
    sourceAddress: event.sourceAddress.personal.toWellFormed(),
    caller: callerToWire(caller),
  };
}

function allowedCallsOf({ node, isOwn }: Shipper, calls: AllowedCalls): AllowedCallsEvent {
  const { fromMs, toMs, revision, port, caller, sourceTbsSha256, ...texts } = calls;
  // INVARIANT: nobody whose identity is not known is ever allowed to let a call pass.
  if (!isOwn(calls.destination)) throw foreign();
  const count = integerOf(calls.count, 'a count');
  if (count === 0 || fromMs > toMs) throw invalid('has calls that never happened');
  const to = dateOf(toMs);
  return {
    ...texts,
    ...judgementOf(calls),
    ...contentsOf(sourceTbsSha256),
    type: 'allowed_calls',
    time: to,
    from: dateOf(fromMs),
    to,
    count,
    revision: integerOf(revision, 'a revision'),
    port: integerOf(port, 'a port'),
    caller: callerOf(node, caller),
  };
}

function allowedCallsToWire({
  from,
  to,
  caller,
  sourceTbsSha256 = '',
  ...event
}: AllowedCallsEvent): AllowedCalls {
  return {
    ...event,
    sourceTbsSha256,
    fromMs: BigInt(from.getTime()),
    toMs: BigInt(to.getTime()),
    count: BigInt(event.count),
    revision: BigInt(event.revision),
    port: BigInt(event.port),
    caller: callerToWire(caller),
  };
}

function foreign(): MeshError {
  return new MeshError('identity_none', 'a decision is about a workload that is not one of this node');
}

function refusalOf(node: string, refusal: Refusal): RefusalEvent {
  const { timeMs, code, message, resource, selectors, caller } = refusal;
  const door = doors.find((known) => known === refusal.door);
  if (door === undefined) throw invalid('has a refusal of no door');
  if (!Object.hasOwn(errorKinds, code)) throw invalid('has a refusal of a code that there is not');
  const count = integerOf(refusal.count, 'a count');
  if (count === 0) throw invalid('has a refusal that never happened');
  if (selectors.length > maxSelectors) {
    throw new MeshError('message_too_large', `a caller has at most ${maxSelectors} selectors`);
  }
  return {
    type: 'refusal',
    time: dateOf(timeMs),
    door,
    code,
    message,
    resource,
    selectors: selectors.map(selectorOf),
    caller: callerOf(node, caller),
    count,
  };
}

function refusalToWire({ time, caller, count, ...event }: RefusalEvent): Refusal {
  return {
    ...event,
    message: event.message.toWellFormed(),
    resource: event.resource.toWellFormed(),
    selectors: event.selectors.slice(0, maxSelectors),
    timeMs: BigInt(time.getTime()),
    caller: callerToWire(caller),
    count: BigInt(count),
  };
}

function selectorOf(text: string): string {
  try {
    return parseSelector(text).text;
  } catch {
    throw invalid('has a refusal of a caller with a selector that is none');
  }
}

function sumLengths(sum: number, { length }: readonly unknown[]): number {
  return sum + length;
}

function invalid(why: string): MeshError {
  return new MeshError('message_invalid', `the batch of events ${why}`);
}

const reasons: ReadonlySet<string> = new Set(decisionReasons);
const doors: readonly RefusalEvent['door'][] = ['sds', 'ext_authz', 'access_log', 'issue', 'workload_api'];
const losable: readonly LossEvent['what'][] = ['decision', 'refusal', 'access_log'];
const maxSelectors = 256;
const aheadMs = 86_400_000;
