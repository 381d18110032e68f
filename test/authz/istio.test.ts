import { expect, test } from 'vitest';
import { allows, call, from, judge, policy, to, when } from './istio-cases.ts';

const web = 'spiffe://cluster.local/ns/shop/sa/web';

test.each<[string, string, string, boolean]>([
  // field, value, what the call has there, whether it matches
  ['principals', 'cluster.local/ns/shop/sa/web', web, true],
  ['principals', 'cluster.local/ns/shop/sa/we', web, false],
  ['principals', 'cluster.local/ns/shop/*', web, true],
  ['principals', '*/sa/web', web, true],
  ['principals', '*', web, true],
  ['principals', '*', 'a.dns.name', true],
  ['principals', '*name', 'a.dns.name', false],
  ['principals', 'Cluster.local/ns/shop/sa/web', web, false],
  ['namespaces', 'shop', web, true],
  ['namespaces', 'sho', web, false],
  ['namespaces', 's*', web, true],
  // Across slashes, as Istio's expression has it: `evil/sa` ends in a.
  ['namespaces', '*a', 'spiffe://td/ns/evil/sa/b', true],
  ['namespaces', '*a', 'spiffe://td/ns/evil/b', false],
  ['namespaces', 'foo', 'spiffe://x/ns/bar/sa/y/ns/foo/z', true],
  ['namespaces', 'a*b*c', 'spiffe://x/ns/a1b2c/sa/y', true],
  ['namespaces', 'a*b*c', 'spiffe://x/ns/a1c2b/sa/y', false],
  ['serviceAccounts', 'web', web, true],
  ['serviceAccounts', 'shop/web', web, true],
  ['serviceAccounts', 'pay/web', web, false],
  ['serviceAccounts', 'we', web, false],
  ['serviceAccounts', 'shop/web', 'spiffe://td/ns/shop/x/y/sa/web/more', true],
  ['serviceAccounts', 'shop/web', 'spiffe://td/ns/shop/xsa/web', false],
  ['serviceAccounts', 'shop/web', 'spiffe:///ns/shop/sa/web', false],
  ['serviceAccounts', 's.op/web', web, false],
  ['trustDomains', 'cluster.local', web, true],
  ['trustDomains', 'cluster.loca', web, false],
  ['trustDomains', 'cluster*', web, true],
  ['trustDomains', '*local', web, true],
  ['trustDomains', 'clu*al', web, true],
  ['trustDomains', 'cluster.lo*local', web, false],
  ['trustDomains', '*', web, true],
  ['trustDomains', '*', 'a.dns.name', false],
])('%s %j matches the name %j: %j', async (field, value, principal, expected) => {
  expect(await allows(from({ [field]: [value] }), { principal })).toBe(expected);
  const not = `not${field.charAt(0).toUpperCase()}${field.slice(1)}`;
  expect(await allows(from({ [not]: [value] }), { principal })).toBe(!expected);
  // Without a certificate nothing matches, and so every not does.
  expect(await allows(from({ [field]: [value] }), { principal: null })).toBe(false);
  expect(await allows(from({ [not]: [value] }), { principal: null })).toBe(true);
});

