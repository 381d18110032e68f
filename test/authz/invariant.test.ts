import { describe, expect, test } from 'vitest';
import { comparePolicies } from '../../src/authz/analysis/compare.ts';
import { readInvariant } from '../../src/authz/analysis/invariant.ts';
import { provePolicies } from '../../src/authz/analysis/prove.ts';
import { readWitness } from '../../src/authz/analysis/witness.ts';
import { decideNaively } from '../../src/authz/naive.ts';
import { finish } from '../../src/authz/steps.ts';
import { SpiffeId } from '../../src/spiffe/id.ts';
import { readDocuments } from '../../src/yaml.ts';
import { ledger, meshOf, noon, policyText, readPolicies, trustDomain, web } from './mesh.ts';

const workloads = [
  { id: ledger, labels: { app: 'ledger' } },
  { id: web, labels: { app: 'web' } },
  { id: SpiffeId.parse('spiffe://example.org/ns/dev/sa/probe'), labels: {} },
];
const ground = { trustDomain, rootNamespace: 'istio-system', workloads };

const invariant = (spec: string) =>
  readDocuments({
    file: 'i.yaml',
    text: `apiVersion: countersign.dev/v1\nkind: PolicyInvariant\nmetadata: { name: i }\nspec: { ${spec} }\n`,
  }).map(readInvariant);

function proofOf(policies: readonly string[], spec = '', examines = true) {
  const list = policies.flatMap((text, i) => readPolicies(policyText(text, `p${i}`)));
  const invariants = spec === '' ? [] : invariant(spec);
  return { list, proof: finish(provePolicies(ground, { policies: list, invariants, examines }, noon)) };
}

const shop = `rules: [{ from: [{ source: { namespaces: [shop] } }], to: [{ operation: { methods: [GET], paths: ['/a/*'] } }] }]`;
const all = 'rules: [{}]';
const toPay = 'to: { namespaces: [pay] }';

