import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { readEntry } from '../../src/access-log/entry.ts';
import { TrustDomain } from '../../src/spiffe/id.ts';
import { allowedNote, began, type EntryInput, httpEntry, tcpEntry, web } from './entries.ts';

const domain = TrustDomain.parse('mesh.test');
const now = new Date(began.getTime() + 1_000);
const http = (input: EntryInput) =>
  readEntry({ kind: 'http', bytes: httpEntry({ note: null, ...input }) }, domain, now);
const tcp = (input: EntryInput) => readEntry({ kind: 'tcp', bytes: tcpEntry(input) }, domain, now);
const denial = { status: 403, details: 'rbac_access_denied_matched_policy[deny:no_policy]' };

describe('what a proxy decided by itself', () => {
  test.each<[string, EntryInput, object]>([
    [
      'an allow by a rule',
      { rbac: ['allowed', 'allow:shop/orders[0]'] },
      { verdict: 'allow', reason: 'allow_rule', rule: 'shop/orders rule[0]', leaf: 'allow:shop/orders[0]' },
    ],
    [
      'a denial by a rule',
      { ...denial, rbac: ['denied', 'deny:shop/orders[12]'] },
      { verdict: 'deny', reason: 'deny_rule', rule: 'shop/orders rule[12]' },
    ],
    [
      'a denial without a rule',
      { ...denial, rbac: ['denied', 'deny:no_policy'] },
      { verdict: 'deny', reason: 'no_policy', rule: '' },
    ],
    [
      'a reason that is none of ours',
      { ...denial, rbac: ['denied', 'deny:because'] },
      { verdict: 'deny', reason: 'other', rule: '', leaf: 'deny:because' },
    ],
  ])('is read: %s', (_, input, expected) => {
    const { call, judgedMs } = http(input);
    expect(call?.judged).toMatchObject(expected);
    expect(call?.judged).toMatchObject({
      ...{ host: 'orders.shop', path: '/orders/17', revision: 0, sourceAddress: '192.0.2.9:51000' },
    });
    expect(call).toMatchObject({ source: web, decisionId: '', rule: call?.judged?.rule });
    expect(judgedMs).toBe(began.getTime());
  });

  test.each<[string, EntryInput]>([
    ['it asked', { rbac: ['allowed', 'ask:path'] }],
    ['it asked, and an answer came', { note: allowedNote, rbac: ['allowed', 'ask:path'] }],
    ['somebody was asked all the same', { note: allowedNote, rbac: ['allowed', 'allow:shop/orders[0]'] }],
    ['a policy of somebody else', { rbac: ['allowed', 'my-policy'] }],
    ['no name at all', { rbac: ['denied', ''] }],
    ['an allow that denied', { ...denial, rbac: ['denied', 'allow:shop/orders[0]'] }],
    ['a denial that allowed', { rbac: ['allowed', 'deny:no_policy'] }],
    ['an allow by no rule', { rbac: ['allowed', 'allow:everything'] }],
    ['a blank in a name', { rbac: ['allowed', 'allow:shop/or ders[0]'] }],
    ['a control character in a name', { rbac: ['allowed', 'allow:shop/%1b%5b2J[0]'] }],
    ['a name that reorders what is read', { rbac: ['allowed', 'allow:shop/%e2%80%ae[0]'] }],
    ['a line break', { rbac: ['allowed', 'allow:shop/orders[0]\nallow'] }],
    ['a name that is too long', { rbac: ['allowed', `allow:shop/${'a'.repeat(300)}[0]`] }],
    ['half a character', { rbac: ['allowed', 'allow:shop/%c3[0]'] }],
  ])('is nothing when it is %s, and the call is counted as judged', (_, input) => {
    const { call, judgedMs } = http(input);
    expect(call?.judged).toBeUndefined();
    expect(judgedMs).toBe(began.getTime());
  });

  test.each<[string, EntryInput]>([
    ['nobody judged', {}],
    ['the result is none', { rbac: ['maybe', 'allow:shop/orders[0]'] }],
    ['the metadata is far too large', { rbac: ['allowed', `allow:${'a'.repeat(5_000)}`] }],
  ])('is nothing, nor judged, when %s', (_, input) => {
    const { call, judgedMs } = http(input);
    expect([call?.judged, judgedMs]).toEqual([undefined, undefined]);
  });

  test('has no query, and texts with a bound', () => {
    const long = http({
      rbac: ['allowed', 'allow:shop/orders[0]'],
      path: `/${'é'.repeat(20_000)}`,
      authority: 'h'.repeat(5_000),
    });
    expect(long.call?.judged?.path.length).toBe(2_048);
    expect(long.call?.judged?.host.length).toBe(255);
    const secret = http({ rbac: ['allowed', 'allow:shop/orders[0]'], path: '/a#x?token=1' });
    expect(secret.call?.judged?.path).toBe('/a');
  });

  test('of TCP is a denial, of which the end of the connection tells; its peer has proven who it is', () => {
    const ended = 'rbac_access_denied_matched_policy[deny:pay/ledger[3]]';
    const { call, connection, judgedMs } = tcp({ ended, bytes: 0 });
    expect(call).toMatchObject({
      protocol: 'tcp',
      outcome: 'denied',
      rule: 'pay/ledger rule[3]',
      source: web,
    });
    expect(call?.judged).toMatchObject({ verdict: 'deny', reason: 'deny_rule', host: '', path: '' });
    expect(connection).toMatchObject({ kind: 'mtls', source: web });
    expect(judgedMs).toBe(began.getTime());
  });

  test('of TCP is an allow, of which the shadow of the policy tells, and is not counted', () => {
    const filter = 'envoy.filters.network.rbac';
    const note = { shadow_engine_result: 'allowed', shadow_effective_policy_id: 'allow:pay/ledger[3]' };
    const { call, judgedMs } = tcp({ filter, note });
    expect(call).toMatchObject({ protocol: 'tcp', outcome: 'ok', rule: 'pay/ledger rule[3]', source: web });
    expect([call?.judged?.verdict, judgedMs]).toEqual(['allow', undefined]);
  });

  test('is never what a policy on trial said', () => {
    const filter = 'envoy.filters.http.rbac';
    const note = { shadow_engine_result: 'denied', shadow_effective_policy_id: 'deny:no_policy' };
    expect(http({ filter, note }).call?.judged).toBeUndefined();
  });

  test.each([
    '',
    'rbac_access_denied_matched_policy[none]',
    'rbac_access_denied_matched_policy[',
    'deny:no_policy',
  ])('of TCP is nothing where the connection ended with %j', (ended) => {
    expect(tcp({ ended }).call).toBeUndefined();
  });

  test('is of closed forms whatever a proxy writes', () => {
    fc.assert(
      fc.property(
        fc.constantFrom('allowed', 'denied', 'x'),
        fc.oneof(
          fc.string({ unit: 'binary' }),
          fc.string().map((text) => `allow:${text}[0]`),
        ),
        (result, leaf) => {
          const judged = http({ rbac: [result, leaf] }).call?.judged;
          if (judged === undefined) return;
          expect(judged.leaf).toMatch(/^(?:allow|deny):\S{1,256}$/);
          expect(judged.rule).toMatch(/^(?:[^\p{C}\p{Z}]+ rule\[[0-9]{1,6}\])?$/u);
          expect(judged.reason).toMatch(/^[a-z_]{1,32}$/);
        },
      ),
    );
  });
});
