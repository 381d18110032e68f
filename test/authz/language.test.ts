import { describe, expect, test } from 'vitest';
import { type CallContext, untold } from '../../src/authz/context.ts';
import { canonicalizeTcp, isRejection } from '../../src/authz/request.ts';
import type { SnapshotInput } from '../../src/authz/snapshot.ts';
import { SpiffeId } from '../../src/spiffe/id.ts';
import { call, ledger, meshOf, policyText, readPolicies, web } from './mesh.ts';
import { both, cautious, holds, judge, neither } from './rule-effect.ts';

/** The call of `web` with all there is to know of it. */
const known: CallContext = {
  headerLines: (name) =>
    new Map([
      ['x-one', ['a']],
      ['x-two', ['a', 'b']],
      ['x-odd', ['\u00e9']],
      ['x-pad', [' a\t']],
      ['x-empty', ['']],
    ]).get(name) ?? [],
  sourceIp: '10.1.2.3',
  remoteIp: '::ffff:192.0.2.1',
  destinationIp: '2001:db8::5',
  sni: 'Ledger.pay',
  claims: new Map<string, unknown>([
    ['iss', 'https://i.example/x'],
    ['sub', 'ann'],
    ['aud', ['pay', 'shop']],
    ['azp', 'web'],
    ['scope', 'read write'],
    ['permission', { of: 'read write' }],
    ['n', 1],
    ['roles', { deep: ['admin', 2] }],
    ['a.b', 'dotted'],
  ]),
  metadata: new Map([
    [
      'envoy.filters.http.x',
      new Map<string, unknown>([
        ['k', 'v'],
        ['l', ['v', 'w']],
        ['n', 1],
      ]),
    ],
  ]),
};
const header = (name: string) => `request.headers[${name}]`;
const claim = (name: string) => `request.auth.claims[${name}]`;
const noted = (key: string) => `experimental.envoy.filters.http.x[${key}]`;

describe('a condition on a call that is known', () => {
  test.each<[key: string, values: string[], expected: typeof both, negated: typeof both]>([
    ['source.principal', ['example.org/ns/shop/sa/web'], both, neither],
    ['source.principal', ['*/web', 'b'.repeat(9)].slice(0, 1), both, neither],
    ['source.namespace', ['shop'], both, neither],
    ['source.namespace', ['sho', 'shop*x'].slice(0, 1), neither, both],
    ['source.serviceAccount', ['shop/web'], both, neither],
    // Of the policy's own namespace, which is not the caller's.
    ['source.serviceAccount', ['web'], neither, both],
    ['source.trustDomain', ['example.org'], both, neither],
    ['source.trustDomain', ['exam*'], both, neither],
    ['source.trustDomain', ['example.com'], neither, both],
    ['source.ip', ['10.0.0.0/8'], both, neither],
    ['source.ip', ['::ffff:10.1.2.3'], both, neither],
    ['source.ip', ['10.1.2.0/31'], neither, both],
    ['source.ip', ['::/0'], neither, both],
    ['remote.ip', ['192.0.2.0/24'], both, neither],
    ['destination.ip', ['2001:db8::/32'], both, neither],
    ['destination.ip', ['0.0.0.0/0'], neither, both],
    ['destination.port', ['8080'], both, neither],
    ['destination.port', ['80'], neither, both],
    ['connection.sni', ['LEDGER.pay'], both, neither],
    ['connection.sni', ['*.pay'], both, neither],
    ['connection.sni', ['pay'], neither, both],
    ['connection.sni', ['ledger.pay.'], both, neither],
    ['connection.sni', ['*.pay.'], both, neither],
    ['request.auth.principal', ['https://i.example/x/ann'], both, neither],
    ['request.auth.principal', ['https://i.example/x/*'], both, neither],
    ['request.auth.principal', ['*'], both, neither],
    ['request.auth.principal', ['https://i.example/x/an'], neither, both],
    // A subject that ends as the value does, of whatever issuer; the issuer is never part of it.
    ['request.auth.principal', ['*nn'], both, neither],
    ['request.auth.principal', ['*x/ann'], both, neither],
    ['request.auth.principal', ['https://i.example/ann'], neither, both],
    ['request.auth.audiences', ['shop'], both, neither],
    ['request.auth.audiences', ['sho'], neither, both],
    ['request.auth.presenter', ['web'], both, neither],
    [claim('scope'), ['write'], both, neither],
    [claim('scope'), ['read write'], neither, both],
    // Only the claims of these names are split, and nothing within them.
    [claim('permission][of'), ['read write'], both, neither],
    [claim('permission][of'), ['read'], neither, both],
    [claim('roles][deep'), ['admin'], both, neither],
    [claim('a.b'), ['dotted'], both, neither],
    // Neither a text nor a list of texts: as if it were missing.
    [claim('n'), ['1'], neither, cautious],
    [claim('roles'), ['*'], neither, cautious],
    [claim('none'), ['a'], neither, cautious],
    [header('X-One'), ['a'], both, neither],
    [header('x-one'), ['A'], neither, both],
    [header('x-one'), ['*'], both, neither],
    [header('x-pad'), ['a'], both, neither],
    // Of several lines all must fit for ALLOW, one for DENY.
    [header('x-two'), ['a'], cautious, cautious],
    [header('x-two'), ['a', 'b'], both, neither],
    [header('x-two'), ['c'], neither, both],
    // Empty: there for some, and not for others.
    [header('x-empty'), ['*'], cautious, cautious],
    [header('x-empty'), ['*', 'a'], cautious, cautious],
    [header('x-empty'), ['a'], neither, both],
    [header('x-none'), ['a'], neither, cautious],
    [header('x-odd'), ['a'], cautious, cautious],
    [noted('k'), ['v'], both, neither],
    // A list is no text, and a text no list.
    [noted('k'), ['[v]'], neither, cautious],
    [noted('k'), ['w', '[v]'], neither, both],
    [noted('l'), ['[w]'], both, neither],
    [noted('l'), ['[x]'], neither, both],
    [noted('l'), ['w'], neither, cautious],
    [noted('n'), ['1'], neither, cautious],
    [noted('none'), ['v'], cautious, cautious],
    ['experimental.envoy.filters.http.y[k]', ['v'], cautious, cautious],
  ])('%s is %j', (key, values, expected, negated) => {
    const one = { ...call(), context: known };
    expect(holds({ when: [{ key, values }] }, one)).toEqual(expected);
    expect(holds({ when: [{ key, notValues: values }] }, one)).toEqual(negated);
  });
});

