import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { decide } from '../../src/authz/decide.ts';
import { explainDecision } from '../../src/authz/explain.ts';
import { formatExplanation } from '../../src/authz/format-explanation.ts';
import { decideNaively } from '../../src/authz/naive.ts';
import { whoCan } from '../../src/authz/reach.ts';
import { readPolicyDocument } from '../../src/authz/read-document.ts';
import { compileSnapshot } from '../../src/authz/snapshot.ts';
import { finish } from '../../src/authz/steps.ts';
import { MeshError } from '../../src/errors.ts';
import { readDocuments } from '../../src/yaml.ts';
import { call, ledger, meshOf, noon, policyText, readPolicies, web } from './mesh.ts';

const early = '2026-11-21T09:00:00Z';
const late = '2026-11-21T15:00:00Z';
const moment = (text: string) => new Date(text);

describe('refused', () => {
  test.each([
    ['a date', 'expiresAt: "2026-11-21"', 'policy_invalid', 5],
    ['no zone', 'expiresAt: 2026-11-21T12:00:00', 'policy_invalid', 5],
    ['a time ago', 'expiresAt: 2h', 'policy_invalid', 5],
    ['a day of no calendar', 'expiresAt: 2026-02-30T12:00:00Z', 'policy_invalid', 5],
    ['an hour of no day', 'expiresAt: 2026-02-20T24:00:00Z', 'policy_invalid', 5],
    ['a leap second', 'expiresAt: 2026-12-31T23:59:60Z', 'policy_invalid', 5],
    ['a zone of nowhere', 'expiresAt: 2026-12-31T23:59:00+24:00', 'policy_invalid', 5],
    ['small letters', 'expiresAt: 2026-12-31t23:59:00z', 'policy_invalid', 5],
    ['a number', 'notBefore: 1795262400', 'document_field_type', 5],
    ['nothing', 'notBefore:', 'document_field_type', 5],
    ['an end before the beginning', `notBefore: ${late}\nexpiresAt: ${early}`, 'policy_invalid', 6],
    ['an end at the beginning', `notBefore: ${late}\nexpiresAt: ${late}`, 'policy_invalid', 6],
    ['an owner of two lines', 'owner: "a\\nb"', 'policy_invalid', 5],
    ['an owner with outer spaces', 'owner: " a"', 'policy_invalid', 5],
    ['an owner of nothing', 'owner: ""', 'policy_invalid', 5],
    ['an owner who turns text around', 'owner: "a\\u202eb"', 'policy_invalid', 5],
    ['a ticket of 257 characters', `ticket: ${'x'.repeat(257)}`, 'policy_invalid', 5],
    ['a ticket that is a number', 'ticket: 7', 'document_field_type', 5],
    ['a term in the wrong place', 'rules: [{ expiresAt: x }]', 'document_field_unknown', 5],
    ['a term that is misspelt', 'expiresAfter: x', 'document_field_unknown', 5],
  ])('%s', (_name, spec, code, line) => {
    expect(() => readPolicies(policyText(spec))).toThrow(
      expect.objectContaining({ code, place: expect.objectContaining({ line }) as object }) as Error,
    );
  });

  test('by the reading of Istio, which knows no such field', () => {
    const [document] = readDocuments({ file: 'p.yaml', text: policyText(`expiresAt: ${late}`) });
    expect(() => readPolicyDocument(document!)).toThrow(
      expect.objectContaining({ code: 'document_field_unknown' }) as Error,
    );
  });
});

test('a moment is read whole, or refused', () => {
  fc.assert(
    fc.property(
      fc.oneof(
        fc.string(),
        fc
          .tuple(fc.date({ min: new Date(0), max: moment('9999-01-01T00:00:00Z'), noInvalidDate: true }))
          .map(([date]) => date.toISOString()),
        fc.stringMatching(/^20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,10})?(Z|[+-]\d\d:\d\d)$/),
      ),
      (text) => {
        try {
          const [policy] = readPolicies(policyText(`expiresAt: ${JSON.stringify(text)}`));
          expect(policy?.terms.expiresAt?.getTime()).toBe(Date.parse(text));
          expect(text).toMatch(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)$/);
        } catch (error) {
          expect(error).toBeInstanceOf(MeshError);
        }
      },
    ),
    { numRuns: 500 },
  );
});

/** A policy that would match each call, within its window. */
function judged(action: string, window: string, now: Date, dryRun = false) {
  const mesh = meshOf([
    ...readPolicies(
      policyText(
        `action: ${action}${action === 'CUSTOM' ? '\nprovider: { name: x }' : ''}\n${window}\nrules: [{}]`,
        'p',
        'pay',
        dryRun,
      ),
    ),
    ...(action === 'ALLOW' && !dryRun ? [] : readPolicies(policyText('rules: [{}]', 'z'))),
  ]);
  const { verdict, reason, rule, custom, audited, shadow } = decide(compileSnapshot(mesh), call(), now);
  expect(decideNaively(mesh, call(), now)).toEqual({ verdict, reason, rule, custom, audited, shadow });
  return { reason, audited, shadow };
}

