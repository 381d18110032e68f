import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { callTypes } from '../../src/audit/columns.ts';
import { allowedCalls, decision, issuance } from '../audit/events.ts';
import type { TokenName } from './callers.ts';
import { type Harness, startHarness } from './harness.ts';

let harness: Harness;
beforeAll(async () => {
  harness = await startHarness();
  const time = harness.clock.now();
  await harness.store.recordEvents([
    issuance({ time }),
    decision({ time, decisionId: 'd-one', sourceAddress: { personal: '10.0.0.7:1' } }),
    decision({ time, verdict: 'allow', rule: 'pay/read rule[0]' }),
    allowedCalls({ time }),
    { type: 'loss', time, what: 'decision', count: 12, from: time, to: time, cause: 'queue_full' },
  ]);
});
afterAll(() => harness.close());

const ask = async (by: TokenName, path: string) => harness.overTls({ path }, by);
const where = (condition: string) => `/v1/audit?where=${encodeURIComponent(condition)}`;

describe('a list', () => {
  test.each([
    ['decisionId=d-one', 1],
    ['decisionId!=d-one', 1],
    ['rule~pay/READ', 2],
    ['caller.uid=1000', 4],
    ['sourceAddress=10.0.0.7:1', 1],
    ['sourceAddress=10.0.0.8:1', 0],
  ])('where %s has %i', async (condition, count) => {
    expect((await ask('auditor', where(condition))).json.items).toHaveLength(count);
  });

  test('says what it is proven under, and what it cannot know', async () => {
    const { json } = await ask('auditor', '/v1/audit?type=issuance&text=unix%20uid');
    expect(json.items).toHaveLength(1);
    expect(json.head).toEqual({
      size: json.size,
      root: expect.stringMatching(/^[0-9a-f]{64}$/),
      checkpoint: expect.stringContaining(`\n${json.size}\n`),
    });
    expect(json.coverage).toMatchObject({
      since: null,
      losses: [{ what: 'decision', cause: 'queue_full', count: 12, records: 1 }],
      moreLosses: false,
      notSearched: [],
    });
    expect(json.searched).toEqual({ first: 0, last: json.size - 1 });
    expect(json.next).toBeNull();
  });

  test.each([
    [where('polcy=x'), 400, 'audit_query_invalid'],
    [where("rule') OR 1=1 --=x"), 400, 'audit_query_invalid'],
    [where('sourceAddress~10'), 400, 'audit_query_invalid'],
    ['/v1/audit?text=%22', 400, 'audit_query_invalid'],
    [`/v1/audit?${'where=rule=a&'.repeat(17)}`, 400, 'audit_query_invalid'],
    [`/v1/audit?${'where=rule=a&'.repeat(40)}`, 400, 'query_invalid'],
    ['/v1/audit/count?by=sorce', 400, 'audit_query_invalid'],
    ['/v1/audit/count?limit=3', 400, 'query_invalid'],
    ['/v1/audit/count?cursor=AAAA', 400, 'audit_cursor_invalid'],
  ])('%s: %i %s', async (path, status, code) => {
    const answer = await ask('auditor', path);
    expect([answer.status, answer.json.code]).toEqual([status, code]);
  });
});

describe('counts', () => {
  test('are by fields, the greatest first', async () => {
    const { json } = await ask('auditor', '/v1/audit/count?by=verdict,rule&by=destination');
    const destination = 'spiffe://example.org/ns/pay/sa/ledger';
    expect(json.items).toMatchObject([
      { values: { verdict: 'allow', rule: 'pay/read rule[0]', destination }, count: 118, records: 2 },
      { values: { verdict: 'deny', rule: '', destination }, count: 1, records: 1 },
    ]);
    expect([json.complete, json.next, json.by]).toEqual([true, null, ['verdict', 'rule', 'destination']]);
  });
});

describe('whoever may not know who calls whom', () => {
  test.each([
    '/v1/audit/count?by=type',
    '/v1/audit/count?by=source,destination',
    '/v1/audit/count?by=verdict',
    '/v1/audit/count',
  ])('%s counts none of it', async (path) => {
    const mine = await ask('viewer', path);
    const all = await ask('auditor', path);
    const sum = (items: { records: number }[]) => items.reduce((total, { records }) => total + records, 0);
    expect(sum(all.json.items) - sum(mine.json.items)).toBeGreaterThanOrEqual(3);
    expect(JSON.stringify(mine.json.items)).not.toMatch(/decision"|allowed_calls|ledger|deny/);
    expect(mine.json.coverage.notSearched).toEqual([...callTypes]);
  });

  test.each([where('decisionId=d-one'), where('rule~pay'), '/v1/audit?text=no%20allow%20rule%20matched'])(
    '%s finds none of it',
    async (path) => {
      const { status, json } = await ask('viewer', path);
      expect([
        status,
        json.items.filter(({ event }: { event: { type: string } }) => event.type !== 'admin'),
      ]).toEqual([200, []]);
    },
  );

  test.each(['/v1/audit/count?type=decision', '/v1/audit?type=allowed_calls&where=rule~a'])(
    '%s is refused',
    async (path) => {
      expect((await ask('viewer', path)).json.code).toBe('forbidden');
    },
  );
});

test.each<[TokenName, number]>([
  ['viewer', 403],
  ['operator', 403],
  ['auditor', 200],
])('%s asks for a value that may identify a person: %i', async (by, status) => {
  expect((await ask(by, where('sourceAddress=10.9.8.7:65'))).status).toBe(status);
  expect((await ask(by, '/v1/audit/count?where=path%3D%2Fsecret')).status).toBe(status);
});

test('reading is recorded, without values that may identify a person', async () => {
  await ask('auditor', where('sourceAddress=10.1.2.3:4'));
  await ask('auditor', '/v1/audit/count?by=type&text=shop');
  const details = (await harness.events('admin'))
    .filter(({ action }) => action === 'audit_read')
    .map(({ detail }) => detail);
  expect(details).toContain('where=sourceAddress=(a value)');
  expect(details).toContain('text=shop by=type');
  expect(JSON.stringify(details)).not.toMatch(/10\.1\.2\.3|10\.9\.8\.7|secret/);
});