describe('invariants', () => {
  test.each<[string, readonly string[], string, 'proven' | 'violated' | 'unproven', string]>([
    ['nobody is allowed', [], `never: { ${toPay} }`, 'proven', ''],
    ['another namespace', [shop], `never: { from: { namespaces: [dev] }, ${toPay} }`, 'proven', ''],
    [
      'another method',
      [shop],
      `never: { ${toPay}, from: { namespaces: [shop] }, when: [{ key: destination.port, values: ['1'] }] }`,
      'violated',
      'pay/p0 rule[0]',
    ],
    [
      'the same namespace',
      [shop],
      `never: { from: { namespaces: [shop] }, ${toPay} }`,
      'violated',
      'pay/p0 rule[0]',
    ],
    ['a pattern of it', [shop], `never: { from: { namespaces: ['s*'] } }`, 'violated', 'pay/p0 rule[0]'],
    [
      'an operation of it',
      [shop],
      `never: { to: { namespaces: [pay], operation: { paths: ['/a/b'] } } }`,
      'violated',
      'pay/p0 rule[0]',
    ],
    [
      'another operation',
      [shop],
      `never: { to: { namespaces: [pay], operation: [{ paths: ['/b'] }, { methods: [PUT] }] } }`,
      'proven',
      '',
    ],
    ['another destination', [shop], 'never: { to: { namespaces: [shop] } }', 'proven', ''],
    ['by label', [shop], 'never: { to: { labels: { app: ledger } } }', 'violated', 'pay/p0 rule[0]'],
    [
      'by name',
      [shop],
      'never: { to: { principals: [example.org/ns/pay/sa/ledger] } }',
      'violated',
      'pay/p0 rule[0]',
    ],
    [
      'foreign callers have no namespace',
      [all],
      `never: { from: { notNamespaces: [shop] }, ${toPay} }`,
      'violated',
      'pay/p0 rule[0]',
    ],
    [
      'what a DENY keeps away',
      [all, `action: DENY\nrules: [{ from: [{ source: { notNamespaces: [shop] } }] }]`],
      `never: { from: { notNamespaces: [shop] }, ${toPay} }`,
      'proven',
      '',
    ],
    [
      'what a DENY keeps away in part',
      [all, `action: DENY\nrules: [{ to: [{ operation: { paths: ['/admin/*'] } }] }]`],
      `never: { to: { namespaces: [pay], operation: { paths: ['/admin*'] } } }`,
      'violated',
      'pay/p0 rule[0]',
    ],
    [
      'what a CUSTOM policy denies',
      [all, `action: CUSTOM\nprovider: { name: x }\nrules: [{}]`],
      `never: { ${toPay} }`,
      'proven',
      '',
    ],
    [
      'what a grant lifts',
      [
        `action: DENY\nliftable: true\nrules: [{}]`,
        `ticket: t\nbreakGlass: { reason: r }\nexpiresAt: 2026-11-21T13:00:00Z\nrules: [{}]`,
      ],
      `never: { ${toPay} }`,
      'violated',
      'pay/p1 rule[0]',
    ],
    ['what has ended', [`expiresAt: 2026-11-21T12:00:00Z\n${all}`], `never: { ${toPay} }`, 'proven', ''],
    [
      'what is to come',
      [`notBefore: 2027-01-01T00:00:00Z\n${all}`],
      `never: { ${toPay} }`,
      'violated',
      'pay/p0 rule[0]',
    ],
    ['all are allowed', [all], `always: { from: { namespaces: [shop] }, ${toPay} }`, 'proven', ''],
    ['a part is allowed', [shop], `always: { from: { namespaces: [shop] }, ${toPay} }`, 'violated', ''],
    [
      'that part',
      [shop],
      `always: { from: { namespaces: [shop] }, to: { namespaces: [pay], operation: { methods: [GET], paths: ['/a/b'] } } }`,
      'proven',
      '',
    ],
    [
      'two rules together',
      [shop.replace('/a/*', '/a/b*'), shop.replace("'/a/*'", "'/a/*'], notPaths: ['/a/b*'")],
      `always: { from: { namespaces: [shop] }, to: { namespaces: [pay], operation: { methods: [GET], paths: ['/a/*'] } } }`,
      'proven',
      '',
    ],
    [
      'a DENY in the way',
      [all, `action: DENY\nrules: [{ when: [{ key: 'request.headers[x-a]', values: ['b*'] }] }]`],
      `always: { ${toPay} }`,
      'violated',
      'pay/p1 rule[0]',
    ],
    ['until it ends', [`expiresAt: 2026-11-21T13:00:00Z\n${all}`], `always: { ${toPay} }`, 'violated', ''],
    [
      'a contradiction says nothing',
      [],
      `never: { from: { namespaces: [a], principals: [example.org/ns/b/sa/x] } }`,
      'unproven',
      'no call is such as it says',
    ],
    [
      'no such destination',
      [shop],
      'never: { to: { labels: { app: gone } } }',
      'unproven',
      'it is about no destination that there is',
    ],
    [
      'a namespace that no ID can have',
      [shop],
      `never: { to: { namespaces: ['..'] } }`,
      'unproven',
      'it is about no destination that there is',
    ],
  ])('%s', (_, policies, spec, result, by) => {
    const { list, proof } = proofOf(policies, spec, false);
    const [found] = proof.invariants;
    expect(found?.result).toBe(result);
    if (result === 'unproven') expect(found?.why).toBe(by);
    if (result === 'violated') expect(found?.violations.map(({ rule }) => rule?.rule ?? '')).toContain(by);
    for (const { witness } of found?.violations ?? []) {
      const { verdict } = decideNaively(meshOf(list, workloads), readWitness(witness), new Date(witness.at));
      expect(verdict).toBe(found?.demand === 'never' ? 'allow' : 'deny');
    }
  });

  test('an example names somebody who is registered, where it can', () => {
    const { proof } = proofOf([all], `never: { from: { namespaces: [dev] }, ${toPay} }`);
    expect(proof.invariants[0]?.violations[0]?.witness).toMatchObject({
      source: 'spiffe://example.org/ns/dev/sa/probe',
      destination: ledger.text,
    });
  });

  test.each([
    ['never: {}', 'is empty'],
    ['never: { to: {} }', 'is empty'],
    ['never: { from: {} }', 'is empty'],
    ['never: { from: [] }', 'is empty'],
    ['never: { when: [] }', 'empty when'],
    ['never: { to: { namespaces: [] } }', 'is empty'],
    [`never: { ${toPay} }, always: { ${toPay} }`, 'not exactly one'],
    ['{}', ''],
    ['sometimes: {}', 'sometimes'],
    ['never: { from: { principals: [spiffe://example.org/ns/a/sa/b] } }', 'begins with spiffe://'],
    ['never: { to: { principals: [spiffe://example.org/ns/a/sa/b] } }', 'begins with spiffe://'],
    ['never: { to: { namespaces: ["a*b"] } }', 'has a *'],
    ['never: { to: { namespaces: pay } }', ''],
    ['never: { from: { methods: [GET] } }', 'methods'],
    ['never: { to: { operation: { paths: [a] } } }', 'does not begin with /'],
    ['never: { to: { operation: { namespaces: [a] } } }', 'namespaces'],
    ['never: { from: { serviceAccounts: [web] } }', 'is no service account'],
    ['never: { when: [{ key: no.such, values: [a] }] }', 'is no key'],
  ])('%s is refused', (spec, message) => {
    expect(() => invariant(spec)).toThrow(message);
  });
});

