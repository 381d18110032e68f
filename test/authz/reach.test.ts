import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { decide } from '../../src/authz/decide.ts';
import type { AuthzRequest } from '../../src/authz/decision.ts';
import { attributes } from '../../src/authz/document.ts';
import { Facts } from '../../src/authz/facts.ts';
import { compilePredicate, compileRule, ruleHolds } from '../../src/authz/match.ts';
import { sides } from '../../src/authz/policy.ts';
import { canReach, type PartialCall, type Reach, whoCan } from '../../src/authz/reach.ts';
import { residueOf } from '../../src/authz/residue.ts';
import { compileSnapshot } from '../../src/authz/snapshot.ts';
import { finish } from '../../src/authz/steps.ts';
import { SpiffeId } from '../../src/spiffe/id.ts';
import { policies, request, workloads } from './generated.ts';
import { ledger, meshOf, noon, policyText, readPolicies, trustDomain, web } from './mesh.ts';

const requests = fc.array(request, { minLength: 10, maxLength: 20 });

test('a residue matches what its rule matches, whichever attributes are open', () => {
  let [dead, settled, open] = [0, 0, 0];
  const opened = fc.uniqueArray(fc.constantFrom(...attributes));
  fc.assert(
    fc.property(policies(3), requests, opened, (list, calls, openAttributes) => {
      for (const { facts, policy } of calls.flatMap((one) =>
        list.map((policy) => ({ facts: new Facts(one, trustDomain, noon), policy })),
      )) {
        for (const rule of policy.rules.map((each) => compileRule(policy, each, 0))) {
          const residue = residueOf(rule, facts, (attribute) => openAttributes.includes(attribute));
          const unknown = policy.action !== 'ALLOW';
          const holds =
            residue !== undefined &&
            sides.every(
              (side) =>
                residue[side].length === 0 ||
                residue[side].some((entry) =>
                  entry.every((each) => compilePredicate(each, policy.action)(facts) ?? unknown),
                ),
            );
          expect(holds).toBe(ruleHolds(rule, facts));
          if (residue === undefined) dead += 1;
          else if (sides.every((side) => residue[side].length === 0)) settled += 1;
          else open += 1;
        }
      }
    }),
    { numRuns: 150 },
  );
  expect(Math.min(dead, settled, open)).toBeGreaterThan(100);
});

test('always and never are what the engine says of every such call', () => {
  const seen = { always: 0, never: 0, depends: 0 };
  const said = fc.uniqueArray(fc.constantFrom('method', 'path', 'host', 'port'));
  fc.assert(
    fc.property(policies(12), requests, said, (list, calls, names) => {
      const snapshot = compileSnapshot(meshOf(list, workloads));
      for (const one of calls) {
        if (one.protocol === 'tcp' || one.source === null || one.port === 0) continue;
        const { source, destination } = one;
        const call = partOf(one, names);
        const { anybody, callers } = finish(whoCan(snapshot, destination, call, [source], noon));
        const { caller: _, ...there } = callers[0]!;
        expect(finish(canReach(snapshot, source, call, [destination], noon))).toEqual([
          { ...there, destination: destination.text },
        ]);
        const { verdict } = decide(snapshot, one, noon);
        if (there.reach === 'always') expect(verdict).toBe('allow');
        if (there.reach === 'never') expect(verdict).toBe('deny');
        // Who calls can only settle what was open.
        if (anybody.reach !== 'depends') expect(there.reach).toBe(anybody.reach);
        seen[there.reach] += 1;
      }
    }),
    { numRuns: 100 },
  );
  expect(Math.min(...Object.values(seen))).toBeGreaterThan(0);
});

function partOf({ method, path, host, hostPort, port }: AuthzRequest, names: readonly string[]): PartialCall {
  const has = (name: string): boolean => names.includes(name);
  return {
    ...(has('method') ? { method } : {}),
    ...(has('path') ? { path } : {}),
    ...(has('host') ? { host, hostPort } : {}),
    ...(has('port') ? { port } : {}),
  };
}

const job = SpiffeId.parse('spiffe://example.org/ns/shop/sa/job');

function ask(specs: readonly string[], call: PartialCall = {}, callers = [web, job]) {
  const list = specs.flatMap((spec, i) => readPolicies(policyText(spec, `p${i}`)));
  return finish(whoCan(compileSnapshot(meshOf(list)), ledger, call, callers, noon));
}

