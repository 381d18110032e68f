import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { id } from './documents.ts';
import {
  alice,
  byWeb,
  get,
  ledger,
  permitted,
  type Put,
  read,
  record,
  startAuthzen,
  toLedger,
  web,
} from './authzen-world.ts';

let harness: Awaited<ReturnType<typeof startAuthzen>>;
beforeAll(async () => {
  harness = await startAuthzen();
});
afterAll(() => harness.close());
const ask: Put = (...question) => harness.put(...question);

describe('a question that is malformed', () => {
  const search = { subject: { type: 'user' }, action: read, resource: record };
  test.each<[string, unknown]>([
    ['evaluation', { ...permitted, subject: null }],
    ['evaluation', { ...permitted, subject: [] }],
    ['evaluation', { ...permitted, subject: { type: 1, id: 'alice' } }],
    ['evaluation', { ...permitted, subject: { type: 'user', id: 1 } }],
    ['evaluation', { ...permitted, subject: { ...alice, properties: 'x' } }],
    ['evaluation', { ...permitted, subject: { ...alice, properties: [] } }],
    ['evaluation', { ...permitted, subject: { type: 'u'.repeat(257), id: 'alice' } }],
    ['evaluation', { ...permitted, resource: { type: 'record', id: 'r'.repeat(8_193) } }],
    ['evaluation', { ...permitted, resource: { ...record, properties: { x: 'x'.repeat(65_536) } } }],
    ['evaluation', { ...permitted, action: 'read' }],
    ['evaluation', { ...permitted, action: { name: 'read', properties: 1 } }],
    ['evaluation', { ...permitted, context: 'x' }],
    ['evaluation', { ...permitted, context: null }],
    ['evaluations', { evaluations: {} }],
    ['evaluations', { evaluations: [1] }],
    ['evaluations', { evaluations: Array.from({ length: 101 }, () => permitted) }],
    ['evaluations', { evaluations: [] }],
    ['evaluations', { ...permitted, subject: 'alice', evaluations: [permitted] }],
    ['evaluations', { evaluations: [permitted], options: 1 }],
    ['evaluations', { evaluations: [permitted], options: { evaluations_semantic: 'any' } }],
    ['evaluations', { evaluations: [permitted], options: { evaluations_semantic: null } }],
    ['search/subject', { ...search, subject: {} }],
    ['search/subject', { ...search, action: {} }],
    ['search/subject', { ...search, page: 1 }],
    ['search/subject', { ...search, page: { limit: -1 } }],
    ['search/subject', { ...search, page: { limit: 1.5 } }],
    ['search/subject', { ...search, page: { limit: '1' } }],
    ['search/subject', { ...search, page: { token: 1 } }],
    ['search/subject', { ...search, page: { token: '?' } }],
    ['search/subject', { ...search, page: { token: Buffer.from('["a",1]').toString('base64url') } }],
    ['search/subject', { ...search, page: { token: Buffer.from('["a",1,"x"]').toString('base64url') } }],
    ['search/resource', { ...permitted, resource: {} }],
    ['search/resource', { subject: alice, resource: { type: 'record' } }],
    ['search/action', { subject: { type: 'user' }, resource: record }],
    ['search/action', { subject: alice, resource: { type: 'record' } }],
  ])('is refused by %s: %j', async (route, body) => {
    const answer = await ask(route, body);
    expect([answer.status, answer.json.code]).toEqual([400, 'body_invalid']);
  });
});

