import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { differences } from '../../src/authz/differences.ts';
import { type Finding, lintInSteps, lintPolicies } from '../../src/authz/lint.ts';
import { hazards, misfits } from '../../src/authz/lint-hazards.ts';
import { lintFiles } from '../../src/cli/lint-files.ts';
import { SpiffeId, TrustDomain } from '../../src/spiffe/id.ts';
import { meshOf, policyText, readPolicies } from './mesh.ts';

const trustDomain = TrustDomain.parse('example.org');
const rule = (text: string) => `rules:\n- ${text}`;
const from = (text: string) => rule(`from: [{ source: { ${text} } }]`);
const to = (text: string) => rule(`to: [{ operation: { ${text} } }]`);
const when = (key: string, text: string) => rule(`when: [{ key: "${key}", ${text} }]`);
const deny = (text: string) => `action: DENY\n${text}`;
const custom = (name: string) => `action: CUSTOM\nprovider: { name: ${name} }\n${to('ports: ["1"]')}`;
const workload = (id: string, labels: Readonly<Record<string, string>> = {}) => ({
  id: SpiffeId.parse(`spiffe://example.org/${id}`),
  labels,
});
const inventory = [
  workload('ns/pay/sa/ledger', { app: 'ledger', v: '1' }),
  workload('ns/pay/sa/ledger', { app: 'ledger', v: '2' }),
  workload('ns/shop/sa/web', { app: 'web' }),
  workload('ns/shop/sa/web', { app: 'web', w: '1' }),
  workload('odd', { namespace: 'labelled' }),
];

/** The codes found in policies `p0`, `p1`... of the namespace pay. */
function lint(specs: readonly string[], workloads: typeof inventory | null = null, limit = 1_000): Finding[] {
  const text = specs.map((spec, i) => policyText(spec, `p${i}`)).join('---\n');
  const policies = text === '' ? [] : readPolicies(text);
  const { rootNamespace } = meshOf([]);
  const found = lintPolicies({ policies, workloads, trustDomain, rootNamespace, notes: true, limit });
  return [...found.findings];
}

