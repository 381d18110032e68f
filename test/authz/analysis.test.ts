import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { comparePolicies } from '../../src/authz/analysis/compare.ts';
import { provePolicies } from '../../src/authz/analysis/prove.ts';
import { readWitness } from '../../src/authz/analysis/witness.ts';
import type { AuthzRequest } from '../../src/authz/decision.ts';
import { Facts } from '../../src/authz/facts.ts';
import { isGrant, isLiftable } from '../../src/authz/glass.ts';
import { type CompiledRule, compileRule, ruleHolds } from '../../src/authz/match.ts';
import { decideNaively } from '../../src/authz/naive.ts';
import type { Policy } from '../../src/authz/policy.ts';
import { type AppliedRules, compileSnapshot, type Snapshot } from '../../src/authz/snapshot.ts';
import { finish } from '../../src/authz/steps.ts';
import { policies, request, workloads } from './generated.ts';
import { meshOf, noon, trustDomain } from './mesh.ts';
import { callsOf, inhabitants, policiesOf, smallWorlds } from './small-world.ts';

const ground = { trustDomain, rootNamespace: 'istio-system', workloads: inhabitants };

/** The rules that allow a call, and those that deny it; by the engine's test of one rule and nothing else. */
function causes(snapshot: Snapshot, applied: AppliedRules, call: AuthzRequest, at: Date) {
  const facts = new Facts(call, snapshot.trustDomain, at);
  const held = (rules: readonly CompiledRule[]) => rules.filter((rule) => ruleHolds(rule, facts));
  const [allow, deny, custom] = [
    held(applied.allowRules),
    held(applied.denyRules),
    held(applied.customRules),
  ];
  const grants = allow.filter(isGrant);
  const final = [...custom, ...deny.filter((rule) => !isLiftable(rule))];
  const lifted = deny.filter(isLiftable);
  const allows = final.length > 0 ? [] : lifted.length > 0 ? grants : allow;
  const denies = allows.length > 0 ? [] : [...final, ...(grants.length > 0 ? [] : lifted)];
  return { allows: allows.map(nameOf), denies: denies.map(nameOf), grants, final, lifted };
}

/** In the evening break-glass grants have ended. */
const moments = [noon, new Date('2026-11-21T21:00:00Z')];

function nameOf({ rule }: CompiledRule): string {
  return rule.name;
}

/** `rule that allows / rule that denies, or none / destination`, for each call that is decided otherwise. */
function enumerate(calls: Iterable<AuthzRequest>, before: readonly Policy[], after: readonly Policy[]) {
  const [was, is] = [before, after].map((set) => compileSnapshot(meshOf(set, inhabitants))) as [
    Snapshot,
    Snapshot,
  ];
  const rules = new Map<string, readonly [AppliedRules, AppliedRules]>();
  const found = { newlyAllowed: new Set<string>(), newlyDenied: new Set<string>() };
  for (const call of calls) {
    const to = call.destination.text;
    const [old, young] = rules.get(to) ?? [
      finish(was.rulesFor(call.destination)),
      finish(is.rulesFor(call.destination)),
    ];
    rules.set(to, [old, young]);
    for (const at of moments) {
      const [a, b] = [causes(was, old, call, at), causes(is, young, call, at)];
      if (a.allows.length > 0 === b.allows.length > 0) continue;
      const [set, by, against] = a.allows.length > 0 ? [found.newlyDenied, a, b] : [found.newlyAllowed, b, a];
      for (const rule of by.allows) {
        for (const other of against.denies.length === 0 ? [''] : against.denies)
          set.add(`${rule} / ${other} / ${to}`);
      }
    }
  }
  return found;
}

/** The first rule of some policies that is a plain ALLOW or DENY. */
function firstPlain(list: readonly Policy[]): CompiledRule | undefined {
  for (const policy of list) {
    const [rule] = policy.rules;
    const isPlain = policy.action !== 'CUSTOM' && policy.terms.breakGlass === null;
    if (isPlain && rule !== undefined) return compileRule(policy, rule, 0);
  }
  return undefined;
}

