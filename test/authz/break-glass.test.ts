import { describe, expect, test } from 'vitest';
import { decide } from '../../src/authz/decide.ts';
import { decideNaively } from '../../src/authz/naive.ts';
import { whoCan } from '../../src/authz/reach.ts';
import { runTests } from '../../src/authz/run-tests.ts';
import { compileSnapshot } from '../../src/authz/snapshot.ts';
import { finish } from '../../src/authz/steps.ts';
import { call, ledger, meshOf, noon, policyText, readPolicies, web } from './mesh.ts';

const late = '2026-11-21T15:00:00Z';
const early = '2026-11-21T09:00:00Z';
const grantOf = (expiresAt: string, rules = '[{}]') =>
  `expiresAt: ${expiresAt}\nticket: INC-7\nbreakGlass: { reason: checkout is down }\nrules: ${rules}`;
const grant = policyText(grantOf(late), 'grant');
const deny = policyText('action: DENY\nrules: [{}]', 'deny');
const liftable = policyText('action: DENY\nliftable: true\nrules: [{}]', 'lift');
const allow = policyText('rules: [{}]', 'allow');

describe('refused', () => {
  test.each([
    ['a grant without a reason', `expiresAt: ${late}\nticket: a\nbreakGlass: {}`, 'document_field_missing'],
    ['an empty reason', `expiresAt: ${late}\nticket: a\nbreakGlass: { reason: "" }`, 'policy_invalid'],
    ['a grant without an end', 'ticket: a\nbreakGlass: { reason: a }', 'policy_invalid'],
    ['a grant without a ticket', `expiresAt: ${late}\nbreakGlass: { reason: a }`, 'policy_invalid'],
    ['a grant that is text', `expiresAt: ${late}\nticket: a\nbreakGlass: a`, 'document_field_type'],
    ['a DENY that is a grant', `action: DENY\n${grantOf(late)}`, 'policy_invalid'],
    ['an ALLOW that is liftable', 'liftable: true\nrules: [{}]', 'policy_invalid'],
    ['an ALLOW that is not', 'liftable: false\nrules: [{}]', 'policy_invalid'],
    ['liftable as text', 'action: DENY\nliftable: "true"\nrules: [{}]', 'document_field_type'],
  ])('%s', (_name, spec, code) => {
    expect(() => readPolicies(policyText(spec))).toThrow(expect.objectContaining({ code }) as Error);
  });

  test.each([
    ['a grant on trial', grantOf(late)],
    ['a liftable DENY on trial', 'action: DENY\nliftable: true\nrules: [{}]'],
  ])('%s', (_name, spec) => {
    expect(() => readPolicies(policyText(spec, 'p', 'pay', true))).toThrow(
      expect.objectContaining({ code: 'policy_invalid' }) as Error,
    );
  });
});

function judge(...texts: readonly string[]) {
  const mesh = meshOf(texts.flatMap((text) => readPolicies(text)));
  const { verdict, reason, rule, custom, audited, shadow, breakGlass } = decide(
    compileSnapshot(mesh),
    call(),
    noon,
  );
  expect(decideNaively(mesh, call(), noon)).toEqual({ verdict, reason, rule, custom, audited, shadow });
  return { reason, rule, breakGlass };
}

const used = 'checkout is down (INC-7)';
test.each<[string, string[], string, string, string]>([
  ['allows by itself', [grant], 'allow_rule', 'pay/grant rule[0]', used],
  ['is not named where an ordinary rule allows', [grant, allow], 'allow_rule', 'pay/allow rule[0]', ''],
  [
    'lifts a DENY that says so',
    [grant, liftable],
    'allow_rule',
    'pay/grant rule[0]',
    `${used}, lifting pay/lift rule[0]`,
  ],
  [
    'lifts it where an ordinary rule allows too',
    [grant, liftable, allow],
    'allow_rule',
    'pay/grant rule[0]',
    `${used}, lifting pay/lift rule[0]`,
  ],
  ['lifts no other', [grant, deny], 'deny_rule', 'pay/deny rule[0]', ''],
  [
    'lifts nothing where another stands beside it',
    [grant, deny, liftable],
    'deny_rule',
    'pay/deny rule[0]',
    '',
  ],
  [
    'lifts none of the root namespace',
    [grant, deny.replace('namespace: pay', 'namespace: istio-system')],
    'deny_rule',
    'istio-system/deny rule[0]',
    '',
  ],
  [
    'lifts one of the root namespace that says so',
    [grant, liftable.replace('namespace: pay', 'namespace: istio-system')],
    'allow_rule',
    'pay/grant rule[0]',
    `${used}, lifting istio-system/lift rule[0]`,
  ],
  [
    'that has ended lifts nothing',
    [policyText(grantOf(early), 'grant'), liftable, allow],
    'deny_rule',
    'pay/lift rule[0]',
    '',
  ],
  [
    'that does not match lifts nothing',
    [policyText(grantOf(late, '[{ to: [{ operation: { methods: [PUT] } }] }]'), 'grant'), liftable, allow],
    'deny_rule',
    'pay/lift rule[0]',
    '',
  ],
  [
    'of another namespace lifts nothing',
    [policyText(grantOf(late), 'grant', 'shop'), liftable, allow],
    'deny_rule',
    'pay/lift rule[0]',
    '',
  ],
  [
    'answers for no provider',
    [grant, policyText('action: CUSTOM\nprovider: { name: x }\nrules: [{}]', 'ask')],
    'custom_unanswered',
    'pay/ask rule[0]',
    '',
  ],
])('a grant %s', (_name, texts, reason, rule, breakGlass) => {
  expect(judge(...texts)).toEqual({ reason, rule, breakGlass });
});

test('an ordinary ALLOW lifts nothing', () => {
  expect(judge(allow, liftable).reason).toBe('deny_rule');
});

test.each([
  ['a liftable DENY leaves the grant', [grant, liftable, allow], 'depends', ['pay/grant rule[0]'], []],
  ['another DENY leaves nothing', [grant, deny, allow], 'never', [], []],
  ['a grant that has ended', [policyText(grantOf(early), 'grant'), liftable, allow], 'never', [], []],
])('who can: %s', (_name, texts, reach, rules, unless) => {
  const snapshot = compileSnapshot(meshOf(texts.flatMap((text) => readPolicies(text))));
  const [answer] = finish(whoCan(snapshot, ledger, {}, [web], noon)).callers;
  expect(answer?.reach).toBe(reach);
  expect(answer?.allow.map(({ rule }) => rule)).toEqual(rules);
  expect(answer?.unless).toEqual(unless);
});

test('a grant counts in its own tests alone', () => {
  const tests = (want: string) =>
    `tests: [{ ${want}: { from: example.org/ns/shop/sa/web, method: GET, path: / } }]`;
  const list = [
    policyText(`action: DENY\nliftable: true\nrules: [{}]\n${tests('deny')}`, 'lift'),
    policyText(`${grantOf(late)}\n${tests('allow')}`, 'grant'),
  ].flatMap((text) => readPolicies(text));
  const mesh = meshOf(list);
  const { outcomes } = finish(runTests({ ...mesh, snapshot: compileSnapshot(mesh) }, list, noon));
  expect(outcomes.map(({ passed, got }) => [passed, got])).toEqual([
    [true, 'deny'],
    [true, 'allow'],
  ]);
});
