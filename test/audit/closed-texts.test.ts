import { expect, test } from 'vitest';
import { isRuleName, lossCause } from '../../src/audit/closed-texts.ts';

test.each<[string, string]>([
  ['queue_full', 'queue_full'],
  ['message_too_large', 'message_too_large'],
  ['other', 'other'],
  ['queue_full,closed', 'closed,queue_full'],
  ['closed,queue_full', 'closed,queue_full'],
  ['closed,a,b,closed,message_too_large', 'closed,other'],
  ['bad luck', 'other'],
  ['', 'other'],
  [',', 'other'],
  ['__proto__', 'other'],
  [Array.from({ length: 99 }, (_, at) => `cause-${at}`).join(','), 'other'],
])('the cause of a loss %j is %j', (text, cause) => {
  expect(lossCause(text)).toBe(cause);
});

test.each<[string, boolean]>([
  ['shop/orders rule[0]', true],
  ['istio-system/countersign-stale-policy rule[12]', true],
  [`${'a'.repeat(63)}/${'b'.repeat(253)} rule[999999]`, true],
  [`a/${'b'.repeat(254)} rule[0]`, false],
  ['shop/orders rule[00]', false],
  ['shop/orders rule[-1]', false],
  ['shop/orders rule[1000000]', false],
  ['shop/orders rule[0] ', false],
  ['shop/orders rule[0]\n', false],
  ['shop/orders', false],
  ['*', false],
  ['', false],
])('%j names a rule: %j', (text, isOne) => {
  expect(isRuleName(text)).toBe(isOne);
});
