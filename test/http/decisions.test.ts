import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { DecisionEvent } from '../../src/audit/event.ts';
import { untold } from '../../src/authz/context.ts';
import { SpiffeId } from '../../src/spiffe/id.ts';
import { decision } from '../audit/events.ts';
import type { TokenName } from './callers.ts';
import { type Harness, startHarness } from './harness.ts';

let harness: Harness;
beforeAll(async () => {
  harness = await startHarness();
  await apply('the first', policy('ledger', allow('[GET, POST]')));
});
afterAll(() => harness.close());

const web = 'spiffe://example.org/ns/shop/sa/web';
const ledger = 'spiffe://example.org/ns/pay/sa/ledger';
const allow = (methods: string) =>
  `rules: [{ from: [{ source: { principals: [example.org/ns/shop/sa/web] } }], to: [{ operation: { methods: ${methods} } }] }]`;
const policy = (name: string, spec: string, namespace = 'pay') =>
  `apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: { name: ${name}, namespace: ${namespace} }\nspec:\n  ${spec}\n`;

async function apply(message: string, text: string): Promise<void> {
  harness.clock.move(60_000);
  const files = [{ file: 'p.yaml', text }];
  const { status, text: said } = await harness.overTls({
    method: 'POST',
    path: '/v1/apply',
    body: { files, message },
  });
  expect([status, said]).toEqual([200, expect.any(String)]);
}

let made = 0;
/** Judges a call as the door does, and records it. @returns the ID */
async function call(method: string, change: Partial<DecisionEvent> = {}): Promise<string> {
  harness.clock.move(60_000);
  const { verdict, reason, rule, why, revision } = harness.ports.checkAuthz({
    source: SpiffeId.parse(web),
    destination: SpiffeId.parse(ledger),
    ...{ method, path: '/charges', host: 'ledger.pay:8080', port: 8_080, context: untold },
  });
  const decisionId = `made-${(made += 1)}`;
  const judged = { verdict, reason, rule, why, revision, decisionId, time: harness.clock.now() };
  const event = decision({
    source: web,
    destination: ledger,
    method,
    path: { personal: '/charges' },
    ...judged,
  });
  await harness.store.recordEvents([{ ...event, ...change }]);
  return decisionId;
}

const ask = (id: string, by: TokenName = 'admin') =>
  harness.overTls({ path: `/v1/authz/decisions/${id}` }, by);
async function explain(id: string, by: TokenName = 'admin') {
  const { status, json } = await ask(id, by);
  expect(status).toBe(200);
  expect([json.items.length, json.more]).toEqual([1, false]);
  return json.items[0];
}

test('a denial: what decided then, what would allow it now, and the edit that did', async () => {
  const id = await call('PUT');
  const before = await explain(id);
  expect(before.record).toMatchObject({
    verdict: 'deny',
    reason: 'no_allow_rule',
    path: '/charges',
    sourceAddress: '127.0.0.1:40000',
    proxy: { node: '', uid: 1_000 },
  });
  expect(before.past).toMatchObject({
    policyRevision: { number: 1, message: 'the first' },
    mode: 'strict',
    why: '',
    rule: {
      kind: 'nearest',
      rule: 'pay/ledger rule[0]',
      at: {
        place: expect.stringMatching(/^p\.yaml:5:\d+$/),
        text: expect.stringContaining('methods: [GET, POST]'),
      },
      used: 'the call used PUT',
    },
  });
  expect(before.now).toMatchObject({ verdict: 'deny', reason: 'no_allow_rule', dependsOn: [] });
  expect(before.now.explanation.remedy.edits).toMatchObject([{ kind: 'add', values: ['PUT'] }]);
  expect(before.change).toEqual({ isSame: true, by: null, why: 'the same now' });
  expect(before.notHeld).toContain('headers');

  await apply('web may put', policy('ledger', allow('[GET, PUT]')));
  await apply('somebody else', policy('web', '{}', 'shop'));
  const after = await explain(id);
  expect(after.past.rule.at.text).toContain('[GET, POST]');
  expect(after.now).toMatchObject({ verdict: 'allow', reason: 'allow_rule', rule: 'pay/ledger rule[0]' });
  expect(after.change).toMatchObject({
    isSame: false,
    by: { number: 2, message: 'web may put', author: { kind: 'token' } },
  });
});

