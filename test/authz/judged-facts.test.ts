import { expect, test } from 'vitest';
import { type CallContext, untold } from '../../src/authz/context.ts';
import { decide } from '../../src/authz/decide.ts';
import { compileSnapshot } from '../../src/authz/snapshot.ts';
import { call, meshOf, noon, policyText, readPolicies } from './mesh.ts';
import { both, cautious, holds, judge, neither } from './rule-effect.ts';

const about = (context: Partial<CallContext>) => ({ ...call(), context: { ...untold, ...context } });
const claim = (name: string) => `request.auth.claims[${name}]`;
const principal = 'request.auth.principal';

test.each<[token: object, key: string, value: string, expected: typeof both, negated: typeof both]>([
  [{ scope: 'read  write' }, claim('scope'), 'write', both, neither],
  // Nothing but spaces is nothing that is there.
  [{ scope: '' }, claim('scope'), '*', neither, cautious],
  [{ scope: '  ' }, claim('scope'), '*', neither, cautious],
  [{ permission: ' ' }, claim('permission'), 'a', neither, cautious],
  [{ other: ' ' }, claim('other'), '*', both, neither],
  // Of a list only its texts.
  [{ n: ['a', 1] }, claim('n'), 'a', both, neither],
  [{ n: [1, true, null, ['a'], { a: 'a' }] }, claim('n'), '*', neither, cautious],
  [{ n: [1] }, claim('n'), '1', neither, cautious],
  [{ n: [{ startsWith: 1, toString: 1 }] }, claim('n'), 'a*', neither, cautious],
  // A token that does not say who made it, or for whom, is none.
  [{ iss: 'i', sub: 's' }, principal, '*', both, neither],
  [{ iss: 'i' }, principal, '*', neither, cautious],
  [{ iss: 'i' }, principal, 'i/*', neither, cautious],
  [{ iss: 'i', sub: 1 }, principal, '*', neither, cautious],
  [{ sub: 's' }, principal, '*', neither, cautious],
  [{ iss: 1, sub: 's' }, principal, '*/s', neither, cautious],
])('the token %j and %s: %s', (token, key, value, expected, negated) => {
  const one = about({ claims: new Map<string, unknown>(Object.entries(token)) });
  expect(holds({ when: [{ key, values: [value] }] }, one)).toEqual(expected);
  expect(holds({ when: [{ key, notValues: [value] }] }, one)).toEqual(negated);
});

test('a host that is not told fits no rule of ALLOW, and each of DENY', () => {
  const one = { ...call(), host: '', hostPort: null };
  for (const hosts of [['ledger.pay'], ['ledger.pay:80'], ['*'], ['*:80']]) {
    expect(holds({ to: [{ operation: { hosts } }] }, one)).toEqual(cautious);
    expect(holds({ to: [{ operation: { notHosts: hosts } }] }, one)).toEqual(cautious);
  }
});

test('a header is read once, however many rules ask for it', () => {
  const rules = Array.from({ length: 100 }, (_, i) => ({
    when: [{ key: 'request.headers[x-a]', notValues: [`v${i}`] }],
  }));
  let read = 0;
  const one = about({
    headerLines: () => {
      read += 1;
      return [];
    },
  });
  const snapshot = compileSnapshot(meshOf(readPolicies(policyText(`rules: ${JSON.stringify(rules)}`))));
  expect(decide(snapshot, one, noon).reason).toBe('no_allow_rule');
  expect(read).toBe(1);
});

// More than an index leaves as a list.
const many = Array.from({ length: 20 }, (_, i) => i);

test.each<[string, (i: number) => object]>([
  ['methods', (i) => ({ to: [{ operation: { notMethods: [`M${i}`] } }] })],
  ['paths', (i) => ({ to: [{ operation: { notPaths: [`/p${i}*`] } }] })],
  ['hosts', (i) => ({ to: [{ operation: { notHosts: [`*h${i}`] } }] })],
  ['ports', (i) => ({ to: [{ operation: { notPorts: [`${i + 1}`] } }] })],
  ['namespaces', (i) => ({ from: [{ source: { notNamespaces: [`n${i}`] } }] })],
  ['addresses', (i) => ({ from: [{ source: { notIpBlocks: [`192.0.2.${i}`] } }] })],
  ['tokens', (i) => ({ from: [{ source: { notRequestPrincipals: [`i/s${i}`] } }] })],
  ['headers', (i) => ({ when: [{ key: 'request.headers[x-a]', notValues: [`v${i}`] }] })],
  ['notes', (i) => ({ when: [{ key: 'experimental.envoy.filters.f[k]', notValues: [`v${i}`] }] })],
])('of many rules that name which %s may not be there each is found', (_name, rule) => {
  const one = about({
    sourceIp: '10.0.0.1',
    claims: new Map([
      ['iss', 'i'],
      ['sub', 's'],
    ]),
    headerLines: () => ['a'],
    metadata: new Map([['envoy.filters.f', new Map([['k', 'v']])]]),
  });
  const text = policyText(`rules: ${JSON.stringify(many.map(rule))}`);
  expect(judge(meshOf(readPolicies(text)), one).verdict).toBe('allow');
  const deny = policyText(`action: DENY\nrules: ${JSON.stringify(many.map(rule))}`, 'no');
  expect(judge(meshOf(readPolicies(`${text}---\n${deny}`)), one).reason).toBe('deny_rule');
});

// What a token or a filter says may be the caller's, to the names in it.
test.each<[string, unknown]>([
  ['a number', 1],
  ['an object that is no text', { toString: 'a', valueOf: 'a' }],
  ['a list of such', [{ toString: 'a', valueOf: 'a' }, null, 1]],
])('of many rules about a note or a claim none is met by %s', (_name, said) => {
  const one = about({
    claims: new Map([['n', said]]),
    metadata: new Map([['envoy.filters.f', new Map([['k', said]])]]),
  });
  for (const key of [claim('n'), 'experimental.envoy.filters.f[k]']) {
    const rules = many.map((i) => ({ when: [{ key, values: [`${i}`, `${i}*`, `*${i}`] }] }));
    const text = [
      policyText('rules: [{}]', 'all'),
      policyText(`action: DENY\nrules: ${JSON.stringify(rules)}`, 'no'),
    ];
    expect(judge(meshOf(readPolicies(text.join('---\n'))), one).reason).toBe('allow_rule');
  }
});

test.each(['a*', '*z', 'abcz'])('of a list with other things only the texts are compared: %s', (value) => {
  const list = [7, null, { a: 1 }, 'abcz'];
  const one = about({ metadata: new Map([['envoy.filters.f', new Map([['k', list]])]]) });
  const text = policyText(
    `rules: [{ when: [{ key: 'experimental.envoy.filters.f[k]', values: ['[${value}]'] }] }]`,
  );
  expect(judge(meshOf(readPolicies(text)), one).reason).toBe('allow_rule');
});
