import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { decide } from '../../src/authz/decide.ts';
import type { AuthzRequest } from '../../src/authz/decision.ts';
import { explainDecision } from '../../src/authz/explain.ts';
import { Facts } from '../../src/authz/facts.ts';
import { formatExplanation } from '../../src/authz/format-explanation.ts';
import { decideNaively } from '../../src/authz/naive.ts';
import type { Policy } from '../../src/authz/policy.ts';
import { findRemedy, type RemedyEdit } from '../../src/authz/remedy.ts';
import { readValues } from '../../src/authz/remedy-values.ts';
import { compileSnapshot } from '../../src/authz/snapshot.ts';
import { policies, request, workloads } from './generated.ts';
import { SpiffeId } from '../../src/spiffe/id.ts';
import { call, meshOf, noon, policyText, readPolicies, trustDomain } from './mesh.ts';

const labels = { app: 'ledger', version: 'v1' };

function remedyOf(specs: readonly string[], one: AuthzRequest) {
  const texts = specs.map((spec, i) => policyText(spec, `p${i}`));
  const snapshot = compileSnapshot(
    meshOf(readPolicies(texts.join('---\n')), [{ id: one.destination, labels }]),
  );
  const explanation = explainDecision(snapshot, one, decide(snapshot, one, noon), noon);
  const lines = formatExplanation(explanation).split('\n');
  const start = lines.findIndex((line) => line.startsWith('to allow'));
  const length = start < 0 ? 0 : lines.slice(start + 1).findIndex((line) => !line.startsWith('and ')) + 1;
  return { remedy: explanation.remedy, said: start < 0 ? [] : lines.slice(start, start + length) };
}

const shop = 'from: [{ source: { namespaces: [shop] } }]';

