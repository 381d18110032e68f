import fc from 'fast-check';
import { expect, test } from 'vitest';
import { type CallContext, untold } from '../../src/authz/context.ts';
import { decide } from '../../src/authz/decide.ts';
import { istioFacts } from '../../src/authz/istio-match.ts';
import { proxyRequestOf, type RawCall } from '../../src/authz/istio-mode.ts';
import { compileIstio, type IstioRuleSet, judgeAsIstio } from '../../src/authz/istio-rules.ts';
import { explainCall, judgeCall } from '../../src/authz/judge.ts';
import { normalizedPath, pathNormalizations } from '../../src/authz/normalized-path.ts';
import { parsePolicy } from '../../src/authz/parse.ts';
import type { Policy } from '../../src/authz/policy.ts';
import { canReach, whoCan } from '../../src/authz/reach.ts';
import { readPolicyDocument } from '../../src/authz/read-document.ts';
import { compileSnapshot, type Snapshot, type SnapshotInput } from '../../src/authz/snapshot.ts';
import { finish } from '../../src/authz/steps.ts';
import { MeshError } from '../../src/errors.ts';
import { SpiffeId, TrustDomain } from '../../src/spiffe/id.ts';
import { documentOfJson } from '../../src/yaml-json.ts';
import { collect } from './istio-cases.ts';
import { callers, calls, policies } from './istio-world.ts';
import {
  call as canonical,
  ledger,
  meshOf,
  noon,
  policyText,
  readPolicies,
  trustDomain,
  web,
} from './mesh.ts';

const now = new Date('2026-01-01T00:00:00Z');

/** What has passed the strict reader, which the policies of a mesh in Istio mode have as well. */
function readable(raw: readonly unknown[]): { raw: unknown[]; read: Policy[] } {
  const [kept, read]: [unknown[], Policy[]] = [[], []];
  for (const one of raw) {
    try {
      read.push(parsePolicy(documentOfJson(one, { file: 'p', line: 1 })));
      kept.push(one);
    } catch (error) {
      if (!(error instanceof MeshError)) throw error;
    }
  }
  return { raw: kept, read };
}

test('what a door decides in Istio mode is what authz eval says of the same call', async () => {
  const seed = Number(process.env['SEED'] ?? Math.floor(Math.random() * 2 ** 31));
  const worlds = fc.sample(policies([8080, 9090]), { numRuns: 60, seed });
  const asked = fc.sample(calls, { numRuns: 900, seed });
  const td1 = TrustDomain.parse('td1');
  const destination = SpiffeId.parse('spiffe://td1/ns/shop/sa/orders');
  const readWorlds = worlds.map(readable);
  const lines: string[] = [];
  const decided: object[] = [];
  for (const [index, { caller, method, path, host, headers, sourceIp, sni }] of asked.entries()) {
    const names = (callers[caller] ?? []).map((name) => name.slice(4));
    const pathNormalization = pathNormalizations[index % 4] ?? 'BASE';
    const forwarded = normalizedPath(path, pathNormalization);
    // Two names, or one that is no SPIFFE ID, the door refuses; and such a path the proxy.
    if (names.length > 1 || names[0]?.startsWith('spiffe:') === false || forwarded === null) continue;
    const { raw, read } = readWorlds[index % worlds.length] ?? { raw: [], read: [] };
    const addresses = { sourceIp, destinationIp: '127.0.0.1' };
    const request = {
      ...{ principals: names, method, path, host, headers, sni },
      ...{ ...addresses, destinationPort: 8080 },
    };
    const mesh = { trustDomains: ['td1'], pathNormalization };
    lines.push(
      JSON.stringify({ mode: 'istio', mesh, workload: { namespace: 'shop' }, policies: raw, request }),
    );
    const context: CallContext = {
      ...untold,
      ...addresses,
      remoteIp: sourceIp,
      sni: sni ?? '',
      headerLines: (name) => headers.filter(([each]) => each.toLowerCase() === name).map(([, line]) => line),
    };
    const [source = null] = names.map((name) => SpiffeId.parse(name));
    const snapshot = compileSnapshot({
      ...{ revision: 1, mode: 'istio', trustDomain: td1, rootNamespace: 'istio-system', policies: read },
      workloads: [{ id: destination, labels: {} }],
    });
    const call = { source, destination, method, path: `${forwarded}?x=1`, authority: host, port: 8080 };
    const { decision } = judgeCall(snapshot, { protocol: 'http', ...call, context }, now);
    expect(decision.mode).toBe('istio');
    decided.push({
      allow: decision.verdict === 'allow',
      rule: decision.rule.replace(/^(.*)\/(.*) rule(.*)$/, 'ns[$1]-policy[$2]-rule$3') || null,
    });
  }
  const judged = (await collect(lines.join('\n'))).map(({ allow, rule, error }) =>
    error === null ? { allow, rule } : { error },
  );
  console.log(`seed ${seed}: ${judged.length} calls`);
  const differences = judged.flatMap((one, i) =>
    JSON.stringify(one) === JSON.stringify(decided[i]) ? [] : [{ line: lines[i], one, live: decided[i] }],
  );
  expect(differences.slice(0, 3)).toEqual([]);
  expect(judged.length).toBeGreaterThan(300);
}, 180_000);

