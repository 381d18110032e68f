import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { TokenName } from './callers.ts';
import { startHarness } from './harness.ts';
import {
  alice,
  byWeb,
  get,
  job,
  ledger,
  permitted,
  type Put,
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

describe('several questions', () => {
  const yes = permitted;
  const not = { ...permitted, action: { name: 'burn' } };
  const broken = { action: {} };
  const run = async (semantic: string | undefined, ...evaluations: object[]) => {
    const options = semantic === undefined ? {} : { options: { evaluations_semantic: semantic } };
    const { json } = await ask('evaluations', { evaluations, ...options });
    return json.evaluations.map((one: { decision: boolean }) => one.decision);
  };

  test.each<[string | undefined, object[], boolean[]]>([
    [undefined, [yes, not, yes], [true, false, true]],
    ['execute_all', [not, broken, yes], [false, false, true]],
    ['deny_on_first_deny', [yes, not, yes], [true, false]],
    ['deny_on_first_deny', [yes, broken, yes], [true, false]],
    ['deny_on_first_deny', [yes, yes], [true, true]],
    ['permit_on_first_permit', [not, broken, yes, not], [false, false, true]],
    ['permit_on_first_permit', [yes, broken], [true]],
    ['permit_on_first_permit', [not, not], [false, false]],
  ])('%s of %j', async (semantic, evaluations, expected) => {
    expect(await run(semantic, ...evaluations)).toEqual(expected);
  });

  test('fail each by itself', async () => {
    const evaluations = [yes, broken, { ...yes, resource: { ...byWeb, properties: { path: '/' } } }];
    const { status, json } = await ask('evaluations', { evaluations }, 'shopViewer');
    expect(status).toBe(200);
    const errors = json.evaluations.map(
      ({ context }: { context: { reason: string; error?: { status: number; code: string } } }) => [
        context.reason,
        context.error?.status,
        context.error?.code,
      ],
    );
    expect(errors).toEqual([
      ['question_refused', 403, 'forbidden'],
      ['question_refused', 400, 'body_invalid'],
      ['no_allow_rule', undefined, undefined],
    ]);
  });

  test('may be a hundred', async () => {
    const all = await run(undefined, ...Array.from({ length: 100 }, () => yes));
    expect(all).toEqual(Array.from({ length: 100 }, () => true));
  });
});

describe('a search', () => {
  const found = async (route: string, body: object, by: TokenName = 'viewer') => {
    const { status, json } = await ask(route, body, by);
    expect([status, json.page.count]).toEqual([200, json.results.length]);
    return json.results.map((one: { id?: string; name?: string }) => one.id ?? one.name);
  };

  test.each<[string, object, TokenName, string[]]>([
    ['search/subject', { subject: { type: 'workload' }, action: get, resource: toLedger() }, 'viewer', [web]],
    [
      'search/subject',
      { subject: { type: 'spiffe' }, action: get, resource: toLedger({ path: '/c' }) },
      'viewer',
      [],
    ],
    [
      'search/subject',
      { subject: { type: 'workload' }, action: get, resource: { ...byWeb, properties: { path: '/' } } },
      'viewer',
      [ledger],
    ],
    // Who else is registered is not for everybody to see.
    [
      'search/subject',
      { subject: { type: 'workload' }, action: get, resource: { ...byWeb, properties: { path: '/' } } },
      'shopViewer',
      [],
    ],
    [
      'search/resource',
      {
        subject: { type: 'workload', id: ledger },
        action: get,
        resource: { type: 'workload', properties: { path: '/' } },
      },
      'viewer',
      [job, web],
    ],
    [
      'search/resource',
      { subject: byWeb, action: get, resource: { type: 'workload', properties: { path: '/b/c' } } },
      'viewer',
      [ledger],
    ],
    [
      'search/resource',
      { subject: byWeb, action: get, resource: { type: 'workload', properties: { path: '/b/c' } } },
      'shopViewer',
      [],
    ],
    ['search/action', { subject: byWeb, resource: toLedger() }, 'viewer', ['GET']],
    [
      'search/action',
      { subject: { type: 'workload', id: ledger }, resource: byWeb },
      'viewer',
      ['tcp:connect'],
    ],
    ['search/action', { subject: alice, resource: record }, 'viewer', ['read', 'write']],
  ])('%s of %j by %s', async (route, body, by, expected) => {
    expect(await found(route, body, by)).toEqual(expected);
  });

  test.each<[string, object]>([
    ['search/subject', { subject: { type: 'workload' }, action: get, resource: toLedger() }],
    ['search/action', { subject: byWeb, resource: toLedger() }],
    ['search/resource', { ...permitted, resource: { type: 'record' } }],
  ])('%s needs the namespace in question', async (route, body) => {
    const answer = await ask(route, body, 'shopViewer');
    expect([answer.status, answer.json.code]).toEqual([403, 'forbidden']);
  });

  test.each<[string, object, string]>([
    ['search/subject', { subject: { type: '?' }, action: get, resource: toLedger() }, 'type_unknown'],
    [
      'search/subject',
      { subject: { type: 'user' }, action: get, resource: { type: '?', id: 'x' } },
      'type_unknown',
    ],
    [
      'search/subject',
      { subject: { type: 'workload' }, action: get, resource: { type: 'workload', id: 'x' } },
      'request_invalid',
    ],
    [
      'search/subject',
      { subject: { type: 'workload' }, action: { name: 'G T' }, resource: toLedger() },
      'request_invalid',
    ],
    [
      'search/resource',
      { subject: { type: '?', id: 'x' }, action: get, resource: { type: 'workload' } },
      'type_unknown',
    ],
    ['search/resource', { subject: byWeb, action: get, resource: { type: 'workload' } }, 'request_invalid'],
  ])('%s of %j says why it finds nothing: %s', async (route, body, reason) => {
    const { json } = await ask(route, body);
    expect([json.results, json.context.reason, json.page.next_token]).toEqual([[], reason, '']);
  });

  test('goes on page by page, and only with the same question', async () => {
    const body = {
      subject: { type: 'workload', id: ledger },
      action: get,
      resource: { type: 'workload', properties: { path: '/' } },
    };
    const first = await ask('search/resource', { ...body, page: { limit: 1 } });
    expect(Object.keys(first.json)[0]).toBe('page');
    expect(first.json.results).toEqual([{ type: 'workload', id: job }]);
    const token = first.json.page.next_token;
    expect(token).not.toBe('');
    // The order of members is no difference, and the limit need not be said again.
    const { resource, action, subject } = body;
    const second = await ask('search/resource', { resource, page: { token }, action, subject });
    expect(second.json.results).toEqual([{ type: 'workload', id: web }]);
    expect(second.json.page).toEqual({ next_token: '', count: 1 });
    for (const changed of [
      { ...body, action: { name: 'POST' }, page: { token } },
      { ...body, context: {}, page: { token } },
      { ...body, page: { token, limit: 2 } },
      { ...body, page: { token: `${token}x` } },
    ]) {
      const refused = await ask('search/resource', changed);
      expect([refused.status, refused.json.code]).toEqual([400, 'body_invalid']);
    }
    const none = await ask('search/resource', { ...body, page: { limit: 0 } });
    expect([none.json.results, none.json.page.next_token === '']).toEqual([[], false]);
    const all = await ask('search/resource', { ...body, page: { limit: 1e9, token: '' } });
    expect([all.json.results.length, all.json.page.next_token]).toEqual([2, '']);
  });

  test('finds nobody who is banned', async () => {
    const body = { subject: { type: 'workload' }, action: get, resource: toLedger() };
    const ban = { kind: 'spiffe-id', value: web, reason: 'x' };
    await harness.overTls({ method: 'POST', path: '/v1/bans', body: ban });
    expect(await found('search/subject', body)).toEqual([]);
    await harness.overTls({ method: 'DELETE', path: `/v1/bans/spiffe-id/${encodeURIComponent(web)}` });
    expect(await found('search/subject', body)).toEqual([web]);
  });
});

test('without a namespace for it nothing but workloads is known', async () => {
  const bare = await startHarness({ authzenNamespace: null });
  try {
    const post = (route: string, body: object) =>
      bare.overTls({ method: 'POST', path: `/access/v1/${route}`, body }, 'viewer');
    const one = await post('evaluation', permitted);
    expect(one.json).toEqual({
      decision: false,
      context: {
        reason: 'type_unknown',
        why: 'the type "user" of the subject is not known here',
        revision: 0,
      },
    });
    const search = await post('search/subject', { ...permitted, subject: { type: 'user' } });
    expect(search.json).toMatchObject({ results: [], context: { reason: 'type_unknown' } });
  } finally {
    await bare.close();
  }
});
