import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { Workload } from '../../src/authz/attachment.ts';
import { decide } from '../../src/authz/decide.ts';
import type { PolicyMode } from '../../src/authz/policy-mode.ts';
import { runTests } from '../../src/authz/run-tests.ts';
import { compileSnapshot } from '../../src/authz/snapshot.ts';
import { finish } from '../../src/authz/steps.ts';
import { SpiffeId } from '../../src/spiffe/id.ts';
import { policies, request, workloads as registered } from './generated.ts';
import { meshOf, noon, policyText, readPolicies, trustDomain } from './mesh.ts';

const web = 'from: example.org/ns/shop/sa/web';
const get = `${web}, method: GET, path: /a`;
const tests = (...list: readonly string[]) => `rules: [{}]\ntests: [${list.join(', ')}]`;
const allow = (call: string) => `{ allow: { ${call} } }`;

describe('refused', () => {
  test.each([
    ['no tests', 'tests: []', 'policy_invalid'],
    ['257 tests', tests(...Array<string>(257).fill(allow(get))), 'policy_invalid'],
    ['a test of nothing', tests('{ name: a }'), 'policy_invalid'],
    ['a test of both', tests(`{ allow: { ${get} }, deny: { ${get} } }`), 'policy_invalid'],
    ['another field', tests(`{ allows: { ${get} } }`), 'document_field_unknown'],
    ['no caller', tests(allow('method: GET, path: /')), 'document_field_missing'],
    ['no method', tests(allow(`${web}, path: /`)), 'document_field_missing'],
    ['no path', tests(allow(`${web}, method: GET`)), 'document_field_missing'],
    [
      'a caller that is none',
      tests(allow('from: Shop/web, method: GET, path: /')),
      'spiffe_id_trust_domain_char',
    ],
    ['a method that is none', tests(allow(`${web}, method: "G T", path: /`)), 'policy_invalid'],
    ['a port that is none', tests(allow(`${get}, port: 65536`)), 'policy_invalid'],
    ['a port that is text', tests(allow(`${get}, port: "80"`)), 'document_field_type'],
    ['an address that is none', tests(allow(`${get}, sourceIp: 10.0.0`)), 'policy_invalid'],
    ['a header twice', tests(allow(`${get}, headers: { X-A: a, x-a: b }`)), 'policy_invalid'],
    ['a header of numbers', tests(allow(`${get}, headers: { x-a: [1] }`)), 'document_field_type'],
    ['a reason that is none', tests(`{ deny: { ${get} }, reason: no }`), 'policy_invalid'],
    ['a path over TCP', tests(allow(`${web}, protocol: tcp, path: /`)), 'policy_invalid'],
    ['a protocol that is none', tests(allow(`${get}, protocol: udp`)), 'policy_invalid'],
    ['a moment that is none', tests(allow(`${get}, at: now`)), 'policy_invalid'],
    ['a name of two lines', tests(`{ name: "a\\nb", allow: { ${get} } }`), 'policy_invalid'],
  ])('%s', (_name, spec, code) => {
    expect(() => readPolicies(policyText(spec))).toThrow(expect.objectContaining({ code }) as Error);
  });
});

const ledger = 'spiffe://example.org/ns/pay/sa/ledger';
const other = 'spiffe://example.org/ns/pay/sa/other';
const of = (id: string, labels: Record<string, string> = {}): Workload => ({
  id: SpiffeId.parse(id),
  labels,
});

function run(
  text: readonly string[],
  workloads: readonly Workload[] = [],
  now = noon,
  mode: PolicyMode = 'strict',
) {
  const list = text.flatMap((one) => readPolicies(one));
  const mesh = { ...meshOf(list, workloads), mode };
  const ground = { ...mesh, snapshot: compileSnapshot(mesh) };
  return finish(runTests(ground, list, now, list));
}

const methods = (...names: string[]) =>
  `rules: [{ to: [{ operation: { methods: [${names.join(', ')}] } }] }]`;

