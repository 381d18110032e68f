import { describe, expect, test } from 'vitest';
import { Attachment } from '../../src/authz/attachment.ts';
import { decide } from '../../src/authz/decide.ts';
import { explainDecision } from '../../src/authz/explain.ts';
import { judgeCall } from '../../src/authz/judge.ts';
import { findRemedy } from '../../src/authz/remedy.ts';
import { compileSnapshot, type SnapshotInput } from '../../src/authz/snapshot.ts';
import { finish } from '../../src/authz/steps.ts';
import { SpiffeId } from '../../src/spiffe/id.ts';
import { call, ledger, meshOf, noon, policyText, readPolicies, web } from './mesh.ts';
import { judge } from './rule-effect.ts';

type Labels = Readonly<Record<string, string>>;

const entriesOf = (id: SpiffeId, ...all: readonly Labels[]): SnapshotInput['workloads'] =>
  all.map((labels) => ({ id, labels }));
const selecting = (labels: Labels, rest: string, name = 'p', namespace = 'pay') =>
  policyText(`selector: { matchLabels: ${JSON.stringify(labels)} }\n${rest}`, name, namespace);
const everyone = policyText('rules: [{}]', 'z');

describe('an ID that several entries give', () => {
  const [one, two] = [
    { app: 'a', tier: 'x' },
    { app: 'b', tier: 'x' },
  ];
  test.each<[string, readonly string[], readonly Labels[], string]>([
    ['ALLOW for the first', [selecting({ app: 'a' }, 'rules: [{}]')], [one, two], 'no_policy'],
    ['ALLOW for the second', [selecting({ app: 'b' }, 'rules: [{}]')], [one, two], 'no_policy'],
    ['ALLOW for both', [selecting({ tier: 'x' }, 'rules: [{}]')], [one, two], 'allow_rule'],
    [
      'DENY for the first',
      [everyone, selecting({ app: 'a' }, 'action: DENY\nrules: [{}]')],
      [one, two],
      'deny_rule',
    ],
    [
      'DENY for the second',
      [everyone, selecting({ app: 'b' }, 'action: DENY\nrules: [{}]')],
      [one, two],
      'deny_rule',
    ],
    [
      'DENY for the third',
      [everyone, selecting({ app: 'c' }, 'action: DENY\nrules: [{}]')],
      [one, two, { app: 'c' }],
      'deny_rule',
    ],
    [
      'DENY for neither',
      [everyone, selecting({ app: 'c' }, 'action: DENY\nrules: [{}]')],
      [one, two],
      'allow_rule',
    ],
    [
      'CUSTOM for the second',
      [everyone, selecting({ app: 'b' }, 'action: CUSTOM\nprovider: { name: x }\nrules: [{}]')],
      [one, two],
      'custom_unanswered',
    ],
  ])('%s', (_name, texts, labels, reason) => {
    const mesh = meshOf(readPolicies(texts.join('---\n')), entriesOf(ledger, ...labels));
    expect(judge(mesh, call()).reason).toBe(reason);
  });
});

// By selector, without one, and from the root namespace: not in the order of their names.
const mixed = [
  selecting({ app: 'a' }, 'rules: [{}]', 'b'),
  policyText('rules: [{}]', 'd'),
  selecting({ tier: 'x' }, 'rules: [{}]', 'a'),
  policyText('rules: [{}]', 'c'),
  policyText('rules: [{}]', 'e', 'istio-system'),
];
const inOrder = ['istio-system/e', 'pay/a', 'pay/b', 'pay/c', 'pay/d'];

test.each([
  ['as they are written', mixed],
  ['turned around', mixed.toReversed()],
])('what applies is named in the order of its names, %s', (_name, texts) => {
  const workloads = entriesOf(ledger, { app: 'a', tier: 'x' });
  const snapshot = compileSnapshot(meshOf(readPolicies(texts.join('---\n')), workloads));
  const { policies } = explainDecision(snapshot, call(), decide(snapshot, call(), noon), noon);
  expect(policies.map(({ policy }) => policy)).toEqual(inOrder);
  // In Istio mode as well the first of them is named.
  const raw = { source: web, destination: ledger, method: 'GET', path: '/', authority: 'a', port: 1 };
  const { decision } = judgeCall(snapshot.at(7, 'istio'), { protocol: 'http', ...raw }, noon);
  expect(decision.rule).toBe('istio-system/e rule[0]');
  const own = compileSnapshot({
    ...meshOf(readPolicies(texts.join('---\n')), workloads),
    mode: 'istio',
    rootNamespace: 'none',
  });
  expect(judgeCall(own, { protocol: 'http', ...raw }, noon).decision.rule).toBe('pay/a rule[0]');
});

