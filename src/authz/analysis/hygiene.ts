import { formatPlace } from '../../errors.ts';
import { SpiffeId } from '../../spiffe/id.ts';
import { Facts } from '../facts.ts';
import { isGrant, isLiftable } from '../glass.ts';
import { compileRule, ruleHolds } from '../match.ts';
import type { Policy } from '../policy.ts';
import type { Snapshot } from '../snapshot.ts';
import type { Steps } from '../steps.ts';
import { type BoxedRule, type BoxRule, mayShare } from './box.ts';
import { judge, tell, told, type ToldDecision, type ToldRule, type Unproven } from './compare.ts';
import { type Destination, type PolicyGround, type Terrain, unattached } from './destinations.ts';
import { inquire, type Inquiry, type Search } from './question.ts';
import { nothing, type Outside, outsideOf } from './rule-boxes.ts';
import type { Ruling } from './ruling.ts';
import { readWitness, type Witness } from './witness.ts';

/**
 * `never_matches`: no call can match the rule. `always_denied`: whatever it allows, other rules deny. `redundant`: without
 * it everything is decided as it is; so it is without all of those together. `partly_denied`: some of what it allows is
 * denied. `applies_to_none`: no registered workload is selected by the policy.
 */
export const hygieneCodes = [
  ...['never_matches', 'always_denied', 'redundant', 'applies_to_none', 'partly_denied'],
] as const;
export type HygieneCode = (typeof hygieneCodes)[number];

/** Something about a policy that is proven. */
export type HygieneFinding = {
  readonly code: HygieneCode;
  /** `namespace/name`. */
  readonly policy: string;
  /** Null when it is about the whole policy. */
  readonly rule: ToldRule | null;
  /** `file:line:column`. */
  readonly place: string;
  /** The rules that deny what it allows, or decide what it would; at most eight. */
  readonly by: readonly string[];
  /** A call that shows it, and how that is decided; null where there is none to show. */
  readonly witness: Witness | null;
  readonly decision: ToldDecision | null;
};

/** The rules of a set of policies one by one, where they apply. */
type Applying = {
  readonly rule: BoxedRule;
  readonly at: { readonly ruling: Ruling; readonly destination: Destination }[];
};

/**
 * What is proven of the rules of a set of policies.
 * @param terrain of one set. @param unproven takes what could not be settled
 */
export function* examineRules(
  ground: PolicyGround,
  policies: readonly Policy[],
  { groups, snapshots: [snapshot] }: Terrain,
  boxRule: BoxRule,
  inquiry: Inquiry,
  unproven: Unproven[],
): Steps<readonly HygieneFinding[]> {
  const findings: HygieneFinding[] = [];
  const applying = new Map<BoxedRule, Applying>();
  for (const { rulings, members } of groups) {
    yield;
    const [[ruling], [destination]] = [rulings, members];
    if (ruling === undefined || destination === undefined) continue;
    for (const rule of rulesOf(ruling)) {
      const one = applying.get(rule) ?? { rule, at: [] };
      applying.set(rule, one);
      one.at.push({ ruling, destination });
    }
  }
  const [removed, empty, dead] = [new Set<BoxedRule>(), new Set<BoxedRule>(), new Set<BoxedRule>()];
  // The last of several that say the same goes first, so that the first stays.
  for (const one of [...applying.values()].reverse()) {
    if (yield* isNeeded(one, removed, inquiry, unproven)) continue;
    removed.add(one.rule);
    if (!(yield* mayMatch(one.rule, inquiry, unproven))) empty.add(one.rule);
    else if (
      one.rule.compiled.policy.action === 'ALLOW' &&
      !(yield* isEverAllowing(one, inquiry, unproven))
    ) {
      dead.add(one.rule);
    }
  }
  if (snapshot === undefined) return [];
  for (const policy of policies) {
    for (const rule of policy.rules) {
      yield;
      const boxed = boxRule(compileRule(policy, rule, 0));
      const one = applying.get(boxed);
      // Those on trial decide nothing, nor do those that only mark calls.
      const isEmpty = one === undefined ? !(yield* mayMatch(boxed, inquiry, unproven)) : empty.has(boxed);
      if (isEmpty) findings.push(findingOf('never_matches', boxed, []));
      if (isEmpty || one === undefined) continue;
      if (dead.has(boxed)) findings.push(findingOf('always_denied', boxed, yield* near(one, barringOf)));
      else if (removed.has(boxed))
        findings.push(findingOf('redundant', boxed, yield* coveringOf(one, removed, inquiry)));
      else findings.push(...(yield* partlyDenied(one, snapshot, inquiry)));
    }
  }
  if (ground.workloads.length > 0) {
    for (const policy of yield* unattached(ground, policies)) {
      const [key, place] = [policy.key, formatPlace(policy.place)];
      findings.push({ code: 'applies_to_none', policy: key, rule: null, place, ...nothingShown });
    }
  }
  return findings.sort((a, b) => hygieneCodes.indexOf(a.code) - hygieneCodes.indexOf(b.code));
}

