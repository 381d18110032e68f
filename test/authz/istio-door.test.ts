// What a door answers in Istio mode: the whole decision, and what is not told.
import { expect, test } from 'vitest';
import { type CallContext, untold } from '../../src/authz/context.ts';
import type { RawCall } from '../../src/authz/istio-mode.ts';
import { explainCall, judgeCall } from '../../src/authz/judge.ts';
import { compileSnapshot, type SnapshotInput } from '../../src/authz/snapshot.ts';
import { ledger, meshOf, noon, policyText, readPolicies, web } from './mesh.ts';

const told: CallContext = { ...untold, headerLines: () => [], sni: '' };
const http: Extract<RawCall, { protocol: 'http' }> = {
  ...{ protocol: 'http', source: web, destination: ledger, method: 'GET', path: '/charge' },
  ...{ authority: 'ledger.pay:8080', port: 8080, context: told },
};
const tcp: RawCall = { protocol: 'tcp', source: web, destination: ledger, port: 8080 };

/** Of the specs the policies `pay/p0`, `pay/p1` and so on; one that begins with `trial` is on trial. */
function snapshotOf(specs: readonly string[], more: Partial<SnapshotInput> = {}) {
  const read = specs.map((spec, i) =>
    policyText(spec.replace('trial\n', ''), `p${i}`, 'pay', spec.startsWith('trial\n')),
  );
  const policies = specs.length === 0 ? [] : readPolicies(read.join('---\n'));
  return compileSnapshot({ ...meshOf(policies, [{ id: ledger, labels: {} }]), mode: 'istio', ...more });
}

function judge(specs: readonly string[], call: RawCall, more: Partial<SnapshotInput> = {}) {
  return judgeCall(snapshotOf(specs, more), call, noon).decision;
}

const rules = (rule: string) => `rules: [${rule}]`;
const all = rules('{}');
const by = (action: string, rule: string) => `action: ${action}\n${rules(rule)}`;
const provider = (name: string, rule = '{}') => `action: CUSTOM\nprovider: { name: ${name} }\n${rules(rule)}`;
const puts = '{ to: [{ operation: { methods: [PUT] } }] }';
const gets = '{ to: [{ operation: { methods: [GET] } }] }';
const ofWeb = '{ from: [{ source: { principals: [example.org/ns/shop/sa/web] } }] }';
const port = '{ to: [{ operation: { ports: ["8080"] } }] }';
const pathAndPort = '{ to: [{ operation: { paths: [/charge], ports: ["8080"] } }] }';
const header = (value: string) => `{ when: [{ key: "request.headers[x-a]", values: ["${value}"] }] }`;
const claim = '{ when: [{ key: "request.auth.claims[x-a]", values: [v] }] }';
const anyToken = '{ from: [{ source: { requestPrincipals: ["*"] } }] }';
const tokenAndMethod =
  '{ from: [{ source: { requestPrincipals: ["*"] } }], to: [{ operation: { methods: [GET] } }] }';
const noted = '{ when: [{ key: "experimental.envoy.filters.a[b]", values: [c] }] }';
const claims = new Map([
  ['iss', 'x'],
  ['sub', 'y'],
]);
const jwt = new Map([['envoy.filters.http.jwt_authn', new Map([['p', { iss: 'x', sub: 'y' }]])]]);
const saw = (context: Partial<CallContext>): RawCall => ({ ...http, context: { ...told, ...context } });
const joined = saw({ headerLines: () => undefined });

test.each<[string, readonly string[], RawCall, string, string]>([
  ['TCP, no policy', [], tcp, 'allow_by_default', ''],
  ['TCP, ALLOW by port', [rules(port)], tcp, 'allow_rule', 'pay/p0 rule[0]'],
  ['TCP, ALLOW by path and port', [rules(pathAndPort)], tcp, 'no_allow_rule', ''],
  // What is said of HTTP is left out of a DENY: nothing untold of a header is read on TCP.
  ['TCP, DENY by header', [by('DENY', header('a'))], tcp, 'deny_rule', 'pay/p0 rule[0]'],
  [
    'TCP, DENY by token',
    [by('DENY', anyToken)],
    { ...tcp, context: saw({ metadata: jwt }).context! },
    'deny_rule',
    'pay/p0 rule[0]',
  ],
  ['a token', [rules(anyToken)], saw({ claims }), 'allow_rule', 'pay/p0 rule[0]'],
  [
    'a token, as the filter notes it',
    [rules(anyToken)],
    saw({ claims, metadata: jwt }),
    'allow_rule',
    'pay/p0 rule[0]',
  ],
  [
    'a token that is not told, and more that is read',
    [rules(tokenAndMethod)],
    saw({ metadata: jwt }),
    'request_ambiguous',
    '',
  ],
  [
    'a token that is not told, and none is read',
    [rules(gets)],
    saw({ metadata: jwt }),
    'allow_rule',
    'pay/p0 rule[0]',
  ],
  [
    'what a filter noted',
    [by('DENY', noted)],
    saw({ metadata: new Map([['envoy.filters.a', new Map([['b', 'c']])]]) }),
    'deny_rule',
    'pay/p0 rule[0]',
  ],
  [
    'header lines that are not told',
    [rules(header('a'))],
    saw({ headerLines: undefined }),
    'request_ambiguous',
    '',
  ],
  ['a claim of the name of a header whose lines are joined', [rules(claim)], joined, 'no_allow_rule', ''],
  [
    'a header whose lines are joined, read on trial',
    [`trial\n${rules(header('a'))}`],
    joined,
    'allow_by_default',
    '',
  ],
  [
    'CUSTOM rules that do not match, of two providers',
    [provider('a', puts), provider('b', puts)],
    http,
    'allow_by_default',
    '',
  ],
])('%s: %j', (_, specs, call, reason, rule) => {
  expect(judge(specs, call)).toMatchObject({ reason, rule, mode: 'istio' });
});