test.each<[object, object, boolean]>([
  [{ hosts: ['example.com'] }, { host: 'EXAMPLE.com' }, true],
  [{ hosts: ['EXAMPLE.com'] }, { host: 'example.com' }, true],
  [{ hosts: ['example.com'] }, { host: 'example.com:8080' }, false],
  [{ hosts: ['example.com'] }, { host: 'example.com.' }, false],
  [{ hosts: ['example.com:*'] }, { host: 'example.com:8080' }, true],
  [{ hosts: ['*.com'] }, { host: 'example.com' }, true],
  [{ hosts: ['*'] }, { host: '' }, true],
  [{ hosts: ['*'] }, { host: null }, false],
  [{ notHosts: ['*'] }, { host: null }, true],
  [{ ports: ['8080'] }, {}, true],
  [{ ports: ['80'] }, {}, false],
  [{ ports: ['08080'] }, {}, true],
  [{ notPorts: ['8080'] }, { destinationPort: null }, true],
  [{ methods: ['GET'] }, { method: 'get' }, false],
  [{ methods: ['G*'] }, {}, true],
  [{ methods: ['*'] }, {}, true],
  [{ methods: ['GET'], notMethods: ['G*'] }, {}, false],
  [{ paths: ['/orders/1'] }, { path: '/orders/1?x=1' }, true],
  [{ paths: ['/orders/*'] }, {}, true],
  [{ paths: ['*/1'] }, {}, true],
  [{ paths: ['/or*rs/1'] }, {}, false],
  [{ paths: ['*'] }, {}, true],
  [{ paths: ['/orders/{*}'] }, {}, true],
  [{ paths: ['/orders/{*}'] }, { path: '/orders/' }, false],
  [{ paths: ['/orders/{*}'] }, { path: '/orders/1/2' }, false],
  [{ paths: ['/foo/{**}'] }, { path: '/foo/' }, true],
  [{ paths: ['/foo/{**}'] }, { path: '/foo' }, false],
  [{ paths: ['/foo/{**}'] }, { path: '/foo/a/b=*' }, true],
  [{ paths: ['/store/{**}/cart'] }, { path: '/store//cart' }, true],
  [{ paths: ['/store/{**}/cart'] }, { path: '/store/cart' }, false],
  [{ paths: ['/foo/{**}/'] }, { path: '/foo//' }, true],
  [{ paths: ['/foo/{**}/'] }, { path: '/foo/' }, false],
  [{ paths: ['/{*}/x/{**}'] }, { path: '/a/x/b' }, true],
  [{ paths: ['/{*}/x/{**}'] }, { path: '/a/b/x/c' }, false],
])('the operation %j matches the call with %j: %j', async (operation, request, expected) => {
  expect(await allows(to(operation), request)).toBe(expected);
});

const jwt = {
  iss: 'https://issuer.example/a',
  sub: 'sub-1',
  aud: ['x', 'y'],
  azp: 'app',
  scope: 'read write',
  n: 7,
  nested: { list: ['a', ['b']], 'dotted.key/x': 'v' },
};