test.each([
  ['before it begins', `notBefore: ${late}`, false],
  ['a millisecond before', 'notBefore: 2026-11-21T12:00:00.001Z', false],
  ['when it begins', 'notBefore: 2026-11-21T12:00:00Z', true],
  ['in another zone', 'notBefore: 2026-11-21T13:00:00+01:00', true],
  ['within', `notBefore: ${early}\nexpiresAt: ${late}`, true],
  ['the last millisecond', 'expiresAt: 2026-11-21T12:00:00.001Z', true],
  ['when it ends', 'expiresAt: 2026-11-21T12:00:00Z', false],
  ['after it ended', `expiresAt: ${early}`, false],
])('%s a policy of each action matches, or does not', (_name, window, matches) => {
  expect(judged('ALLOW', window, noon).reason).toBe(matches ? 'allow_rule' : 'no_allow_rule');
  expect(judged('DENY', window, noon).reason).toBe(matches ? 'deny_rule' : 'allow_rule');
  expect(judged('CUSTOM', window, noon).reason).toBe(matches ? 'custom_unanswered' : 'allow_rule');
  expect(judged('AUDIT', window, noon).audited).toBe(matches ? 'pay/p rule[0]' : '');
  expect(judged('DENY', window, noon, true).shadow?.deny).toBe(matches ? 'denied' : 'allowed');
  expect(judged('ALLOW', window, noon, true).shadow?.allow).toBe(matches ? 'allowed' : 'denied');
});

test('without a time that can be told nothing is allowed that ends, and what denies does', () => {
  const never = new Date(Number.NaN);
  expect(judged('ALLOW', `expiresAt: ${late}`, never).reason).toBe('no_allow_rule');
  expect(judged('ALLOW', '', never).reason).toBe('allow_rule');
  expect(judged('DENY', `expiresAt: ${early}`, never).reason).toBe('deny_rule');
});

test.each([
  ['expired', `expiresAt: ${early}`, `the policy expired at ${early}`, 'p.yaml:6:14'],
  ['to come', `notBefore: ${late}`, `the policy is not in force until ${late}`, 'p.yaml:6:14'],
])('a denial names the rule that would have allowed the call: %s', (_name, window, missed, place) => {
  const mesh = meshOf(
    readPolicies(
      policyText(`action: ALLOW\n${window}\nrules: [{ to: [{ operation: { methods: [GET] } }] }]`),
    ),
  );
  const snapshot = compileSnapshot(mesh);
  const decision = decide(snapshot, call(), noon);
  expect(decision.nearest).toEqual({ rule: 'pay/p rule[0]', place, missed });
  expect(decision.why).toContain(missed);
  expect(formatExplanation(explainDecision(snapshot, call(), decision, noon))).toContain(missed);
});

test('what an expired DENY would have done is told too', () => {
  const text = [
    policyText('rules: [{}]', 'a'),
    policyText(`action: DENY\nexpiresAt: ${early}\nrules: [{}]`, 'b'),
  ];
  const snapshot = compileSnapshot(meshOf(text.flatMap((one) => readPolicies(one))));
  const decision = decide(snapshot, call(), noon);
  expect(decision.verdict).toBe('allow');
  expect(formatExplanation(explainDecision(snapshot, call(), decision, noon))).toContain(
    `the policy expired at ${early}`,
  );
});

test.each([
  ['a policy that ends', `expiresAt: ${late}`, 'depends', [`until ${late}`]],
  ['one that has ended', `expiresAt: ${early}`, 'never', undefined],
  ['one that begins', `notBefore: ${late}`, 'depends', [`from ${late}`]],
  ['one that has begun', `notBefore: ${early}`, 'always', undefined],
])('who can says until when: %s', (_name, window, reach, when) => {
  const snapshot = compileSnapshot(meshOf(readPolicies(policyText(`${window}\nrules: [{}]`))));
  const { callers } = finish(whoCan(snapshot, ledger, {}, [web], noon));
  expect(callers[0]?.reach).toBe(reach);
  expect(callers[0]?.allow[0]?.when[0]).toEqual(when);
});

test('who can tells of a DENY until when it stands in the way, and of no other', () => {
  const deny = (window: string) => policyText(`action: DENY\n${window}\nrules: [{}]`, 'b');
  const ask = (window: string) => {
    const list = [policyText('rules: [{}]', 'a'), deny(window)].flatMap((text) => readPolicies(text));
    return finish(whoCan(compileSnapshot(meshOf(list)), ledger, {}, [web], noon)).callers[0];
  };
  expect(ask(`expiresAt: ${late}`)).toMatchObject({
    reach: 'depends',
    unless: [{ when: [[`until ${late}`]] }],
  });
  expect(ask(`expiresAt: ${early}`)?.reach).toBe('always');
});
