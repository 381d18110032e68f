import type { CompiledRule } from '../match.ts';
import { splitGlass } from '../glass.ts';
import type { AppliedRules } from '../snapshot.ts';
import type { Steps } from '../steps.ts';
import type { BoxedRule, BoxRule } from './box.ts';

/** The rules of a destination by what they do to a call. */
export type Ruling = {
  readonly custom: readonly BoxedRule[];
  /** DENY rules that nothing lifts. */
  readonly final: readonly BoxedRule[];
  readonly liftable: readonly BoxedRule[];
  readonly grants: readonly BoxedRule[];
  readonly ordinary: readonly BoxedRule[];
  /** What keeps a grant from allowing, and any other rule. */
  readonly barringGrants: readonly BoxedRule[];
  readonly barring: readonly BoxedRule[];
  /** All that allow. */
  readonly allowing: readonly BoxedRule[];
  /** All rules. */
  readonly all: readonly BoxedRule[];
};

/**
 * Calls that are allowed, or denied, for one reason: those of all rules of `by`, but for those that a rule of `unless`
 * matches. Without `by` all calls are.
 */
export type Piece = { readonly by: readonly BoxedRule[]; readonly unless: readonly BoxedRule[] };

/** Makes boxes of the rules of a destination. */
export function* rulingOf(applied: AppliedRules, boxRule: BoxRule): Steps<Ruling> {
  const { grants, allow, liftable, deny } = splitGlass(applied.allowRules, applied.denyRules);
  const make = function* (rules: readonly CompiledRule[]) {
    const made: BoxedRule[] = [];
    let work = 0;
    for (const rule of rules) {
      const boxed = boxRule(rule);
      made.push(boxed);
      work += boxed.boxes.length + workOfRule;
      if (work < workInStep) continue;
      work = 0;
      yield;
    }
    return made;
  };
  const custom = yield* make(applied.customRules);
  const final = yield* make(deny);
  const lifted = yield* make(liftable);
  const [granting, ordinary] = [yield* make(grants), yield* make(allow)];
  const barringGrants = [...custom, ...final];
  const barring = lifted.length === 0 ? barringGrants : [...barringGrants, ...lifted];
  const allowing = granting.length === 0 ? ordinary : [...granting, ...ordinary];
  const all = [...allowing, ...barring];
  return {
    custom,
    final,
    liftable: lifted,
    grants: granting,
    ordinary,
    barringGrants,
    barring,
    allowing,
    all,
  };
}

const workOfRule = 8;
const workInStep = 64;

/** All that is allowed, rule by rule. */
export function allowedBy({ grants, ordinary, barringGrants, barring }: Ruling): readonly Piece[] {
  return [
    ...grants.map((rule) => ({ by: [rule], unless: barringGrants })),
    ...ordinary.map((rule) => ({ by: [rule], unless: barring })),
  ];
}

/** All that is denied: by a rule, or because no rule allows it. INVARIANT: together with `allowedBy` these are all calls. */
export function deniedBy(ruling: Ruling): readonly Piece[] {
  const { custom, final, liftable, grants, all } = ruling;
  return [
    ...[...custom, ...final].map((rule) => ({ by: [rule], unless: noRules })),
    ...liftable.map((rule) => ({ by: [rule], unless: grants })),
    // What a rule denies is told of that rule.
    { by: [], unless: all },
  ];
}

const noRules: readonly BoxedRule[] = [];