describe('the fewest edits', () => {
  test.each<[string, readonly string[], Parameters<typeof call>[0], readonly string[]]>([
    [
      'a value more',
      [`rules:\n  - ${shop}\n    to: [{ operation: { methods: [GET] } }]`],
      { method: 'PUT' },
      ['to allow add PUT to methods of pay/p0 rule[0]  p.yaml:7:36'],
    ],
    [
      'a value less',
      ['rules:\n  - to: [{ operation: { notPaths: ["/charge", "/x"] } }]'],
      {},
      ['to allow remove /charge from notPaths of pay/p0 rule[0]  p.yaml:6:37'],
    ],
    [
      'no value left',
      [`rules:\n  - ${shop}\n    to: [{ operation: { methods: [GET], notPaths: ["/charge"] } }]`],
      {},
      ['to allow remove notPaths from pay/p0 rule[0]  p.yaml:7:53'],
    ],
    [
      'the rule that takes one edit, not the one that takes two',
      [
        'rules:\n  - to: [{ operation: { methods: [PUT], paths: ["/x"] } }]',
        'rules:\n  - to: [{ operation: { methods: [PUT], paths: ["/charge"] } }]',
      ],
      {},
      ['to allow add GET to methods of pay/p1 rule[0]  p.yaml:13:36'],
    ],
    [
      'the entry that takes one edit',
      ['rules:\n  - to: [{ operation: { methods: [PUT], paths: ["/x"] } }, { operation: { ports: ["1"] } }]'],
      {},
      ['to allow add 8080 to ports of pay/p0 rule[0]  p.yaml:6:84'],
    ],
    [
      'one on each side',
      ['rules:\n  - from: [{ source: { namespaces: [a] } }]\n    to: [{ operation: { hosts: [h] } }]'],
      {},
      [
        'to allow add shop to namespaces of pay/p0 rule[0]  p.yaml:6:38',
        'and      add ledger.pay to hosts of pay/p0 rule[0]  p.yaml:7:34',
      ],
    ],
    [
      'off a rule that denies',
      ['rules: [{}]', 'action: DENY\nrules:\n  - to: [{ operation: { methods: [GET] } }]'],
      {},
      [
        'to allow add to pay/p1 rule[0] when: { key: source.principal, notValues: [example.org/ns/shop/sa/web] }  p.yaml:13:7',
      ],
    ],
    [
      'off a rule that denies, and onto one that allows',
      ['rules:\n  - to: [{ operation: { methods: [PUT] } }]', 'action: DENY\nrules: [{}]'],
      {},
      [
        'to allow add to pay/p1 rule[0] when: { key: source.principal, notValues: [example.org/ns/shop/sa/web] }  p.yaml:13:11',
        'and      add GET to methods of pay/p0 rule[0]  p.yaml:6:36',
      ],
    ],
    [
      'a policy, when a rule asks for what the call does not tell',
      ['rules:\n  - when: [{ key: "request.headers[x]", values: [a] }]'],
      {},
      ['to allow add a policy for this call alone (--suggest-policy writes it)'],
    ],
    [
      'nothing against a rule that only may deny, for what the call does not tell',
      ['rules: [{}]', 'action: DENY\nrules:\n  - when: [{ key: "request.headers[x]", values: [a] }]'],
      {},
      [],
    ],
    [
      'a policy too, once no rule denies',
      [
        'rules:\n  - when: [{ key: "request.headers[x]", values: [a] }]',
        'action: DENY\nrules:\n  - to: [{ operation: { methods: [GET] } }]',
      ],
      {},
      [
        'to allow add to pay/p1 rule[0] when: { key: source.principal, notValues: [example.org/ns/shop/sa/web] }  p.yaml:14:7',
        'and      add a policy for this call alone (--suggest-policy writes it once no DENY rule is in the way)',
      ],
    ],
    [
      'a policy, when there is none',
      [],
      {},
      ['to allow add a policy for this call alone (--suggest-policy writes it)'],
    ],
    ['nothing for a caller without a certificate', ['rules: [{}]'], { source: null }, []],
    [
      'nothing against a CUSTOM rule',
      [
        'rules: [{}]',
        'action: CUSTOM\nprovider: { name: x }\nrules:\n  - to: [{ operation: { methods: [GET] } }]',
      ],
      {},
      [],
    ],
    ['nothing for an allowed call', ['rules: [{}]'], {}, []],
    [
      'nothing for a destination of others',
      ['rules: [{}]'],
      { destination: 'spiffe://other.org/ns/pay/sa/ledger' },
      [],
    ],
  ])('%s', (_name, specs, overrides, said) => {
    expect(remedyOf(specs, call(overrides)).said).toEqual(said);
  });

  test('what headers and tokens hold is not told', () => {
    const spec =
      'rules:\n  - when: [{ key: "request.headers[x]", values: [a] }, { key: "request.auth.audiences", values: [b] }]';
    const context = {
      ...call().context,
      headerLines: () => ['s3cret'],
      claims: new Map<string, unknown>([['aud', 's3cret']]),
    };
    const { remedy, said } = remedyOf([spec], { ...call(), context });
    expect(JSON.stringify(remedy)).not.toContain('s3cret');
    expect(said.map((line) => line.slice(9, 48))).toEqual([
      "add the call's own value to request.hea",
      "add the call's own value to request.aut",
    ]);
  });

  test('more DENY rules than one can be let off are not listed', () => {
    const deny = 'action: DENY\nrules: [{}]';
    expect(
      remedyOf(
        Array.from({ length: 16 }, () => deny),
        call(),
      ).remedy?.exemptions.length,
    ).toBe(16);
    expect(
      remedyOf(
        Array.from({ length: 17 }, () => deny),
        call(),
      ).remedy,
    ).toBe(null);
  });

  test('of very many rules those are looked at that the call half fits', () => {
    const rules = (i: number) =>
      `rules:\n  - from: [{ source: { principals: [${i === 280 ? 'example.org/ns/shop/sa/web' : `example.org/x${i}`}] } }]\n    to: [{ operation: { paths: ["/x${i}"] } }]`;
    const { said } = remedyOf(
      Array.from({ length: 300 }, (_, i) => rules(i)),
      call(),
    );
    expect(said).toEqual([expect.stringContaining('add /charge to paths of pay/p280 rule[0]')]);
  });
});

