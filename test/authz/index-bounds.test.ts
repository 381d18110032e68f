import { describe, expect, test } from 'vitest';
import { type CallContext, untold } from '../../src/authz/context.ts';
import { Facts } from '../../src/authz/facts.ts';
import { type CompiledRule, compileRule } from '../../src/authz/match.ts';
import { PrefixTree } from '../../src/authz/prefix-tree.ts';
import { buildIndex, buildSideIndex } from '../../src/authz/rule-index.ts';
import { finish, rulesInStep, type Steps } from '../../src/authz/steps.ts';
import { call, noon, policyText, readPolicies, trustDomain } from './mesh.ts';

// What an index may cost, counted: how many rules a call tries, how often each, and in how many steps it is made.

function rulesOf(specs: readonly object[], action = 'ALLOW'): readonly CompiledRule[] {
  const [policy] = readPolicies(policyText(`action: ${action}\nrules: ${JSON.stringify(specs)}`));
  return policy!.rules.map((rule, i) => compileRule(policy!, rule, i));
}

type Asked = { readonly call?: Parameters<typeof call>[0]; readonly context?: Partial<CallContext> };

function factsOf({ call: overrides, context }: Asked): Facts {
  return new Facts({ ...call(overrides), context: { ...untold, ...context } }, trustDomain, noon);
}

/** The ordinals of the rules that a call tries when none of them holds. */
function triedBy(rules: readonly CompiledRule[], asked: Asked): readonly number[] {
  const tried: number[] = [];
  const failing = rules.map((rule): CompiledRule => {
    const fail = () => {
      tried.push(rule.ordinal);
      return false;
    };
    return { ...rule, from: [[fail]] };
  });
  expect(finish(buildIndex(failing)).find(factsOf(asked), undefined)).toBeUndefined();
  return tried;
}

function stepsOf(steps: Steps<unknown>): number {
  let taken = 0;
  while (steps.next().done !== true) taken += 1;
  return taken;
}

const some = <T>(count: number, make: (i: number) => T): T[] =>
  Array.from({ length: count }, (_, i) => make(i));
const to = (...operations: readonly object[]) => ({ to: operations.map((operation) => ({ operation })) });
const header = (...values: readonly string[]) => ({ when: [{ key: 'request.headers[x-a]', values }] });