describe.each(smallWorlds.map((world) => [world.join(', '), world] as const))('a world of %s', (_, world) => {
  const set = policiesOf(world, 3);
  const calls = [...callsOf(world)];

  test('a comparison finds exactly the classes that there are, and its examples are judged so by the specification', () => {
    fc.assert(
      fc.property(set, set, (before, after) => {
        const compared = finish(comparePolicies(ground, before, after, noon));
        expect(compared.unproven).toEqual([]);
        const expected = enumerate(calls, before, after);
        for (const kind of ['newlyAllowed', 'newlyDenied'] as const) {
          const told = compared[kind].flatMap(({ allows, denies, destinations }) =>
            destinations
              .filter((to) => !to.startsWith('('))
              .map((to) => `${allows.rule} / ${denies?.rule ?? ''} / ${to}`),
          );
          expect(told.sort()).toEqual([...expected[kind]].sort());
          for (const { witness } of compared[kind].flatMap(({ examples }) => examples)) {
            const made = inhabitants.some(({ id }) => id.text === witness.destination) ? inhabitants : null;
            if (made === null) continue;
            const call = readWitness(witness);
            const [was, is] = [before, after].map(
              (policies) => decideNaively(meshOf(policies, made), call, new Date(witness.at)).verdict,
            );
            expect([was, is]).toEqual(kind === 'newlyAllowed' ? ['deny', 'allow'] : ['allow', 'deny']);
          }
        }
      }),
      { numRuns: 15 },
    );
  });

  test('without the rules that nothing needs all calls are decided as before, and each other rule decides one', () => {
    fc.assert(
      fc.property(set, (list) => {
        const question = { policies: list, invariants: [], examines: true };
        const { findings, unproven } = finish(provePolicies(ground, question, noon));
        expect(unproven).toEqual([]);
        const idle = new Set(
          findings.flatMap(({ code, rule }) =>
            code === 'partly_denied' || rule === null ? [] : [rule.rule],
          ),
        );
        const less = withoutRules(list, idle);
        const verdicts = verdictsOf(calls, list);
        expect(verdictsOf(calls, less)).toEqual(verdicts);
        const alone = decidingAlone(calls, less);
        for (const { name } of less.flatMap(({ rules }) => rules)) {
          // What applies to nobody here is judged at a workload that is made up.
          if (!isOnlyMadeUp(list, name)) expect([name, alone.has(name)]).toEqual([name, true]);
        }
        for (const { code, rule } of findings) {
          if (code !== 'never_matches' || rule === null) continue;
          expect(matchesAny(calls, list, rule.rule)).toBe(false);
        }
      }),
      { numRuns: 10 },
    );
  });
});

describe.each(smallWorlds.map((world) => [world.join(', '), world] as const))(
  'in a world of %s',
  (_, world) => {
    const set = policiesOf(world, 3);
    const calls = [...callsOf(world)];

    test('an invariant is violated exactly when a call breaks it', () => {
      fc.assert(
        fc.property(set, set, (list, others) => {
          const compiled = firstPlain(others);
          if (compiled === undefined) return;
          const demand = compiled.policy.action === 'DENY' ? 'never' : 'always';
          const to = {
            namespaces: [{ kind: 'exact', text: 'pay' }] as const,
            labels: new Map(),
            principals: [],
          };
          const invariant = {
            name: 'i',
            place: compiled.rule.place,
            demand,
            calls: compiled.rule,
            to,
          } as const;
          const question = { policies: list, invariants: [invariant], examines: false };
          const [found] = finish(provePolicies(ground, question, noon)).invariants;
          const outcomes = judgeAll(calls, list, ({ allows }, call, at) =>
            ruleHolds(compiled, new Facts(call, trustDomain, at))
              ? allows.length > 0
                ? 'allow'
                : 'deny'
              : 'none',
          );
          const broken = outcomes.includes(demand === 'never' ? 'allow' : 'deny');
          const expected = broken
            ? 'violated'
            : outcomes.every((one) => one === 'none')
              ? 'unproven'
              : 'proven';
          expect(found?.result).toBe(expected);
        }),
        { numRuns: 25 },
      );
    });
  },
);

