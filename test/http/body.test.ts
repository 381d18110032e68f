import { afterAll, beforeAll, expect, test } from 'vitest';
import { type Harness, startHarness } from './harness.ts';

let harness: Harness;
beforeAll(async () => {
  harness = await startHarness();
});
afterAll(async () => {
  // Nothing of this file may have changed anything.
  expect(harness.ports.administration.current().revision).toBe(0);
  await harness.close();
});

const entry = {
  id: 'web',
  spiffeId: 'spiffe://example.org/ns/shop/sa/web',
  selectors: ['unix:uid:1000'],
};

test.each([
  ['text/plain', 'text/plain'],
  ['a form', 'application/x-www-form-urlencoded'],
  ['a tab inside', 'application/json\ta'],
  ['a tab before the parameter', 'application/json\t; charset=utf-8'],
  ['another charset', 'application/json; charset=utf-16'],
  ['two types', 'application/json, text/plain'],
  ['a suffix', 'application/json5'],
  ['a structured suffix', 'application/problem+json'],
  ['a second parameter', 'application/json; charset=utf-8; a=b'],
  ['nothing', ''],
])('refuses %s as content type', async (_, type) => {
  const answer = await harness.overTls({
    method: 'POST',
    path: '/v1/entries',
    body: entry,
    headers: { 'content-type': type },
  });
  expect([answer.status, answer.json.code]).toEqual([415, 'media_type_unsupported']);
});

test.each([
  ['a content type twice', 'content-type: application/json\r\ncontent-type: text/plain\r\n', 415],
  // HTTP itself drops spaces and tabs around a value, so these are application/json and nothing else.
  ['a leading space', 'content-type:  application/json\r\n', 400],
  ['a tab at the end', 'content-type: application/json\t\r\n', 400],
])('on the wire: %s', async (_, line, status) => {
  const answer = await harness.rawTls(
    `POST /v1/entries HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer ${harness.tokens.admin}\r\n` +
      `${line}content-length: 2\r\nconnection: close\r\n\r\n{}`,
  );
  expect(answer).toMatch(new RegExp(`^HTTP/1\\.1 ${status} `));
});

const deep = (levels: number) => `${'{"a":'.repeat(levels)}1${'}'.repeat(levels)}`;