test.each<[string, string, object, boolean]>([
  ['request.auth.principal', 'https://issuer.example/a/sub-1', { jwt }, true],
  ['request.auth.principal', '*', { jwt }, true],
  ['request.auth.principal', '*', { jwt: { iss: 'i' } }, false],
  ['request.auth.principal', '*/sub-1', { jwt }, true],
  ['request.auth.principal', '*example/a/sub-1', { jwt }, true],
  ['request.auth.principal', '*1', { jwt }, true],
  ['request.auth.principal', 'https://issuer.example/a/*', { jwt }, true],
  ['request.auth.principal', 'https://issuer.example/a/sub*', { jwt }, true],
  ['request.auth.principal', 'https://issuer.example/*', { jwt }, false],
  ['request.auth.principal', 'x/*', { jwt: { iss: 'x', sub: '*' } }, true],
  ['request.auth.principal', '*x/*', { jwt: { iss: 'ax', sub: 's' } }, false],
  ['request.auth.principal', '*x/*', { jwt: { iss: 'ax', sub: '*' } }, true],
  ['request.auth.principal', 'only', { jwt: { iss: 'only', sub: '' } }, true],
  ['request.auth.principal', 'only', { jwt: { iss: 'only', sub: 's' } }, false],
  ['request.auth.principal', 'x/7', { jwt: { iss: 'x', sub: 7 } }, false],
  ['request.auth.audiences', 'y', { jwt }, true],
  ['request.auth.audiences', 'z', { jwt }, false],
  ['request.auth.audiences', 'z', { jwt: { aud: 'z' } }, true],
  ['request.auth.presenter', 'app', { jwt }, true],
  ['request.auth.claims[n]', '7', { jwt }, false],
  ['request.auth.claims[scope]', 'write', { jwt }, true],
  ['request.auth.claims[scope]', 'read write', { jwt }, false],
  ['request.auth.claims[nested][list]', 'a', { jwt }, true],
  ['request.auth.claims[nested][list]', 'b', { jwt }, false],
  ['request.auth.claims[nested][dotted.key/x]', 'v', { jwt }, true],
  ['request.auth.claims[nested]', '*', { jwt }, false],
  ['request.auth.claims[toString]', '*', { jwt }, false],
  ['request.auth.claims[sub]', '*', { jwt: null }, false],
  ['request.headers[X-Env]', 'prod', { headers: { 'x-env': 'prod' } }, true],
  ['request.headers[x-env]', 'prod', { headers: [['X-ENV', ' prod\t']] }, true],
  [
    'request.headers[x]',
    'a',
    {
      headers: [
        ['x', 'b'],
        ['x', 'a'],
      ],
    },
    true,
  ],
  ['request.headers[x]', 'a', { headers: [['x', 'a,b']] }, false],
  ['request.headers[x]', '*', { headers: { x: '' } }, true],
  ['request.headers[x]', '*', {}, false],
  ['request.headers[host]', 'orders.shop', {}, true],
  ['source.ip', '10.0.0.0/8', {}, true],
  ['source.ip', '10.0.0.7', {}, true],
  ['source.ip', '10.0.0.8', {}, false],
  ['source.ip', '10.0.0.6/31', {}, true],
  ['source.ip', '10.0.0.7', { sourceIp: '::ffff:10.0.0.7' }, false],
  ['source.ip', '2001:db8::/32', { sourceIp: '2001:db8:1::7' }, true],
  ['source.ip', '2001:db8::/33', { sourceIp: '2001:db8:8000::7' }, false],
  ['remote.ip', '192.0.2.1', { remoteIp: '192.0.2.1' }, true],
  ['remote.ip', '10.0.0.7', { remoteIp: '192.0.2.1' }, false],
  ['remote.ip', '10.0.0.7', {}, true],
  ['destination.ip', '10.1.0.0/16', {}, true],
  ['destination.port', '8080', {}, true],
  ['connection.sni', '*.example', { sni: 'a.example' }, true],
  ['connection.sni', '*', {}, false],
  ['experimental.envoy.filters.a.b[k]', 'v', { metadata: { 'envoy.filters.a.b': { k: 'v' } } }, true],
  [
    'experimental.envoy.filters.a.b[k]',
    '[v]',
    { metadata: { 'envoy.filters.a.b': { k: ['u', 'v'] } } },
    true,
  ],
  ['experimental.envoy.filters.a.b[k]', 'v', { metadata: { 'envoy.filters.a.b': { k: ['v'] } } }, false],
  ['experimental.envoy.filters.a.b[k]', '[v]', {}, false],
])('when %s is %j of %j: %j', async (key, value, request, expected) => {
  expect(await allows(when(key, [value]), request)).toBe(expected);
  expect(await allows([{ when: [{ key, notValues: [value] }] }], request)).toBe(!expected);
});

test.each<[string, string, string, boolean]>([
  // normalization, path as sent, path of the policy, whether it matches
  ['NONE', '/a/../b', '/b', false],
  ['NONE', '/%61', '/%61', true],
  ['BASE', '/a/../b', '/b', true],
  ['BASE', '/%61', '/a', true],
  ['BASE', '/%2e%2e/a', '/a', true],
  ['BASE', '/a%2Fb', '/a%2Fb', true],
  ['BASE', '/a//b', '/a//b', true],
  ['BASE', '/a\\b', '/a/b', true],
  ['BASE', '/a/.', '/a/', true],
  ['BASE', '/a/..', '/', true],
  ['BASE', '/../../a', '/a', true],
  ['BASE', '/x//../admin', '/x/admin', true],
  ['BASE', '/x/..;a=b/admin', '/admin', true],
  ['BASE', '/admin;a=b', '/admin', false],
  ['BASE', '/%252e', '/%252e', true],
  ['BASE', '/a"b', '/a%22b', true],
  ['MERGE_SLASHES', '/a//b///c', '/a/b/c', true],
  ['MERGE_SLASHES', '/x//../admin', '/x/admin', true],
  ['MERGE_SLASHES', '/a%2F%2Fb', '/a/b', false],
  ['DECODE_AND_MERGE_SLASHES', '/a%2F%2fb', '/a/b', true],
  ['DECODE_AND_MERGE_SLASHES', '/a%5c..%5Cb', '/b', true],
])('under %s %j is %j: %j', async (pathNormalization, path, value, expected) => {
  expect(await allows(to({ paths: [value] }), { path }, { pathNormalization })).toBe(expected);
});

