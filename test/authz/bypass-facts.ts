import { type Bypass, type BypassCall, everyCall, from, to, when } from './bypass.ts';

const role = (more: object) => when('request.headers[x-role]', more);
const roles = (...values: string[]): BypassCall => ({
  headers: values.map((value) => ['x-role', value] as const),
});
const address = (...all: string[]): readonly BypassCall[] =>
  all.map((sourceIp) => ({ context: { sourceIp } }));
const claims = (
  held: Readonly<Record<string, unknown>> | null | undefined,
  more: BypassCall = {},
): BypassCall => ({
  ...more,
  context: { claims: held === null || held === undefined ? held : new Map(Object.entries(held)) },
});
const callers = (...all: string[]): readonly BypassCall[] =>
  all.map((name) => ({ source: `spiffe://${name}` }));
const alice = { iss: 'https://idp.example/a', sub: 'alice' };

/** Ways around rules about headers, callers, addresses and tokens, and around the engine itself. */
export const factBypasses: readonly Bypass[] = [
  {
    ids: 'CVE-2020-25017',
    attack: 'a header twice: only its first line is compared',
    allow: everyCall,
    deny: role({ values: ['admin'] }),
    calls: [roles('user', 'admin'), roles('', 'x', 'admin')],
    reason: 'deny_rule',
  },
  {
    ids: 'CVE-2021-32777',
    attack: 'a header twice: only its last line is compared',
    allow: everyCall,
    deny: role({ values: ['admin'] }),
    calls: [roles('admin', 'user')],
    reason: 'deny_rule',
  },
  {
    ids: 'CVE-2026-26308 CVE-2026-31838',
    attack: 'a header twice: its lines are joined, or one good line is enough',
    allow: role({ values: ['user'] }),
    calls: [roles('user', 'admin'), roles('admin', 'user'), roles('user,admin')],
    reason: 'no_allow_rule',
  },
  {
    ids: 'CVE-2026-26308 CVE-2026-31838',
    attack: 'the same against a rule that names what may not be there',
    allow: role({ notValues: ['admin'] }),
    calls: [roles('user', 'admin'), roles('admin', 'user')],
    reason: 'no_allow_rule',
  },
  {
    ids: 'CVE-2024-10006',
    attack: 'a value that holds the allowed one',
    allow: role({ values: ['user'] }),
    calls: [roles('superuser'), roles('user-admin'), roles('USER'), roles('x, user')],
    reason: 'no_allow_rule',
  },
  {
    ids: 'CVE-2026-73552',
    attack: 'bytes outside ASCII, on which a pattern fails and a negated one holds',
    allow: role({ notValues: ['admin*'] }),
    calls: [roles('\u00ff'), roles('admin\u0080'), roles('user', '\u00e9'), roles('a\0b')],
    reason: 'no_allow_rule',
  },
  {
    ids: 'CVE-2026-73552',
    attack: 'the same against a DENY',
    allow: everyCall,
    deny: role({ values: ['admin*'] }),
    calls: [roles('\u00ffadmin'), roles('user', '\u00ff'), roles('user\0')],
    reason: 'deny_rule',
  },
  {
    ids: 'header-empty-or-missing',
    attack: 'a header that is empty, or not there at all, where a rule wants any value or not a certain one',
    allow: [...role({ values: ['*'] }), ...role({ notValues: ['admin'] })],
    calls: [
      roles(),
      {
        headers: [
          ['x-role', ''],
          ['x-role', 'admin'],
        ],
      },
    ],
    reason: 'no_allow_rule',
  },
  {
    ids: 'method-override',
    attack: 'a header by which an application takes another method: a rule can name it',
    allow: everyCall,
    deny: when('request.headers[x-http-method-override]', { values: ['*'] }),
    calls: [
      { headers: [['x-http-method-override', 'DELETE']] },
      { headers: [['x-http-method-override', '']] },
    ],
    reason: 'deny_rule',
  },
  {
    ids: 'CVE-2026-39350',
    attack: 'a dot in the name of a service account that is a pattern for any sign',
    allow: from({ serviceAccounts: ['shop/cert-manager.io'] }),
    calls: callers('example.org/ns/shop/sa/cert-manager-io', 'example.org/ns/shop/sa/cert-managerXio'),
    reason: 'no_allow_rule',
  },
  {
    ids: 'namespace-across-segments',
    attack: 'a pattern for a namespace that reaches into other parts of an ID',
    allow: from({ namespaces: ['*a', 'foo'] }),
    calls: callers(
      'example.org/ns/evil/sa/a',
      'example.org/ns/bar/sa/y/ns/foo/z',
      'example.org/x/ns/foo/sa/y',
      'example.org/ns/foo/sa/y/z',
    ),
    reason: 'no_allow_rule',
  },
  {
    ids: 'CVE-2026-31360',
    attack: 'the same path in another trust domain',
    allow: from(
      { serviceAccounts: ['shop/web'] },
      { namespaces: ['shop'] },
      { principals: ['example.org/ns/shop/sa/web'] },
      { trustDomains: ['example.org'] },
    ),
    calls: callers(
      'other.org/ns/shop/sa/web',
      'example.org.evil/ns/shop/sa/web',
      'xexample.org/ns/shop/sa/web',
    ),
    reason: 'no_allow_rule',
  },
  {
    ids: 'trust-domain-alias',
    attack: 'cluster.local, which silently stands for the local trust domain elsewhere',
    allow: from({ principals: ['cluster.local/ns/shop/sa/web'] }, { trustDomains: ['cluster.local'] }),
    calls: callers('example.org/ns/shop/sa/web'),
    reason: 'no_allow_rule',
  },
  {
    ids: 'plaintext-caller',
    attack: 'no certificate, against rules that any caller satisfies, or that name who may not call',
    allow: [{}, ...from({ notPrincipals: ['*'] }), ...from({ notNamespaces: ['evil'] })],
    calls: [{ source: null }, { source: null, tcp: true }],
    reason: 'unauthenticated',
  },
  {
    ids: 'CVE-2026-32305',
    attack: 'the name that TLS asked for, without a certificate',
    allow: when('connection.sni', { values: ['ledger.pay'] }),
    calls: [{ source: null, context: { sni: 'ledger.pay' } }],
    reason: 'unauthenticated',
  },
  {
    ids: 'CVE-2026-32305',
    attack: 'a first message of TLS that names nothing, or nothing that can be read',
    allow: when('connection.sni', { notValues: ['secret.pay'] }),
    calls: [{ context: { sni: '' } }, { context: { sni: 'secret\0.pay' } }, { context: {} }],
    reason: 'no_allow_rule',
  },
  {
    ids: 'CVE-2024-47825',
    attack: 'an allowed block of addresses within a denied one',
    allow: from({ ipBlocks: ['10.1.2.0/24'] }),
    deny: from({ ipBlocks: ['10.0.0.0/8'] }),
    calls: address('10.1.2.3'),
    reason: 'deny_rule',
  },
  {
    ids: 'address-mapped',
    attack: 'an IPv4 address in IPv6 form',
    allow: everyCall,
    deny: from({ ipBlocks: ['10.0.0.0/8'] }),
    calls: address('::ffff:10.1.2.3', '::ffff:a01:203', '::FFFF:0a01:0203', '0:0:0:0:0:ffff:10.1.2.3'),
    reason: 'deny_rule',
  },
  {
    ids: 'address-unreadable',
    attack: 'an address with a zone, or one that is written so that nobody can tell it',
    allow: everyCall,
    deny: from({ ipBlocks: ['10.0.0.0/8'] }),
    calls: [...address('fe80::1%eth0', '012.1.2.3', '10.1', '', 'localhost'), { context: {} }],
    reason: 'deny_rule',
  },
  {
    ids: 'CVE-2023-3518',
    attack: 'the right token of the wrong workload, and the right workload without the token',
    allow: from({ principals: ['example.org/ns/shop/sa/web'], requestPrincipals: [`${alice.iss}/alice`] }),
    calls: [
      claims(alice, { source: 'spiffe://example.org/ns/shop/sa/other' }),
      claims(null),
      claims(undefined),
      claims({ ...alice, sub: 'bob' }),
    ],
    reason: 'no_allow_rule',
  },
  {
    ids: 'token-concatenation',
    attack: 'an issuer and a subject that give the same text when they are joined',
    allow: from({ requestPrincipals: ['https://idp.example/a/alice'] }),
    calls: [
      claims({ iss: 'https://idp.example', sub: 'a/alice' }),
      claims({ iss: 'https://idp.example/a/alice', sub: '' }),
    ],
    reason: 'no_allow_rule',
  },
  {
    ids: 'token-missing',
    attack: 'no token, against a rule that names whose may not be there',
    allow: from({ notRequestPrincipals: ['https://idp.example/a/bob'] }),
    calls: [claims(null), claims(undefined), claims({ sub: 'alice' })],
    reason: 'no_allow_rule',
  },
  {
    ids: 'token-missing',
    attack: 'a token that the proxy does not tell of, against a DENY',
    allow: everyCall,
    deny: from({ requestPrincipals: ['https://idp.example/a/bob'] }),
    calls: [claims(undefined)],
    reason: 'deny_rule',
  },
  {
    ids: 'token-types',
    attack: 'claims of another type: numbers, booleans, objects',
    allow: [
      ...when('request.auth.claims[admin]', { values: ['true', '1', '*'] }),
      ...when('request.auth.audiences', { values: ['1'] }),
    ],
    calls: [
      claims({ ...alice, admin: true, aud: 1 }),
      claims({ ...alice, admin: 1, aud: [1] }),
      claims({ admin: {} }),
    ],
    reason: 'no_allow_rule',
  },
  {
    ids: 'token-types',
    attack: 'a list where a DENY expects one audience',
    allow: everyCall,
    deny: when('request.auth.audiences', { values: ['pay'] }),
    calls: [claims({ ...alice, aud: ['shop', 'pay'] }), claims({ ...alice, aud: 'pay' })],
    reason: 'deny_rule',
  },
  {
    ids: 'tcp-with-http-rules CVE-2021-36213',
    attack: 'a DENY about HTTP on a connection that is not HTTP: dropped, it protects nothing',
    allow: everyCall,
    deny: to({ paths: ['/admin'], methods: ['GET'], hosts: ['ledger.pay'] }),
    calls: [{ tcp: true }],
    reason: 'deny_rule',
  },
  {
    ids: 'tcp-with-http-rules',
    attack: 'the same with headers and tokens',
    allow: everyCall,
    deny: [
      {
        when: [
          { key: 'request.headers[x-role]', values: ['admin'] },
          { key: 'request.auth.claims[a]', values: ['b'] },
        ],
      },
    ],
    calls: [{ tcp: true }],
    reason: 'deny_rule',
  },
  {
    ids: 'CVE-2024-52529',
    attack:
      'an ALLOW about HTTP on a connection that is not HTTP: without its HTTP part it allows everything',
    allow: [
      ...to({ ports: ['8080'], paths: ['/public'] }),
      ...to({ ports: ['8080'], notMethods: ['DELETE'] }),
      ...to({ ports: ['8080'], notPaths: ['/admin'] }),
      ...when('request.headers[x-role]', { notValues: ['admin'] }),
    ],
    calls: [{ tcp: true }],
    reason: 'no_allow_rule',
  },
  {
    ids: 'ISTIO-SECURITY-2021-002',
    attack: 'a port that is another than the rule thinks, or that the proxy does not tell',
    allow: everyCall,
    deny: to({ ports: ['8080'] }),
    calls: [{ port: 0 }, { port: 0, tcp: true }],
    reason: 'deny_rule',
  },
  {
    ids: 'CVE-2026-55866',
    attack: 'a condition that nothing is known of counts as met',
    allow: [
      ...from({ ipBlocks: ['10.0.0.0/8'] }),
      ...from({ notIpBlocks: ['192.0.2.0/24'] }),
      ...when('destination.ip', { notValues: ['192.0.2.1'] }),
      ...when('experimental.envoy.filters.http.x[k]', { notValues: ['v'] }),
    ],
    calls: [{ context: {} }],
    reason: 'no_allow_rule',
  },
  {
    ids: 'GO-2026-4285',
    attack: 'a second exception that wins over a refusal',
    allow: [{}, ...from({ principals: ['example.org/ns/shop/sa/web'] }), ...to({ paths: ['/public'] })],
    deny: from({ principals: ['example.org/ns/shop/*'] }),
    calls: [{}],
    reason: 'deny_rule',
  },
  {
    ids: 'CVE-2025-46569',
    attack: 'a text of the caller that is read as a pattern or as code',
    allow: to({ paths: ['/public/{*}/x'] }),
    calls: [{ path: '/public/*' }, { path: '/*' }, { path: '/public/a/b/x' }, { path: '/public/%2a%2a' }],
    reason: 'no_allow_rule',
  },
  {
    ids: 'pattern-of-death',
    attack: 'a text that makes a pattern run for years, and that matches it',
    allow: to({ paths: ['/(a+)+$', '/{*}/{*}/{*}/{*}/b/{**}'] }),
    calls: [{ path: `/${'a'.repeat(8_000)}!` }, { path: '/aaaa' }, { path: '/a'.repeat(4_000) }],
    reason: 'no_allow_rule',
  },
];
