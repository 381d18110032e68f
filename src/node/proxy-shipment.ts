import { isRuleName, otherWord } from '../audit/closed-texts.ts';
import type { AuditEvent, Caller } from '../audit/event.ts';
import type {
  ProxyCoverageEvent,
  ProxyJudged,
  ProxyVerdictEvent,
  ProxyVerdictsEvent,
} from '../audit/proxy-event.ts';
import { decisionReasons } from '../authz/decision.ts';
import { MeshError } from '../errors.ts';
import type {
  Caller as WireCaller,
  EventBatch,
  ProxyCoverage as WireCoverage,
  ProxyVerdict as WireVerdict,
} from '../wire/node.ts';
import type { SeenBy } from './access-shipment.ts';
import { checkSource, dateOf, integerOf } from './wire-values.ts';

/** What proxies of a node decided by themselves, as it travels. */
export type ProxyCallsOnWire = Pick<EventBatch, 'proxyVerdicts' | 'proxyCoverage'>;

/**
 * Reads what proxies of a node decided by themselves.
 * @throws MeshError `message_invalid`; `identity_none` for what is about a workload that is not one of the node
 */
export function readProxyCalls(by: SeenBy, batch: ProxyCallsOnWire): readonly AuditEvent[] {
  return [
    ...batch.proxyVerdicts.map((verdict) => verdictFrom(by, verdict)),
    ...batch.proxyCoverage.map((coverage) => coverageFrom(by, coverage)),
  ];
}

/** Writes an event of those that {@link readProxyCalls} reads. @returns whether it is one */
export function writeProxyCalls(
  event: AuditEvent,
  toWire: (caller: Caller) => WireCaller,
  batch: ProxyCallsOnWire,
): boolean {
  if (event.type === 'proxy_coverage') batch.proxyCoverage.push(coverageToWire(event, toWire));
  else if (event.type === 'proxy_verdict' || event.type === 'proxy_verdicts') {
    batch.proxyVerdicts.push(verdictToWire(event, toWire));
  } else return false;
  return true;
}

function verdictFrom(by: SeenBy, verdict: WireVerdict): ProxyVerdictEvent | ProxyVerdictsEvent {
  const judged = judgedFrom(by, verdict);
  const { host, path, sourceAddress, pathPattern } = verdict;
  const [from, to] = [dateOf(verdict.fromMs), dateOf(verdict.toMs)];
  const count = integerOf(verdict.count, 'a count');
  if (from > to) throw invalid('that never happened');
  if (count === 0) {
    if (pathPattern !== '') throw invalid('that is one and several');
    const personal = { path: { personal: path }, sourceAddress: { personal: sourceAddress } };
    return { type: 'proxy_verdict', time: to, ...judged, host, ...personal };
  }
  if (host + path + sourceAddress !== '') throw invalid('that is one and several');
  return { type: 'proxy_verdicts', time: to, from, to, count, ...judged, pathPattern };
}

/** INVARIANT: what counts are kept by is of closed lists, or of a form that has a bound, as it is where a proxy tells it. */
function judgedFrom({ isOwn, callerOf }: SeenBy, told: WireVerdict): ProxyJudged {
  const { reason, rule, leaf, source, destination, protocol, method, sourceSerial } = told;
  const verdict = verdicts.find((known) => known === told.verdict);
  if (verdict === undefined) throw invalid('with no verdict that there is');
  if (!isOwn(destination)) throw foreign();
  if (rule !== '' && !isRuleName(rule)) throw invalid('by an impossible rule');
  if (!leafForm.test(leaf)) throw invalid('by an impossible leaf');
  if (protocol !== 'http' && protocol !== 'tcp') throw invalid('over no protocol that there is');
  if (!/^[A-Z]{0,16}$/.test(method)) throw invalid('with an impossible method');
  if (!/^[0-9a-f]{0,64}$/.test(sourceSerial)) throw invalid('with an impossible serial');
  checkSource(source);
  const numbers = { revision: integerOf(told.revision, 'a revision'), port: integerOf(told.port, 'a port') };
  // Of a newer agent, whose reasons are not known here.
  const known = reasons.has(reason) ? reason : otherWord;
  const texts = { verdict, reason: known, rule, leaf, source, destination, protocol, method, sourceSerial };
  return { ...texts, ...numbers, caller: callerOf(told.caller) };
}

function coverageFrom({ isOwn, callerOf }: SeenBy, told: WireCoverage): ProxyCoverageEvent {
  const { destination } = told;
  if (!isOwn(destination)) throw foreign();
  const [from, to, started] = [dateOf(told.fromMs), dateOf(told.toMs), dateOf(told.startedMs)];
  const count = integerOf(told.count, 'a count');
  const missing = integerOf(told.missing, 'a count');
  const counted = integerOf(told.counted, 'a count');
  const dropped = integerOf(told.dropped, 'a count');
  if (count + missing === 0 || Math.max(count, missing) > counted || from > to || started > from) {
    throw invalid('that was counted as nobody can count');
  }
  const caller = callerOf(told.caller);
  const type = 'proxy_coverage';
  return { type, time: to, from, to, count, missing, destination, started, counted, dropped, caller };
}

function verdictToWire(
  event: ProxyVerdictEvent | ProxyVerdictsEvent,
  toWire: (caller: Caller) => WireCaller,
): WireVerdict {
  const { verdict, reason, rule, leaf, source, destination, protocol, method, sourceSerial } = event;
  const isOne = event.type === 'proxy_verdict';
  const [from, to] = isOne ? [event.time, event.time] : [event.from, event.to];
  return {
    fromMs: BigInt(from.getTime()),
    toMs: BigInt(to.getTime()),
    count: BigInt(isOne ? 0 : event.count),
    ...{ verdict, reason, rule, leaf, source, destination, protocol, method, sourceSerial },
    revision: BigInt(event.revision),
    port: BigInt(event.port),
    caller: toWire(event.caller),
    pathPattern: isOne ? '' : event.pathPattern,
    host: isOne ? event.host.toWellFormed() : '',
    path: isOne ? event.path.personal.toWellFormed() : '',
    sourceAddress: isOne ? event.sourceAddress.personal : '',
  };
}

function coverageToWire(event: ProxyCoverageEvent, toWire: (caller: Caller) => WireCaller): WireCoverage {
  const { from, to, started, count, missing, counted, dropped, destination, caller } = event;
  return {
    fromMs: BigInt(from.getTime()),
    toMs: BigInt(to.getTime()),
    startedMs: BigInt(started.getTime()),
    count: BigInt(count),
    missing: BigInt(missing),
    counted: BigInt(counted),
    dropped: BigInt(dropped),
    destination,
    caller: toWire(caller),
  };
}

function invalid(why: string): MeshError {
  return new MeshError('message_invalid', `the batch of events has a call that a proxy judged ${why}`);
}

function foreign(): MeshError {
  return new MeshError(
    'identity_none',
    'a call that a proxy judged is about a workload that is not one of this node',
  );
}

const verdicts: readonly ProxyJudged['verdict'][] = ['allow', 'deny'];
const reasons: ReadonlySet<string> = new Set(decisionReasons);
const leafForm = /^(?:\*|(?:allow|deny):[^\s\p{C}]{1,256})$/u;