test('workloads with the same policies share what was made of them, in whatever order their labels stand', () => {
  const second = SpiffeId.parse('spiffe://example.org/ns/pay/sa/second');
  const [one, other] = [
    { app: 'a', tier: 'x' },
    { tier: 'x', app: 'a' },
  ];
  const workloads = [...entriesOf(ledger, one, other), ...entriesOf(second, other)];
  const snapshot = compileSnapshot(meshOf(readPolicies(mixed.join('---\n')), workloads));
  expect(snapshot.appliedTo(ledger)).toBe(snapshot.appliedTo(second));
  const rules = snapshot.istio.rulesFor(ledger);
  expect(rules.length).toBe(1);
  expect(snapshot.istio.rulesFor(second)[0]).toBe(rules[0]);
});

test('of many policies that select by a label those of another value are not compared', () => {
  let compared = 0;
  const policies = Array.from({ length: 40 }, (_, i) =>
    readPolicies(selecting({ app: `a${i}` }, 'rules: [{}]', `p${i}`)),
  ).flat();
  const counted = policies.map((policy) => {
    const selector = new Map(policy.selector);
    const each = selector[Symbol.iterator].bind(selector);
    return Object.assign(policy, {
      selector: Object.assign(selector, { [Symbol.iterator]: () => ((compared += 1), each()) }),
    });
  });
  const workloads = entriesOf(ledger, { app: 'a7' });
  const attachment = new Attachment(counted, { rootNamespace: 'istio-system', workloads });
  compared = 0;
  expect(finish(attachment.policiesOf(ledger)).map(({ name }) => name)).toEqual(['p7']);
  expect(compared).toBe(1);
});

describe('the policy that is suggested for one call', () => {
  const other = SpiffeId.parse('spiffe://example.org/ns/pay/sa/other');
  const job = SpiffeId.parse('spiffe://example.org/job');
  const odd = SpiffeId.parse('spiffe://example.org/ns/shop/job');
  const [app, v1, v2] = [{ app: 'ledger' }, { version: 'v1' }, { version: 'v2' }];
  const all = { ...app, ...v1 };

  test.each<[string, SnapshotInput['workloads'], Labels | null]>([
    ['by what all entries of the ID have', entriesOf(ledger, { ...v1, side: 'a' }, { ...v1, side: 'b' }), v1],
    ['by nothing when they have nothing in common', entriesOf(ledger, v1, v2), {}],
    ['by no label that one of them lacks', entriesOf(ledger, all, v1), v1],
    [
      'not at all when another has what they have in common',
      [...entriesOf(ledger, all, { ...app, ...v2 }), ...entriesOf(other, app)],
      null,
    ],
    ['by all labels when another has the app', [...entriesOf(ledger, all), ...entriesOf(other, app)], all],
    [
      'by the app when not all entries of another have it',
      [...entriesOf(ledger, all), ...entriesOf(other, app, v1)],
      app,
    ],
    [
      'by all labels when another of the namespace has no usual ID',
      [...entriesOf(ledger, all), ...entriesOf(job, { ...app, namespace: 'pay' })],
      all,
    ],
    [
      'by all labels when another of the namespace has an ID that names another and no account',
      [...entriesOf(ledger, all), ...entriesOf(odd, { ...app, namespace: 'pay' })],
      all,
    ],
    [
      'by the app when another only begins as an ID of the namespace',
      [...entriesOf(ledger, all), ...entriesOf(SpiffeId.parse('spiffe://example.org/ns/pay/job'), app)],
      app,
    ],
    [
      'by the app when that one is of another namespace',
      [...entriesOf(ledger, all), ...entriesOf(job, { ...app, namespace: 'shop' })],
      app,
    ],
  ])('selects %s', (_name, workloads, selector) => {
    const policy = findRemedy(compileSnapshot(meshOf([], workloads)), call(), noon)?.policy ?? null;
    const [read] = policy === null ? [] : readPolicies(policy);
    expect(read === undefined ? null : Object.fromEntries(read.selector)).toEqual(selector);
    if (read === undefined) return;
    expect(judge(meshOf([read], workloads), call()).verdict).toBe('allow');
  });
});
