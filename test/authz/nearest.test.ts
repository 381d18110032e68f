import fc from 'fast-check';
import { expect, test } from 'vitest';
import { decide } from '../../src/authz/decide.ts';
import type { AuthzRequest, NearestRule } from '../../src/authz/decision.ts';
import { Facts } from '../../src/authz/facts.ts';
import { compilePredicate } from '../../src/authz/match.ts';
import { type Entry, type Policy, type Predicate, type Rule, sides } from '../../src/authz/policy.ts';
import { compileSnapshot } from '../../src/authz/snapshot.ts';
import { describeMiss } from '../../src/authz/words.ts';
import { formatPlace } from '../../src/errors.ts';
import { policies, request, workloads } from './generated.ts';
import { call, ledger, meshOf, noon, policyText, readPolicies, trustDomain } from './mesh.ts';

type Weight = { readonly matched: number; readonly total: number; readonly missed: Predicate | undefined };

/** Said as plainly as can be: every entry is weighed, and the first of the best is taken. */
function weighNaively(rule: Rule, facts: Facts): Weight {
  const weighEntry = ({ predicates }: Entry): Weight => ({
    matched: predicates.filter((one) => compilePredicate(one, 'ALLOW')(facts) === true).length,
    total: predicates.length,
    missed: predicates.find((one) => compilePredicate(one, 'ALLOW')(facts) !== true),
  });
  const best = sides.map((side): Weight => {
    const weights = rule[side].map(weighEntry);
    const whole = weights.find(({ missed }) => missed === undefined);
    const sorted = weights.toSorted((a, b) => b.matched - a.matched || a.total - b.total);
    return whole ?? sorted[0] ?? { matched: 0, total: 0, missed: undefined };
  });
  return {
    matched: best.reduce((sum, { matched }) => sum + matched, 0),
    total: best.reduce((sum, { total }) => sum + total, 0),
    missed: best.find(({ missed }) => missed !== undefined)?.missed,
  };
}

function nearestNaively(rules: readonly Rule[], facts: Facts): NearestRule | null {
  const weighed = rules.map((rule) => ({ rule, ...weighNaively(rule, facts) }));
  const [best] = weighed
    .filter(({ missed }) => missed !== undefined)
    .toSorted((a, b) => b.matched - a.matched || a.total - b.total);
  if (best?.missed === undefined) return null;
  const { rule, missed } = best;
  return { rule: rule.name, place: formatPlace(missed.place), missed: describeMiss(missed, facts) };
}

test('of few rules the nearest is the one that all of them, weighed one by one, show to be', () => {
  let met = 0;
  fc.assert(
    fc.property(policies(6), fc.array(request, { minLength: 1, maxLength: 10 }), (list, calls) => {
      const snapshot = compileSnapshot(meshOf(list, workloads));
      for (const one of calls) {
        const { reason, nearest } = decide(snapshot, one, noon);
        if (reason !== 'no_allow_rule') continue;
        const rules = snapshot.appliedTo(one.destination).allowRules.map(({ rule }) => rule);
        if (rules.length > 8) continue;
        met += 1;
        expect(nearest).toEqual(nearestNaively(rules, new Facts(one, trustDomain, noon)));
      }
    }),
    { numRuns: 400 },
  );
  expect(met).toBeGreaterThan(0);
});

/** Policies whose one rule names a caller, a path and a method each. */
const many = (make: (i: number) => readonly [string, string, string]): readonly Policy[] =>
  readPolicies(
    Array.from({ length: 40 }, (_, i) => {
      const [caller, path, method] = make(i);
      const operation = `{ methods: [${method}], paths: ["${path}"] }`;
      const rule = `from: [{ source: { principals: [${caller}] } }]\n    to: [{ operation: ${operation} }]`;
      return policyText(`rules:\n  - ${rule}`, `p${100 + i}`);
    }).join('---\n'),
  );
const shop = (name: string) => `example.org/ns/shop/sa/${name}`;

test.each<[string, (i: number) => readonly [string, string, string], string]>([
  ['a rule for the caller', (i) => [shop(i === 30 ? 'web' : `x${i}`), `/x${i}`, 'PUT'], 'pay/p130 rule[0]'],
  ['a rule for the path', (i) => [shop(`x${i}`), i === 31 ? '/charge' : `/x${i}`, 'PUT'], 'pay/p131 rule[0]'],
  ['the first, when none fits by half', (i) => [shop(`x${i}`), `/x${i}`, 'PUT'], 'pay/p100 rule[0]'],
  [
    'the one that more of fits, of several for the caller',
    (i) => [shop(i < 3 ? 'web' : `x${i}`), i === 2 ? '/charge' : `/x${i}`, 'PUT'],
    'pay/p102 rule[0]',
  ],
])('of many rules the nearest is looked for where one side fits: %s', (_name, make, rule) => {
  const snapshot = compileSnapshot(meshOf(many(make), [{ id: ledger, labels: {} }]));
  const one: AuthzRequest = call();
  expect(decide(snapshot, one, noon).nearest?.rule).toBe(rule);
});
