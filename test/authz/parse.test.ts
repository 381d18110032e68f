import { describe, expect, test } from 'vitest';
import { formatPlace, MeshError } from '../../src/errors.ts';
import { fieldName } from '../../src/authz/policy.ts';
import { policyText, readPolicies } from './mesh.ts';

function refusal(text: string): MeshError {
  try {
    readPolicies(text);
  } catch (error) {
    if (error instanceof MeshError) return error;
    throw error;
  }
  throw new Error('nothing was refused');
}

/** A rule whose only source or operation is the given flow mapping; the mapping begins at column 28 or 31. */
const source = (body: string): string => policyText(`rules:\n  - from: [{ source: ${body} }]`);
const operation = (body: string): string => policyText(`rules:\n  - to: [{ operation: ${body} }]`);

describe('refused', () => {
  test.each<[string, string, string, string]>([
    // Istio's language that we do not have yet
    ['AUDIT', policyText('action: AUDIT'), 'policy_unsupported', 'p.yaml:5:11'],
    ['CUSTOM', policyText('action: CUSTOM\nprovider: { name: x }'), 'policy_unsupported', 'p.yaml:6:13'],
    ['provider', policyText('provider: { name: x }'), 'policy_unsupported', 'p.yaml:5:13'],
    ['targetRef', policyText('targetRef: { kind: Gateway }'), 'policy_unsupported', 'p.yaml:5:14'],
    ['targetRefs', policyText('targetRefs: []'), 'policy_unsupported', 'p.yaml:5:15'],
    ['when', policyText('rules:\n  - when: [{ key: a, values: [b] }]'), 'policy_unsupported', 'p.yaml:6:13'],
    ['an empty when', policyText('rules:\n  - when: []'), 'policy_unsupported', 'p.yaml:6:13'],
    ['requestPrincipals', source('{ requestPrincipals: ["*"] }'), 'policy_unsupported', 'p.yaml:6:45'],
    ['notRequestPrincipals', source('{ notRequestPrincipals: ["*"] }'), 'policy_unsupported', 'p.yaml:6:48'],
    ['ipBlocks', source('{ ipBlocks: ["10.0.0.0/8"] }'), 'policy_unsupported', 'p.yaml:6:36'],
    ['notIpBlocks', source('{ notIpBlocks: ["10.0.0.0/8"] }'), 'policy_unsupported', 'p.yaml:6:39'],
    ['remoteIpBlocks', source('{ remoteIpBlocks: ["10.0.0.0/8"] }'), 'policy_unsupported', 'p.yaml:6:42'],
    ['notRemoteIpBlocks', source('{ notRemoteIpBlocks: ["::/0"] }'), 'policy_unsupported', 'p.yaml:6:45'],
    ['serviceAccounts', source('{ serviceAccounts: [web] }'), 'policy_unsupported', 'p.yaml:6:43'],
    ['notServiceAccounts', source('{ notServiceAccounts: [web] }'), 'policy_unsupported', 'p.yaml:6:46'],
    ['trustDomains', source('{ trustDomains: [a] }'), 'policy_unsupported', 'p.yaml:6:40'],
    ['notTrustDomains', source('{ notTrustDomains: [a] }'), 'policy_unsupported', 'p.yaml:6:43'],
    ['a path template', operation('{ paths: ["/a/{*}"] }'), 'policy_unsupported', 'p.yaml:6:35'],
    ['a deep path template', operation('{ paths: ["/a/{**}"] }'), 'policy_unsupported', 'p.yaml:6:35'],
    ['a template in notPaths', operation('{ notPaths: ["/{*}/b"] }'), 'policy_unsupported', 'p.yaml:6:38'],
    [
      'a dry run',
      policyText('{}').replace('namespace: pay', 'namespace: pay, annotations: { istio.io/dry-run: "true" }'),
      'policy_unsupported',
      'p.yaml:3:71',
    ],
    // fields nobody has
    ['an unknown field of spec', policyText('rule: []'), 'document_field_unknown', 'p.yaml:5:3'],
    [
      'an unknown field of a rule',
      policyText('rules:\n  - form: []'),
      'document_field_unknown',
      'p.yaml:6:7',
    ],
    [
      'an unknown field of from',
      policyText('rules:\n  - from: [{ src: {} }]'),
      'document_field_unknown',
      'p.yaml:6:16',
    ],
    ['an unknown field of a source', source('{ principal: [a] }'), 'document_field_unknown', 'p.yaml:6:26'],
    ['methods in a source', source('{ methods: [GET] }'), 'document_field_unknown', 'p.yaml:6:26'],
    [
      'an unknown field of an operation',
      operation('{ path: ["/"] }'),
      'document_field_unknown',
      'p.yaml:6:27',
    ],
    ['__proto__', operation('{ __proto__: ["/"] }'), 'document_field_unknown', 'p.yaml:6:27'],
    ['status', `${policyText('{}')}status: {}\n`, 'document_field_unknown', 'p.yaml:5:1'],
    [
      'a selector by expressions',
      policyText('selector: { matchExpressions: [] }'),
      'document_field_unknown',
      'p.yaml:5:15',
    ],
    // shape
    [
      'another kind',
      policyText('{}').replace('AuthorizationPolicy', 'PeerAuthentication'),
      'document_kind_unknown',
      'p.yaml:1:1',
    ],
    ['another version', policyText('{}').replace('/v1', '/v2'), 'document_kind_unknown', 'p.yaml:1:1'],
    [
      'no metadata',
      'apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nspec: {}\n',
      'document_field_missing',
      'p.yaml:1:1',
    ],
    [
      'no namespace',
      policyText('{}').replace(', namespace: pay', ''),
      'document_field_missing',
      'p.yaml:3:11',
    ],
    ['no name', policyText('{}').replace('name: p, ', ''), 'document_field_missing', 'p.yaml:3:11'],
    ['no spec', policyText('{}').replace('spec: {}\n', ''), 'document_field_missing', 'p.yaml:1:1'],
    [
      'an empty spec field',
      policyText('{}').replace('spec: {}', 'spec:'),
      'document_field_type',
      'p.yaml:4:6',
    ],
    ['rules without a value', policyText('rules:'), 'document_field_type', 'p.yaml:5:9'],
    ['an empty rule', policyText('rules:\n  -'), 'document_field_type', 'p.yaml:6:6'],
    ['from without a value', policyText('rules:\n  - from:'), 'document_field_type', 'p.yaml:6:12'],
    ['a namespace with a slash', policyText('{}', 'p', 'a/b'), 'policy_invalid', 'p.yaml:3:33'],
    ['a name in capitals', policyText('{}', 'P'), 'policy_invalid', 'p.yaml:3:19'],
    ['an unknown action', policyText('action: deny'), 'policy_invalid', 'p.yaml:5:11'],
    ['DENY without rules', policyText('action: DENY'), 'policy_invalid', 'p.yaml:5:3'],
    [
      'DENY with an empty list of rules',
      policyText('action: DENY\nrules: []'),
      'policy_invalid',
      'p.yaml:5:3',
    ],
    ['an empty from', policyText('rules:\n  - from: []'), 'policy_invalid', 'p.yaml:6:13'],
    ['an empty to', policyText('rules:\n  - to: []'), 'policy_invalid', 'p.yaml:6:11'],
    [
      'a source without source',
      policyText('rules:\n  - from: [{}]'),
      'document_field_missing',
      'p.yaml:6:14',
    ],
    ['an empty source', source('{}'), 'policy_invalid', 'p.yaml:6:24'],
    ['an empty operation', operation('{}'), 'policy_invalid', 'p.yaml:6:25'],
    ['an empty list of values', operation('{ methods: [] }'), 'policy_invalid', 'p.yaml:6:36'],
    [
      'a label with a wildcard',
      policyText('selector: { matchLabels: { app: "a*" } }'),
      'policy_invalid',
      'p.yaml:5:35',
    ],
    [
      'a label that is a number',
      policyText('selector: { matchLabels: { app: 1 } }'),
      'document_field_type',
      'p.yaml:5:35',
    ],
    ['513 rules', policyText(`rules: [${'{},'.repeat(513)}]`), 'policy_invalid', 'p.yaml:5:10'],
    ['513 values', operation(`{ methods: [${'A,'.repeat(513)}] }`), 'policy_invalid', 'p.yaml:6:36'],
    ['513 sources', policyText(`rules: [{ from: [${'{},'.repeat(513)}] }]`), 'policy_invalid', 'p.yaml:5:19'],
  ])('%s', (_name, text, code, place) => {
    const error = refusal(text);
    expect([error.code, error.place && formatPlace(error.place)]).toEqual([code, place]);
    expect(error.fix).toBeTruthy();
    expect(error.message).toMatch(/^[^A-Z].*[^.]$/s);
  });

  test.each<[string, string[]]>([
    [
      'principals',
      [
        '',
        '**',
        'a*b',
        '*a*',
        'spiffe://example.org/ns/a/sa/b',
        'example.org',
        'Example.org/ns/a/sa/b',
        'example.org//sa/b',
        'example.org/ns/a/',
        '*/',
        '/ns/a/*',
        'example.org/ns/a/sa/b c',
      ],
    ],
    ['namespaces', ['', 'a/b', 'a*b', 'foo/*', '*/sa/x', 'a b']],
    ['methods', ['', 'GET POST', 'G*T', 'GET/', 'é', 'A'.repeat(65)]],
    [
      'paths',
      [
        '',
        'charge',
        'a*',
        '/a?b',
        '/a#b',
        '/a//b',
        '/a/../b',
        '/a/./b',
        '//*',
        '*//x',
        '/a;b',
        '/a\\b',
        '/%2fa',
        '/%41',
        '/%c3%a9',
        '/é',
        '/a b',
        '/a*b',
        '*a*',
        '/%zz',
      ],
    ],
    [
      'hosts',
      [
        '',
        'a*b',
        '*a*',
        'a b',
        'exämple.org',
        'user@a',
        'a:0',
        'a:65536',
        'a:b',
        'a..b',
        '127.1',
        '0x7f',
        '[::1',
        '[::1%eth0]',
        '*.a:x',
        'http://a',
        'a/b',
      ],
    ],
    ['ports', ['', '0', '65536', '-1', '080', '80.0', '1e3', '*', '80-90', 'http', ' 80']],
  ])('values of %s', (field, values) => {
    const wrap = field === 'principals' || field === 'namespaces' ? source : operation;
    for (const name of [field, `not${field.charAt(0).toUpperCase()}${field.slice(1)}`]) {
      for (const value of values) {
        const error = refusal(wrap(`{ ${name}: [${JSON.stringify(value)}] }`));
        expect([value, error.code, error.place?.line]).toEqual([value, 'policy_invalid', 6]);
      }
    }
  });

  test('a port without quotes names the cure', () => {
    expect(refusal(operation('{ ports: [8080] }'))).toMatchObject({
      code: 'document_field_type',
      fix: 'put it in quotes',
    });
  });

  test('a mistyped field gets a suggestion', () => {
    expect(refusal(operation('{ pathes: ["/"] }')).fix).toContain('paths');
  });
});

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
      to:
        - operation:
            hosts: ["Ledger.Pay.", "ledger.pay:8080", "*.pay:*", "[0:0::1]:80", "*:9090", "10.0.0.1"]
            notHosts: ["evil.*"]
            ports: ["8080"]
            notPorts: ["1"]
            methods: [GET, "P*"]
            notMethods: [PUT]
            paths: ["/v1/*", "*.json", "/", "/a%20b"]
            notPaths: ["/v1/admin*"]
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
  const predicates = [...(rule?.from ?? []), ...(rule?.to ?? [])].flatMap(({ predicates }) => predicates);
  expect(predicates.map(fieldName)).toEqual([
    ...['principals', 'notPrincipals', 'namespaces', 'notNamespaces', 'hosts', 'notHosts'],
    ...['ports', 'notPorts', 'methods', 'notMethods', 'paths', 'notPaths'],
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
