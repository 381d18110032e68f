import { describe, expect, test } from 'vitest';
import { decide } from '../../src/authz/decide.ts';
import { explainDecision } from '../../src/authz/explain.ts';
import { formatExplanation } from '../../src/authz/format-explanation.ts';
import { explainCall } from '../../src/authz/judge.ts';
import { policyModes } from '../../src/authz/policy-mode.ts';
import { canonicalizeTcp, isRejection } from '../../src/authz/request.ts';
import { compileSnapshot } from '../../src/authz/snapshot.ts';
import { call, ledger, meshOf, noon, policyText, readPolicies, web } from './mesh.ts';

const text = [
  policyText(
    `rules:
  - from:
      - source: { namespaces: [shop] }
    to:
      - operation:
          methods: [GET]
          paths: ["/charge", "/refund"]`,
    'db-read',
  ),
  policyText('action: DENY\nrules:\n  - to: [{ operation: { paths: ["/admin*"] } }]', 'no-admin'),
].join('---\n');
const snapshot = compileSnapshot(meshOf(readPolicies(text)));

function explain(overrides: Parameters<typeof call>[0]) {
  const request = call(overrides);
  return explainDecision(snapshot, request, decide(snapshot, request, noon), noon);
}

describe('for a terminal', () => {
  test('a denial shows the line that stood in the way', () => {
    expect(formatExplanation(explain({ method: 'POST' }))).toBe(
      `DENY   spiffe://example.org/ns/shop/sa/web -> spiffe://example.org/ns/pay/sa/ledger  POST ledger.pay:8080/charge
reason   no_allow_rule · mesh revision 7
why      no ALLOW rule matched
nearest  pay/db-read rule[0]  2 of 3 conditions matched  p.yaml:10:22
             10 |             methods: [GET]
                |                      ^^^^^ the call used POST
to allow add POST to methods of pay/db-read rule[0]  p.yaml:10:22
policies
  ALLOW  pay/db-read  p.yaml:1:1
    rule[0]  missed: to[0] methods missed (the call used POST)
  DENY   pay/no-admin  p.yaml:13:1
    rule[0]  missed: to[0] paths missed (the call used /charge)
`,
    );
  });

  test('an allow shows the rule', () => {
    expect(formatExplanation(explain({}))).toContain(
      'rule     pay/db-read rule[0]  p.yaml:6:7\n              6 |     - from:\n',
    );
  });

  test('a TCP connection shows its port and what could not be judged', () => {
    const request = canonicalizeTcp({ source: web, destination: ledger, port: 5_432 });
    if (isRejection(request)) throw new Error(request.why);
    const shown = formatExplanation(
      explainDecision(snapshot, request, decide(snapshot, request, noon), noon),
    );
    expect(shown).toContain('TCP port 5432');
    expect(shown).toContain('rule[0]  matched: to[0] paths inapplicable (the call has no path)');
  });
});

describe('as data', () => {
  test('an unauthenticated call is explained', () => {
    const explanation = explain({ source: null });
    expect(explanation).toMatchObject({
      verdict: 'deny',
      reason: 'unauthenticated',
      nearest: null,
      decidedAt: null,
    });
    expect(formatExplanation(explanation)).toContain('(no certificate) -> ');
  });

  test('and no condition on the caller is met by it', () => {
    const sources = ['principals', 'namespaces', 'serviceAccounts', 'trustDomains'].map((field) => ({
      from: [{ source: { [field]: [field === 'serviceAccounts' ? 'a/b' : '*'] } }],
    }));
    const mesh = meshOf(readPolicies(policyText(`rules: ${JSON.stringify(sources)}`)));
    const request = call({ source: null });
    const decision = decide(compileSnapshot(mesh), request, noon);
    const [policy] = explainDecision(compileSnapshot(mesh), request, decision, noon).policies;
    expect(policy?.rules.map(({ entries }) => entries[0]?.predicates[0]?.outcome)).toEqual(
      sources.map(() => 'inapplicable'),
    );
  });

  test('it survives JSON', () => {
    const explanation = explain({ method: 'POST' });
    expect(JSON.parse(JSON.stringify(explanation))).toEqual(explanation);
  });

  test('each rule says how far it got', () => {
    const [first, second] = explain({ path: '/admin' }).policies;
    expect(first).toMatchObject({ policy: 'pay/no-admin', rules: [{ matched: true }] });
    expect(second?.rules[0]?.entries[1]?.predicates.map(({ field, outcome }) => [field, outcome])).toEqual([
      ['methods', 'matched'],
      ['paths', 'missed'],
    ]);
  });

  test('of many policies at most 64 are shown, the deciding one first', () => {
    const many = Array.from({ length: 100 }, (_, i) =>
      policyText(i === 99 ? 'rules: [{}]' : '{}', `p${100 + i}`),
    ).join('---\n');
    const large = compileSnapshot(meshOf(readPolicies(many)));
    const explanation = explainDecision(large, call(), decide(large, call(), noon), noon);
    expect(explanation.policies.length).toBe(64);
    expect(explanation.policies[0]?.policy).toBe('pay/p199');
    expect(explanation.policiesOmitted).toBe(36);
    expect(formatExplanation(explanation)).toContain('and 36 more');
  });
});

describe('a host that is not told', () => {
  const deny = 'action: DENY\nrules: [{ to: [{ operation: { hosts: [a.b] } }] }]';
  const denyOthers = 'action: DENY\nrules: [{ to: [{ operation: { notHosts: [unknown.invalid, a.b] } }] }]';
  const allow = 'rules: [{ to: [{ operation: { hosts: [a.b, unknown.invalid] } }] }]';
  const anybody = 'rules: [{ to: [{ operation: { methods: [GET] } }] }]';
  test.each<[string, readonly string[], object, object]>([
    [
      'is no reason to allow',
      [allow],
      { verdict: 'deny', reason: 'no_allow_rule', why: expect.stringContaining('the host is not known') },
      { reason: 'request_ambiguous', why: 'a policy reads the host, which is not told' },
    ],
    [
      'is not ruled out for DENY',
      [anybody, deny],
      {
        reason: 'deny_rule',
        why: expect.stringContaining('cannot be ruled out: hosts is a.b, the host is not known'),
      },
      { reason: 'request_ambiguous' },
    ],
    [
      'is not ruled out for a not either',
      [anybody, denyOthers],
      { reason: 'deny_rule' },
      { reason: 'request_ambiguous' },
    ],
    ['does not matter where nobody reads it', [anybody], { verdict: 'allow' }, { verdict: 'allow' }],
  ])('%s', (_, specs, strict, istio) => {
    const policies = readPolicies(specs.map((spec, i) => policyText(spec, `p${i}`)).join('---\n'));
    const asked = { source: web, destination: ledger, method: 'GET', path: '/a', authority: null, port: 0 };
    for (const mode of policyModes) {
      const explained = explainCall(compileSnapshot({ ...meshOf(policies), mode }), asked, noon);
      expect(explained).toMatchObject({ ...(mode === 'strict' ? strict : istio), request: { host: '' } });
    }
  });

  test('changes nothing of what is denied before policy', () => {
    const asked = { source: web, destination: ledger, method: 'GET', path: '//', authority: null, port: 0 };
    expect(explainCall(snapshot, asked, noon)).toMatchObject({
      reason: 'request_ambiguous',
      why: 'the path has an empty segment (//)',
    });
  });
});