describe('a policy for the call alone', () => {
  test('names caller, method, path, port and the app', () => {
    expect(remedyOf([], call({ method: 'PUT' })).remedy?.policy).toBe(`apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata:
  name: allow-db5319cff2
  namespace: "pay"
spec:
  selector:
    matchLabels:
      "app": "ledger"
  action: ALLOW
  rules:
    - from:
        - source:
            principals: ["example.org/ns/shop/sa/web"]
      to:
        - operation:
            methods: ["PUT"]
            paths: ["/charge"]
            ports: ["8080"]
`);
  });

  const app = ['app', 'ledger'] as const;
  const version = ['version', 'v1'] as const;
  const both = [app, version];
  test.each<[string, string, readonly (readonly [string, string])[], string, typeof both, string | null]>([
    ['the app', 'pay', both, 'pay', [version], '"app": "ledger"'],
    [
      'all labels when another has the app',
      'pay',
      both,
      'pay',
      [app],
      '"app": "ledger"\n      "version": "v1"',
    ],
    ['the app of a namespace with one of others', 'pay', both, 'shop', both, '"app": "ledger"'],
    ['nothing in a namespace of its own', 'pay', [], 'shop', both, ''],
    ['nothing that reads as a number', '007', [], 'pay', [], ''],
    ['no policy when another has the same labels', 'pay', both, 'pay', both, null],
    ['no policy when it has no labels, and others may', 'pay', [], 'pay', [app], null],
    ['no policy of the root namespace for all', 'istio-system', [], 'pay', [], null],
    ['no policy of the root namespace for an app elsewhere', 'istio-system', [app], 'pay', [app], null],
  ])('selects %s', (_name, namespace, own, otherNamespace, others, selector) => {
    const one = call({ destination: `spiffe://example.org/ns/${namespace}/sa/ledger` });
    const workloadsHere = [
      { id: one.destination, labels: Object.fromEntries(own) },
      {
        id: SpiffeId.parse(`spiffe://example.org/ns/${otherNamespace}/sa/other`),
        labels: Object.fromEntries(others),
      },
    ];
    const policy = findRemedy(compileSnapshot(meshOf([], workloadsHere)), one, noon)?.policy ?? null;
    expect(policy?.match(/matchLabels:\n {6}([^]*)\n {2}action/)?.[1] ?? (policy === null ? null : '')).toBe(
      selector,
    );
    if (policy === null) return;
    const mesh = meshOf(readPolicies(policy), workloadsHere);
    expect(decideNaively(mesh, one, noon)).toMatchObject({ verdict: 'allow' });
    const other = { ...one, destination: workloadsHere[1]!.id };
    expect(decideNaively(mesh, other, noon)).toMatchObject({ verdict: 'deny' });
  });

  test.each<[string, Parameters<typeof call>[0]]>([
    ['a path with a star', { path: '/a*' }],
    ['a method with a star', { method: 'G*T' }],
    ['a destination without a namespace', { destination: 'spiffe://example.org/job' }],
  ])('is not written for %s', (_name, overrides) => {
    expect(remedyOf([], call(overrides)).remedy).toBe(null);
  });
});

test('every remedy works as its author is told, and the policy allows nothing else', () => {
  const tried = { add: 0, remove: 0, drop: 0, exempt: 0, policy: 0 };
  const requests = fc.array(request, { minLength: 4, maxLength: 8 });
  fc.assert(
    fc.property(policies(4), requests, (list, calls) => {
      const mesh = meshOf(list, workloads);
      const snapshot = compileSnapshot(mesh);
      for (const one of calls) {
        const { remedy } = explainDecision(snapshot, one, decide(snapshot, one, noon), noon);
        const found = findRemedy(snapshot, one, noon);
        if (remedy === null || found === null) continue;
        const { exemptions, edits, policy } = found;
        if (edits !== null) {
          for (const { kind } of [...exemptions, ...edits]) tried[kind] += 1;
          const changed = {
            ...mesh,
            policies: list.map((each) => applyEdits(each, [...exemptions, ...edits], one)),
          };
          expect(decideNaively(changed, one, noon)).toMatchObject({ verdict: 'allow' });
        }
        if (policy !== null) {
          tried.policy += 1;
          tried.exempt += exemptions.length;
          const exempted = { ...mesh, policies: list.map((each) => applyEdits(each, exemptions, one)) };
          const added = { ...exempted, policies: [...exempted.policies, ...readPolicies(policy)] };
          expect(decideNaively(added, one, noon)).toMatchObject({ verdict: 'allow' });
          for (const other of calls) {
            if (decideNaively(added, other, noon).verdict === decideNaively(exempted, other, noon).verdict)
              continue;
            expect(essence(other, one)).toEqual(essence(one, one));
          }
        }
      }
    }),
    { numRuns: 400 },
  );
  expect(Math.min(...Object.values(tried)), JSON.stringify(tried)).toBeGreaterThan(0);
});

