import { expect } from 'vitest';
import { decide } from '../../src/authz/decide.ts';
import type { AuthzRequest } from '../../src/authz/decision.ts';
import { decideNaively } from '../../src/authz/naive.ts';
import { compileSnapshot, type SnapshotInput } from '../../src/authz/snapshot.ts';
import { meshOf, noon, policyText, readPolicies } from './mesh.ts';

/** Judges a call, and holds the answer against the specification. */
export function judge(mesh: SnapshotInput, one: AuthzRequest) {
  const { verdict, reason, rule, custom, audited, shadow, why } = decide(compileSnapshot(mesh), one, noon);
  expect(decideNaively(mesh, one, noon)).toEqual({ verdict, reason, rule, custom, audited, shadow });
  return { verdict, reason, custom, audited, shadow, why };
}

/** Whether a rule with this body matches, in an ALLOW policy and in a DENY policy. */
export function holds(rule: object, one: AuthzRequest): { allow: boolean; deny: boolean } {
  const rules = (...list: object[]) => `rules: ${JSON.stringify(list)}`;
  const allowing = readPolicies(policyText(rules(rule)));
  const denying = [
    ...readPolicies(policyText(rules({}), 'all')),
    ...readPolicies(policyText(`action: DENY\n${rules(rule)}`, 'no')),
  ];
  return {
    allow: judge(meshOf(allowing), one).verdict === 'allow',
    deny: judge(meshOf(denying), one).verdict === 'deny',
  };
}

export const both = { allow: true, deny: true };
export const neither = { allow: false, deny: false };
/** What cannot be judged, or is known to be missing for a `not`. */
export const cautious = { allow: false, deny: true };
