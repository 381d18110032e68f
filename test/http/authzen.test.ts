import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { TokenName } from './callers.ts';
import { alice, permitted, type Put, record, scenario, startAuthzen } from './authzen-world.ts';

let harness: Awaited<ReturnType<typeof startAuthzen>>;
beforeAll(async () => {
  harness = await startAuthzen();
});
afterAll(() => harness.close());
const ask: Put = (...question) => harness.put(...question);

describe('the certification scenario', () => {
  test.each(scenario.cases)('$id', async ({ route, body, status, ...expected }) => {
    const answer = await ask(route, body);
    expect(answer.status).toBe(status);
    if (status === 400) {
      expect(answer.json.code).toBe('body_invalid');
      return;
    }
    expect(answer.headers['content-type']).toBe('application/json; charset=utf-8');
    const { decision, decisions, includes, like, empty } = expected;
    if (decision !== undefined) expect(answer.json.decision).toBe(decision);
    if (decisions !== undefined) {
      const given = answer.json.evaluations.map((one: { decision: unknown }) => one.decision);
      expect(given).toEqual(decisions.map((one) => one ?? expect.any(Boolean)));
      expect(answer.json.decision).toBeUndefined();
    }
    if (includes !== undefined) {
      for (const { type, id: name, name: action } of includes) {
        expect(answer.json.results).toContainEqual(
          action === undefined ? { type, id: name } : { name: action },
        );
      }
    }
    if (like !== undefined) {
      const other = scenario.cases.find((one) => one.id === like);
      expect(answer.json.results).toEqual((await ask(route, other?.body)).json.results);
    }
    if (empty === true) expect(answer.json.results).toEqual([]);
  });

  test('2.6: the same question has the same answer', async () => {
    const texts = new Set<string>();
    for (let i = 0; i < 5; i++) texts.add((await ask('evaluation', permitted)).text);
    expect(texts.size).toBe(1);
  });
});

describe('the transport', () => {
  const post = (rest: object, by: TokenName | null = 'viewer') =>
    harness.overTls({ method: 'POST', path: '/access/v1/evaluation', ...rest }, by);

  test.each<[string, object, TokenName | null, number, string]>([
    [
      'another media type',
      { rawBody: '{}', headers: { 'content-type': 'text/plain' } },
      'viewer',
      400,
      'body_invalid',
    ],
    ['no media type', { headers: { 'content-length': '0' } }, 'viewer', 400, 'body_invalid'],
    ['what is no JSON', { rawBody: '{"subject":' }, 'viewer', 400, 'body_invalid'],
    ['an empty body', { rawBody: '' }, 'viewer', 400, 'body_invalid'],
    ['a list', { rawBody: '[]' }, 'viewer', 400, 'body_invalid'],
    ['null', { rawBody: 'null' }, 'viewer', 400, 'body_invalid'],
    ['a body of 2 MiB', { rawBody: `"${'a'.repeat(2_097_152)}"` }, 'viewer', 413, 'body_too_large'],
    ['nobody', { body: permitted }, null, 401, 'unauthenticated'],
    ['an expired token', { body: permitted }, 'expired', 401, 'unauthenticated'],
    ['a viewer of another namespace', { body: permitted }, 'shopViewer', 403, 'forbidden'],
    [
      'a foreign host',
      { body: permitted, headers: { host: 'evil.example' } },
      'viewer',
      421,
      'host_not_allowed',
    ],
  ])('refuses %s, and says whose answer it is', async (_, rest, by, status, code) => {
    const headers = { ...(rest as { headers?: object }).headers, 'x-request-id': 'req 1, "x"' };
    const answer = await post({ ...rest, headers }, by);
    expect([answer.status, answer.json.code, answer.headers['x-request-id']]).toEqual([
      status,
      code,
      'req 1, "x"',
    ]);
  });

  test('sends a request id back with an answer, and none of its own', async () => {
    const headers = { 'x-request-id': 'bfe9eb29-ab87-4ca3-be83-a1d5d8305716' };
    expect((await post({ body: permitted, headers })).headers).toMatchObject(headers);
    const bytes = { 'x-request-id': '\u00c5\u0082\u00ff' };
    // A client of Node's, too, sends a header with a text in UTF-8.
    const rawBody = Buffer.from(JSON.stringify(permitted));
    expect(
      (await post({ rawBody, headers: { ...bytes, 'content-type': 'application/json' } })).headers,
    ).toMatchObject(bytes);
    expect((await post({ body: permitted })).headers['x-request-id']).toBeUndefined();
    const other = await harness.overTls({ path: '/v1/trust-bundle', headers });
    expect(other.headers['x-request-id']).toBeUndefined();
  });

  test('records a call as others are', async () => {
    await ask('search/action', { subject: alice, resource: record }, null);
    expect((await harness.events('admin')).at(-1)).toMatchObject({
      action: 'refused',
      route: '/access/v1/search/action',
      code: 'unauthenticated',
    });
  });
});

describe('the configuration', () => {
  const path = '/.well-known/authzen-configuration';

  test.each([
    ['localhost', 'https://localhost'],
    ['LOCALHOST:7443', 'https://localhost:7443'],
    ['127.0.0.1:1', 'https://127.0.0.1:1'],
  ])('of %s names its endpoints to anybody', async (host, base) => {
    const answer = await harness.overTls({ path, headers: { host } }, null);
    expect([answer.status, answer.headers['content-type']]).toEqual([200, 'application/json; charset=utf-8']);
    expect(answer.json).toEqual({
      policy_decision_point: base,
      access_evaluation_endpoint: `${base}/access/v1/evaluation`,
      access_evaluations_endpoint: `${base}/access/v1/evaluations`,
      search_subject_endpoint: `${base}/access/v1/search/subject`,
      search_resource_endpoint: `${base}/access/v1/search/resource`,
      search_action_endpoint: `${base}/access/v1/search/action`,
    });
  });

  test.each([
    ['evil.example', 421, 'host_not_allowed'],
    ['localhost@evil.example', 421, 'host_not_allowed'],
    ['localhost/x', 421, 'host_not_allowed'],
  ])('is not told for the host %j', async (host, status, code) => {
    const answer = await harness.overTls({ path, headers: { host } }, null);
    expect([answer.status, answer.json.code]).toEqual([status, code]);
  });

  test('is told over the socket too', async () => {
    const answer = await harness.overUnix({ path });
    expect(answer.json.policy_decision_point).toBe('https://localhost');
  });
});