const keys = [
  ...['source.ip', 'remote.ip', 'destination.ip', 'connection.sni', 'request.auth.principal'],
  ...['request.auth.audiences', 'request.auth.presenter', claim('a'), header('x-one'), noted('k')],
];
const valueOf = (key: string) =>
  key.endsWith('.ip') ? '::/0' : key === 'request.auth.principal' ? 'a/b' : 'a';

test.each(keys)('what the proxy does not tell of %s cannot be judged', (key) => {
  for (const list of ['values', 'notValues']) {
    expect(holds({ when: [{ key, [list]: [valueOf(key)] }] }, call())).toEqual(cautious);
  }
});

test.each(['connection.sni', 'request.auth.principal', claim('a'), header('x-none')])(
  'a call that is known to lack %s fits no value, and no notValues of ALLOW',
  (key) => {
    const one = { ...call(), context: { ...known, sni: '', claims: null } };
    expect(holds({ when: [{ key, values: [valueOf(key)] }] }, one)).toEqual(neither);
    expect(holds({ when: [{ key, notValues: [valueOf(key)] }] }, one)).toEqual(cautious);
  },
);

test.each<[string, typeof both]>([
  ['ledger.pay.', both],
  ['LEDGER.PAY', both],
  ['ledger.pay..', neither],
  // No DNS names: applications may read them as they like.
  ['ledger.pay\u0000x', cautious],
  ['l\u00e9dger.pay', cautious],
])('the server name %j is ledger.pay', (sni, expected) => {
  const one = { ...call(), context: { ...known, sni } };
  expect(holds({ when: [{ key: 'connection.sni', values: ['ledger.pay'] }] }, one)).toEqual(expected);
});

test('spaces within a header cost time in proportion to their number', () => {
  const line = `a${' '.repeat(1_000_000)}b`;
  const one = { ...call(), context: { ...known, headerLines: () => [line] } };
  expect(holds({ when: [{ key: header('x-one'), values: ['a*'] }] }, one)).toEqual(both);
});

