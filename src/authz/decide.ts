import type { AuthzRequest, Decision, DecisionReason, ShadowVerdict } from './decision.ts';
import { Facts } from './facts.ts';
import type { CompiledRule } from './match.ts';
import { describeNearest, findNearest } from './nearest.ts';
import type { RuleFinder } from './rule-index.ts';
import type { Applied, Snapshot } from './snapshot.ts';
import { whyUnjudged } from './words.ts';

/**
 * Judges a canonical request. CUSTOM before DENY before ALLOW, but for a break-glass grant, which outweighs liftable
 * DENY rules; what no ALLOW rule matches is denied, and so is a caller
 * without a certificate. Total: it never throws, and a failure of ours is a denial with `engine_failed`.
 * @param now the moment by which policies that hold for a time are judged
 * @param onFailure told the error behind `engine_failed`; what it throws is dropped
 */
export function decide(
  snapshot: Snapshot,
  request: AuthzRequest,
  now: Date,
  onFailure?: (error: unknown) => void,
): Decision {
  try {
    return judge(snapshot, request, now);
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
  reason: Exclude<DecisionReason, 'allow_rule' | 'allow_by_default'>,
  why: string,
  revision: number,
): Decision {
  return draft('deny', reason, '', why, revision, null);
}

function judge(snapshot: Snapshot, request: AuthzRequest, now: Date): Decision {
  const { revision } = snapshot;
  if (request.source === null) {
    return denyDecision('unauthenticated', 'the caller presented no certificate', revision);
  }
  const applied = snapshot.appliedTo(request.destination);
  const facts = new Facts(request, snapshot.trustDomain, now);
  const decision = applied.isGoverned
    ? judgeByRules(snapshot, applied, facts)
    : draft('deny', 'no_policy', '', 'no policy applies to the destination', revision, null);
  const { audit, onTrial } = applied;
  // INVARIANT: what stands beside changes no verdict.
  decision.audited = audit.find(facts, undefined)?.rule.name ?? '';
  if (onTrial !== null) decision.shadow = judgeOnTrial(onTrial, facts);
  return decision;
}

/** In the making: nobody else has it yet. */
type Draft = { -readonly [Name in keyof Decision]: Decision[Name] };

function judgeByRules(snapshot: Snapshot, applied: Applied, facts: Facts): Draft {
  const { revision, providersAnswer } = snapshot;
  const asked = applied.custom.find(facts, undefined);
  const custom = asked?.policy.provider ?? null;
  if (asked !== undefined && !providersAnswer) {
    const why = `${asked.rule.name} leaves the call to ${custom ?? 'a provider'}, which is asked by nobody here`;
    return draft('deny', 'custom_unanswered', asked.rule.name, why, revision, custom);
  }
  const denied = applied.deny.find(facts, undefined);
  if (denied !== undefined) return byRule('deny', denied, whyDenied(denied, facts), revision, custom);
  const { glass } = applied;
  const lifted = glass === null ? undefined : glass.liftable.find(facts, undefined);
  const allowed = lifted === undefined ? applied.allow.find(facts, undefined) : undefined;
  if (allowed !== undefined) {
    return byRule('allow', allowed, `allowed by ${allowed.rule.name}`, revision, custom);
  }
  const broken = glass === null ? undefined : glass.grants.find(facts, undefined);
  if (broken !== undefined) {
    const breakGlass = describeGrant(broken, lifted);
    const why = `allowed by ${broken.rule.name}, a break-glass grant: ${breakGlass}`;
    const decision = byRule('allow', broken, why, revision, custom);
    decision.breakGlass = breakGlass;
    return decision;
  }
  if (lifted !== undefined) return byRule('deny', lifted, whyDenied(lifted, facts), revision, custom);
  const nearest = findNearest(applied, facts);
  const why = nearest === null ? 'no ALLOW rule applies to the destination' : describeNearest(nearest);
  const decision = draft('deny', 'no_allow_rule', '', why, revision, custom);
  decision.nearest = nearest;
  return decision;
}

function describeGrant({ policy }: CompiledRule, lifted: CompiledRule | undefined): string {
  const { breakGlass, ticket } = policy.terms;
  return `${breakGlass} (${ticket})${lifted === undefined ? '' : `, lifting ${lifted.rule.name}`}`;
}

function judgeOnTrial({ ALLOW, DENY }: NonNullable<Applied['onTrial']>, facts: Facts): ShadowVerdict {
  const matches = (finder: RuleFinder): boolean => finder.find(facts, undefined) !== undefined;
  return {
    allow: ALLOW === null ? null : matches(ALLOW) ? 'allowed' : 'denied',
    deny: DENY === null ? null : matches(DENY) ? 'denied' : 'allowed',
  };
}

function byRule(
  verdict: 'allow' | 'deny',
  { rule }: CompiledRule,
  why: string,
  revision: number,
  custom: string | null,
): Draft {
  return draft(verdict, verdict === 'allow' ? 'allow_rule' : 'deny_rule', rule.name, why, revision, custom);
}

/** INVARIANT: the one place where decisions are made, so that all have one shape. */
function draft(
  verdict: Draft['verdict'],
  reason: DecisionReason,
  rule: string,
  why: string,
  revision: number,
  custom: string | null,
): Draft {
  return {
    verdict,
    reason,
    rule,
    why,
    revision,
    nearest: null,
    custom,
    audited: '',
    breakGlass: '',
    shadow: null,
  };
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
