import { expect, test } from 'vitest';
import { policyText, readPolicies } from './mesh.ts';

test('all of the supported language is read', () => {
  const [policy] = readPolicies(`apiVersion: security.istio.io/v1beta1
kind: AuthorizationPolicy
metadata:
  name: ledger.main
  namespace: pay
  labels: { team: pay }
  annotations: { note: x }
spec:
  selector: { matchLabels: { app: ledger, constructor: "1" } }
  action: DENY
  rules:
    - from:
        - source:
            principals: ["example.org/ns/shop/sa/*", "*/sa/web", "*", example.org/ns/a/sa/b]
            notPrincipals: [example.org/billing]
            namespaces: [shop, "dev-*"]
            notNamespaces: ["*-x"]
        - source:
            serviceAccounts: [web, shop/web]
            trustDomains: [example.org, "*.org"]
            ipBlocks: [10.0.0.0/8, "::ffff:10.1.0.0/112"]
            notRemoteIpBlocks: ["2001:db8::/32"]
            requestPrincipals: ["*", "https://i.example/s", "i/*", "*/s", "i*", "*s"]
      to:
        - operation:
            hosts: ["Ledger.Pay.", "ledger.pay:8080", "*.pay:*", "[0:0::1]:80", "*:9090", "10.0.0.1"]
            notHosts: ["evil.*"]
            ports: ["8080"]
            notPorts: ["1"]
            methods: [GET, "P*"]
            notMethods: [PUT]
            paths: ["/v1/*", "*.json", "/", "/a%20b"]
            notPaths: ["/v1/admin*", "/{*}/a/{**}"]
      when:
        - { key: "request.headers[X-Id]", values: ["a b", "a*"], notValues: ["b"] }
        - { key: "request.auth.claims[a][b.c]", values: ["*"] }
        - { key: connection.sni, values: ["*.Example.org"] }
        - { key: "experimental.envoy.filters.http.x[a.b]", values: ["[a*]", a] }
`);
  expect([policy?.key, policy?.action, [...(policy?.selector ?? [])]]).toEqual([
    'pay/ledger.main',
    'DENY',
    [
      ['app', 'ledger'],
      ['constructor', '1'],
    ],
  ]);
  const rule = policy?.rules[0];
  const entries = [...(rule?.from ?? []), ...(rule?.to ?? []), ...(rule?.when ?? [])];
  const predicates = entries.flatMap((entry) => entry.predicates);
  expect(predicates.map(({ field }) => field)).toEqual([
    ...['principals', 'notPrincipals', 'namespaces', 'notNamespaces'],
    ...['requestPrincipals', 'serviceAccounts', 'ipBlocks', 'notRemoteIpBlocks', 'trustDomains'],
    ...['hosts', 'notHosts'],
    ...['ports', 'notPorts', 'methods', 'notMethods', 'paths', 'notPaths'],
    ...['request.headers[X-Id]', 'request.headers[X-Id] notValues', 'request.auth.claims[a][b.c]'],
    ...['connection.sni', 'experimental.envoy.filters.http.x[a.b]'],
  ]);
  const matchesOf = (name: string) => predicates.find(({ field }) => field === name)?.matches;
  expect(matchesOf('serviceAccounts')).toEqual([
    { kind: 'exact', text: 'pay/web' },
    { kind: 'exact', text: 'shop/web' },
  ]);
  expect(matchesOf('ipBlocks')).toEqual([
    { bytes: [10, 0, 0, 0], length: 8 },
    { bytes: [10, 1, 0, 0], length: 16 },
  ]);
  const [present, is] = [{ kind: 'present' }, (text: string) => ({ kind: 'exact', text })];
  expect(matchesOf('requestPrincipals')).toEqual([
    { issuer: present, subject: present },
    { issuer: is('https://i.example'), subject: is('s') },
    { issuer: is('i'), subject: present },
    { issuer: present, subject: is('s') },
    { issuer: { kind: 'prefix', text: 'i' }, subject: present },
    { issuer: present, subject: { kind: 'suffix', text: 's' } },
  ]);
  expect(matchesOf('notPaths')).toEqual([
    { kind: 'prefix', text: '/v1/admin' },
    { kind: 'template', text: '/{*}/a/{**}', prefix: '/' },
  ]);
  expect(matchesOf('connection.sni')).toEqual([{ kind: 'suffix', text: '.example.org' }]);
  expect(matchesOf('experimental.envoy.filters.http.x[a.b]')).toEqual([
    { inList: true, match: { kind: 'prefix', text: 'a' } },
    { inList: false, match: is('a') },
  ]);
  expect(predicates.find(({ field }) => field === 'hosts')?.matches).toEqual([
    { name: { kind: 'exact', text: 'ledger.pay' }, port: null },
    { name: { kind: 'exact', text: 'ledger.pay' }, port: 8_080 },
    { name: { kind: 'suffix', text: '.pay' }, port: null },
    { name: { kind: 'exact', text: '[::1]' }, port: 80 },
    { name: { kind: 'present' }, port: 9_090 },
    { name: { kind: 'exact', text: '10.0.0.1' }, port: null },
  ]);
  expect(predicates.find(({ field }) => field === 'principals')?.matches).toEqual([
    { kind: 'prefix', text: 'example.org/ns/shop/sa/' },
    { kind: 'suffix', text: '/sa/web' },
    { kind: 'present' },
    { kind: 'exact', text: 'example.org/ns/a/sa/b' },
  ]);
});

test('a predicate stands where its values do, read from the file or from what was stored of it', () => {
  const text = `# first\n---\n${policyText('rules: [{ to: [{ operation: { methods: [GET] } }] }]')}`;
  const [policy] = readPolicies(`${policyText('{}')}---\n\n${text.slice(text.indexOf('api'))}`).slice(1);
  const [predicate] = policy?.rules[0]?.to[0]?.predicates ?? [];
  expect([predicate?.place, predicate?.length]).toEqual([{ file: 'p.yaml', line: 11, column: 42 }, 5]);
});