describe('a TCP connection', () => {
  const made = canonicalizeTcp({ source: web, destination: ledger, port: 5_432, context: known });
  if (isRejection(made)) throw new Error(made.why);
  test.each<[string, object, typeof both]>([
    ['by its caller', { from: [{ source: { namespaces: ['shop'] } }] }, both],
    ['by address', { from: [{ source: { ipBlocks: ['10.0.0.0/8'] } }] }, both],
    ['by server name', { when: [{ key: 'connection.sni', values: ['ledger.pay'] }] }, both],
    ['by method', { to: [{ operation: { notMethods: ['GET'] } }] }, cautious],
    ['by path', { to: [{ operation: { notPaths: ['/'] } }] }, cautious],
    ['by host', { to: [{ operation: { notHosts: ['ledger.pay'] } }] }, cautious],
    ['by token', { from: [{ source: { requestPrincipals: ['*'] } }] }, cautious],
    ['by header', { when: [{ key: header('x-one'), values: ['a'] }] }, cautious],
    [
      'by path and caller',
      { from: [{ source: { namespaces: ['other'] } }], to: [{ operation: { paths: ['/'] } }] },
      neither,
    ],
  ])('%s', (_, rule, expected) => {
    expect(holds(rule, made)).toEqual(expected);
  });
});

test.each<[string, string, boolean]>([
  ['/a/{*}', '/a/b', true],
  ['/a/{*}', '/a/b/c', false],
  ['/a/{*}', '/a/', false],
  ['/a/{*}', '/a', false],
  ['/a/{*}/c', '/a/b%20b/c', true],
  ['/a/{*}/c', '/a/c', false],
  ['/a/{**}', '/a/b/c', true],
  ['/a/{**}', '/a/', true],
  ['/a/{**}', '/a', false],
  ['/{*}/x/{**}', '/a/x/y', true],
  ['/{*}/x/{**}', '/a/b/x/y', false],
  ['/a.b/{*}', '/axb/c', false],
])('the template %s and the path %s', (template, path, expected) => {
  const rule = { to: [{ operation: { paths: [template] } }] };
  expect(holds(rule, call({ path }))).toEqual(expected ? both : neither);
});

describe('actions beside ALLOW and DENY', () => {
  const all = policyText('rules: [{}]', 'all');
  const mark = (spec: string, name = 'mark', dryRun = false) => policyText(spec, name, 'pay', dryRun);
  const get = 'rules: [{ to: [{ operation: { methods: [GET] } }] }]';
  const put = get.replace('GET', 'PUT');
  const ask = `action: CUSTOM\nprovider: { name: guard }\n${get}`;

  test.each<[string, string[], Partial<SnapshotInput>, object]>([
    [
      'AUDIT marks what is allowed',
      [all, mark(`action: AUDIT\n${get}`)],
      {},
      { verdict: 'allow', audited: 'pay/mark rule[0]' },
    ],
    [
      'and what is denied',
      [mark(`action: AUDIT\n${get}`), mark(put, 'p')],
      {},
      { verdict: 'deny', reason: 'no_allow_rule', audited: 'pay/mark rule[0]' },
    ],
    [
      'AUDIT that does not match marks nothing',
      [all, mark(`action: AUDIT\n${put}`)],
      {},
      { verdict: 'allow', audited: '' },
    ],
    [
      'AUDIT alone is no policy',
      [mark(`action: AUDIT\n${get}`)],
      {},
      { verdict: 'deny', reason: 'no_policy', audited: 'pay/mark rule[0]' },
    ],
    [
      'CUSTOM is asked of nobody here',
      [all, mark(ask)],
      {},
      {
        ...{ verdict: 'deny', reason: 'custom_unanswered', custom: 'guard' },
        why: 'pay/mark rule[0] leaves the call to guard, which is asked by nobody here',
      },
    ],
    [
      'CUSTOM that does not match asks nobody',
      [all, mark(ask.replace('GET', 'PUT'))],
      {},
      { verdict: 'allow', custom: null },
    ],
    [
      'a provider that says yes leaves it to the others',
      [all, mark(ask)],
      { providersAnswer: true },
      { verdict: 'allow', custom: 'guard' },
    ],
    [
      'CUSTOM never allows by itself',
      [mark(ask)],
      { providersAnswer: true },
      { verdict: 'deny', reason: 'no_allow_rule', custom: 'guard' },
    ],
    [
      'CUSTOM never lifts a DENY',
      [all, mark(ask), mark(`action: DENY\n${get}`, 'no')],
      { providersAnswer: true },
      { verdict: 'deny', reason: 'deny_rule', custom: 'guard' },
    ],
    [
      'a DENY on trial denies nothing',
      [all, mark(`action: DENY\n${get}`, 'try', true)],
      {},
      { verdict: 'allow', shadow: { allow: null, deny: 'denied' } },
    ],
    [
      'an ALLOW on trial allows nothing',
      [mark(get, 'try', true)],
      {},
      { verdict: 'deny', reason: 'no_policy', shadow: { allow: 'allowed', deny: null } },
    ],
    [
      'both on trial',
      [all, mark(put, 'a', true), mark(`action: DENY\n${put}`, 'b', true)],
      {},
      { verdict: 'allow', shadow: { allow: 'denied', deny: 'allowed' } },
    ],
    [
      'a trial that is over is enforced',
      [all, mark(`action: DENY\n${get}`, 'try', true).replace("'true'", "'F'")],
      {},
      { verdict: 'deny', shadow: null },
    ],
  ])('%s', (_, policies, more, expected) => {
    expect(judge({ ...meshOf(policies.flatMap(readPolicies)), ...more }, call())).toMatchObject(expected);
  });
});

