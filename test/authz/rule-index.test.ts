import { expect, test } from 'vitest';
import { untold } from '../../src/authz/context.ts';
import { Facts } from '../../src/authz/facts.ts';
import { type CompiledRule, compileRule } from '../../src/authz/match.ts';
import { buildIndex } from '../../src/authz/rule-index.ts';
import { finish } from '../../src/authz/steps.ts';
import { type Workload, workloads } from '../../bench/authz/workloads.ts';
import { call, noon, policyText, readPolicies, trustDomain } from './mesh.ts';

const size = 600;

function indexOf(workload: Workload) {
  const rules: CompiledRule[] = Array.from({ length: size }, (_, i) => {
    const { action = 'ALLOW', rule } = workload.policy(i);
    const spec = `action: ${action}\nrules: ${JSON.stringify([rule])}`;
    const [policy] = readPolicies(policyText(spec, `p${i}`));
    return compileRule(policy!, policy!.rules[0]!, i);
  });
  return finish(buildIndex(rules));
}

function factsOf(workload: Workload, i: number): Facts {
  const {
    caller = 'web',
    method = 'GET',
    path = '/v1/pay',
    host = 'ledger.pay',
    port = 8_080,
    context,
  } = workload.call(i, 'hit');
  const source = `spiffe://example.org/ns/shop/sa/${caller}`;
  const made = call({ source, method, path, authority: `${host}:8080`, port });
  return new Facts({ ...made, context: { ...untold, ...context } }, trustDomain, noon);
}

test.each(workloads.map((workload) => [workload.name, workload] as const))(
  'a call leads to few of the rules that share all but one thing: %s',
  (_name, workload) => {
    const index = indexOf(workload);
    for (const i of [0, 7, 101, 310]) {
      const led: CompiledRule[] = [];
      index.gather(factsOf(workload, i), led, size);
      expect(led.length).toBeLessThanOrEqual(8);
    }
  },
);

test('a template beside a path leads to few rules by its end, as one alone does', () => {
  const rules = Array.from({ length: 60 }, (_, i) => {
    const to = [{ operation: { paths: [`/{*}/end${i}`, `/plain${i}`] } }];
    const [policy] = readPolicies(policyText(`rules: ${JSON.stringify([{ to }])}`, `p${i}`));
    return compileRule(policy!, policy!.rules[0]!, i);
  });
  const index = finish(buildIndex(rules));
  for (const path of ['/x/end7', '/plain7']) {
    const led: CompiledRule[] = [];
    index.gather(new Facts(call({ path }), trustDomain, noon), led, 60);
    expect(led.map(({ ordinal }) => ordinal)).toEqual([7]);
  }
});

test('a call without a token leads to no DENY rule about one', () => {
  const rules = Array.from({ length: 60 }, (_, i) => {
    const from = [{ source: { requestPrincipals: [i % 2 === 0 ? `*/s${i}` : `i${i}/*`] } }];
    const [policy] = readPolicies(policyText(`action: DENY\nrules: ${JSON.stringify([{ from }])}`, `p${i}`));
    return compileRule(policy!, policy!.rules[0]!, i);
  });
  let tried = 0;
  const counted = rules.map((rule): CompiledRule => ({
    ...rule,
    from: rule.from.map((tests) => [() => ((tried += 1), true), ...tests]),
  }));
  const index = finish(buildIndex(counted));
  for (const [claims, expected] of [
    [null, 0],
    // Of a call whose token is not told any of them may be about it.
    [undefined, 1],
  ] as const) {
    tried = 0;
    const found = index.find(
      new Facts({ ...call(), context: { ...untold, claims } }, trustDomain, noon),
      undefined,
    );
    expect([found?.ordinal, tried]).toEqual([expected === 0 ? undefined : 0, expected]);
  }
});

test('what a rule costs to index is the number of its values', () => {
  const [policy] = readPolicies(
    policyText(
      'rules: [{ from: [{ source: { namespaces: [a, b] } }], to: [{ operation: { methods: [GET], notPaths: [/a] } }] }]',
    ),
  );
  expect(compileRule(policy!, policy!.rules[0]!, 0).atoms).toBe(4);
});

test.each([
  ['a', ['a', 'a', 'a']],
  ['a*', ['a1', 'a2', 'a3']],
  ['*a', ['1a', '2a', '3a']],
])('a call tries each rule once, however many lines of a header lead to it: %s', (value, lines) => {
  let tried = 0;
  const rules = Array.from({ length: 20 }, (_, i): CompiledRule => {
    const when = [{ key: 'request.headers[x-a]', values: [value] }];
    const [policy] = readPolicies(policyText(`rules: ${JSON.stringify([{ when }])}`, `p${i}`));
    const fail = () => {
      tried += 1;
      return false;
    };
    return { ...compileRule(policy!, policy!.rules[0]!, i), from: [[fail]] };
  });
  const context = { ...untold, headerLines: () => lines };
  expect(
    finish(buildIndex(rules)).find(new Facts({ ...call(), context }, trustDomain, noon), undefined),
  ).toBeUndefined();
  expect(tried).toBe(rules.length);
});