/** For each code a policy that it is about, and one that it is not. */
const rows: readonly [string, string | readonly string[], string | readonly string[]][] = [
  ['allow_not_methods', to('notMethods: [DELETE]'), to('methods: [GET], notMethods: [DELETE]')],
  ['allow_not_methods', to('notMethods: [DELETE]'), deny(to('notMethods: [DELETE]'))],
  ['allow_not', to('notPaths: [/admin]'), to('paths: ["/a/*"], notPaths: [/a/admin]')],
  ['allow_not', from('notNamespaces: [dev]'), from('principals: ["*"], notNamespaces: [dev]')],
  ['deny_tcp', deny(to('paths: [/admin]')), deny(to('paths: [/admin], ports: ["80"]'))],
  ['deny_tcp', deny(to('paths: [/admin]')), to('paths: [/admin]')],
  ['deny_tcp', deny(from('requestPrincipals: [x/y]')), deny(from('namespaces: [dev]'))],
  ['anonymous_token', from('notRequestPrincipals: [x/y]'), from('requestPrincipals: [x/y]')],
  ['anonymous_token', deny(from('notRequestPrincipals: [x/y]')), deny(from('notRequestPrincipals: ["*"]'))],
  [
    'sni_alone',
    when('connection.sni', 'values: [a.b]'),
    'rules:\n- from: [{ source: { namespaces: [shop] } }]\n  when: [{ key: connection.sni, values: [a.b] }]',
  ],
  ['sni_alone', when('connection.sni', 'values: [a.b]'), deny(when('connection.sni', 'values: [a.b]'))],
  [
    'header_identity',
    when('request.headers[X-Forwarded-For]', 'values: [a]'),
    when('request.headers[x-team]', 'values: [a]'),
  ],
  ['namespace_wildcard', from('namespaces: ["sh*"]'), from('namespaces: [shop]')],
  [
    'default_account',
    from('principals: [example.org/ns/a/sa/default]'),
    from('principals: [example.org/ns/a/sa/b]'),
  ],
  ['default_account', from('serviceAccounts: [default]'), from('serviceAccounts: [a/web]')],
  ['method_case', to('methods: [get]'), to('methods: [GET, list]')],
  ['allow_nothing', '{}', rule('{}')],
  [
    'rule_repeated',
    [to('methods: [GET]'), to('methods: [GET]')],
    [to('methods: [GET]'), to('methods: [PUT]')],
  ],
  [
    'rule_repeated',
    [to('methods: [GET]'), to('methods: [GET]')],
    [to('methods: [GET]'), deny(to('methods: [GET]'))],
  ],
  // Neither stands in for the other when a break-glass grant comes.
  [
    'rule_repeated',
    [deny(to('methods: [GET]')), deny(to('methods: [GET]'))],
    [deny(to('methods: [GET]')), `liftable: true\n${deny(to('methods: [GET]'))}`],
  ],
  ['istio_only_deny', deny(to('methods: [GET]')), [deny(to('methods: [GET]')), rule('{}')]],
  ['istio_no_certificate', to('methods: [GET]'), from('namespaces: [shop]')],
  ['istio_no_certificate', from('notPrincipals: [a.b/c]'), from('principals: ["*"]')],
  [
    'istio_not_of_missing',
    when('request.headers[x]', 'notValues: [a]'),
    deny(when('request.headers[x]', 'notValues: [a]')),
  ],
  ['istio_untold', from('ipBlocks: [10.0.0.0/8]'), to('methods: [GET]')],
  [
    'istio_header_lines',
    when('request.headers[x]', 'values: [a]'),
    deny(when('request.headers[x]', 'values: [a]')),
  ],
  [
    'istio_header_empty',
    when('request.headers[x]', 'values: ["*"]'),
    when('request.headers[x]', 'values: ["a*"]'),
  ],
  ['istio_header_bytes', when('request.headers[x]', 'values: [a]'), to('methods: [GET]')],
  ['istio_header_alias', when('request.headers[x]', 'notValues: [a]'), to('methods: [GET]')],
  ['istio_service_account', from('serviceAccounts: [a/b]'), from('namespaces: [a]')],
  ['istio_several_providers', [custom('a'), custom('b')], [custom('a'), custom('a')]],
  ['istio_custom', custom('a'), rule('{}')],
  ['istio_two_names', from('trustDomains: [a.b]'), to('methods: [GET]')],
  ['istio_mapped_address', from('remoteIpBlocks: [10.0.0.0/8]'), to('methods: [GET]')],
  ['istio_tcp', to('hosts: [a.b]'), to('ports: ["80"]')],
  ['istio_namespace_suffix', from('namespaces: ["*a"]'), from('namespaces: [a]')],
  ['istio_namespace_foreign', from('namespaces: [a]'), from('principals: [a.b/c]')],
  ['istio_cluster_local', from('principals: [cluster.local/ns/a/sa/b]'), from('principals: [a.b/ns/a/sa/b]')],
  ['istio_host_port', to('hosts: [a.b]'), to('hosts: ["a.b:80"]')],
  ['istio_host_without_port', to('hosts: ["a.b:80"]'), to('hosts: ["a.b:*"]')],
  ['istio_path_repaired', to('paths: [/a]'), to('methods: [GET]')],
];