const nothingShown = { by: [], witness: null, decision: null };

function findingOf(code: HygieneCode, rule: BoxedRule, by: readonly BoxedRule[]): HygieneFinding {
  return {
    code,
    policy: rule.compiled.policy.key,
    rule: tell(rule),
    place: formatPlace(rule.compiled.rule.place),
    by: by.slice(0, maxNamed).map(({ compiled }) => compiled.rule.name),
    witness: null,
    decision: null,
  };
}

const maxNamed = 8;

function rulesOf({ custom, final, liftable, grants, ordinary }: Ruling): readonly BoxedRule[] {
  return [...ordinary, ...grants, ...final, ...liftable, ...custom];
}

/** Whether there is any call that a rule matches. */
function* mayMatch(boxed: BoxedRule, inquiry: Inquiry, unproven: Unproven[]): Steps<boolean> {
  const answer = yield* inquire(
    { ...inquiry, callers: [] },
    {
      destination: SpiffeId.parse(`${inquiry.trustDomain.id}/x`),
      inside: [boxed.boxes],
      outside: nothing,
      isCut: boxed.isCut,
      snapshots: [],
      judge: (witness) => (matches(boxed, witness, inquiry) ? '' : undefined),
    },
  );
  if (answer.found === 'unknown') unproven.push({ about: boxed.compiled.rule.name, why: answer.why });
  return answer.found !== 'none';
}

/** Whether a rule matches a call, as the engine has it. */
function matches({ compiled }: BoxedRule, witness: Witness, { trustDomain }: Inquiry): boolean {
  return ruleHolds(compiled, new Facts(readWitness(witness), trustDomain, new Date(witness.at)));
}

/** The rules that deny although a rule allows, and those that do the same as it. */
function barringOf(rule: BoxedRule, ruling: Ruling): readonly BoxedRule[] {
  if (rule.compiled.policy.action !== 'ALLOW') return [];
  return isGrant(rule.compiled) ? ruling.barringGrants : ruling.barring;
}

function alikeOf({ compiled }: BoxedRule, ruling: Ruling): readonly BoxedRule[] {
  if (compiled.policy.action === 'ALLOW') {
    return isGrant(compiled) ? ruling.grants : ruling.allowing;
  }
  return isLiftable(compiled) ? ruling.barring : ruling.barringGrants;
}

/** Whether a destination has calls that would be decided otherwise without a rule. */
function isNeeded(
  applying: Applying,
  removed: ReadonlySet<BoxedRule>,
  inquiry: Inquiry,
  unproven: Unproven[],
): Steps<boolean> {
  const { rule } = applying;
  const except = new Set([...removed, rule]);
  const outside = (ruling: Ruling): Outside => {
    const { lists } = outsideOf(barringOf(rule, ruling), alikeOf(rule, ruling));
    return { lists, except };
  };
  return hasCall(applying, outside, inquiry, unproven);
}