test('an allowed call that is denied since', async () => {
  const id = await call('GET');
  await apply('nobody in', policy('shut', 'action: DENY\n  rules: [{}]'));
  const { past, now, change } = await explain(id);
  expect(past.rule).toMatchObject({ kind: 'decided', rule: 'pay/ledger rule[0]', used: '' });
  expect(now).toMatchObject({ verdict: 'deny', reason: 'deny_rule', rule: 'pay/shut rule[0]' });
  expect(now.explanation.remedy.exemptions).toHaveLength(1);
  expect(change.by).toMatchObject({ message: 'nobody in' });
  await harness.overTls({ method: 'DELETE', path: '/v1/policies/pay/shut?message=open' });
});

test('what depends on what the log does not hold cannot be told', async () => {
  const id = await call('PATCH');
  const spec = `${allow('[PATCH]').slice(0, -2)}, when: [{ key: 'request.headers[x-team]', values: [red] }] }]`;
  await apply('by team', policy('team', spec));
  const { now, change } = await explain(id);
  expect(now).toMatchObject({
    verdict: 'unknown',
    reason: null,
    dependsOn: ['request.headers[x-team]'],
    allow: [{ rule: 'pay/team rule[0]', when: [['request.headers[x-team] is red']] }],
    unless: [],
    explanation: null,
  });
  expect(change).toMatchObject({ isSame: null, by: null });
  await harness.overTls({ method: 'DELETE', path: '/v1/policies/pay/team' });
});

test('no edit is named where another thing changed: a label, a ban, a policy that ended', async () => {
  const banned = await call('GET');
  const ban = { kind: 'spiffe-id', value: web, reason: 'a secret' };
  await harness.overTls({ method: 'POST', path: '/v1/bans', body: ban });
  expect(await explain(banned)).toMatchObject({
    now: { verdict: 'deny', reason: 'banned', why: expect.stringContaining('a secret') },
    change: { isSame: false, by: null, why: 'a ban denies it now, and no policy' },
  });
  await harness.overTls({ method: 'DELETE', path: `/v1/bans/spiffe-id/${encodeURIComponent(web)}` });

  const untilMs = harness.clock.now().getTime() + 600_000;
  const short = `expiresAt: ${new Date(untilMs).toISOString()}\n  ${allow('[HEAD]')}`;
  await apply('for ten minutes', policy('short', short));
  const ended = await call('HEAD');
  harness.clock.move(600_000);
  expect(await explain(ended)).toMatchObject({
    now: { verdict: 'deny' },
    change: { isSame: false, by: null, why: expect.stringContaining('begun or ended') },
  });

  // As if the destination had had another label then.
  const label = await call('GET', {
    verdict: 'deny',
    reason: 'no_policy',
    rule: '',
    why: 'no policy applies',
  });
  expect(await explain(label)).toMatchObject({
    now: { verdict: 'allow' },
    change: { isSame: false, by: null, why: expect.stringContaining('more than policies has changed') },
  });
});

