import type { Policy } from '../authz/policy.ts';
import type { MeshPlan } from './plan.ts';

/** Who answers for a policy and for how long it matches, as the API tells it. Times are RFC 3339; null where not written. */
export type PolicyTermsView = {
  readonly notBefore: string | null;
  readonly expiresAt: string | null;
  readonly owner: string | null;
  readonly ticket: string | null;
};

/** What is said of the terms of a policy. */
export function viewTerms({ terms }: Policy): PolicyTermsView {
  const { notBefore, expiresAt, owner, ticket } = terms;
  return {
    notBefore: notBefore?.toISOString() ?? null,
    expiresAt: expiresAt?.toISOString() ?? null,
    owner,
    ticket,
  };
}

/** What the author of a plan should know though it is no mistake: sentences, lower case, no full stop. */
export function warnOfTerms({ putPolicies }: Pick<MeshPlan, 'putPolicies'>, now: Date): readonly string[] {
  return putPolicies.flatMap(({ policy: { key, terms } }) =>
    terms.expiresAt !== null && terms.expiresAt <= now
      ? [`${key} expired at ${terms.expiresAt.toISOString()}: it matches nothing`]
      : [],
  );
}

/** How many policies end within a week, and how many have ended. */
export function countEnding(
  policies: ReadonlyMap<string, Policy>,
  now: Date,
): { readonly ending: number; readonly ended: number } {
  const nowMs = now.getTime();
  const ends = endsOf(policies);
  const ended = ends.filter((atMs) => atMs <= nowMs).length;
  return { ended, ending: ends.filter((atMs) => atMs <= nowMs + soonMs).length - ended };
}

/** Asked at each health probe; most policies have no end. */
function endsOf(policies: ReadonlyMap<string, Policy>): readonly number[] {
  const known = ends.get(policies);
  if (known !== undefined) return known;
  const found = [...policies.values()].flatMap(({ terms }) => terms.expiresAt?.getTime() ?? []);
  ends.set(policies, found);
  return found;
}

const ends = new WeakMap<ReadonlyMap<string, Policy>, readonly number[]>();
/** How long before its end a policy is spoken of. */
export const soonMs = 7 * 86_400_000;
