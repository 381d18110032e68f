import type { CompiledRule } from './match.ts';

/**
 * Rules by what a break-glass grant does to them. INVARIANT: where there is no grant, `deny` has all DENY rules and
 * `liftable` none: then no DENY rule is looked for twice.
 */
export type SplitRules = {
  readonly grants: readonly CompiledRule[];
  /** The other ALLOW rules. */
  readonly allow: readonly CompiledRule[];
  readonly liftable: readonly CompiledRule[];
  /** The other DENY rules. */
  readonly deny: readonly CompiledRule[];
};

/** Parts the rules that apply to a destination. */
export function splitGlass(allow: readonly CompiledRule[], deny: readonly CompiledRule[]): SplitRules {
  const grants = allow.filter(isGrant);
  if (grants.length === 0) return { grants, allow, liftable: [], deny };
  return {
    grants,
    allow: allow.filter((rule) => !isGrant(rule)),
    liftable: deny.filter(isLiftable),
    deny: deny.filter((rule) => !isLiftable(rule)),
  };
}

/** Whether a rule is of a break-glass grant. */
export function isGrant({ policy }: CompiledRule): boolean {
  return policy.terms.breakGlass !== null;
}

/** Whether a break-glass grant outweighs a DENY rule. */
export function isLiftable({ policy }: CompiledRule): boolean {
  return policy.terms.liftable;
}