/** The same, compared with the workloads. */
const compared: readonly [string, string | readonly string[], string | readonly string[]][] = [
  [
    'selects_nothing',
    `selector: { matchLabels: { app: none } }\n${rule('{}')}`,
    `selector: { matchLabels: { app: ledger } }\n${rule('{}')}`,
  ],
  ['selects_nothing', `selector: { matchLabels: { app: web } }\n${rule('{}')}`, rule('{}')],
  [
    'principal_unknown',
    from('principals: [example.org/ns/shop/sa/job]'),
    from('principals: [example.org/ns/shop/sa/web, other.org/ns/a/sa/b, "*"]'),
  ],
  ['account_unknown', from('serviceAccounts: [shop/job]'), from('serviceAccounts: [shop/web, ledger]')],
  ['namespace_unknown', from('namespaces: [dev]'), from('namespaces: [shop, "d*"]')],
  ['namespace_unknown', from('namespaces: [labelled]'), from('namespaces: [pay]')],
  ['only_deny', deny(from('namespaces: [shop]')), [deny(from('namespaces: [shop]')), '{}']],
  ['istio_no_policy', [], `selector: {}\n${rule('{}')}`],
  [
    'istio_several_registrations',
    `selector: { matchLabels: { v: "2" } }\n${rule('{}')}`,
    `selector: { matchLabels: { app: ledger } }\n${rule('{}')}`,
  ],
  [
    'istio_several_registrations',
    `selector: { matchLabels: { v: "2" } }\n${rule('{}')}`,
    // It is about another namespace than the policy.
    `selector: { matchLabels: { w: "1" } }\n${rule('{}')}`,
  ],
];

const specsOf = (spec: string | readonly string[]): readonly string[] =>
  typeof spec === 'string' ? [spec] : spec;

test.each(rows)('%s is found in %j and not in %j', (code, bad, good) => {
  expect(lint(specsOf(bad)).map((one) => one.code)).toContain(code);
  expect(lint(specsOf(good)).map((one) => one.code)).not.toContain(code);
});

test.each(compared)('%s is found in %j and not in %j, of the workloads there are', (code, bad, good) => {
  const here = code === 'istio_no_policy' ? inventory.slice(0, 2) : inventory;
  expect(lint(specsOf(bad), here).map((one) => one.code)).toContain(code);
  expect(lint(specsOf(good), here).map((one) => one.code)).not.toContain(code);
  // Nothing is said of workloads that nobody knows.
  expect(lint(specsOf(bad)).map((one) => one.code)).not.toContain(code);
});