type HttpCall = Extract<RawCall, { protocol: 'http' }>;
const told: CallContext = { ...untold, headerLines: () => [], sni: '' };
const joined = { context: { ...told, headerLines: () => undefined } };

/** Judges a call of `web` to `ledger` in Istio mode by one policy of these lines. */
function judge(
  spec: string | readonly string[],
  overrides: Partial<HttpCall> = {},
  workloads: SnapshotInput['workloads'] = [{ id: ledger, labels: {} }],
) {
  const text = [spec]
    .flat()
    .map((one, i) => policyText(one, `p${i}`))
    .join('---\n');
  const read = text === '' ? [] : readPolicies(text);
  const snapshot = compileSnapshot({ ...meshOf(read, workloads), mode: 'istio' });
  const { decision } = judgeCall(snapshot, { ...ordinary, ...overrides }, now);
  const { verdict, reason, rule } = decision;
  return [verdict, reason, rule, decision.why] as const;
}

const ordinary: HttpCall = {
  ...{ protocol: 'http', source: web, destination: ledger, method: 'GET', path: '/charge' },
  ...{ authority: 'ledger.pay:8080', port: 8080, context: told },
};
const rule = (text: string) => `rules:\n- ${text}`;
const header = rule('when: [{ key: "request.headers[x-a]", values: [a] }]');
const sni = rule('when: [{ key: connection.sni, values: [a.b] }]');
const token = rule('from: [{ source: { requestPrincipals: ["*"] } }]');
const custom = `action: CUSTOM\nprovider: { name: opa }\n${rule('to: [{ operation: { methods: [GET] } }]')}`;
const denyGet = `action: DENY\n${rule('to: [{ operation: { methods: [GET] } }]')}`;
const deny = (text: string) => `action: DENY\n${rule(text)}`;
const denyPort = deny('to: [{ operation: { ports: ["9090"] } }]');
const denyAddress = deny('from: [{ source: { ipBlocks: [10.0.0.0/8] } }]');
const denyNoted = deny('when: [{ key: "experimental.envoy.filters.a[b]", values: [c] }]');
const jwt = (...names: string[]) =>
  new Map([['envoy.filters.http.jwt_authn', new Map(names.map((name) => [name, { iss: 'x', sub: 'y' }]))]]);

test.each<[string, string | readonly string[], Partial<HttpCall>, string, string, string]>([
  ['no policy', [], {}, 'allow', 'allow_by_default', ''],
  ['only a DENY that does not match', denyGet, { method: 'PUT' }, 'allow', 'allow_by_default', ''],
  ['a DENY', denyGet, {}, 'deny', 'deny_rule', 'pay/p0 rule[0]'],
  ['an ALLOW without rules', '{}', {}, 'deny', 'no_allow_rule', ''],
  ['an ALLOW', rule('{}'), {}, 'allow', 'allow_rule', 'pay/p0 rule[0]'],
  ['an ALLOW, no certificate', rule('{}'), { source: null }, 'allow', 'allow_rule', 'pay/p0 rule[0]'],
  [
    'principals, no certificate',
    rule('from: [{ source: { principals: ["*"] } }]'),
    { source: null },
    'deny',
    'no_allow_rule',
    '',
  ],
  [
    'notPrincipals, no certificate',
    rule('from: [{ source: { notPrincipals: ["x.y/z"] } }]'),
    { source: null },
    'allow',
    'allow_rule',
    'pay/p0 rule[0]',
  ],
  [
    'a path as it is sent',
    rule('to: [{ operation: { paths: [/b] } }]'),
    { path: '/a/../b' },
    'deny',
    'no_allow_rule',
    '',
  ],
  ['a fragment', [], { path: '/a#b' }, 'deny', 'request_invalid', ''],
  ['no path at all', [], { method: 'CONNECT', path: '' }, 'allow', 'allow_by_default', ''],
  // What nobody here can know or ask is never an allow.
  ['CUSTOM', [custom, rule('{}')], {}, 'deny', 'custom_unanswered', 'pay/p0 rule[0]'],
  ['CUSTOM that does not match', custom, { method: 'PUT' }, 'allow', 'allow_by_default', ''],
  ['CUSTOM and DENY', [custom, denyGet], {}, 'deny', 'custom_unanswered', 'pay/p0 rule[0]'],
  [
    'two providers',
    [custom, custom.replace('opa', 'other').replace('GET', 'PUT')],
    {},
    'deny',
    'custom_unanswered',
    'pay/p0 rule[0]',
  ],
  ['a header whose lines are joined', header, joined, 'deny', 'request_ambiguous', ''],
  ['an AUDIT that reads it', `action: AUDIT\n${header}`, joined, 'allow', 'allow_by_default', ''],
  ['no word of a port', denyPort, { port: 0 }, 'deny', 'request_ambiguous', ''],
  ['no word of an address', denyAddress, {}, 'deny', 'request_ambiguous', ''],
  [
    'an address that is not denied',
    denyAddress,
    { context: { ...told, sourceIp: '11.0.0.1' } },
    'allow',
    'allow_by_default',
    '',
  ],
  ['no word of what filters noted', denyNoted, {}, 'deny', 'request_ambiguous', ''],
  [
    'a filter that noted nothing',
    denyNoted,
    { context: { ...told, metadata: new Map() } },
    'allow',
    'allow_by_default',
    '',
  ],
  ['a header that is not there', header, {}, 'deny', 'no_allow_rule', ''],
  [
    'no word of what TLS asked for',
    sni,
    { context: { ...told, sni: undefined } },
    'deny',
    'request_ambiguous',
    '',
  ],
  [
    'no word of it, and no TLS',
    sni,
    { source: null, context: { ...told, sni: undefined } },
    'deny',
    'no_allow_rule',
    '',
  ],
  ['two tokens', token, { context: { ...told, metadata: jwt('a', 'b') } }, 'deny', 'request_ambiguous', ''],
  ['no token', token, {}, 'deny', 'no_allow_rule', ''],
  [
    'another trust domain',
    [],
    { destination: SpiffeId.parse('spiffe://other.org/ns/pay/sa/ledger') },
    'deny',
    'no_policy',
    '',
  ],
])('%s', (_, spec, overrides, verdict, reason, named) => {
  const [said, because, by] = judge(spec, overrides);
  expect([said, because, by]).toEqual([verdict, reason, named]);
});