describe('a call tries few rules', () => {
  test.each<[string, string, readonly object[], Asked, number]>([
    [
      'none of those whose value is the end or the beginning of what it has',
      'ALLOW',
      some(20, (i) => to({ paths: [i % 2 === 0 ? '/a' : '/x/a/b'] })),
      { call: { path: '/x/a' } },
      0,
    ],
    [
      'none of those that allow by what it does not tell',
      'ALLOW',
      some(20, (i) => header(`v${i}`, `w${i}*`)),
      {},
      0,
    ],
    [
      'all of those that deny by what it does not tell',
      'DENY',
      some(20, (i) => header(`v${i}`, `w${i}*`)),
      {},
      20,
    ],
    [
      'by what few rules share, when all share another value of the same field',
      'ALLOW',
      some(20, (i) => to({ paths: ['/shared', `/own${i}`], hosts: [`h${i}`] })),
      { call: { path: '/shared', authority: 'h7' } },
      1,
    ],
    [
      'by what few rules share in every entry',
      'ALLOW',
      some(20, (i) => ({
        ...to({ paths: [`/own${i}`] }, { methods: ['GET'] }),
        ...header(`v${i}`),
      })),
      { context: { headerLines: () => ['v7'] } },
      1,
    ],
    [
      'those whose beginning it has',
      'ALLOW',
      some(20, (i) => to({ paths: [`/own${i}/*`] })),
      { call: { path: '/own13/x' } },
      1,
    ],
    [
      'those whose end it has',
      'ALLOW',
      some(20, (i) => to({ paths: [`*/own${i}`] })),
      { call: { path: '/x/own13' } },
      1,
    ],
    [
      'those to which the second of two lines leads',
      'ALLOW',
      some(20, (i) => header(`v${i}`)),
      { context: { headerLines: () => ['x', 'v13'] } },
      1,
    ],
    [
      'those to which the end of the second of two lines leads',
      'ALLOW',
      some(20, (i) => header(`*/v${i}`)),
      { context: { headerLines: () => ['x', 'y/v13'] } },
      1,
    ],
    [
      'none by a header that is known to be missing',
      'DENY',
      some(20, (i) => header('undefined', 'u*', '*d', `v${i}`)),
      { context: { headerLines: () => [] } },
      0,
    ],
  ])('%s', (_name, action, specs, asked, count) => {
    expect(triedBy(rulesOf(specs, action), asked).length).toBe(count);
  });

  test.each([1, 2])('each of %i once, though several of its entries name one thing', (count) => {
    const twice = some(count, () =>
      to({ paths: ['/a'], methods: ['GET'] }, { paths: ['/a'], methods: ['PUT'] }),
    );
    const rules = rulesOf([...twice, ...some(20, (i) => to({ paths: [`/p${i}`], methods: ['GET', 'PUT'] }))]);
    expect(triedBy(rules, { call: { path: '/a' } })).toEqual(some(count, (i) => i));
  });

  test('found by two things, where each of them is shared and there are very many values', () => {
    const specs = some(100, (i) => to({ paths: [`/p${i % 10}`], hosts: [`h${Math.floor(i / 10)}`] }));
    const rules = rulesOf(specs).map((rule): CompiledRule => ({ ...rule, atoms: 100_000 }));
    expect(triedBy(rules, { call: { path: '/p3', authority: 'h7' } })).toEqual([73]);
  });

  test('none behind one that holds, and that one once', () => {
    const specs = some(40, (i) => to(i % 2 === 0 ? { paths: ['/charge', '/ch*'] } : { notMethods: ['PUT'] }));
    let tried = 0;
    const counted = rulesOf(specs).map((rule): CompiledRule => {
      const hold = () => {
        tried += 1;
        return true;
      };
      return { ...rule, from: [[hold]] };
    });
    expect(finish(buildIndex(counted)).find(factsOf({}), undefined)?.ordinal).toBe(0);
    expect(tried).toBe(1);
  });
});

describe('the rule of the lowest rank is found', () => {
  test.each([0, 5, 19])('in whatever order they are handed over: from %i', (first) => {
    const rules = rulesOf(some(20, (i) => to({ paths: i < 8 ? ['/other'] : ['/charge'] })));
    const turned = [...rules.slice(first), ...rules.slice(0, first)].toReversed();
    expect(finish(buildIndex(turned)).find(factsOf({}), undefined)?.ordinal).toBe(8);
  });

  test('when another has been found before it, by what that one names', () => {
    const rules = rulesOf(some(20, (i) => to(i < 9 ? { notMethods: ['PUT'] } : { paths: ['/charge'] })));
    expect(finish(buildIndex(rules)).find(factsOf({}), undefined)?.ordinal).toBe(0);
  });
});

describe('of rules that name nothing to be found by', () => {
  const not = (method: string) => to({ notMethods: [method] });
  const named = some(20, () => to({ paths: ['/charge'] }));
  test.each<[string, readonly object[], number]>([
    ['one before that holds', [not('GET'), not('PUT'), ...named, not('PUT')], 1],
    ['the named one, when one behind it holds too', [not('GET'), ...named, not('PUT'), not('PUT')], 1],
    ['none before that holds', [not('GET'), not('GET'), ...named, not('GET')], 2],
  ])('%s', (_name, specs, ordinal) => {
    expect(finish(buildIndex(rulesOf(specs))).find(factsOf({}), undefined)?.ordinal).toBe(ordinal);
  });
});