test.each<[string, string]>([
  ['NONE', '/a#b'],
  ['NONE', 'a'],
  ['BASE', '/a%00b'],
  ['BASE', '/a?b#c'],
])('under %s the path %j is refused before any policy', async (pathNormalization, path) => {
  const [answer] = await judge({ request: { path }, mesh: { pathNormalization } });
  expect(answer).toMatchObject({ allow: false, rule: null, error: null });
});

const allowAll = policy([{}], {}, { name: 'open' });
const id = (name: string, rule = 0, namespace = 'shop') => `ns[${namespace}]-policy[${name}]-rule[${rule}]`;

test.each<[string, readonly unknown[], object, boolean, string | null]>([
  ['nothing', [], {}, true, null],
  ['an ALLOW policy without rules', [policy(undefined)], {}, false, null],
  ['an empty rule', [policy([{}])], {}, true, id('p')],
  ['a DENY beside an ALLOW', [allowAll, policy([{}], { action: 'DENY' })], {}, false, id('p')],
  ['DENY alone that does not match', [policy(to({ methods: ['PUT'] }), { action: 'DENY' })], {}, true, null],
  ['AUDIT alone', [policy([{}], { action: 'AUDIT' })], {}, true, null],
  ['the rule whose name comes first', [policy([{}]), allowAll], {}, true, id('open')],
  ['the second rule', [policy([...to({ methods: ['PUT'] }), {}])], {}, true, id('p', 1)],
  ['another namespace', [policy(undefined, {}, { namespace: 'pay' })], {}, true, null],
  ['the root namespace', [policy(undefined, {}, { namespace: 'istio-system' })], {}, false, null],
  ['labels', [policy(undefined, { selector: { matchLabels: { app: 'orders' } } })], {}, false, null],
  ['other labels', [policy(undefined, { selector: { matchLabels: { app: 'x' } } })], {}, true, null],
  ['a selector without labels', [policy(undefined, { selector: {} })], {}, false, null],
  [
    'a target of a gateway',
    [policy(undefined, { targetRefs: [{ kind: 'Service', name: 'x' }] })],
    {},
    true,
    null,
  ],
  // On plain TCP an ALLOW rule about HTTP is dropped, and what remains is an empty list that allows nothing.
  ['ALLOW by path on TCP', [policy(to({ paths: ['/*'] }))], { protocol: 'tcp' }, false, null],
  ['ALLOW by notPath on TCP', [policy(to({ notPaths: ['/x'] }))], { protocol: 'tcp' }, false, null],
  ['ALLOW by port on TCP', [policy(to({ ports: ['8080'] }))], { protocol: 'tcp' }, true, id('p')],
  [
    'DENY by path on TCP',
    [policy(to({ paths: ['/x'] }), { action: 'DENY' })],
    { protocol: 'tcp' },
    false,
    id('p'),
  ],
  [
    'DENY by path and port on TCP',
    [policy(to({ paths: ['/x'], ports: ['1'] }), { action: 'DENY' })],
    { protocol: 'tcp' },
    true,
    null,
  ],
  [
    'DENY by token on TCP',
    [policy(from({ requestPrincipals: ['x/y'] }), { action: 'DENY' })],
    { protocol: 'tcp' },
    false,
    id('p'),
  ],
  [
    'two names, one of them right',
    [policy(from({ principals: ['cluster.local/ns/shop/sa/web'] }))],
    { principals: ['spiffe://x/y', web] },
    true,
    id('p'),
  ],
])('%s', async (_, policies, request, allow, rule) => {
  expect((await judge({ policies, request }))[0]).toMatchObject({ allow, rule, error: null });
});