test('of several workloads with one ID one that would deny is enough', () => {
  const only = `selector: { matchLabels: { v: "2" } }\n${rule('to: [{ operation: { methods: [PUT] } }]')}`;
  const both = [
    { id: ledger, labels: { v: '1' } },
    { id: ledger, labels: { v: '2' } },
  ];
  expect(judge(only, {}, both.slice(0, 1))[1]).toBe('allow_by_default');
  expect(judge(only, {}, both)[1]).toBe('no_allow_rule');
});

function snapshotOf(text: string, previous?: Snapshot): Snapshot {
  const mesh = meshOf(text === '' ? [] : readPolicies(text), [{ id: ledger, labels: {} }]);
  return compileSnapshot({ ...mesh, mode: 'istio', ...(previous === undefined ? {} : { previous }) });
}

test('a canonical request and questions about many calls are refused in Istio mode', () => {
  const snapshot = snapshotOf(policyText('rules: [{}]'));
  const errors: unknown[] = [];
  expect(decide(snapshot, canonical(), noon, (error) => errors.push(error)).reason).toBe('engine_failed');
  expect(errors).toHaveLength(1);
  const refused = expect.objectContaining({ code: 'policy_mode_inexact' });
  expect(() => finish(whoCan(snapshot, ledger, {}, [], noon))).toThrow(refused);
  expect(() => finish(canReach(snapshot, web, {}, [ledger], noon))).toThrow(refused);
  expect(finish(whoCan(snapshot.at(9, 'strict'), ledger, {}, [], noon)).anybody.reach).toBe('always');
});

test('a failure of ours is a denial', () => {
  const broken = {
    ...ordinary,
    context: {
      ...told,
      headerLines: () => {
        throw new Error('x');
      },
    },
  };
  const errors: unknown[] = [];
  const { decision } = judgeCall(snapshotOf(policyText(header)), broken, now, (error) => errors.push(error));
  expect([decision.verdict, decision.reason, errors.length]).toEqual(['deny', 'engine_failed', 1]);
});

test('an explanation says how policies were read, and which condition failed', () => {
  const { protocol: _, ...raw } = ordinary;
  const text = policyText('rules:\n- to: [{ operation: { notMethods: [GET], ports: ["8080"] } }]');
  const said = explainCall(snapshotOf(text), raw, now);
  expect(said).toMatchObject({ mode: 'istio', verdict: 'deny', nearest: null });
  expect(
    said.policies[0]?.rules[0]?.entries[0]?.predicates.map(({ field, outcome }) => [field, outcome]),
  ).toEqual([
    ['ports', 'matched'],
    ['notMethods', 'missed'],
  ]);
  expect(explainCall(snapshotOf(''), raw, now)).toMatchObject({
    verdict: 'allow',
    reason: 'allow_by_default',
  });
});

