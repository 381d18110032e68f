import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { allowedCalls, decision } from '../audit/events.ts';
import type { TokenName } from './callers.ts';
import { entry, id, policy } from './documents.ts';
import { type Harness, startHarness } from './harness.ts';

let harness: Harness;
const [web, ledger] = [id('web'), id('ledger', 'pay')];
const open = (operation: string) =>
  policy('p', 'pay').replace(
    'spec: {}',
    `spec: { rules: [{ from: [{ source: { principals: ['${web.slice(9)}'] } }], to: [{ operation: { ${operation} } }] }] }`,
  );
const labelled = entry('ledger', 'pay').replace(
  '{ name: ledger }',
  '{ name: ledger, labels: { app: ledger } }',
);
const files = (text: string) => [{ file: 'new.yaml', text }];

beforeAll(async () => {
  harness = await startHarness();
  const body = { files: files([entry('web'), labelled, open('methods: [GET]')].join('---\n')) };
  expect((await harness.overTls({ method: 'POST', path: '/v1/apply', body })).status).toBe(200);
  const [time, revision] = [harness.clock.now(), harness.ports.administration.current().revision];
  const common = { time, revision, source: web, destination: ledger };
  await harness.store.recordEvents([
    allowedCalls({ ...common, from: time, to: time, rule: 'pay/p rule[0]', pathPattern: '*' }),
    decision({ ...common, method: 'PUT', path: { personal: '/private' } }),
  ]);
  harness.clock.move(60_000);
});
afterAll(() => harness.close());

const replay = (body: unknown, by: TokenName = 'auditor') =>
  harness.overTls({ method: 'POST', path: '/v1/policy-replays', body }, by);

test('calls are judged anew, and the reading is in the log', async () => {
  const { status, json, text } = await replay({
    files: files(open('methods: [PUT]')),
    since: '1h',
    namespace: 'pay',
  });
  expect(status, text).toBe(200);
  expect(json).toMatchObject({
    candidate: {
      changes: [{ kind: 'policy', key: 'pay/p', action: 'updated' }],
      refused: null,
      warnings: [],
    },
    totals: { calls: 118, newlyDenied: 117, newlyAllowed: 1, unchanged: 0, unknown: 0, notHeld: 0, seen: 0 },
    complete: true,
    head: { root: expect.stringMatching(/^[0-9a-f]{64}$/) },
  });
  expect(json.edges.map((edge: { path: unknown }) => edge.path)).toEqual(['*', '*']);
  const [last] = (await harness.events('admin')).slice(-1);
  expect(last).toMatchObject({
    action: 'audit_read',
    detail: 'replay of policies that were sent since=1h namespace=pay',
  });
});

test('who may not read what identifies a person is told nothing that follows from it', async () => {
  const { json } = await replay({ files: files(open("methods: [PUT], paths: ['/private']")) }, 'operator');
  expect(json.totals).toMatchObject({ newlyAllowed: 0, unknown: 1 });
  expect(JSON.stringify(json)).not.toContain('"/private"');
});

test('the question of auditors has the same answer of a revision', async () => {
  const { number } = harness.ports.administration.current().policyRevision!;
  const next = { files: files(open('methods: [PUT]')) };
  expect((await harness.overTls({ method: 'POST', path: '/v1/apply', body: next })).status).toBe(200);
  const asked = `/v1/audit/questions/replay?revision=${number}&since=1h`;
  const { status, json, text } = await harness.overTls({ path: asked }, 'auditor');
  expect(status, text).toBe(200);
  expect(json.says[0]).toBe(`policy revision ${number} differs from the policies in force in 1 policy`);
  expect(json.tables[0].items).toMatchObject([
    { becomes: 'newly denied', calls: 1, source: web, destination: ledger, method: 'PUT', path: '*' },
    { becomes: 'newly allowed', calls: 117, rule: 'pay/p rule[0]', ruleNow: '' },
  ]);
});

test('what calls need is suggested, and the reading is in the log', async () => {
  const asked = { method: 'POST', path: '/v1/policy-suggestions' };
  const { status, json, text } = await harness.overTls(
    { ...asked, body: { destination: ledger } },
    'auditor',
  );
  expect(status, text).toBe(200);
  // Those that were recorded as allowed are denied by now.
  expect(json).toMatchObject({ complete: true, services: [{ destination: ledger, yaml: '', calls: 0 }] });
  const [last] = (await harness.events('admin')).slice(-1);
  expect(last).toMatchObject({ detail: `suggestion of policies destination=${ledger}` });
  for (const [body, by, code] of [
    [{ files: [] }, 'auditor', 'body_invalid'],
    [{ since: 'soon' }, 'auditor', 'body_invalid'],
    [{}, 'viewer', 'forbidden'],
    [{}, 'policy-author', 'forbidden'],
  ] as const) {
    expect((await harness.overTls({ ...asked, body }, by)).json.code).toBe(code);
  }
});

describe('refused', () => {
  const some = { files: files(open('methods: [PUT]')) };
  test.each<[string, unknown, TokenName, number, string]>([
    ['nothing', {}, 'auditor', 400, 'body_invalid'],
    ['no body', [], 'auditor', 400, 'body_invalid'],
    ['files and a revision', { ...some, revision: 1 }, 'auditor', 400, 'body_invalid'],
    ['an unknown field', { ...some, prune: true }, 'auditor', 400, 'body_invalid'],
    ['no time', { ...some, since: 'yesterday' }, 'auditor', 400, 'body_invalid'],
    [
      'a time that ends before it begins',
      { ...some, since: '1h', until: '2h' },
      'auditor',
      400,
      'audit_query_invalid',
    ],
    ['no namespace', { ...some, namespace: 'Pay!' }, 'auditor', 400, 'body_invalid'],
    ['no identity', { ...some, destination: 'http://x' }, 'auditor', 400, 'spiffe_id_scheme'],
    ['too high a limit', { ...some, limit: 1_001 }, 'auditor', 400, 'body_invalid'],
    ['a revision that is not kept', { revision: 99 }, 'auditor', 404, 'policy_revision_not_found'],
    ['a policy that is not there', { without: ['pay/q'] }, 'auditor', 404, 'policy_not_found'],
    ['no YAML', { files: files('{') }, 'auditor', 400, 'document_syntax'],
    [
      'another kind',
      { files: files('apiVersion: v1\nkind: Secret\n') },
      'auditor',
      400,
      'document_kind_unknown',
    ],
    ['a policy that says nothing', { files: files(open('methods: []')) }, 'auditor', 400, 'policy_invalid'],
    ['who may not see calls', some, 'viewer', 403, 'forbidden'],
    ['who may only write policies', some, 'policy-author', 403, 'forbidden'],
  ])('%s', async (_, body, by, status, code) => {
    const { json, status: found } = await replay(body, by);
    expect([found, json.code]).toEqual([status, code]);
  });

  test('a second one while one is under way', async () => {
    const { close } = harness.ports.openReplay(() => false);
    const { status, json } = await replay(some);
    expect([status, json.code]).toEqual([429, 'policy_replay_busy']);
    close();
    expect((await replay(some)).status).toBe(200);
  });
});