describe('a denial weighs few rules', () => {
  const gathered = (specs: readonly object[], asked: Asked, limit: number) => {
    const into: CompiledRule[] = [];
    finish(buildSideIndex(rulesOf(specs), 'to')).gather(factsOf(asked), into, limit);
    return into.map(({ ordinal }) => ordinal);
  };

  test.each([0, 1, 3, 20])('no more than %i, when that is the limit', (limit) => {
    expect(
      gathered(
        some(40, () => to({ paths: ['/charge'] })),
        {},
        limit,
      ).length,
    ).toBe(limit);
  });

  test('nor of few rules', () => {
    expect(
      gathered(
        some(3, () => to({ paths: ['/charge'] })),
        {},
        0,
      ),
    ).toEqual([]);
  });

  test.each([
    ['beginning', (i: number) => `/own${i}/*`, '/own13/x'],
    ['end', (i: number) => `*/own${i}`, '/x/own13'],
  ])('by the %s of a path', (_name, pathOf, path) => {
    expect(
      gathered(
        some(20, (i) => to({ paths: [pathOf(i)] })),
        { call: { path } },
        20,
      ),
    ).toEqual([13]);
  });

  test('each once, though more than one value leads to it', () => {
    const specs = some(20, (i) => to({ paths: ['/charge', '/ch*', '*ge', `/own${i}`] }));
    expect(gathered(specs, {}, 60).toSorted((a, b) => a - b)).toEqual(some(20, (i) => i));
  });

  test('those that can be found by nothing too', () => {
    const specs = [...some(20, (i) => to({ paths: [`/p${i}`] })), to({ notMethods: ['GET'] })];
    expect(gathered(specs, { call: { path: '/p3' } }, 20)).toEqual([3, 20]);
  });

  test.each<[string, Partial<CallContext>, readonly number[]]>([
    ['each line of a header', { headerLines: () => ['v3', 'w5x'] }, [3, 5]],
    ['a header that is known to be missing', { headerLines: () => [] }, []],
    ['a header of which nothing is told', {}, []],
  ])('by %s', (_name, context, expected) => {
    const specs = some(20, (i) => header('undefined', 'u*', '*d', `v${i}`, `w${i}*`));
    const into: CompiledRule[] = [];
    finish(buildIndex(rulesOf(specs))).gather(factsOf({ context }), into, 20);
    expect(into.map(({ ordinal }) => ordinal)).toEqual(expected);
  });
});

describe('an index is made in steps', () => {
  test.each<[string, readonly object[]]>([
    ['callers of their own', some(160, (i) => ({ ...ownCaller(i), ...to({ paths: ['/v1'] }) }))],
    ['paths of their own', some(160, (i) => ({ ...ownCaller(0), ...to({ paths: [`/v1/${i}`] }) }))],
    ['hosts of their own', some(160, (i) => to({ hosts: [`h${i}`], methods: ['GET'], paths: ['/v1'] }))],
    ['methods of their own', some(160, (i) => to({ hosts: ['h'], methods: [`M${i}`], ports: ['80'] }))],
    [
      'ports of their own',
      some(160, (i) => to({ methods: ['GET'], paths: ['/v1'], ports: [String(i + 1)] })),
    ],
  ])('as many as there are rules for, filed once: %s', (_name, specs) => {
    const steps = stepsOf(buildIndex(rulesOf(specs)));
    // They are counted, chosen for, and filed.
    expect(steps).toBeGreaterThanOrEqual((3 * specs.length) / rulesInStep);
    expect(steps).toBeLessThan((4 * specs.length) / rulesInStep);
  });

  test('of which none does much, and nothing is made for places where no rule is filed', () => {
    const tree = new PrefixTree();
    for (const [i, rule] of rulesOf(some(64, () => ({}))).entries())
      tree.add(i.toString(2).padStart(6, '0'), rule);
    let crowds = 0;
    const steps = tree.seal(function* (crowd) {
      yield* [];
      expect(crowd.length).toBeGreaterThan(0);
      crowds += 1;
      return { find: (_facts, best) => best, gather: () => undefined };
    });
    let isDone = false;
    for (let before = 0; !isDone; before = crowds) {
      isDone = steps.next().done === true;
      expect(crowds - before).toBeLessThanOrEqual(rulesInStep);
    }
    expect(crowds).toBe(64);
  });

  test('and crowds of rules that name very much are not taken apart for ever', () => {
    const callers = some(200, (i) => `example.org/ns/a/sa/s${i}`);
    const paths = some(200, (i) => `/p${i}`);
    const rule = { from: [{ source: { principals: callers } }], ...to({ paths }) };
    const rules = rulesOf(some(9, () => rule));
    // Taken apart, each of the 200 callers has an index of 200 paths of its own.
    expect(stepsOf(buildIndex(rules))).toBeLessThan(100 * (paths.length / rulesInStep));
  });
});

function ownCaller(i: number): object {
  return { from: [{ source: { principals: [`example.org/ns/shop/sa/s${i}`] } }] };
}