test('every code has a row here, and words in the documents', () => {
  const tested = new Set([...rows, ...compared].map(([code]) => code));
  const own = [...hazards, ...misfits].map(({ code }) => code);
  const told = readFileSync('docs/policy-lint.md', 'utf8');
  for (const code of [...own, 'rule_repeated', 'only_deny', 'refused']) {
    if (code !== 'refused') expect(tested).toContain(code);
    expect(told).toContain(`\n### ${code}\n`);
  }
  for (const { code, find } of differences) if (find !== 'reader') expect(tested).toContain(code);
  const headings = [...told.matchAll(/^### (.+)$/gm)].map(([, code]) => code);
  expect(new Set(headings)).toEqual(new Set([...own, 'rule_repeated', 'only_deny', 'refused']));
});

test('the table of docs/policy.md is the one that lint goes by', () => {
  const text = readFileSync('docs/policy.md', 'utf8');
  const section = text.slice(text.indexOf('## Strict mode'));
  const table = section
    .slice(0, section.indexOf('\n## ', 4))
    .split('\n')
    .filter((line) => line.startsWith('|'))
    .slice(2)
    .map((line) =>
      line
        .split('|')
        .slice(1, -1)
        .map((cell) => cell.trim()),
    );
  expect(table).toEqual(differences.map(({ about, istio, strict }) => [about, istio, strict]));
});

describe('an answer', () => {
  test('is bounded, counts what it leaves out, and begins with what matters', () => {
    const policies = readPolicies(
      Array.from({ length: 30 }, (_, i) => policyText(to(`notMethods: [M${i}]`), `p${i}`)).join('---\n'),
    );
    const of = { policies, workloads: null, trustDomain, rootNamespace: 'istio-system' };
    const short = lintPolicies({ ...of, notes: false, limit: 10 });
    expect([short.findings.length, short.omitted, short.warnings]).toEqual([10, 20, 30]);
    expect(short.notes).toBeGreaterThan(30);
    const long = lintPolicies({ ...of, notes: true, limit: 40 });
    expect(long.findings.map(({ severity }) => severity)).toEqual([
      ...Array.from({ length: 30 }, () => 'warning'),
      ...Array.from({ length: 10 }, () => 'note'),
    ]);
    expect(long.omitted).toBe(long.notes - 10);
  });

  test('is worked out in steps, each of one policy, a few workloads or one finding', () => {
    const text = Array.from({ length: 30 }, (_, i) => policyText(to(`notMethods: [M${i}]`), `p${i}`));
    const workloads = Array.from({ length: 800 }, () => workload('ns/pay/sa/ledger'));
    const of = { policies: readPolicies(text.join('---\n')), trustDomain, rootNamespace: 'istio-system' };
    const count = (there: typeof workloads | null): number =>
      [...lintInSteps({ ...of, workloads: there, notes: false, limit: 20 })].length;
    expect(count(null)).toBeGreaterThanOrEqual(30 + 20);
    // Once as they are indexed, and once as policies are attached to them.
    expect(count(workloads)).toBeGreaterThanOrEqual(30 + 20 + 800 / 8 + 800);
  });

  test('shows the line, and what to do', () => {
    const [found] = lint([to('notMethods: [DELETE]')]);
    expect(found).toMatchObject({
      code: 'allow_not_methods',
      policy: 'pay/p0',
      place: 'p.yaml:6:37',
      at: { line: 6, column: 37, text: '  - to: [{ operation: { notMethods: [DELETE] } }]' },
      fix: expect.stringContaining('methods'),
    });
  });
});

test.each([
  ['principal_unknown', from('principals: [example.org/ns/shop/sa/web, example.org/ns/shop/sa/wbe]'), 'wbe"'],
  ['account_unknown', from('serviceAccounts: [ledger, shop/job]'), ': "shop/job"'],
  ['namespace_unknown', from('namespaces: [shop, dev]'), ': "dev"'],
  ['namespace_wildcard', from('namespaces: [shop, "s*"]'), ': "s*"'],
  ['default_account', from('serviceAccounts: [ledger, default]'), ': "default"'],
  ['method_case', to('methods: [GET, put]'), ': "put"'],
])('%s says which of several values is meant', (code, spec, named) => {
  expect(lint([spec], inventory).find((one) => one.code === code)?.why).toContain(named);
});

describe('files', () => {
  const options = {
    rootNamespace: 'istio-system',
    trustDomain: null,
    notes: true,
    limit: 100,
    compare: true,
  };
  const codes = (text: string) =>
    lintFiles([{ file: 'm.yaml', text }], options).findings.map(({ code }) => code);

  test.each([
    ['what Istio takes', to('paths: ["/a*b"]'), 'istio_refused'],
    ['what nobody takes', to('colour: [red]'), 'refused'],
    ['a path that matches no call', to('paths: ["/a//b"]'), 'istio_refused'],
  ])('%s and strict mode refuses is an error', (_, spec, code) => {
    expect(codes(`${policyText(spec)}---\n${policyText(rule('{}'), 'q')}`)).toEqual([
      code,
      'istio_no_certificate',
    ]);
    expect(lintFiles([{ file: 'm.yaml', text: policyText(spec) }], options)).toMatchObject({
      errors: 1,
      policies: 1,
      inventory: false,
    });
  });

  test('with entries are compared with them', () => {
    const entry =
      'apiVersion: countersign.dev/v1\nkind: RegistrationEntry\nmetadata: { name: web }\nspec: { spiffeId: spiffe://example.org/ns/shop/sa/web, selectors: [unix:uid:1] }\n';
    const policy = policyText(from('principals: [example.org/ns/shop/sa/other]'), 'p', 'shop');
    expect(codes(`${entry}---\n${policy}`)).toContain('principal_unknown');
    expect(codes(policy)).not.toContain('principal_unknown');
    expect(codes(`${policy}---\n${policy}`)).toContain('refused');
  });
});