describe('who can', () => {
  const toWeb = 'rules: [{ from: [{ source: { principals: [example.org/ns/shop/sa/web] } }] }]';
  const get = 'rules: [{ to: [{ operation: { methods: [GET], paths: ["/a*"] } }] }]';
  const noAdmin = 'action: DENY\nrules: [{ to: [{ operation: { paths: ["/admin*"] } }] }]';

  test.each<[string, string[], PartialCall, string[], string]>([
    ['nothing applies', [], {}, ['never', 'never'], 'never'],
    ['ALLOW without rules', ['{}'], {}, ['never', 'never'], 'never'],
    ['a caller is named', [toWeb], {}, ['always', 'never'], 'depends'],
    ['a method is asked for', [get], { method: 'GET', path: '/ab' }, ['always', 'always'], 'always'],
    ['another method', [get], { method: 'PUT' }, ['never', 'never'], 'never'],
    ['half of it', [get], { method: 'GET' }, ['depends', 'depends'], 'depends'],
    ['a DENY may stand in the way', [toWeb, noAdmin], {}, ['depends', 'never'], 'depends'],
    ['and does not', [toWeb, noAdmin], { path: '/x' }, ['always', 'never'], 'depends'],
    ['and does', [toWeb, noAdmin], { path: '/admin' }, ['never', 'never'], 'never'],
    [
      'an address is never said',
      ['rules: [{ from: [{ source: { ipBlocks: [10.0.0.0/8] } }] }]'],
      {},
      ['depends', 'depends'],
      'depends',
    ],
    [
      'a provider is asked by nobody',
      [toWeb, 'action: CUSTOM\nprovider: { name: a }\nrules: [{}]'],
      {},
      ['never', 'never'],
      'never',
    ],
  ])('%s', (_, specs, call, callers, anybody) => {
    const answer = ask(specs, call);
    expect(answer.callers.map(({ reach }) => reach)).toEqual(callers);
    expect(answer.anybody.reach).toBe(anybody);
  });

  test('says what it depends on, and only what is open', () => {
    const [one] = ask([toWeb, get, noAdmin], { method: 'GET' }).callers;
    expect(one).toMatchObject({
      caller: web.text,
      reach: 'depends',
      allow: [{ rule: 'pay/p0 rule[0]', place: 'p.yaml:5:11', from: [], to: [], when: [] }],
      unless: [{ rule: 'pay/p2 rule[0]', from: [], to: [['paths is /admin*']], when: [] }],
    });
  });

  test('marks grants, and the DENY rules that they outweigh', () => {
    const terms = 'ticket: a\nexpiresAt: 2026-11-22T00:00:00Z\nbreakGlass: { reason: b }\n';
    const [one] = ask([toWeb, `liftable: true\n${noAdmin}`, noAdmin, terms + toWeb]).callers;
    expect(one).toMatchObject({ reach: 'depends', allowOmitted: 0 });
    expect(one?.allow.map(({ rule, glass }) => [rule, glass])).toEqual([
      ['pay/p0 rule[0]', undefined],
      ['pay/p3 rule[0]', 'grant'],
    ]);
    expect(one?.unless.map(({ rule, glass }) => [rule, glass])).toEqual([
      ['pay/p1 rule[0]', 'liftable'],
      ['pay/p2 rule[0]', undefined],
    ]);
  });

  test('says of anybody which callers the rules mean', () => {
    expect(ask([toWeb]).anybody.allow).toMatchObject([
      { from: [['principals is example.org/ns/shop/sa/web']], to: [], when: [] },
    ]);
  });

  test('names so many rules and counts the others, and answers for so many callers as its work is enough for', () => {
    const spec = (action: string, at: number) =>
      `action: ${action}\nrules: [{ when: [{ key: source.ip, values: [10.0.0.${at}] }] }]`;
    const many = Array.from({ length: 1_200 }, (_, i) => spec(i < 600 ? 'ALLOW' : 'DENY', i % 256));
    const { anybody, callers } = ask(many, {}, Array<SpiffeId>(400).fill(web));
    const counts = ({ allow, unless, allowOmitted, unlessOmitted }: Reach) => [
      allow.length,
      allowOmitted,
      unless.length,
      unlessOmitted,
    ];
    expect(counts(anybody)).toEqual([512, 88, 512, 88]);
    expect(counts(callers[0]!)).toEqual([16, 584, 16, 584]);
    expect(callers.length).toBeGreaterThan(0);
    expect(callers.length).toBeLessThan(400);
  });
});