test.each<[readonly string[], string, string, boolean]>([
  [['td1', 'td2'], 'td1/ns/shop/sa/web', 'spiffe://td2/ns/shop/sa/web', true],
  [['td1', 'td2'], 'cluster.local/ns/shop/sa/web', 'spiffe://td2/ns/shop/sa/web', true],
  [['td1', 'td2'], 'cluster.local/ns/shop/sa/web', 'spiffe://cluster.local/ns/shop/sa/web', false],
  [['td1', 'td2'], 'td3/ns/shop/sa/web', 'spiffe://td3/ns/shop/sa/web', true],
  [['td1', 'td2'], 'td3/ns/shop/sa/web', 'spiffe://td1/ns/shop/sa/web', false],
  [['td1', 'td2'], '*1/ns/shop/sa/web', 'spiffe://td2/ns/shop/sa/web', true],
  [['td1', 'td2'], '*/ns/shop/sa/web', 'spiffe://td9/ns/shop/sa/web', true],
  [['td1', 'td2'], 'td1/ns/shop/*', 'spiffe://td2/ns/shop/sa/web', false],
])('with the trust domains %j %j is %j: %j', async (trustDomains, value, principal, expected) => {
  expect(await allows(from({ principals: [value] }), { principal }, { trustDomains })).toBe(expected);
  expect(await allows(from({ notPrincipals: [value] }), { principal }, { trustDomains })).toBe(!expected);
});

test('policies on trial decide nothing, and say what they would', async () => {
  const trial = { annotations: { 'istio.io/dry-run': 'true' } };
  const [answer] = await judge({
    policies: [
      policy(to({ methods: ['PUT'] }), {}, { name: 'a', ...trial }),
      policy([{}], { action: 'DENY' }, { name: 'd', ...trial }),
    ],
  });
  expect(answer).toMatchObject({ allow: true, rule: null, shadow: { allow: 'denied', deny: 'denied' } });
  const off = { annotations: { 'istio.io/dry-run': 'F' } };
  const [enforced] = await judge({ policies: [policy([{}], { action: 'DENY' }, off)] });
  expect(enforced).toMatchObject({ allow: false, shadow: { allow: null, deny: null } });
});

test('a provider is asked when its rules match, and more than one of them deny', async () => {
  const custom = (name: string, rules: readonly unknown[]) =>
    policy(rules, { action: 'CUSTOM', provider: { name } }, { name });
  const [one, none, two] = await judge(
    { policies: [custom('x', [{}])] },
    { policies: [custom('x', to({ methods: ['PUT'] }))] },
    { policies: [custom('x', [{}]), custom('y', to({ methods: ['PUT'] }))] },
  );
  expect(one).toMatchObject({ allow: true, custom: 'x' });
  expect(none).toMatchObject({ allow: true, custom: null });
  expect(two).toMatchObject({ allow: false, custom: 'x', rule: id('x') });
});

test('other kinds are passed over', async () => {
  const other = { apiVersion: 'v1', kind: 'Service', metadata: { name: 'x' }, spec: { anything: [1] } };
  expect((await judge({ policies: [other, policy(undefined)] }))[0]).toMatchObject({
    allow: false,
    error: null,
  });
});

test('strict mode denies where Istio allows', async () => {
  const strict = { mode: 'strict' };
  const answers = await judge(
    { ...strict },
    { ...strict, policies: [allowAll] },
    { ...strict, policies: [allowAll], request: { principal: null } },
    { ...strict, policies: [allowAll], request: { path: '/a/../b' } },
    { ...strict, policies: [allowAll], request: { principals: [web, call.principal] } },
  );
  expect(answers.map(({ allow, rule, error }) => [allow, rule, error])).toEqual([
    [false, null, null],
    [true, id('open'), null],
    [false, null, null],
    [false, null, null],
    [false, null, null],
  ]);
});