test.each<[string, string, string[], Workload[], boolean, string]>([
  ['a call that is allowed', methods('GET'), [allow(get)], [], true, 'allow_rule'],
  ['a call that is not', methods('PUT'), [allow(get)], [], false, 'no_allow_rule'],
  ['another rule', methods('GET'), [`{ allow: { ${get} }, rule: "pay/p rule[1]" }`], [], false, 'allow_rule'],
  ['that rule', methods('GET'), [`{ allow: { ${get} }, rule: "pay/p rule[0]" }`], [], true, 'allow_rule'],
  ['that reason', methods('PUT'), [`{ deny: { ${get} }, reason: no_allow_rule }`], [], true, 'no_allow_rule'],
  ['another reason', methods('PUT'), [`{ deny: { ${get} }, reason: deny_rule }`], [], false, 'no_allow_rule'],
  [
    'a path two programs could read differently',
    methods('GET'),
    [`{ deny: { ${web}, method: GET, path: /a//b } }`],
    [],
    true,
    'request_ambiguous',
  ],
  [
    'a workload made up of what is selected',
    `selector: { matchLabels: { app: l } }\n${methods('GET')}`,
    [allow(get)],
    [of(other)],
    true,
    'allow_rule',
  ],
  [
    'a named workload without the label',
    `selector: { matchLabels: { app: l } }\n${methods('GET')}`,
    [allow(`${get}, to: ${ledger}`)],
    [of(ledger)],
    false,
    'no_policy',
  ],
  [
    'a named workload of another namespace',
    methods('GET'),
    [allow(`${get}, to: example.org/ns/shop/sa/web`)],
    [],
    false,
    'no_policy',
  ],
  [
    'of another trust domain',
    methods('GET'),
    [allow(`${get}, to: other.org/ns/pay/sa/a`)],
    [],
    false,
    'no_policy',
  ],
  [
    'a header in two lines, one of which does not fit',
    'rules: [{ when: [{ key: "request.headers[x-a]", values: [a] }] }]',
    [allow(`${get}, headers: { X-A: [a, b] }`)],
    [],
    false,
    'no_allow_rule',
  ],
  [
    'a claim in a list',
    'rules: [{ when: [{ key: "request.auth.claims[g][h]", values: [a] }] }]',
    [allow(`${get}, jwt: { g: { h: [a] } }`)],
    [],
    true,
    'allow_rule',
  ],
  [
    'no token at all',
    'rules: [{ when: [{ key: "request.auth.claims[g]", values: [a] }] }]',
    [allow(get)],
    [],
    false,
    'no_allow_rule',
  ],
  [
    'a connection',
    'rules: [{ to: [{ operation: { ports: ["80"] } }] }]',
    [allow(`${web}, protocol: tcp, port: 80`)],
    [],
    true,
    'allow_rule',
  ],
  [
    'an address',
    'rules: [{ from: [{ source: { ipBlocks: [10.0.0.0/8] } }] }]',
    [allow(`${get}, sourceIp: 10.1.1.1`)],
    [],
    true,
    'allow_rule',
  ],
  [
    'a policy that has ended, while it was in force',
    'expiresAt: 2026-01-01T00:00:00Z\nrules: [{}]',
    [allow(get)],
    [],
    true,
    'allow_rule',
  ],
  [
    'and after that',
    'expiresAt: 2026-01-01T00:00:00Z\nrules: [{}]',
    [allow(`${get}, at: 2026-01-01T00:00:00Z`)],
    [],
    false,
    'no_allow_rule',
  ],
  [
    'one that is to begin',
    'notBefore: 2030-01-01T00:00:00Z\nrules: [{}]',
    [allow(get)],
    [],
    true,
    'allow_rule',
  ],
])('%s', (_name, spec, list, workloads, passed, reason) => {
  const [outcome] = run([policyText(`${spec}\ntests: [${list.join(', ')}]`)], workloads).outcomes;
  expect(outcome).toMatchObject({ passed, reason, place: { file: 'p.yaml' } });
});

