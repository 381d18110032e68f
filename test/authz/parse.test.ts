import { describe, expect, test } from 'vitest';
import { formatPlace, MeshError } from '../../src/errors.ts';
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
const when = (entries: string): string => policyText(`rules:\n  - when: [${entries}]`);
const target = (entries: string): string => policyText(`targetRefs: [${entries}]`);
const gateway = 'group: gateway.networking.k8s.io';

describe('refused', () => {
  test.each<[string, string, string, string]>([
    // what would protect nothing here
    ['a target of a waypoint', target('{ kind: Service, name: a }'), 'policy_unsupported', 'p.yaml:5:3'],
    [
      'a class of gateways',
      target(`{ ${gateway}, kind: GatewayClass, name: a }`),
      'policy_unsupported',
      'p.yaml:5:3',
    ],
    ['a Gateway of no group', target('{ kind: Gateway, name: a }'), 'policy_unsupported', 'p.yaml:5:3'],
    [
      'a target without a name',
      target(`{ ${gateway}, kind: Gateway }`),
      'document_field_missing',
      'p.yaml:5:16',
    ],
    [
      '17 targets',
      target(Array(17).fill('{ kind: Gateway, name: a }').join()),
      'policy_invalid',
      'p.yaml:5:15',
    ],
    [
      'a selector and a target',
      policyText(`selector: {}\ntargetRefs: [{ ${gateway}, kind: Gateway, name: a }]`),
      'policy_invalid',
      'p.yaml:5:3',
    ],
    ['an empty when', policyText('rules:\n  - when: []'), 'policy_invalid', 'p.yaml:6:13'],
    ['a key of nothing', when('{ key: source.user, values: [a] }'), 'policy_invalid', 'p.yaml:6:21'],
    [
      'a header without a name',
      when('{ key: "request.headers[]", values: [a] }'),
      'policy_invalid',
      'p.yaml:6:21',
    ],
    ['a key without values', when('{ key: source.ip }'), 'policy_invalid', 'p.yaml:6:14'],
    ['a key with an empty list', when('{ key: source.ip, values: [] }'), 'policy_invalid', 'p.yaml:6:40'],
    ['when without a key', when('{ values: [a] }'), 'document_field_missing', 'p.yaml:6:14'],
    [
      'another field in when',
      when('{ key: source.ip, value: [a] }'),
      'document_field_unknown',
      'p.yaml:6:32',
    ],
    [
      '513 conditions',
      when(Array(513).fill('{ key: source.ip, values: ["::"] }').join()),
      'policy_invalid',
      'p.yaml:6:13',
    ],
    ['CUSTOM without a provider', policyText('action: CUSTOM\nrules: [{}]'), 'policy_invalid', 'p.yaml:5:3'],
    [
      'CUSTOM without rules',
      policyText('action: CUSTOM\nprovider: { name: x }'),
      'policy_invalid',
      'p.yaml:5:3',
    ],
    [
      'CUSTOM that asks who calls',
      policyText(
        'action: CUSTOM\nprovider: { name: x }\nrules: [{ from: [{ source: { namespaces: [a] } }] }]',
      ),
      'policy_invalid',
      'p.yaml:7:30',
    ],
    ['a provider of ALLOW', policyText('provider: { name: x }'), 'policy_invalid', 'p.yaml:5:13'],
    ['a dry run of AUDIT', policyText('action: AUDIT', 'p', 'pay', true), 'policy_invalid', 'p.yaml:3:71'],
    [
      'a dry run of maybe',
      policyText('{}', 'p', 'pay', true).replace("'true'", 'maybe'),
      'policy_invalid',
      'p.yaml:3:71',
    ],
    [
      'service accounts beside namespaces',
      source('{ serviceAccounts: [web], namespaces: [a] }'),
      'policy_invalid',
      'p.yaml:6:24',
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
    ['paths', ['{*}', '/{**}/{*}', '/a{*}', '/{a}', '/{*}/*', '/a//{*}', '/%41/{*}', '/a;b/{**}']],
    ['serviceAccounts', ['', '*', 'a/*', 'a/b/c', '/b', 'a/', 'a b', 'é', 'a'.repeat(321)]],
    ['trustDomains', ['', 'A', 'a/b', 'a*b', '*a*', 'a b', 'spiffe://a']],
    ...['ipBlocks', 'remoteIpBlocks'].map((field): [string, string[]] => [
      field,
      [
        '',
        '*',
        '10',
        '10.0.0.0/33',
        '10.0.0.0/-1',
        '010.0.0.1',
        '10.0.0.0/08',
        '::1%eth0',
        '::/129',
        ':::',
        'a',
      ],
    ]),
    ['requestPrincipals', ['', 'a', '/a', 'a/', '*/', '*a/*', '*/*', 'a*/b', '**']],
    ['ports', ['', '0', '65536', '-1', '080', '80.0', '1e3', '*', '80-90', 'http', ' 80']],
  ])('values of %s', (field, values) => {
    const wrap = ['hosts', 'ports', 'methods', 'paths'].includes(field) ? operation : source;
    for (const name of [field, `not${field.charAt(0).toUpperCase()}${field.slice(1)}`]) {
      for (const value of values) {
        const error = refusal(wrap(`{ ${name}: [${JSON.stringify(value)}] }`));
        expect([value, error.code, error.place?.line]).toEqual([value, 'policy_invalid', 6]);
      }
    }
  });

  test.each<[string, string[]]>([
    ['request.headers[x]', ['', 'a*b', ' a', 'a ', '* ', ' *', 'é', 'a\\u0000', 'a'.repeat(8_193)]],
    ['request.headers[:path]', ['/a']],
    ['request.headers[Host]', ['a']],
    ['request.headers[a b]', ['a']],
    ['request.auth.claims[a][b]', ['', 'a*b', '**']],
    ['request.auth.audiences', ['', '*a*']],
    ['request.auth.presenter', ['']],
    ['connection.sni', ['', 'a b', 'a*b', 'a:1']],
    ['destination.ip', ['', 'a', '1.2.3']],
    ['destination.port', ['0', '65536', '80-90']],
    ['experimental.envoy.filters.http.x[k]', ['', 'a*b', '[]', '[a*b]']],
  ])('values of the key %s', (key, values) => {
    for (const list of ['values', 'notValues']) {
      for (const value of values) {
        const error = refusal(when(`{ key: "${key}", ${list}: ["${value}"] }`));
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