/** What a policy for `known` names. */
function essence({ source, destination, method, path, port }: AuthzRequest, known: AuthzRequest) {
  // What is not in the inventory is reached by whatever is for the whole namespace.
  const isKnown = workloads.some(({ id }) => id.text === destination.text);
  const ends = [source?.text, isKnown ? destination.text : known.destination.text];
  const caller = { ends, port: known.port === 0 ? 0 : port };
  return known.protocol === 'tcp' ? caller : { ...caller, method, path };
}

/** Changes a generated policy as an author would: its spec is JSON, one line a field. */
function applyEdits(policy: Policy, edits: readonly RemedyEdit[], one: AuthzRequest): Policy {
  const own = edits.filter((edit) => edit.policy === policy);
  if (own.length === 0) return policy;
  const lines = policy.text.split('\n');
  const at = lines.findIndex((line) => line.startsWith('  rules: '));
  let line = lines[at] ?? '';
  const marked = own.filter(({ kind }) => kind !== 'exempt');
  const fromTheRight = marked.toSorted((a, b) => b.at.place.column - a.at.place.column);
  for (const edit of fromTheRight) {
    const start = edit.at.place.column - 1;
    const list = line.slice(start, start + edit.at.length);
    line = `${line.slice(0, start)}{"@":${marked.indexOf(edit)},"was":${list}}${line.slice(start + edit.at.length)}`;
  }
  const facts = new Facts(one, trustDomain, noon);
  const rules = rewrite(JSON.parse(line.slice('  rules: '.length)), (mark, was) => {
    const edit = marked[mark]!;
    if (edit.kind === 'drop') return undefined;
    if (edit.kind === 'remove') return was.filter((value) => edit.values?.includes(value) !== true);
    const predicate = policy.rules
      .flatMap(({ from, to, when }) => [...from, ...to, ...when])
      .flatMap(({ predicates }) => predicates)
      .find(({ place, kind }) => kind !== 'time' && place.column === edit.at.place.column)!;
    const added = edit.values ?? readValues(predicate, one, facts);
    return [...new Set(was.concat(added))];
  }) as { when?: unknown[] }[];
  for (const { rule, values } of own.filter(({ kind }) => kind === 'exempt')) {
    const index = Number(/\[(\d+)\]$/.exec(rule)?.[1]);
    (rules[index]!.when ??= []).push({ key: 'source.principal', notValues: values });
  }
  lines[at] = `  rules: ${JSON.stringify(rules)}`;
  return readPolicies(lines.join('\n'))[0]!;
}

function rewrite(value: unknown, change: (mark: number, was: readonly string[]) => unknown): unknown {
  if (Array.isArray(value)) {
    return value
      .map((one) => rewrite(one, change))
      .filter((one) => Object.keys(one as object).join() !== 'key');
  }
  if (typeof value !== 'object' || value === null) return value;
  if ('@' in value) return change(value['@'] as number, (value as unknown as { was: string[] }).was);
  const fields = Object.entries(value).map(([name, one]) => [name, rewrite(one, change)] as const);
  return Object.fromEntries(
    fields.filter(([, one]) => one !== undefined && !(Array.isArray(one) && one.length === 0)),
  );
}
