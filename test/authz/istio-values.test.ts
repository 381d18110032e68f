// Values at their edges: what a value of Istio's language matches, and what comes close and is not matched.
import { expect, test } from 'vitest';
import { allows, from, to, when } from './istio-cases.ts';

test.each<[string, string, string, boolean]>([
  // field, value, the name in the certificate, whether it matches
  ['principals', '*', '', false],
  // A name of another scheme is no SPIFFE ID, whatever it ends with.
  ['principals', '*/sa/web', 'https://cluster.local/ns/shop/sa/web', false],
  ['principals', 'cluster.local/ns/shop/sa/web', 'https://cluster.local/ns/shop/sa/web', false],
  ['serviceAccounts', 'shop/web', 'https://cluster.local/ns/shop/sa/web', false],
  ['trustDomains', '*', 'https://cluster.local/ns/shop/sa/web', false],
  ['trustDomains', '*local', 'https://cluster.local/ns/shop/sa/web', false],
  // What one star took the next piece cannot have again.
  ['namespaces', 'a*a', 'spiffe://td/ns/a/x/b', false],
  ['namespaces', 'a*a', 'spiffe://td/ns/aa/x/b', true],
  ['serviceAccounts', 'shop/web', 'spiffe://td/ns/shop/sa/web', true],
  ['serviceAccounts', 'shop/web', 'spiffe://td/ns/shop/sa/web-2', false],
  ['serviceAccounts', 'shop/web', 'spiffe://td/ns/shop/sa/web/', false],
  ['serviceAccounts', 'shop/web', 'spiffe://td/ns/shop/sa/web-2/sa/web', true],
  ['serviceAccounts', 'shop/web', 'spiffe://td/ns/shop/x/sa/web', true],
  ['serviceAccounts', 'shop/web', 'spiffe://td/ns/shop/x.sa/web', false],
  ['serviceAccounts', 'shop/web', 'spiffe://td/ns/shop//sa/web', false],
  ['serviceAccounts', 'shop/web', 'spiffe://td/sa/web/ns/shop/x', false],
  ['serviceAccounts', 'shop/web', 'spiffe://td/ns/shop/ns/shop/sa/web', true],
  ['serviceAccounts', 'shop/web', 'spiffe:///x/ns/shop/sa/web', true],
  ['trustDomains', '*', 'spiffe://td', true],
  ['trustDomains', 'td', 'spiffe://td', false],
  ['trustDomains', 't', 'spiffe://td', false],
  ['trustDomains', 't*', 'spiffe://td', false],
  ['trustDomains', 'td*1', 'spiffe://td1/a', true],
  ['trustDomains', 'td1*1', 'spiffe://td1/a', false],
])('%s %j matches the name %j: %j', async (field, value, principal, expected) => {
  expect(await allows(from({ [field]: [value] }), { principal })).toBe(expected);
});

test.each<[object, object, boolean]>([
  [{ methods: ['*'] }, { method: '' }, true],
  [{ methods: ['*'] }, { method: null }, false],
  [{ methods: ['GET'] }, { method: null }, false],
  [{ paths: ['*'] }, { path: null }, false],
  [{ paths: ['*/orders'] }, { path: null }, false],
  [{ notPaths: ['*'] }, { path: null }, true],
])('the operation %j matches the call with %j: %j', async (operation, request, expected) => {
  expect(await allows(to(operation), request)).toBe(expected);
});

const principal = 'request.auth.principal';
const user = { iss: 'iss', sub: 'sub' };

