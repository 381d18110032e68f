import type { AuthzRequest, Decision, DecisionReason } from './decision.ts';
import { Facts } from './facts.ts';
import type { CompiledRule } from './match.ts';
import { findNearest } from './nearest.ts';
import type { Snapshot } from './snapshot.ts';
import { whyUnjudged } from './words.ts';

/**
 * Judges a canonical request. DENY before ALLOW; what no ALLOW rule matches is denied, and so is a caller without a
 * certificate. Total: it never throws, and a failure of ours is a denial with `engine_failed`.
 * @param onFailure told the error behind `engine_failed`; what it throws is dropped
 */
export function decide(
  snapshot: Snapshot,
  request: AuthzRequest,
  onFailure?: (error: unknown) => void,
): Decision {
  try {
    return judge(snapshot, request);
  } catch (error) {
    try {
      onFailure?.(error);
    } catch {
      // The denial below stands whatever becomes of the report.
    }
    return denyDecision('engine_failed', 'the policy engine failed', readRevision(snapshot));
  }
}

/** A denial made at a door, before or instead of a policy's. */
export function denyDecision(
  reason: Exclude<DecisionReason, 'allow_rule'>,
  why: string,
  revision: number,
): Decision {
  return { verdict: 'deny', reason, rule: '', why, revision, nearest: null };
}

function judge(snapshot: Snapshot, request: AuthzRequest): Decision {
  const { revision } = snapshot;
  if (request.source === null) {
    return denyDecision('unauthenticated', 'the caller presented no certificate', revision);
  }
  const applied = snapshot.appliedTo(request.destination);
  if (applied.policies.length === 0) {
    return denyDecision('no_policy', 'no policy applies to the destination', revision);
  }
  const facts = new Facts(request, snapshot.trustDomain);
  const denied = applied.deny.find(facts, undefined);
  if (denied !== undefined) return byRule('deny', denied, whyDenied(denied, facts), revision);
  const allowed = applied.allow.find(facts, undefined);
  if (allowed !== undefined) return byRule('allow', allowed, `allowed by ${allowed.rule.name}`, revision);
  const nearest = findNearest(applied, facts);
  const why =
    nearest === null
      ? 'no ALLOW rule applies to the destination'
      : `no ALLOW rule matched; the nearest is ${nearest.rule}, where ${nearest.missed}`;
  return { verdict: 'deny', reason: 'no_allow_rule', rule: '', why, revision, nearest };
}

function byRule(verdict: 'allow' | 'deny', { rule }: CompiledRule, why: string, revision: number): Decision {
  return { verdict, reason: `${verdict}_rule`, rule: rule.name, why, revision, nearest: null };
}

function whyDenied(compiled: CompiledRule, facts: Facts): string {
  const unjudged = whyUnjudged(compiled, facts);
  const name = compiled.rule.name;
  return unjudged === undefined
    ? `denied by ${name}`
    : `denied by ${name}, which cannot be ruled out: ${unjudged}`;
}

function readRevision(snapshot: Snapshot): number {
  try {
    return snapshot.revision;
  } catch {
    return 0;
  }
}