test.each<[string, Partial<DecisionEvent>, object]>([
  [
    'a proxy that is nobody',
    { reason: 'caller_unknown', destination: 'x y', why: 'the proxy has no identity here' },
    { now: null, change: { isSame: null } },
  ],
  [
    'a proxy that spoke for another',
    { reason: 'destination_forged' },
    { now: { verdict: 'unknown', reason: null } },
  ],
  [
    'a call that the door refused, whatever the policies say',
    { reason: 'request_ambiguous', why: 'the request names more than one host' },
    { now: { verdict: 'deny', reason: 'request_ambiguous' }, change: { isSame: true } },
  ],
  [
    'a path that nobody may use',
    { reason: 'request_ambiguous', why: 'the path has an empty segment (//)', path: { personal: '//x' } },
    { now: { verdict: 'deny', reason: 'request_ambiguous', why: 'the path has an empty segment (//)' } },
  ],
  [
    'no certificate',
    { source: '', sourceSerial: '' },
    { now: { verdict: 'deny', reason: 'unauthenticated' } },
  ],
  [
    'a mesh revision that never was',
    { revision: 9_999 },
    { past: { policyRevision: null, why: expect.stringContaining('has not come to mesh revision 9999') } },
  ],
  ['no mesh revision', { revision: 0 }, { past: { policyRevision: null, why: expect.any(String) } }],
  [
    'a rule that is nowhere',
    { reason: 'deny_rule', rule: 'pay/none rule[7]' },
    { past: { rule: { rule: 'pay/none rule[7]', at: null } } },
  ],
  [
    'a time before the policies it names',
    { time: new Date('2020-01-01T00:00:00Z') },
    { past: { why: expect.stringContaining('made after the call') } },
  ],
  [
    'a path that was cut',
    { path: { personal: `/${'a'.repeat(50)}…` } },
    { notHeld: expect.arrayContaining(['the path']) },
  ],
  [
    'a nearest rule of which the words were cut',
    { why: 'no ALLOW rule matched; the nearest is pay/ledger rule[0], where methods is one of GET, …' },
    { past: { rule: { kind: 'nearest', at: { text: expect.stringContaining('methods') }, used: '' } } },
  ],
  [
    'a nearest rule of which the words were cut to what several say',
    { why: 'no ALLOW rule matched; the nearest is pay/ledger rule[0], where …' },
    { past: { rule: { kind: 'nearest', at: { length: 1 }, used: '' } } },
  ],
  [
    'a TCP connection',
    { protocol: 'tcp', method: '', host: '' },
    { now: { verdict: 'deny', reason: 'no_allow_rule' } },
  ],
])('a record of %s', async (_, change, expected) => {
  const id = await call('OPTIONS');
  await harness.store.recordEvents([decision({ ...(await recordOf(id)), ...change, decisionId: `${id}-b` })]);
  expect(await explain(`${id}-b`)).toMatchObject(expected);
});

/** The record as an event. */
async function recordOf(id: string): Promise<Partial<DecisionEvent>> {
  const { rows } = await harness.store.findDecisions(id, 1);
  const { time, path: _, sourceAddress: __, ...event } = JSON.parse(rows[0]?.leaf ?? '{}');
  return { ...event, time: new Date(time), path: { personal: '/charges' } };
}

describe('who asks', () => {
  test('learns nothing of what they may not read', async () => {
    const id = await call('GET');
    const { record, now, notHeld } = await explain(id, 'operator');
    expect([record.path, record.sourceAddress]).toEqual([null, null]);
    // No rule reads the path, so the answer is the same for any.
    expect(now).toMatchObject({ verdict: 'allow', explanation: { request: { path: '' } } });
    expect(notHeld).toEqual(expect.arrayContaining(['the path', 'the address of the caller']));
  });

  test.each<[TokenName, string, number, string]>([
    ['viewer', 'made-1', 403, 'forbidden'],
    ['shopViewer', 'made-1', 403, 'forbidden'],
    ['policy-author', 'made-1', 403, 'forbidden'],
    ['shopAuthor', 'made-1', 403, 'forbidden'],
    ['auditor', 'made-none', 404, 'decision_not_found'],
    ['auditor', 'a b', 400, 'decision_id_invalid'],
    ['auditor', '%00', 400, 'decision_id_invalid'],
    ['auditor', 'a'.repeat(65), 400, 'decision_id_invalid'],
    ['auditor', "'%20OR%201=1", 400, 'decision_id_invalid'],
    ['auditor', 'made-%25', 400, 'decision_id_invalid'],
  ])('%s asks for %s', async (by, id, status, code) => {
    const answer = await ask(encodeURI(decodeURI(id)), by);
    expect([answer.status, answer.json.code]).toEqual([status, code]);
  });

  test('is on record with the question, also when there is no answer', async () => {
    await ask('no-such-one', 'auditor');
    const reads = (await harness.events('admin')).filter(({ action }) => action === 'audit_read');
    expect(reads.at(-1)).toMatchObject({ detail: 'decision=no-such-one', route: '/v1/authz/decisions/:id' });
  });
});

test('an ID that was used again: all records, the first first, and that there are more', async () => {
  const id = await call('GET');
  const caller = { pid: 1, uid: 1, gid: 1, node: 'evil' };
  const copies = Array.from({ length: 6 }, () => decision({ decisionId: id, caller }));
  await harness.store.recordEvents(copies);
  const { json } = await ask(id);
  expect(json.items.map((item: { record: { proxy: { node: string } } }) => item.record.proxy.node)).toEqual([
    '',
    'evil',
    'evil',
    'evil',
  ]);
  expect(json.more).toBe(true);
});
