import type { Policy } from '../authz/policy.ts';
import type { PolicyMode } from '../authz/policy-mode.ts';
import { MeshError } from '../errors.ts';
import type { MeshPlan } from './plan.ts';

/** Who answers for a policy and for how long it matches, as the API tells it. Times are RFC 3339; null where not written. */
export type PolicyTermsView = {
  readonly notBefore: string | null;
  readonly expiresAt: string | null;
  readonly owner: string | null;
  readonly ticket: string | null;
  /** Why a break-glass grant was given; null for every other policy. */
  readonly breakGlass: string | null;
  /** Whether such a grant outweighs it. */
  readonly liftable: boolean;
};

/** What is said of the terms of a policy. */
export function viewTerms({ terms }: Policy): PolicyTermsView {
  const { notBefore, expiresAt, owner, ticket, breakGlass, liftable } = terms;
  return {
    notBefore: notBefore?.toISOString() ?? null,
    expiresAt: expiresAt?.toISOString() ?? null,
    owner,
    ticket,
    breakGlass,
    liftable,
  };
}

/** What the author of a plan should know though it is no mistake: sentences, lower case, no full stop. */
export function warnOfTerms({ putPolicies }: Pick<MeshPlan, 'putPolicies'>, now: Date): readonly string[] {
  return putPolicies.flatMap(({ policy }) => {
    const { key, terms } = policy;
    const isOver = terms.expiresAt !== null && terms.expiresAt <= now;
    if (isOver) return [`${key} expired at ${terms.expiresAt.toISOString()}: it matches nothing`];
    return terms.breakGlass === null ? [] : [`${key} is a break-glass grant: ${describeGrant(policy)}`];
  });
}

/**
 * Refuses a break-glass grant that would last for more than a day from when it is saved, or that would outweigh nothing.
 * @throws MeshError `policy_invalid`, `policy_mode_inexact`
 */
export function demandShortGrants(
  { putPolicies }: Pick<MeshPlan, 'putPolicies'>,
  mode: PolicyMode,
  now: Date,
): void {
  for (const { policy } of putPolicies) {
    const { breakGlass, expiresAt, bounds } = policy.terms;
    if (breakGlass === null || expiresAt === null) continue;
    // There a first ALLOW policy would even shut out everybody else.
    if (mode === 'istio') {
      throw new MeshError('policy_mode_inexact', 'a break-glass grant outweighs nothing in Istio mode', {
        place: policy.place,
        fix: 'change the policy that denies',
      });
    }
    if (expiresAt.getTime() - now.getTime() <= longestGrantMs) continue;
    const place = bounds.at(-1)?.place ?? policy.place;
    throw new MeshError('policy_invalid', 'a break-glass grant lasts for 24 hours at most', {
      place,
      fix: 'set an earlier expiresAt, and write it anew when it has passed',
    });
  }
}

/** In one line: why, under which ticket, and until when. */
export function describeGrant({ terms: { breakGlass, ticket, expiresAt } }: Policy): string {
  return `${breakGlass} (${ticket}), until ${expiresAt?.toISOString()}`;
}

/** How many policies there are, and the first of the break-glass grants among them that have not ended. */
export function policyStatus(
  { policies }: { readonly policies: ReadonlyMap<string, Policy> },
  now: Date,
): { readonly policies: number; readonly breakGlass: readonly string[] } {
  const grants = grantsOf(policies)
    .filter(({ terms }) => terms.expiresAt !== null && terms.expiresAt > now)
    .map((policy) => `${policy.key}: ${describeGrant(policy)}`);
  return { policies: policies.size, breakGlass: grants.slice(0, maxGrantsShown) };
}

/** Asked with each status. */
function grantsOf(policies: ReadonlyMap<string, Policy>): readonly Policy[] {
  const known = grants.get(policies);
  if (known !== undefined) return known;
  const found = [...policies.values()].filter(({ terms }) => terms.breakGlass !== null);
  grants.set(policies, found);
  return found;
}

const grants = new WeakMap<ReadonlyMap<string, Policy>, readonly Policy[]>();
const longestGrantMs = 86_400_000;
const maxGrantsShown = 16;

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
  // Every grant ends within a day, and is spoken of by itself.
  const found = [...policies.values()].flatMap(({ terms }) =>
    terms.breakGlass === null ? (terms.expiresAt?.getTime() ?? []) : [],
  );
  ends.set(policies, found);
  return found;
}

const ends = new WeakMap<ReadonlyMap<string, Policy>, readonly number[]>();
/** How long before its end a policy is spoken of. */
export const soonMs = 7 * 86_400_000;
