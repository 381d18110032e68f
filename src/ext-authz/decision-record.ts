import type { DecisionEvent } from '../audit/event.ts';
import type { AuthzRequest, Decision, RolloutVerdict } from '../authz/decision.ts';
import type { UnixPeer } from '../identity/evidence.ts';
import type { AllowedCall } from './call-counter.ts';
import type { CandidateCall } from './candidate-counter.ts';
import type { Check } from './request.ts';

/** What was decided about a check, and about whom. */
export type Judged = {
  readonly decision: Decision;
  /** Undefined when the connection could not be named. */
  readonly peer: UnixPeer | undefined;
  readonly destination: string;
  readonly request: AuthzRequest | undefined;
};

/** The record of one decision. */
export function decisionEvent(judged: Judged, check: Check, decisionId: string, time: Date): DecisionEvent {
  const { decision, request, peer } = judged;
  return {
    type: 'decision',
    time,
    decisionId,
    verdict: decision.verdict,
    reason: decision.reason,
    rule: cut(decision.rule, 512),
    why: cut(decision.why, 512),
    revision: decision.revision,
    source: check.source?.text ?? '',
    destination: cut(judged.destination, 2_048),
    protocol: check.protocol,
    method: cut(request?.method ?? check.method, 64),
    host: cut(request?.host ?? check.authority, 255),
    // A query may hold secrets and decides nothing.
    path: { personal: detach(cut(request?.path ?? check.path.replace(/[?#].*$/s, ''), 2_048)) },
    port: check.port,
    sourceSerial: check.sourceSerial,
    ...contentsOf(check),
    sourceAddress: { personal: cut(check.sourceAddress, 255) },
    ...(decision.breakGlass ? { breakGlass: cut(decision.breakGlass, 1_024) } : {}),
    ...(decision.rollout?.applied === 'candidate' ? { rollout: decision.rollout.id } : {}),
    caller: peer === undefined ? { pid: 0, uid: 0, gid: 0 } : { pid: peer.pid, uid: peer.uid, gid: peer.gid },
  };
}

/** An allowed call as it is counted with others. */
export function allowedCall(
  { decision, request, peer, destination }: Judged & { request: AuthzRequest; peer: UnixPeer },
  check: Check,
  pathPattern: string,
  time: Date,
): AllowedCall {
  return {
    time,
    reason: decision.reason,
    rule: cut(decision.rule, 512),
    revision: decision.revision,
    source: check.source?.text ?? '',
    destination: cut(destination, 2_048),
    protocol: check.protocol,
    method: cut(request.method, 64),
    pathPattern: cut(pathPattern, 2_048),
    port: check.port,
    sourceSerial: check.sourceSerial,
    ...contentsOf(check),
    caller: { pid: peer.pid, uid: peer.uid, gid: peer.gid },
  };
}

function contentsOf({ sourceTbsSha256 }: Check): Pick<DecisionEvent, 'sourceTbsSha256'> {
  return sourceTbsSha256 === '' ? {} : { sourceTbsSha256 };
}

/** What a candidate said of a call, as it is counted. Of a call that both agree on nobody but the destination is told. */
export function candidateCall(
  both: RolloutVerdict,
  { decision, request, peer, destination }: Judged & { request: AuthzRequest; peer: UnixPeer },
  check: Check,
  pathPattern: string,
  time: Date,
): CandidateCall {
  const { id: rollout, applied, active, candidate } = both;
  const caller = { pid: peer.pid, uid: peer.uid, gid: peer.gid };
  const common = {
    time,
    rollout,
    applied,
    revision: decision.revision,
    destination: cut(destination, 2_048),
    caller,
  };
  if (active.verdict === candidate.verdict) return { ...common, ...alike };
  return {
    ...common,
    change: candidate.verdict === 'deny' ? 'newly_denied' : 'newly_allowed',
    reason: active.reason,
    rule: cut(active.rule, 512),
    candidateReason: candidate.reason,
    candidateRule: cut(candidate.rule, 512),
    source: check.source?.text ?? '',
    protocol: check.protocol,
    method: cut(request.method, 64),
    pathPattern: cut(pathPattern, 2_048),
    port: check.port,
  };
}

const alike = {
  change: 'same',
  reason: '',
  rule: '',
  candidateReason: '',
  candidateRule: '',
  source: '',
  protocol: '',
  method: '',
  pathPattern: '',
  port: 0,
} as const;

/** At most `max` characters, never half of one. */
function cut(text: string, max: number): string {
  return (text.length > max ? `${text.slice(0, max - 1)}…` : text).toWellFormed();
}

/** A copy of its own: V8 keeps all 64 KiB of a path with its query for a slice, and the queue holds thousands of them. */
function detach(text: string): string {
  return Buffer.from(text, 'utf8').toString('utf8');
}
