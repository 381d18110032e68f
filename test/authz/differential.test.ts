import fc from 'fast-check';
import { expect, test } from 'vitest';
import { decide } from '../../src/authz/decide.ts';
import type { AuthzRequest, Decision } from '../../src/authz/decision.ts';
import { decideNaively } from '../../src/authz/naive.ts';
import type { Policy } from '../../src/authz/policy.ts';
import { compileSnapshot, type Snapshot, type SnapshotInput } from '../../src/authz/snapshot.ts';
import { finish } from '../../src/authz/steps.ts';
import { namable, policies, policiesNaming, request, workloads } from './generated.ts';
import { ledger, meshOf, noon } from './mesh.ts';

const requests = fc.array(request, { minLength: 1, maxLength: 20 });
const verdicts = { allow: 0, deny_rule: 0, no_allow_rule: 0, no_policy: 0, custom_unanswered: 0 };
const beside = { custom: 0, audited: 0, shadow: 0 };

function agree(mesh: SnapshotInput, snapshot: Snapshot, one: AuthzRequest): Decision {
  const decision = decide(snapshot, one, noon);
  const { verdict, reason, rule, custom, audited, shadow } = decision;
  expect({ verdict, reason, rule, custom, audited, shadow }).toEqual(decideNaively(mesh, one, noon));
  if (custom !== null) beside.custom += 1;
  if (audited !== '') beside.audited += 1;
  if (shadow !== null) beside.shadow += 1;
  return decision;
}

test.each([
  ['a few policies', 6, 300],
  ['enough policies for crowded shelves', 60, 80],
])('the index answers as the specification does: %s', (_name, max, numRuns) => {
  fc.assert(
    fc.property(policies(max), requests, fc.boolean(), (list, calls, providersAnswer) => {
      const mesh = { ...meshOf(list, workloads), providersAnswer };
      const snapshot = compileSnapshot(mesh);
      for (const one of calls) {
        const { verdict, reason } = agree(mesh, snapshot, one);
        if (verdict === 'allow') verdicts.allow += 1;
        else if (reason in verdicts) verdicts[reason as 'deny_rule'] += 1;
      }
    }),
    { numRuns },
  );
});

// Cases in which a rule was found by what it names, for each action: they show that every shelf of an index was used.
const found = new Map<string, { allow: number; deny: number }>();
const callsOfOne = fc
  .array(request, { minLength: 10, maxLength: 20 })
  .map((calls) => calls.map((one): AuthzRequest => ({ ...one, destination: ledger })));

test.each(namable)('rules that name nothing but %s are found as the specification finds them', (thing) => {
  const count = { allow: 0, deny: 0 };
  found.set(thing, count);
  fc.assert(
    fc.property(policiesNaming(thing), callsOfOne, (list, calls) => {
      const mesh = meshOf(list, workloads);
      const snapshot = compileSnapshot(mesh);
      for (const one of calls) {
        const { reason } = agree(mesh, snapshot, one);
        if (reason === 'allow_rule') count.allow += 1;
        if (reason === 'deny_rule') count.deny += 1;
      }
    }),
    { numRuns: 30 },
  );
});

test('each of them was found, by ALLOW and by DENY', () => {
  console.log(
    [...found].map(([thing, { allow, deny }]) => `${thing}: ${allow} allowed, ${deny} denied`).join('\n'),
  );
  const least = [...found.values()].flatMap(({ allow, deny }) => [allow, deny]);
  expect(least.length).toBe(namable.length * 2);
  expect(Math.min(...least)).toBeGreaterThan(0);
});

test('what was prepared for one set of policies answers as the specification does after edits to another', () => {
  const edits = fc.array(fc.array(fc.boolean(), { minLength: 40, maxLength: 40 }), { maxLength: 4 });
  fc.assert(
    fc.property(policies(40), requests, edits, fc.nat(400), (list, calls, kept, cut) => {
      let snapshot = compileSnapshot(meshOf(list, workloads));
      for (const keep of [[], ...kept]) {
        for (const one of calls) decide(snapshot, one, noon);
        const mesh = meshOf(
          list.filter((_, i) => keep[i] !== false),
          workloads,
        );
        const next = compileSnapshot({ ...mesh, previous: snapshot });
        // At times the preparation is given up midway, or a call comes in between.
        const steps = next.prepare(snapshot);
        for (let i = 0; i < cut && steps.next().done !== true; i++);
        if (cut % 3 === 0) decide(next, calls[0]!, noon);
        if (cut % 2 === 0) finish(steps);
        for (const one of calls) {
          agree(mesh, next, one);
        }
        snapshot = next;
      }
    }),
    { numRuns: 80 },
  );
});

test('the generated calls met every kind of answer', () => {
  expect(Math.min(...Object.values(verdicts), ...Object.values(beside))).toBeGreaterThan(50);
});

const verdictOf = (list: readonly Policy[], one: Parameters<typeof decide>[1]) =>
  decide(compileSnapshot(meshOf(list, workloads)), one, noon).verdict;

test('one more DENY policy never allows more', () => {
  fc.assert(
    fc.property(policies(8), policies(3), requests, (list, more, calls) => {
      const renamed = more.map((policy): Policy => ({
        ...policy,
        key: `${policy.key}-more`,
        action: 'DENY',
      }));
      for (const one of calls) {
        if (verdictOf([...list, ...renamed], one) === 'allow') expect(verdictOf(list, one)).toBe('allow');
      }
    }),
    { numRuns: 150 },
  );
});

test('one more ALLOW policy never denies more', () => {
  fc.assert(
    fc.property(policies(8), policies(3), requests, (list, more, calls) => {
      const renamed = more.map((policy): Policy => ({
        ...policy,
        key: `${policy.key}-more`,
        action: 'ALLOW',
      }));
      for (const one of calls) {
        if (verdictOf(list, one) === 'allow') expect(verdictOf([...list, ...renamed], one)).toBe('allow');
      }
    }),
    { numRuns: 150 },
  );
});

test('the order of policies and of rules changes no verdict', () => {
  fc.assert(
    fc.property(policies(8), requests, (list, calls) => {
      const turned = list
        .map((policy): Policy => ({ ...policy, rules: policy.rules.toReversed() }))
        .toReversed();
      for (const one of calls) expect(verdictOf(turned, one)).toBe(verdictOf(list, one));
    }),
    { numRuns: 150 },
  );
});

test('a denial without a rule names a predicate of an ALLOW rule that applies, and only then', () => {
  fc.assert(
    fc.property(policies(30), requests, (list, calls) => {
      const snapshot = compileSnapshot(meshOf(list, workloads));
      for (const one of calls) {
        const { reason, nearest } = decide(snapshot, one, noon);
        const allow = snapshot
          .appliedTo(one.destination)
          .policies.filter(({ action, dryRun }) => action === 'ALLOW' && !dryRun);
        const rules = allow.flatMap((policy) => policy.rules.map(({ name }) => name));
        if (reason !== 'no_allow_rule') expect(nearest).toBeNull();
        else if (rules.length > 0) expect(rules).toContain(nearest?.rule);
      }
    }),
    { numRuns: 150 },
  );
});