describe('rules', () => {
  const deny = (paths: string) => `action: DENY\nrules: [{ to: [{ operation: { paths: [${paths}] } }] }]`;
  test.each<[string, readonly string[], readonly string[]]>([
    ['nothing is wrong', [shop], []],
    [
      'paths that exclude each other',
      [shop.replace("paths: ['/a/*']", "paths: ['/a'], notPaths: ['/a*']")],
      ['never_matches pay/p0 rule[0]'],
    ],
    [
      'a condition against the source',
      [
        `rules: [{ from: [{ source: { namespaces: [shop] } }], when: [{ key: source.namespace, values: [dev] }] }]`,
      ],
      ['never_matches pay/p0 rule[0]'],
    ],
    [
      'addresses that exclude each other',
      [`rules: [{ from: [{ source: { ipBlocks: [10.0.0.0/8], notIpBlocks: ['::ffff:10.0.0.0/104'] } }] }]`],
      ['never_matches pay/p0 rule[0]'],
    ],
    [
      'a host that no port fits',
      [`rules: [{ to: [{ operation: { hosts: ['a:80'], notHosts: ['a:*'] } }] }]`],
      ['never_matches pay/p0 rule[0]'],
    ],
    [
      'a policy that has ended',
      [`expiresAt: 2026-11-21T12:00:00Z\n${all}`],
      ['never_matches pay/p0 rule[0]'],
    ],
    [
      'a method that is not judged',
      [`rules: [{ to: [{ operation: { methods: [CONNECT] } }] }]`],
      ['never_matches pay/p0 rule[0]'],
    ],
    ['said twice', [shop, shop], ['redundant pay/p1 rule[0]']],
    ['said by a template', [shop, shop.replace('/a/*', '/a/{*}')], ['redundant pay/p1 rule[0]']],
    [
      'said by two',
      [shop.replace('/a/*', '/a/b*'), shop.replace("'/a/*'", "'/a/*'], notPaths: ['/a/b*'"), shop],
      ['redundant pay/p2 rule[0]'],
    ],
    ['not quite said', [shop.replace('/a/*', '/a/{*}'), shop], ['redundant pay/p0 rule[0]']],
    ['a DENY over all of it', [shop, deny(`'/a*'`)], ['always_denied pay/p0 rule[0]']],
    [
      'two DENY over all of it',
      [shop.replace("['/a/*']", "['/a/b', '/a/c']"), deny(`'/a/b'`), deny(`'/a/c'`)],
      ['always_denied pay/p0 rule[0]'],
    ],
    ['a DENY over a part', [shop, deny(`'/a/b'`)], ['partly_denied pay/p0 rule[0]']],
    ['a DENY beside it', [shop, deny(`'/b'`)], []],
    ['a DENY within another', [shop, deny(`'/b*'`), deny(`'/b/c'`)], ['redundant pay/p2 rule[0]']],
    [
      'a policy for nobody',
      [`selector: { matchLabels: { app: gone } }\n${shop}`],
      ['applies_to_none pay/p0'],
    ],
    [
      'a header in two rules',
      [
        `rules: [{ when: [{ key: 'request.headers[x-a]', values: [a] }, { key: 'request.headers[x-a]', values: [b] }] }]`,
      ],
      ['never_matches pay/p0 rule[0]'],
    ],
    [
      'a claim in two rules',
      [
        `rules: [{ when: [{ key: 'request.auth.claims[g]', values: [a] }, { key: 'request.auth.claims[g]', values: [b] }] }]`,
      ],
      [],
    ],
  ])('%s', (_, policies, expected) => {
    const { proof } = proofOf(policies);
    expect(proof.unproven).toEqual([]);
    expect(proof.findings.map(({ code, rule, policy }) => `${code} ${rule?.rule ?? policy}`)).toEqual(
      expected,
    );
  });
});