function isEverAllowing(applying: Applying, inquiry: Inquiry, unproven: Unproven[]): Steps<boolean> {
  return hasCall(applying, (ruling) => outsideOf(barringOf(applying.rule, ruling)), inquiry, unproven);
}

/** Whether a rule matches calls that no other of some does; true when that is not known. */
function* hasCall(
  { rule, at }: Applying,
  outside: (ruling: Ruling) => Outside,
  inquiry: Inquiry,
  unproven: Unproven[],
): Steps<boolean> {
  for (const { ruling, destination } of at) {
    const answer = yield* inquire(inquiry, searchFor(rule, outside(ruling), destination, inquiry));
    if (answer.found === 'call') return true;
    if (answer.found === 'unknown') {
      unproven.push({ about: rule.compiled.rule.name, why: answer.why });
      return true;
    }
  }
  return false;
}

/** Calls that one rule matches and no other of some. */
function searchFor(rule: BoxedRule, outside: Outside, { id }: Destination, inquiry: Inquiry): Search {
  return {
    destination: id,
    inside: [rule.boxes],
    outside,
    isCut: rule.isCut,
    snapshots: [],
    judge: (witness) => {
      const facts = new Facts(readWitness(witness), inquiry.trustDomain, new Date(witness.at));
      const isBarred = outside.lists.some(({ rules }) =>
        rules.some((one) => !outside.except.has(one) && ruleHolds(one.compiled, facts)),
      );
      const isSuch = ruleHolds(rule.compiled, facts) && !isBarred;
      return isSuch ? '' : undefined;
    },
  };
}

/** The rule that alone does what another would; else those of which it takes several. */
function* coveringOf(
  one: Applying,
  removed: ReadonlySet<BoxedRule>,
  inquiry: Inquiry,
): Steps<readonly BoxedRule[]> {
  const candidates = (yield* near(one, alikeOf)).filter((other) => !removed.has(other));
  const [first] = one.at;
  if (first === undefined) return [];
  for (const other of candidates.slice(0, maxTried)) {
    const answer = yield* inquire(
      inquiry,
      searchFor(one.rule, outsideOf([other]), first.destination, inquiry),
    );
    if (answer.found === 'none') return [other];
  }
  return candidates;
}

const maxTried = 32;

/** Of some rules, those that may match what a rule does. */
function* near(
  { rule, at: [first] }: Applying,
  of: (rule: BoxedRule, ruling: Ruling) => readonly BoxedRule[],
): Steps<readonly BoxedRule[]> {
  if (first === undefined) return [];
  const world = { protocol: 'http', token: 'present' } as const;
  const found: BoxedRule[] = [];
  for (const other of of(rule, first.ruling)) {
    if (other === rule) continue;
    for (const a of rule.boxes) {
      yield;
      if (!other.boxes.some((b) => mayShare(a, b, world))) continue;
      found.push(other);
      break;
    }
  }
  return found;
}

/** The first rule that denies a part of what a rule allows. */
function* partlyDenied(
  one: Applying,
  snapshot: Snapshot,
  inquiry: Inquiry,
): Steps<readonly HygieneFinding[]> {
  const { rule, at } = one;
  if (rule.compiled.policy.action !== 'ALLOW') return [];
  const tried = new Set<BoxedRule>();
  for (const { ruling, destination } of at) {
    for (const barring of barringOf(rule, ruling)) {
      if (tried.has(barring)) continue;
      tried.add(barring);
      const lifting = isLiftable(barring.compiled) ? ruling.grants : [];
      const answer = yield* inquire(inquiry, {
        destination: destination.id,
        inside: [rule.boxes, barring.boxes],
        outside: outsideOf(lifting),
        isCut: rule.isCut || barring.isCut,
        snapshots: [snapshot],
        judge: (witness) => (judge(snapshot, witness).verdict === 'deny' ? '' : undefined),
      });
      if (answer.found !== 'call') continue;
      const [{ witness }] = answer.examples;
      const decision = told(judge(snapshot, witness));
      return [{ ...findingOf('partly_denied', rule, [barring]), witness, decision }];
    }
  }
  return [];
}