describe('a question that no call answers to', () => {
  const web2 = { type: 'workload', id: 'web' };
  test.each<[string, object, string, string]>([
    [
      'an unknown type',
      { ...permitted, subject: { type: '../x', id: 'a' } },
      'type_unknown',
      'the type "../x" of the subject is not known here',
    ],
    [
      'an empty type',
      { ...permitted, resource: { type: '', id: 'a' } },
      'type_unknown',
      'the type "" of the resource is not known here',
    ],
    [
      'a name that is no SPIFFE ID',
      { subject: web2, action: get, resource: toLedger() },
      'request_invalid',
      'the subject is no workload: SPIFFE ID "web" does not start with spiffe://',
    ],
    [
      'no id',
      { ...permitted, subject: { type: 'user', id: '' } },
      'request_invalid',
      "the subject's id is empty or no text",
    ],
    [
      'half a character',
      { ...permitted, resource: { type: 'record', id: '\ud800' } },
      'request_invalid',
      "the resource's id is empty or no text",
    ],
    [
      'a subject with a slash',
      { ...permitted, subject: { type: 'user', id: 'a/b' } },
      'request_ambiguous',
      "the subject's id has a slash",
    ],
    [
      'an issuer among properties',
      { ...permitted, subject: { ...alice, properties: { iss: 'x' } } },
      'request_ambiguous',
      'the subject has a property iss or sub, which its type and id are',
    ],
    [
      'two tokens',
      { ...permitted, context: { claims: {} } },
      'request_ambiguous',
      'the subject is a token, and the context has another',
    ],
    [
      'a resource above its type',
      { ...permitted, resource: { type: 'record', id: '../x' } },
      'request_ambiguous',
      'the path has a dot segment (/../)',
    ],
    [
      'an id with a percent sign',
      { ...permitted, resource: { type: 'record', id: 'a%2fb' } },
      'request_ambiguous',
      'the path has a percent-encoded %',
    ],
    [
      'an id with a question mark',
      { ...permitted, resource: { type: 'record', id: 'a?b' } },
      'request_ambiguous',
      'the path has a percent-encoded ?',
    ],
    [
      'an action that is no token',
      { ...permitted, action: { name: 'can read' } },
      'request_invalid',
      'the method is no token of at most 64 bytes',
    ],
    [
      'no path',
      { subject: byWeb, action: get, resource: { type: 'workload', id: ledger } },
      'request_invalid',
      'the path is missing',
    ],
    [
      'an ambiguous path',
      { subject: byWeb, action: get, resource: toLedger({ path: '/b/../a' }) },
      'request_ambiguous',
      'the path has a dot segment (/../)',
    ],
    [
      'a path that is a number',
      { subject: byWeb, action: get, resource: toLedger({ path: 1 }) },
      'request_invalid',
      'the path is no text',
    ],
    [
      'a port that is text',
      { subject: byWeb, action: get, resource: toLedger({ path: '/a', port: '80' }) },
      'request_invalid',
      'the port is no number',
    ],
    [
      'a port out of range',
      { subject: byWeb, action: get, resource: toLedger({ path: '/a', port: 65_536 }) },
      'request_invalid',
      'the port is not from 0 to 65535',
    ],
    [
      'headers that are no lines',
      { subject: byWeb, action: get, resource: toLedger(), context: { headers: { a: 'b' } } },
      'request_invalid',
      expect.stringMatching(/^the context is not valid: "headers": /) as string,
    ],
    [
      'TCP to a record',
      { ...permitted, action: { name: 'tcp:connect' } },
      'request_invalid',
      'the action tcp:connect is one of workloads on workloads',
    ],
  ])('is denied: %s', async (_, body, reason, why) => {
    const answer = await ask('evaluation', body);
    expect(answer.status).toBe(200);
    expect(answer.json).toEqual({ decision: false, context: { reason, why, revision: 1 } });
  });
});

describe('a decision', () => {
  test('says why, and what was nearest', async () => {
    const body = { subject: byWeb, action: { name: 'POST' }, resource: toLedger() };
    const { json } = await ask('evaluation', body);
    expect(json).toMatchObject({
      decision: false,
      context: {
        reason: 'no_allow_rule',
        nearest: { rule: 'bank/ledger rule[0]', missed: 'methods is GET, the call used POST' },
        revision: 1,
      },
    });
    expect((await ask('evaluation', { ...body, action: get })).json).toEqual({
      decision: true,
      context: {
        reason: 'allow_rule',
        why: 'allowed by bank/ledger rule[0]',
        rule: 'bank/ledger rule[0]',
        revision: 1,
      },
    });
  });

  test.each([
    ['spiffe', 'spiffe'],
    ['spiffe', 'workload'],
    ['workload', 'spiffe'],
  ])('knows workloads by either type: %s, %s', async (by, at) => {
    const body = { subject: { type: by, id: web }, action: get, resource: { ...toLedger(), type: at } };
    expect((await ask('evaluation', body)).json.decision).toBe(true);
  });

  test('of a TCP connection does not see what HTTP has', async () => {
    const body = { subject: byWeb, action: { name: 'tcp:connect' }, resource: toLedger({ port: 80 }) };
    expect((await ask('evaluation', body)).json.context.reason).toBe('no_allow_rule');
    const back = { subject: { type: 'workload', id: ledger }, action: body.action, resource: byWeb };
    expect((await ask('evaluation', back)).json.decision).toBe(true);
  });

  test('of a banned caller names no ban', async () => {
    const value = id('gone', 'bank');
    const ban = { kind: 'spiffe-id', value, reason: 'host 7 taken over' };
    expect((await harness.overTls({ method: 'POST', path: '/v1/bans', body: ban })).status).toBe(201);
    const answer = await ask('evaluation', {
      subject: { type: 'workload', id: value },
      action: get,
      resource: { ...byWeb, properties: { path: '/' } },
    });
    expect(answer.json).toMatchObject({ decision: false, context: { reason: 'banned' } });
    expect(answer.text).not.toContain('host 7');
    expect(
      (await harness.overTls({ method: 'DELETE', path: `/v1/bans/spiffe-id/${encodeURIComponent(value)}` }))
        .status,
    ).toBe(200);
  });
});