test('what applies to a destination is worked out once, and again only when it changes', () => {
  const snapshot = snapshotOf(policyText('rules: [{}]'));
  const rules = snapshot.istio.rulesFor(ledger);
  expect(snapshot.istio.rulesFor(ledger)).toBe(rules);
  expect(snapshot.at(8).istio.rulesFor(ledger)).toBe(rules);
  const others = readPolicies(policyText('{}', 'q', 'elsewhere'));
  const [first] = readPolicies(policyText('rules: [{}]'));
  const before = compileSnapshot({ ...meshOf(first === undefined ? [] : [first]), mode: 'istio' });
  const made = before.istio.rulesFor(ledger)[0];
  const after = compileSnapshot({
    ...meshOf([...others, ...(first === undefined ? [] : [first])]),
    mode: 'istio',
    previous: before,
  });
  finish(after.prepare(before));
  expect(after.istio.rulesFor(ledger)[0]).toBe(made);
  expect(trustDomain.name).toBe('example.org');
});

test.each<[string, string, string, string]>([
  [
    'ALLOW in force',
    'notBefore: 2026-01-01T00:00:00Z\nexpiresAt: 2027-01-01T00:00:00Z\nrules: [{}]',
    'allow_rule',
    '',
  ],
  ['ALLOW that begins now', 'notBefore: 2026-11-21T12:00:00Z\nrules: [{}]', 'allow_rule', ''],
  ['ALLOW not begun', 'notBefore: 2026-12-01T00:00:00Z\nrules: [{}]', 'no_allow_rule', ''],
  ['ALLOW expired', 'expiresAt: 2026-11-21T12:00:00Z\nrules: [{}]', 'no_allow_rule', ''],
  ['DENY in force', 'action: DENY\nexpiresAt: 2026-11-21T12:00:01Z\nrules: [{}]', 'deny_rule', ''],
  ['DENY expired', 'action: DENY\nexpiresAt: 2026-11-21T12:00:00Z\nrules: [{}]', 'allow_by_default', ''],
  ['at no time that can be told', 'rules: [{}]', 'engine_failed', 'unknown'],
])('the bounds of a policy in time hold: %s', (_name, spec, reason, time) => {
  const at = time === '' ? noon : new Date(Number.NaN);
  expect(judgeCall(snapshotOf(policyText(spec)), ordinary, at).decision.reason).toBe(reason);
});

test('equal lines of a header are compared once, whatever their spaces', () => {
  const context = { ...told, headerLines: () => ['a', ' a\t', 'b', 'a'] };
  const request = proxyRequestOf({ ...ordinary, context }, new Set(['x-a']));
  const mesh = { trustDomains: ['td1'], rootNamespace: 'istio-system', pathNormalization: 'NONE' } as const;
  expect(istioFacts(mesh, request, now).lines.get('x-a')).toEqual(new Set(['a', 'b']));
});

test('rules that are filed by callers are found as if each were tried', () => {
  const mesh = { trustDomains: ['td1'], rootNamespace: 'r', pathNormalization: 'NONE' } as const;
  const peers = fc.uniqueArray(fc.constantFrom(...callers.flat()), { maxLength: 3 });
  const protocol = fc.constantFrom('http', 'tcp');
  const named = ['td1/ns/pay/sa/db', 'cluster.local/ns/shop/sa/web', 'td1/ns/evil/sa/b', '*/sa/web'].map(
    (name) => ({ from: [{ source: { principals: [name] } }] }),
  );
  const worlds = fc
    .tuple(policies([8080]), fc.subarray(named, { minLength: 1 }))
    .map(([raw, rules]) => raw.map((one, i) => (i === 0 ? { ...one, spec: { ...one.spec, rules } } : one)));
  const property = fc.property(worlds, calls, peers, protocol, (raw, one, names, over) => {
    const documents = raw.map((policy) => readPolicyDocument(documentOfJson(policy, { file: 'p', line: 1 })));
    const rules = compileIstio(mesh, documents);
    const call = { protocol: 'http', source: null, destination: ledger, port: 8080, ...one } as const;
    const request = {
      ...proxyRequestOf({ ...call, authority: one.host, path: '/a/b', context: told }, new Set()),
      ...{ protocol: over, peerNames: names.map((name) => name.slice(4)) },
    };
    const facts = istioFacts(mesh, request, now);
    const firstOf = ({ byCaller, others }: IstioRuleSet): string | undefined =>
      [...byCaller.values(), others]
        .flat()
        .filter(({ holds }) => holds(facts))
        .map(({ id }) => id)
        .sort()[0];
    const wanted = firstOf(rules.deny) ?? (rules.allow.isThere ? firstOf(rules.allow) : undefined);
    expect(judgeAsIstio(rules, request, now).rule?.id).toBe(wanted);
  });
  fc.assert(property, { numRuns: 1_500 });
});
