import type { AuthzRequest } from './decision.ts';
import { Facts } from './facts.ts';
import { splitGlass } from './glass.ts';
import { type CompiledRule, ruleHolds } from './match.ts';
import type { RuleFinder } from './rule-index.ts';
import type { Snapshot } from './snapshot.ts';
import { rulesInStep, type Steps } from './steps.ts';

/** Whether `decide` allows a call, and nothing of why: for those who ask about thousands of calls to one destination. */
export function allows(snapshot: Snapshot, request: AuthzRequest, now: Date): boolean {
  if (request.source === null) return false;
  const applied = snapshot.appliedTo(request.destination);
  if (!applied.isGoverned) return false;
  const facts = new Facts(request, snapshot.trustDomain, now);
  const has = (finder: RuleFinder): boolean => finder.find(facts, undefined) !== undefined;
  if (!snapshot.providersAnswer && has(applied.custom)) return false;
  if (has(applied.deny)) return false;
  const { glass } = applied;
  if (glass === null) return has(applied.allow);
  return has(glass.grants) || (!has(glass.liftable) && has(applied.allow));
}

/**
 * As {@link allows}, rule by rule, and nothing is kept of it: whoever asks about all destinations must not fill the memory
 * with indexes of them. `work` is how many rules there were to look at, at least 1.
 */
export function* allowsUnkept(
  snapshot: Snapshot,
  request: AuthzRequest,
  now: Date,
): Steps<{ readonly allowed: boolean; readonly work: number }> {
  const applied = yield* snapshot.rulesFor(request.destination);
  const { allowRules, denyRules, isGoverned } = applied;
  const customRules = snapshot.providersAnswer ? [] : applied.customRules;
  const work = 1 + allowRules.length + denyRules.length + customRules.length;
  if (request.source === null || !isGoverned) return { allowed: false, work };
  const facts = new Facts(request, snapshot.trustDomain, now);
  const { grants, allow, liftable, deny } = splitGlass(allowRules, denyRules);
  const isBarred = (yield* anyHolds(customRules, facts)) || (yield* anyHolds(deny, facts));
  if (isBarred) return { allowed: false, work };
  if (yield* anyHolds(grants, facts)) return { allowed: true, work };
  return { allowed: !(yield* anyHolds(liftable, facts)) && (yield* anyHolds(allow, facts)), work };
}

function* anyHolds(rules: readonly CompiledRule[], facts: Facts): Steps<boolean> {
  for (const [i, rule] of rules.entries()) {
    if (i % (rulesInStep * 8) === 0) yield;
    if (ruleHolds(rule, facts)) return true;
  }
  return false;
}