describe('targets', () => {
  const gate = SpiffeId.parse('spiffe://example.org/ns/pay/sa/gate');
  const labels = { 'gateway.networking.k8s.io/gateway-name': 'front' };
  const text = (name: string, namespace = 'pay', more = '') =>
    policyText(
      `targetRefs: [{ group: gateway.networking.k8s.io, kind: Gateway, name: ${name}${more} }]\nrules: [{}]`,
      'p',
      namespace,
    );
  test.each<[string, string, Record<string, string>, string]>([
    ['the gateway that it names', text('front'), labels, 'allow_rule'],
    ['in its own namespace, when it says so', text('front', 'pay', ', namespace: pay'), labels, 'allow_rule'],
    ['another gateway', text('back'), labels, 'no_policy'],
    [
      'one of several gateways',
      text('back }, { group: gateway.networking.k8s.io, kind: Gateway, name: front'),
      labels,
      'allow_rule',
    ],
    ['a gateway of another namespace', text('front', 'pay', ', namespace: shop'), labels, 'no_policy'],
    ['a policy of the root namespace', text('front', 'istio-system'), labels, 'no_policy'],
    ['a policy of another namespace', text('front', 'shop'), labels, 'no_policy'],
    ['a workload that is no gateway', text('front'), { app: 'front' }, 'no_policy'],
  ])('%s', (_, policy, carried, reason) => {
    const mesh = meshOf(readPolicies(policy), [{ id: gate, labels: carried }]);
    expect(judge(mesh, call({ destination: gate.text })).reason).toBe(reason);
  });
});

test('a caller of another trust domain has neither namespace nor service account, and a trust domain', () => {
  const foreign = call({ source: 'spiffe://other.org/ns/shop/sa/web' });
  const from = (source: object) => ({ from: [{ source }] });
  expect(holds(from({ namespaces: ['shop'] }), foreign)).toEqual(cautious);
  expect(holds(from({ serviceAccounts: ['shop/web'] }), foreign)).toEqual(cautious);
  expect(holds(from({ notServiceAccounts: ['shop/web'] }), foreign)).toEqual(cautious);
  expect(holds(from({ trustDomains: ['other.org'] }), foreign)).toEqual(both);
});

test('what a denial tells of a call holds no value of a header, a token or a note', () => {
  const rules = [header('x-two'), claim('scope'), noted('k'), 'source.ip', 'request.auth.principal'].map(
    (key) => ({
      when: [{ key, values: [valueOf(key)] }],
    }),
  );
  const mesh = meshOf(readPolicies(policyText(`rules: ${JSON.stringify(rules)}`)));
  const { why } = judge(mesh, { ...call(), context: { ...untold, ...known, sourceIp: '192.0.2.7' } });
  expect(why).not.toMatch(/read|write|ann|192\.0|'v'/);
});