describe('what is not known is not told', () => {
  const compare = (before: readonly string[], after: readonly string[]) => {
    const [a, b] = [before, after].map((set) =>
      set.flatMap((text, i) => readPolicies(policyText(text, `p${i}`))),
    );
    return finish(comparePolicies(ground, a ?? [], b ?? [], noon));
  };
  test('two headers that programs take for each other', () => {
    const both = `rules: [{ when: [{ key: 'request.headers[x-a]', values: [a] }, { key: 'request.headers[x_a]', values: [a] }] }]`;
    const { newlyAllowed, unproven } = compare([], [both]);
    expect([newlyAllowed, unproven.length]).toEqual([[], 1]);
  });
  test('a rule of too many combinations', () => {
    const sources = Array.from({ length: 40 }, (_, i) => ({
      source: { principals: [`example.org/ns/a/sa/s${i}`], ipBlocks: [`10.0.0.${i}`] },
    }));
    const operations = Array.from({ length: 40 }, (_, i) => ({
      operation: { paths: [`/p${i}`], methods: [`M${i}`] },
    }));
    const rules = `rules: ${JSON.stringify([{ from: sources, to: operations }])}`;
    const { newlyAllowed, unproven } = compare([], [rules]);
    expect(newlyAllowed.length + unproven.length).toBe(1);
    expect(compare([rules], [rules])).toMatchObject({ newlyAllowed: [], newlyDenied: [], unproven: [] });
    for (const action of ['ALLOW', 'DENY']) {
      const [old, other] = [rules, rules.replace('/p39', '/other')].map((text) => [
        all,
        `action: ${action}\n${text}`,
      ]);
      // What was cut is all that differs.
      const found = compare(
        (old ?? []).slice(action === 'ALLOW' ? 1 : 0),
        (other ?? []).slice(action === 'ALLOW' ? 1 : 0),
      );
      expect(found.newlyAllowed.length + found.newlyDenied.length + found.unproven.length).toBeGreaterThan(0);
    }
  });
  test('rules of many combinations are looked at in small steps', () => {
    const rules = (action: string, address: number) => {
      const sources = Array.from({ length: 16 }, (_, i) => ({
        source: { principals: ['example.org/ns/a/sa/b'], ipBlocks: [`10.0.${address}.${i}`] },
      }));
      const operations = Array.from({ length: 16 }, (_, i) => ({
        operation: { paths: [`/${action}${i}`], methods: ['GET'] },
      }));
      return policyText(
        `action: ${action}\nrules: ${JSON.stringify([{ from: sources, to: operations }])}`,
        action.toLowerCase(),
      );
    };
    const [allow, deny] = [readPolicies(rules('ALLOW', 1)), readPolicies(rules('DENY', 2))];
    const work = comparePolicies(ground, allow, [...allow, ...deny], noon);
    let steps = 0;
    for (let step = work.next(); step.done !== true; step = work.next()) steps += 1;
    // There are 65,536 pairs of combinations to rule out.
    expect(steps).toBeGreaterThan(1_000);
  });
  test('Istio mode is refused', () => {
    const policies = readPolicies(policyText(all));
    const run = () => finish(comparePolicies({ ...ground, mode: 'istio' }, policies, policies, noon));
    expect(run).toThrow(expect.objectContaining({ code: 'policy_mode_inexact' }));
  });
});