function withoutRules(list: readonly Policy[], names: ReadonlySet<string>): readonly Policy[] {
  return list.map((policy) => ({ ...policy, rules: policy.rules.filter(({ name }) => !names.has(name)) }));
}

function verdictsOf(calls: readonly AuthzRequest[], list: readonly Policy[]): string {
  return judgeAll(calls, list, ({ allows }) => (allows.length > 0 ? 'a' : 'd')).join('');
}

/** The rules without which a call would be decided otherwise, or that alone keep a call from being allowed. */
function decidingAlone(calls: readonly AuthzRequest[], list: readonly Policy[]): ReadonlySet<string> {
  const sets = judgeAll(calls, list, ({ allows, grants, final, lifted }) => [
    allows,
    final.length > 0 ? [] : grants.map(nameOf),
    final.map(nameOf),
    final.length > 0 ? [] : lifted.map(nameOf),
  ]);
  return new Set(sets.flatMap((all) => all.flatMap((names) => (names.length === 1 ? names : []))));
}

function judgeAll<T>(
  calls: readonly AuthzRequest[],
  list: readonly Policy[],
  tell: (caused: ReturnType<typeof causes>, call: AuthzRequest, at: Date) => T,
): readonly T[] {
  const snapshot = compileSnapshot(meshOf(list, inhabitants));
  const rules = new Map<string, AppliedRules>();
  return calls.flatMap((call) => {
    const applied = rules.get(call.destination.text) ?? finish(snapshot.rulesFor(call.destination));
    rules.set(call.destination.text, applied);
    return moments.map((at) => tell(causes(snapshot, applied, call, at), call, at));
  });
}

/** An ALLOW policy that selects one of two registrations of an identity applies to the other identity alone, which is there. */
function isOnlyMadeUp(list: readonly Policy[], rule: string): boolean {
  const snapshot = compileSnapshot(meshOf(list, inhabitants));
  return inhabitants.every(({ id }) => {
    const { allowRules, denyRules, customRules } = finish(snapshot.rulesFor(id));
    return ![...allowRules, ...denyRules, ...customRules].some((one) => one.rule.name === rule);
  });
}

function matchesAny(calls: readonly AuthzRequest[], list: readonly Policy[], name: string): boolean {
  const snapshot = compileSnapshot(meshOf(list, inhabitants));
  return inhabitants.some(({ id }) => {
    const { allowRules, denyRules, customRules } = finish(snapshot.rulesFor(id));
    const rule = [...allowRules, ...denyRules, ...customRules].find((one) => one.rule.name === name);
    return rule !== undefined && calls.some((call) => ruleHolds(rule, new Facts(call, trustDomain, noon)));
  });
}

test('whatever is read, a call that is decided otherwise is of a class that is told', () => {
  fc.assert(
    fc.property(
      policies(3),
      policies(3),
      fc.array(request, { minLength: 20, maxLength: 20 }),
      (before, after, calls) => {
        const compared = finish(comparePolicies({ ...ground, workloads }, before, after, noon));
        expect(compared.unproven).toEqual([]);
        for (const call of calls) {
          const { sourceIp, remoteIp } = call.context;
          // No proxy in front is trusted, so no door says otherwise.
          if (sourceIp !== remoteIp || !workloads.some(({ id }) => id.text === call.destination.text))
            continue;
          const [was, is] = [before, after].map((set) => decideNaively(meshOf(set, workloads), call, noon));
          if (was === undefined || is === undefined || was.verdict === is.verdict) continue;
          const told = is.verdict === 'allow' ? compared.newlyAllowed : compared.newlyDenied;
          expect(told.some(({ destinations }) => destinations.includes(call.destination.text))).toBe(true);
        }
      },
    ),
    { numRuns: 60 },
  );
});