test.each([
  ['no JSON', '{', 400, 'body_invalid'],
  ['nothing', '', 400, 'body_invalid'],
  ['garbage after it', `${JSON.stringify(entry)}x`, 400, 'body_invalid'],
  ['an array', '[]', 400, 'body_invalid'],
  ['null', 'null', 400, 'body_invalid'],
  ['a number', '1e400', 400, 'body_invalid'],
  ['a byte order mark', `\ufeff${JSON.stringify(entry)}`, 400, 'body_invalid'],
  ['bytes that are no UTF-8', Buffer.from([0x7b, 0x22, 0xff, 0x22, 0x3a, 0x31, 0x7d]), 400, 'body_invalid'],
  ['33 levels', deep(33), 400, 'body_invalid'],
  ['100,000 levels', deep(100_000), 400, 'body_invalid'],
  ['100,000 open brackets', '['.repeat(100_000), 400, 'body_invalid'],
  ['more than 2 MiB', JSON.stringify({ ...entry, hint: 'a'.repeat(2_097_152) }), 413, 'body_too_large'],
  ['__proto__', '{"__proto__":{"role":"admin"}}', 400, 'body_invalid'],
  [
    '__proto__ in labels',
    JSON.stringify(entry).replace('}', ',"labels":{"__proto__":"x"}}'),
    400,
    'body_invalid',
  ],
  ['constructor', '{"constructor":{"prototype":{"a":1}}}', 400, 'body_invalid'],
  ['an unknown field', JSON.stringify({ ...entry, role: 'admin' }), 400, 'body_invalid'],
  ['a revision', JSON.stringify({ ...entry, revision: 7 }), 400, 'body_invalid'],
  ['a missing field', JSON.stringify({ id: 'web' }), 400, 'body_invalid'],
  ['a wrong type', JSON.stringify({ ...entry, selectors: 'unix:uid:1000' }), 400, 'body_invalid'],
  ['no integer', JSON.stringify({ ...entry, ttlSeconds: 60.5 }), 400, 'entry_invalid'],
  ['a text for a number', JSON.stringify({ ...entry, ttlSeconds: '60' }), 400, 'body_invalid'],
])('refuses a body of %s', async (_, rawBody, status, code) => {
  const answer = await harness.overTls({ method: 'POST', path: '/v1/entries', rawBody });
  expect([answer.status, answer.json.code]).toEqual([status, code]);
  expect(answer.text.length).toBeLessThan(2_000);
  expect(answer.text).not.toMatch(/node_modules|\bat \w+ \(/);
});

test('names the wrong field, and never repeats its value', async () => {
  const body = { ...entry, selectors: [1], hint: 'sesame' };
  const { json } = await harness.overTls({ method: 'POST', path: '/v1/entries', body });
  expect(json.detail).toContain('selectors.0');
  expect(json.detail).not.toContain('sesame');
});

test('counts no brackets inside text', async () => {
  const body = { ...entry, hint: `${'['.repeat(500)}"\\${'{'.repeat(500)}`, spiffeId: 'x' };
  const { json } = await harness.overTls({ method: 'POST', path: '/v1/entries', body });
  expect(json.code).toBe('spiffe_id_scheme');
});

test.each([
  ['/v1/entries?limit=1e9', 'query_invalid'],
  ['/v1/entries?limit=0', 'query_invalid'],
  ['/v1/entries?limit=1001', 'query_invalid'],
  ['/v1/entries?limit=-1', 'query_invalid'],
  ['/v1/entries?limit=%31%00', 'query_invalid'],
  ['/v1/entries?limit=1&limit=2', 'query_invalid'],
  ['/v1/entries?__proto__=1', 'query_invalid'],
  ['/v1/entries?constructor=1', 'query_invalid'],
  ['/v1/entries?cursor=!', 'query_invalid'],
  ['/v1/entries?filter=x', 'query_invalid'],
  ['/v1/policies?limit=1e9', 'query_invalid'],
  ['/v1/tokens?limit=1e9', 'query_invalid'],
  ['/v1/audit?limit=1e9', 'audit_query_invalid'],
  ['/v1/audit?type=everything', 'audit_query_invalid'],
  ['/v1/audit?since=yesterday', 'audit_query_invalid'],
  ['/v1/audit?source=https://example.org', 'audit_query_invalid'],
  ['/v1/audit?verdict=maybe', 'audit_query_invalid'],
  ['/v1/audit?cursor=AAAA', 'audit_cursor_invalid'],
  ['/v1/audit?sql=1', 'query_invalid'],
  [`/v1/audit?${'type=decision&'.repeat(100)}`, 'query_invalid'],
])('refuses %s', async (path, code) => {
  const answer = await harness.overTls({ path });
  expect([answer.status, answer.json.code]).toEqual([400, code]);
});

test.each([
  ['GET', '/v1/entries/..%2f..%2fetc', 'entry_not_found'],
  ['GET', '/v1/entries/__proto__', 'entry_not_found'],
  ['DELETE', '/v1/entries/constructor', 'entry_not_found'],
  ['GET', '/v1/policies/..%2f/x', 'policy_not_found'],
  ['GET', '/v1/policies/shop%2fweb/x', 'policy_not_found'],
  ['DELETE', '/v1/policies/__proto__/x', 'policy_not_found'],
  ['DELETE', '/v1/tokens/0123456789abcdef', 'token_not_found'],
  ['DELETE', '/v1/tokens/__proto__', 'token_not_found'],
  ['GET', `/v1/entries/${'a'.repeat(7_000)}`, 'entry_not_found'],
  ['PUT', '/v1/entries/web', 'route_not_found'],
  ['GET', '/v1/entries/', 'entry_not_found'],
])('%s %s is not there', async (method, path, code) => {
  const body = method === 'PUT' ? { body: {} } : {};
  const answer = await harness.overTls({ method, path, ...body });
  expect([answer.status, answer.json.code]).toEqual([404, code]);
});

test('refuses a deletion that carries a body of another type', async () => {
  const answer = await harness.overTls({
    method: 'DELETE',
    path: '/v1/entries/web',
    rawBody: 'x',
    headers: { 'content-type': 'text/plain' },
  });
  expect(answer.status).toBe(415);
});
