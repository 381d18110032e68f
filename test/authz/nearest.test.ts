import fc from 'fast-check';
import { expect, test } from 'vitest';
import { untold } from '../../src/authz/context.ts';
import { decide } from '../../src/authz/decide.ts';
import type { AuthzRequest, NearestRule } from '../../src/authz/decision.ts';
import { Facts } from '../../src/authz/facts.ts';
import { compilePredicate } from '../../src/authz/match.ts';
import { type Entry, type Policy, type Predicate, type Rule, sides } from '../../src/authz/policy.ts';
import { describeNearest, readNearest } from '../../src/authz/nearest.ts';
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

const web = 'from: [{ source: { principals: [example.org/ns/shop/sa/web] } }]';
const nobody = 'from: [{ source: { principals: [example.org/x] } }]';
const to = (...operations: string[]): string =>
  `to: [${operations.map((one) => `{ operation: { ${one} } }`).join()}]`;
const header = (name: string): string => `{ key: "request.headers[${name}]", values: [v] }`;
const tagged = `when: [${header('x-a')}, ${header('x-b')}]`;
const untagged = `when: [${header('x-c')}]`;
const times = <T>(count: number, one: T): readonly T[] => Array.from({ length: count }, () => one);
const other = [nobody, to('methods: [PUT], paths: ["/x"]')];

test.each<[string, readonly (readonly string[])[], number, string]>([
  ['an entry that more of holds', [[to('hosts: [x]', 'methods: [PUT], paths: ["/charge"]')]], 0, 'methods'],
  ['and not the one after it', [[to('methods: [PUT], paths: ["/charge"]', 'hosts: [x]')]], 0, 'methods'],
  ['a shorter entry', [[to('methods: [PUT], ports: ["1"]', 'hosts: [x]')]], 0, 'hosts'],
  ['the first of equal entries', [[to('methods: [PUT]', 'hosts: [x]')]], 0, 'methods'],
  [
    'an entry that holds, of others that more of holds',
    [[to('hosts: [x], paths: ["/charge"], methods: [GET]', 'methods: [GET]', 'hosts: [x]'), untagged]],
    0,
    'request.headers[x-c]',
  ],
  ['a rule that more of holds', [[to('methods: [PUT]')], [web, to('methods: [PUT]')]], 1, 'methods'],
  ['and not the one after it', [[web, to('methods: [PUT]')], [to('hosts: [x]')]], 0, 'methods'],
  ['a shorter rule', [[to('methods: [PUT], ports: ["1"]')], [to('hosts: [x]')]], 1, 'hosts'],
  ['and not the one after it', [[to('hosts: [x]')], [to('methods: [PUT], ports: ["1"]')]], 0, 'hosts'],
  ['the first of equal rules', [[to('hosts: [x]')], [to('methods: [PUT]')]], 0, 'hosts'],
  ['any of eight', [[web, to('hosts: [x]')], ...times(6, other), [...other, tagged]], 7, 'principals'],
  [
    'of nine one that a side leads to',
    [[web, to('hosts: [x]')], ...times(7, other), [...other, tagged]],
    0,
    'hosts',
  ],
  ['one of the first, when no side leads to any', [...times(8, other), [...other, tagged]], 0, 'principals'],
  [
    'one of four for the caller',
    [...times(5, [web, to('hosts: [x]')]), ...times(5, [web, to('hosts: [x]'), tagged])],
    0,
    'hosts',
  ],
  [
    'the first of those that either side leads to',
    [...times(5, other), [nobody, to('paths: ["/charge"]')], [web, to('paths: ["/x"]')], ...times(5, other)],
    5,
    'principals',
  ],
])('the nearest is %s', (_name, rules, index, field) => {
  const [policy] = readPolicies(policyText(`rules: [${rules.map((parts) => `{ ${parts.join()} }`).join()}]`));
  const context = { ...untold, headerLines: (name: string) => (name === 'x-c' ? [] : ['v']) };
  const one = { ...call({ method: 'GET', path: '/charge' }), context };
  const { reason, nearest } = decide(
    compileSnapshot(meshOf([policy!], [{ id: ledger, labels: {} }])),
    one,
    noon,
  );
  expect([reason, nearest?.rule]).toEqual(['no_allow_rule', policy!.rules[index]!.name]);
  expect(nearest?.missed.startsWith(`${field} is `)).toBe(true);
});

test('without an ALLOW rule nothing is nearest', () => {
  const policies = readPolicies(policyText('action: DENY\nrules: [{ to: [{ operation: { hosts: [x] } }] }]'));
  const snapshot = compileSnapshot(meshOf(policies, [{ id: ledger, labels: {} }]));
  expect(decide(snapshot, call(), noon)).toMatchObject({ reason: 'no_allow_rule', nearest: null });
});

test.each<[string, string, { rule: string; missed: string } | null]>([
  [
    'as it was said',
    'pay/a-b.c rule[12], where hosts is x',
    { rule: 'pay/a-b.c rule[12]', missed: 'hosts is x' },
  ],
  ['with lines in it', 'p/a rule[0], where hosts is x\ny', { rule: 'p/a rule[0]', missed: 'hosts is x\ny' }],
  ['with nothing missed', 'p/a rule[0], where ', { rule: 'p/a rule[0]', missed: '' }],
  ['cut in the name of the rule', 'pay/a-b.c rule[1', null],
  ['cut before what was missed', 'pay/a rule[0]', null],
  ['of no policy', 'pay rule[0], where hosts is x', null],
  ['of another namespace in its words', 'a b pay/a rule[0], where hosts is x', null],
])('what a denial says of the nearest rule is read again: %s', (_, said, expected) => {
  expect(readNearest(`no ALLOW rule matched; the nearest is ${said}`)).toEqual(expected);
  expect(readNearest(`an ALLOW rule matched; the nearest is ${said}`)).toBeNull();
  if (expected !== null) expect(describeNearest(expected).endsWith(said)).toBe(true);
});