test.each<[string, readonly string[], string]>([
  ['a DENY', [by('DENY', gets)], 'in Istio mode denied by pay/p0 rule[0]'],
  ['an ALLOW', [all], 'in Istio mode allowed by pay/p0 rule[0]'],
  ['no ALLOW that matches', [rules(puts)], 'in Istio mode no ALLOW rule matched'],
  [
    'no ALLOW',
    [],
    'in Istio mode no ALLOW policy applies to the destination, so all is allowed that nothing denies',
  ],
  [
    'a CUSTOM',
    [provider('opa')],
    'in Istio mode pay/p0 rule[0] leaves the call to opa, which is asked by nobody here',
  ],
])('why: %s', (_, specs, why) => {
  expect(judge(specs, http)).toMatchObject({ why });
});

test('why: a path that no proxy forwards', () => {
  expect(judge([], { ...http, path: '/a#b' })).toMatchObject({
    reason: 'request_invalid',
    why: 'in Istio mode the proxy answers this path with 400',
  });
});

test.each<[string, readonly string[], RawCall, string]>([
  ['one that matches', [by('AUDIT', gets)], http, 'pay/p0 rule[0]'],
  ['one that does not', [by('AUDIT', puts)], http, ''],
  [
    'the first by name, be it of any caller',
    [by('AUDIT', '{}'), by('AUDIT', ofWeb), by('AUDIT', '{}')],
    http,
    'pay/p0 rule[0]',
  ],
  ['the first by name, be it of one caller', [by('AUDIT', ofWeb), by('AUDIT', '{}')], http, 'pay/p0 rule[0]'],
  // What is not told is not there, for rules that decide nothing.
  ['header lines that are not told', [by('AUDIT', header('*'))], saw({ headerLines: undefined }), ''],
  [
    'an address that is not told',
    [by('AUDIT', '{ from: [{ source: { ipBlocks: [0.0.0.0/0] } }] }')],
    http,
    '',
  ],
  ['header lines that are joined', [by('AUDIT', header('*'))], joined, ''],
])('AUDIT rules mark and do not decide: %s', (_, specs, call, audited) => {
  expect(judge(specs, call)).toMatchObject({ verdict: 'allow', audited, custom: null, shadow: null });
});

test.each<[string, readonly string[], object | null]>([
  ['none', [all], null],
  ['an ALLOW that matches', [`trial\n${all}`], { allow: 'allowed', deny: null }],
  ['an ALLOW that does not', [`trial\n${rules(puts)}`], { allow: 'denied', deny: null }],
  ['a DENY that matches', [`trial\n${by('DENY', gets)}`], { allow: null, deny: 'denied' }],
  ['a DENY that does not', [`trial\n${by('DENY', puts)}`], { allow: null, deny: 'allowed' }],
  ['both', [`trial\n${all}`, `trial\n${by('DENY', gets)}`], { allow: 'allowed', deny: 'denied' }],
])('what is on trial is told and does not decide: %s', (_, specs, shadow) => {
  expect(judge(specs, http)).toMatchObject({ verdict: 'allow', shadow });
});

test.each<[string, readonly string[], boolean, string, string, string | null]>([
  // policies, whether providers are taken to say yes, reason, rule, provider
  ['one that says yes', [provider('opa'), all], true, 'allow_rule', 'pay/p1 rule[0]', 'opa'],
  ['one that nobody asks', [provider('opa'), all], false, 'custom_unanswered', 'pay/p0 rule[0]', 'opa'],
  ['none that matches', [provider('opa', puts), all], false, 'allow_rule', 'pay/p1 rule[0]', null],
  [
    'two rules of one',
    [provider('opa'), provider('opa')],
    false,
    'custom_unanswered',
    'pay/p0 rule[0]',
    'opa',
  ],
  [
    'two, in the order of their names',
    [provider('z'), provider('a')],
    false,
    'custom_unanswered',
    'pay/p1 rule[0]',
    'a',
  ],
  ['two that say yes', [provider('z'), provider('a'), all], true, 'custom_unanswered', 'pay/p0 rule[0]', 'a'],
])('providers: %s', (_, specs, providersAnswer, reason, rule, custom) => {
  expect(judge(specs, http, { providersAnswer })).toMatchObject({ reason, rule, custom });
});

test('two providers that say yes are no yes, and why', () => {
  const { verdict, why } = judge([provider('z'), provider('a')], http, { providersAnswer: true });
  expect([verdict, why]).toEqual([
    'deny',
    'in Istio mode the workload has CUSTOM policies of several providers',
  ]);
});

test('a failure that nobody wants to hear of is a denial as well', () => {
  const broken = saw({
    headerLines: () => {
      throw new Error('x');
    },
  });
  const said = (onFailure?: () => void) =>
    judgeCall(snapshotOf([rules(header('a'))]), broken, noon, onFailure).decision.reason;
  expect(said()).toBe('engine_failed');
  expect(
    said(() => {
      throw new Error('y');
    }),
  ).toBe('engine_failed');
});

test('an explanation lists the policies of all workloads of an ID by name', () => {
  const selects = (v: string) => `selector: { matchLabels: { v: "${v}" } }\n${rules(puts)}`;
  const workloads = ['2', '3', '1'].map((v) => ({ id: ledger, labels: { v } }));
  const snapshot = snapshotOf([selects('1'), selects('2'), selects('3')], { workloads });
  const { protocol: _, ...raw } = http;
  const said = explainCall(snapshot, raw, noon);
  expect(said.policies.map(({ policy }) => policy)).toEqual(['pay/p0', 'pay/p1', 'pay/p2']);
});
