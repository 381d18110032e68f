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