test('in Istio mode a test gets what the doors of that mode decide, and its rules are counted by it', () => {
  const spec = `action: DENY
${methods('PUT')}
tests: [{ allow: { ${get} }, reason: allow_by_default }, { deny: { ${web}, method: PUT, path: /a } }]`;
  const { outcomes, coverage } = run([policyText(spec)], [], noon, 'istio');
  expect(outcomes.map(({ passed, reason }) => [passed, reason])).toEqual([
    [true, 'allow_by_default'],
    [true, 'deny_rule'],
  ]);
  expect(coverage).toMatchObject([{ matched: 1, notMatched: 1 }]);
  expect(run([policyText(spec)]).outcomes.map(({ passed }) => passed)).toEqual([false, true]);
});

test('a test that names no workload is run for each that the policy applies to, beside all other policies', () => {
  const policy = policyText(`selector: { matchLabels: { app: l } }\n${tests(allow(get))}`);
  const against = policyText('selector: { matchLabels: { tier: x } }\naction: DENY\nrules: [{}]', 'q');
  const both = [of(ledger, { app: 'l' }), of(other, { app: 'l', tier: 'x' })];
  expect(run([policy, against], both.slice(0, 1)).outcomes[0]?.passed).toBe(true);
  expect(run([policy, against], both).outcomes[0]).toMatchObject({
    passed: false,
    destination: other,
    rule: 'pay/q rule[0]',
  });
});

test('a policy of the root namespace tests any workload that it names', () => {
  const root = (call: string) => policyText(tests(allow(call)), 'r', 'istio-system');
  expect(run([root(get)]).outcomes[0]).toMatchObject({ passed: false, destination: '' });
  expect(run([root(`${get}, to: ${ledger}`)]).outcomes[0]?.passed).toBe(true);
});

test('rules are counted by the tests that reach them', () => {
  const spec = `rules:
  - to: [{ operation: { methods: [GET] } }]
  - to: [{ operation: { methods: [PUT] } }]
tests: [{ allow: { ${get} } }, { deny: { ${web}, method: POST, path: /a } }]`;
  const { coverage } = run([
    policyText(spec),
    policyText('action: DENY\nrules: [{ to: [{ operation: { methods: [POST] } }] }]', 'q'),
    policyText('rules: [{}]', 'z', 'shop'),
  ]);
  expect(coverage.map(({ rule, matched, notMatched }) => [rule, matched, notMatched])).toEqual([
    ['pay/p rule[0]', 1, 1],
    ['pay/p rule[1]', 0, 2],
    ['pay/q rule[0]', 1, 1],
    ['shop/z rule[0]', 0, 0],
  ]);
});

test('a test gets what the engine decides, of whatever policies', () => {
  fc.assert(
    fc.property(policies(6), fc.array(request, { minLength: 1, maxLength: 6 }), (list, calls) => {
      for (const one of calls) {
        if (one.source === null || one.protocol === 'tcp' || !one.destination.memberOf(trustDomain)) continue;
        const { source, destination, method, path, port, context } = one;
        const authority = one.hostPort === null ? one.host : `${one.host}:${one.hostPort}`;
        const [root] = readPolicies(policyText('rules: [{}]\naction: AUDIT', 'root', 'istio-system'));
        const call = {
          protocol: 'http',
          source,
          destination,
          method,
          path,
          authority,
          port,
          context,
        } as const;
        const place = { file: 'p.yaml', line: 1, column: 1 };
        const expected = { name: 'a', want: 'allow', rule: null, reason: null, place } as const;
        const tested = { ...root!, tests: [{ ...expected, call: { ...call, at: null } }] };
        const mesh = meshOf([...list, tested], registered);
        const snapshot = compileSnapshot(mesh);
        const [outcome] = finish(runTests({ ...mesh, snapshot }, [tested], noon)).outcomes;
        // Grants are for their own tests alone.
        const ordinary = mesh.policies.filter(({ terms }) => terms.breakGlass === null);
        const standing = compileSnapshot({ ...mesh, policies: ordinary });
        const { verdict, reason, rule } = decide(standing, one, noon);
        expect(outcome).toMatchObject({ got: verdict, reason, rule, passed: verdict === 'allow' });
      }
    }),
    { numRuns: 60 },
  );
});