test.each<[string, string, object, boolean]>([
  [principal, '*', { jwt: { iss: 'iss', sub: '' } }, false],
  [principal, '*', { jwt: { iss: '', sub: 'sub' } }, false],
  [principal, '*', { jwt: { sub: 'sub' } }, false],
  [principal, '*', { jwt: { iss: 7, sub: 'sub' } }, false],
  [principal, '*', { jwt: { iss: 'iss', sub: 7 } }, false],
  [principal, '*b', { jwt: { iss: '', sub: 'sub' } }, false],
  [principal, '*/sub', { jwt: { iss: '', sub: 'sub' } }, false],
  [principal, '*other/sub', { jwt: user }, false],
  [principal, 'is*', { jwt: user }, true],
  [principal, 'is*', { jwt: { iss: 'is', sub: 'sub' } }, true],
  [principal, 'is*', { jwt: { iss: 'this', sub: 'sub' } }, false],
  [principal, 'iss*', { jwt: { iss: 'it', sub: 'sub' } }, false],
  [principal, 'is*', { jwt: { iss: 'iss', sub: '' } }, false],
  [principal, 'iss/*', { jwt: { iss: 'iss', sub: '' } }, false],
  [principal, 'iss/su*', { jwt: { iss: 'iss', sub: 's' } }, false],
  [principal, 'iss/other*', { jwt: user }, false],
  [principal, 'iss/sub', { jwt: user }, true],
  [principal, 'iss/sub', { jwt: { iss: 'other', sub: 'sub' } }, false],
  // Claims: a string, or a string of a list, and nothing else that a token holds.
  ['request.auth.claims[scope]', 'write', { jwt: { scope: ['read', 'write'] } }, true],
  ['request.auth.claims[permission]', 'write', { jwt: { permission: 'read  write' } }, true],
  ['request.auth.claims[scope]', '*', { jwt: { scope: ' ' } }, false],
  ['request.auth.claims[a][scope]', 'read', { jwt: { a: { scope: 'read write' } } }, false],
  ['request.auth.claims[scope][a]', 'read', { jwt: { scope: { a: 'read write' } } }, false],
  ['request.auth.claims[a]', 'read', { jwt: { a: 'read write' } }, false],
  ['request.auth.claims[a]', '*', { jwt: { a: [7, null, {}] } }, false],
  ['request.auth.claims[a][0]', 'v', { jwt: { a: 'v' } }, false],
  ['request.auth.claims[a][0]', 'v', { jwt: { a: ['v'] } }, false],
  ['request.auth.claims[a][b]', 'v', { jwt: { a: null } }, false],
  // The parts of a request that have no line of their own are there under their names, or not at all.
  ['request.headers[host]', '*', { host: null }, false],
  ['request.headers[:method]', 'GET', {}, true],
  ['request.headers[:method]', '*', { method: null }, false],
])('when %s is %j of %j: %j', async (key, value, request, expected) => {
  expect(await allows(when(key, [value]), request)).toBe(expected);
  expect(await allows([{ when: [{ key, notValues: [value] }] }], request)).toBe(!expected);
});

test.each<[string, unknown, boolean]>([
  ['v', 'other', false],
  ['*', 7, false],
  ['[v]', ['u'], false],
  ['[v]', 'v', false],
  ['[*]', [7, ['v']], false],
  ['[*]', ['v'], true],
  // Only what begins and ends with a bracket looks in a list, and all brackets around it fall away.
  ['[v', '[v', true],
  ['[v', ['v'], false],
  ['v]', 'v]', true],
  ['[[a[b]]', ['a[b'], true],
])('what a filter noted: %j of %j: %j', async (value, noted, expected) => {
  const request = { metadata: { 'envoy.filters.f': { k: noted } } };
  expect(await allows(when('experimental.envoy.filters.f[k]', [value]), request)).toBe(expected);
});

test.each<[string, string, boolean]>([
  ['td1', 'spiffe://td2/ns/shop/sa/web', true],
  ['td3', 'spiffe://td3/ns/shop/sa/web', true],
  ['td3', 'spiffe://td1/ns/shop/sa/web', false],
  ['td*', 'spiffe://td3/ns/shop/sa/web', true],
])('of two trust domains of the mesh %j is %j: %j', async (value, name, expected) => {
  const mesh = { trustDomains: ['td1', 'td2'] };
  expect(await allows(from({ trustDomains: [value] }), { principal: name }, mesh)).toBe(expected);
});

test('a suffix that covers a trust domain of the mesh still covers all others that end so', async () => {
  const mesh = { trustDomains: ['td1', 'td2'] };
  const ends = from({ principals: ['*1/ns/shop/sa/web'] });
  const calledBy = (trustDomain: string) => ({ principal: `spiffe://${trustDomain}/ns/shop/sa/web` });
  expect(await allows(ends, calledBy('other1'), mesh)).toBe(true);
  expect(await allows(ends, calledBy('td2'), mesh)).toBe(true);
  expect(await allows(ends, calledBy('other2'), mesh)).toBe(false);
});

test('aliases are of names of callers alone', async () => {
  const headers = { 'x-for': 'cluster.local/ns/shop/sa/web' };
  const rules = when('request.headers[x-for]', ['cluster.local/ns/shop/sa/web']);
  expect(await allows(rules, { headers }, { trustDomains: ['td1'] })).toBe(true);
});
