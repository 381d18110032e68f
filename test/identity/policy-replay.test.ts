import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import type { AuditEvent } from '../../src/audit/event.ts';
import { replayPolicies } from '../../src/identity/policy-replay.ts';
import { outcomes } from '../audit/events.ts';
import { id } from '../http/documents.ts';
import { fromWeb, job, ledger, pay, type ReplayWorld, startReplayWorld, web } from './replay-world.ts';

let world: ReplayWorld;
beforeAll(async () => {
  world = await startReplayWorld();
});
beforeEach(() => world.begin());
afterAll(() => world.close());

const webMay = (operation: string, rest = '') =>
  pay('p', `rules: [{ ${fromWeb}, to: [{ operation: { ${operation} } }]${rest} }]`);
const anyPath = pay('p', `rules: [{ ${fromWeb} }]`);
const deny = (rule: string) => pay('no', `action: DENY\n  rules: [{ ${rule} }]`);
const when = ", when: [{ key: 'request.headers[x-a]', values: [a] }]";

type Row = readonly [
  name: string,
  inForce: readonly string[],
  events: (world: ReplayWorld) => readonly AuditEvent[],
  candidate: readonly string[],
  /** Newly denied, newly allowed, unchanged, not told. */
  totals: readonly [number, number, number, number],
];

test.each<Row>([
  [
    'calls that were counted, by a method that goes',
    [webMay("methods: [GET, POST], paths: ['/accounts/*']")],
    ({ counted }) => [counted(), counted({ method: 'POST', count: 3 })],
    [webMay("methods: [GET], paths: ['/accounts/*']")],
    [3, 0, 10, 0],
  ],
  [
    'paths of a pattern that is no wider now, is other, and is in part allowed',
    [webMay("paths: ['/accounts/*', '/b', '/c*']")],
    ({ counted }) => [
      counted({ pathPattern: '/accounts/*', count: 1 }),
      counted({ pathPattern: '/b', count: 2 }),
      counted({ pathPattern: '/c*', count: 4 }),
    ],
    [webMay("paths: ['/acc*', '/c/*']")],
    [2, 0, 1, 4],
  ],
  [
    'paths that the rule did not name',
    [anyPath],
    ({ counted }) => [counted({ pathPattern: '*' })],
    [webMay("paths: ['/accounts/*']")],
    [0, 0, 0, 10],
  ],
  [
    'a rule by a header that goes: the record says that it matched',
    [pay('p', `rules: [{ ${fromWeb}${when} }]`)],
    ({ counted }) => [counted({ pathPattern: '*' })],
    [pay('p', 'rules: [{ from: [{ source: { principals: [x/y] } }] }]')],
    [10, 0, 0, 0],
  ],
  [
    'a rule by a header that stays beside others',
    [pay('p', `rules: [{ ${fromWeb}${when} }]`)],
    ({ counted }) => [counted({ pathPattern: '*' })],
    [deny("from: [{ source: { principals: ['*/job'] } }]")],
    [0, 0, 10, 0],
  ],
  [
    'a DENY by a header that is new',
    [anyPath],
    ({ counted }) => [counted({ pathPattern: '*' })],
    [deny(`when: [{ key: 'request.headers[x-a]', values: [a] }]`)],
    [0, 0, 0, 10],
  ],
  [
    'a DENY by a host that was there: it did not match then',
    [anyPath, deny('to: [{ operation: { hosts: [evil] } }]')],
    ({ counted }) => [counted({ pathPattern: '*' })],
    [pay('more', "rules: [{ from: [{ source: { principals: ['*/job'] } }] }]")],
    [0, 0, 10, 0],
  ],
  [
    'denials that a new rule allows, by their paths',
    [anyPath],
    ({ decided }) => [
      decided({ source: job, path: { personal: '/accounts/7' } }),
      decided({ source: job, path: { personal: '/admin' } }),
    ],
    [
      pay(
        'jobs',
        "rules: [{ from: [{ source: { principals: ['*/job'] } }], to: [{ operation: { paths: ['/accounts/*'] } }] }]",
      ),
    ],
    [0, 1, 1, 0],
  ],
  [
    'denials by address',
    [anyPath],
    ({ decided }) => [
      decided({ source: job, sourceAddress: { personal: '10.1.2.3:4000' } }),
      decided({ source: job, sourceAddress: { personal: '[2001:db8::1]:4000' } }),
      decided({ source: job, sourceAddress: { personal: '' } }),
    ],
    [pay('jobs', "rules: [{ from: [{ source: { ipBlocks: ['10.0.0.0/8', '2001:db8::/32'] } }] }]")],
    [0, 2, 1, 0],
  ],
  [
    'what was decided before any policy, whatever the policies',
    [anyPath],
    ({ decided }) => [
      decided({ source: job, reason: 'request_ambiguous', path: { personal: '/a//b' } }),
      decided({ source: '', reason: 'unauthenticated' }),
      decided({ source: '', reason: 'caller_unknown', destination: '' }),
    ],
    [pay('jobs', 'rules: [{}]')],
    [0, 0, 3, 0],
  ],
  [
    'records that nobody can read',
    [anyPath],
    ({ decided, counted }) => [
      decided({ source: 'spiffe://example.org/ns/shop/sa/we\u001b[31mb' }),
      decided({ destination: `${ledger}…` }),
      counted({ method: 'GET…' }),
      counted({ pathPattern: '/a…', count: 1 }),
      counted({ protocol: 'quic', count: 1 }),
    ],
    [webMay("paths: ['/accounts/*']")],
    [0, 0, 0, 14],
  ],
  [
    'connections',
    [anyPath],
    ({ counted }) => [
      counted({ protocol: 'tcp', method: '', pathPattern: '*', port: 5_432 }),
      counted({ protocol: 'tcp', method: '', pathPattern: '*', port: 5_433, count: 1 }),
    ],
    [webMay("ports: ['5432']")],
    [1, 0, 10, 0],
  ],
  [
    'identities that are registered no more, and policies that nobody knows',
    [anyPath],
    ({ counted }) => [
      counted({ source: id('gone'), rule: 'pay/unheard rule[7]', revision: 99_999 }),
      counted({ destination: id('elsewhere', 'pay'), revision: 0 }),
    ],
    [webMay('methods: [PUT]')],
    [10, 0, 10, 0],
  ],
])('%s', async (_, inForce, events, candidate, totals) => {
  await world.apply(...inForce);
  await world.record(events(world));
  const { totals: found, complete, edges } = await world.replay({ texts: candidate });
  const { newlyDenied, newlyAllowed, unchanged, unknown } = found;
  expect([newlyDenied, newlyAllowed, unchanged, unknown]).toEqual(totals);
  expect(complete).toBe(true);
  expect(edges.reduce((sum, { calls }) => sum + calls, 0)).toBe(newlyDenied + newlyAllowed + unknown);
  // What is in force denies and allows nothing anew.
  const same = await world.replay({ texts: inForce });
  expect(same.totals).toMatchObject({ newlyDenied: 0, newlyAllowed: 0, unknown: 0, unchanged: found.calls });
});

test('an edge says who, how often, when, what denies and what allows now', async () => {
  await world.apply(webMay("methods: [GET, POST], paths: ['/accounts/*']"));
  await world.record([world.counted({ method: 'POST', count: 3 }), world.counted()]);
  const first = world.clock.now();
  await world.clock.advance(60_000);
  await world.record([world.counted({ method: 'POST', count: 4 })]);
  const answer = await world.replay({ texts: [webMay("methods: [GET], paths: ['/accounts/*']")] });
  expect(answer.edges).toEqual([
    {
      class: 'newly_denied',
      ...{
        source: web,
        destination: ledger,
        protocol: 'http',
        method: 'POST',
        path: '/accounts/*',
        port: 8_080,
      },
      ...{ calls: 7, records: 2, first, last: world.clock.now(), recorded: { allowed: 7, denied: 0 } },
      index: expect.any(Number),
      before: { verdict: 'allow', reason: 'allow_rule', rule: 'pay/p rule[0]', place: '0.yaml:5:11' },
      after: { verdict: 'deny', reason: 'no_allow_rule', rule: '', place: '' },
      nearest: {
        rule: 'pay/p rule[0]',
        place: 'new-0.yaml:5:108',
        missed: 'methods is GET, the call used POST',
      },
      dependsOn: [],
    },
  ]);
  expect(answer.candidate).toEqual({
    changes: [{ kind: 'policy', key: 'pay/p', action: 'updated' }],
    refused: null,
    warnings: [],
  });
  // Nothing was changed.
  expect(world.mesh.current().policies.get('pay/p')?.source).toContain('POST');
});

describe('what is meant', () => {
  let noon: Date;
  beforeEach(async () => {
    noon = new Date(world.clock.now().getTime() + 43_200_000);
    await world.clock.advance(86_000_000);
    await world.apply(anyPath, pay('p', `rules: [{ ${fromWeb} }]`, 'shop'));
    const old = { time: new Date(noon.getTime() - 1) };
    await world.record([
      world.counted(),
      world.counted({ destination: job, rule: 'shop/p rule[0]', count: 5 }),
      world.counted({ ...old, from: old.time, to: old.time, count: 100 }),
    ]);
  });
  const nothing = ['pay', 'shop'].map((namespace) =>
    pay('p', 'rules: [{ from: [{ source: { principals: [x/y] } }] }]', namespace),
  );
  test.each<[object, number]>([
    [{}, 115],
    [{ since: 'noon' }, 15],
    [{ until: 'noon' }, 100],
    [{ destination: job }, 5],
    [{ destination: id('nobody') }, 0],
    [{ namespace: 'pay' }, 110],
    [{ namespace: 'nothing' }, 0],
  ])('%j', async (meant, calls) => {
    const times = Object.fromEntries(
      Object.entries(meant).map(([name, value]) => [name, value === 'noon' ? noon : value]),
    );
    const { totals, missing } = await world.replay({ texts: nothing }, times);
    expect([totals.newlyDenied, totals.calls]).toEqual([calls, calls]);
    expect(missing.some((what) => what.startsWith('any call'))).toBe(calls === 0);
  });
  test('policies that would be deleted, and those that are not there', async () => {
    const { totals, candidate } = await world.replay({ without: ['pay/p'] });
    expect([totals.newlyDenied, totals.unchanged]).toEqual([110, 5]);
    expect(candidate.changes).toEqual([{ kind: 'policy', key: 'pay/p', action: 'deleted' }]);
    await expect(world.replay({ without: ['pay/other'] })).rejects.toMatchObject({
      code: 'policy_not_found',
    });
  });
  test('a revision', async () => {
    await world.apply(nothing[0]!);
    const { number } = world.mesh.current().policyRevision!;
    const { totals } = await world.replay({ revision: number - 1 });
    expect([totals.newlyAllowed, totals.unchanged]).toEqual([110, 5]);
    await expect(world.replay({ revision: 7_777 })).rejects.toMatchObject({
      code: 'policy_revision_not_found',
    });
  });
  test('edges beyond the limit are counted', async () => {
    const { edges, moreEdges } = await world.replay({ texts: nothing }, {}, 1);
    expect([edges.length, edges[0]?.calls, moreEdges]).toEqual([1, 110, 1]);
  });
});

test('paths may be withheld, and nothing is made of them', async () => {
  await world.apply(anyPath);
  await world.record([world.decided({ source: job, path: { personal: '/secret' } })]);
  const wider = pay('jobs', "rules: [{ to: [{ operation: { paths: ['/secret'] } }] }]");
  const { totals, edges, missing } = await world.replay({ texts: [wider] }, { mayReadPersonal: false });
  expect(totals).toMatchObject({ newlyAllowed: 0, unknown: 1 });
  expect(edges[0]).toMatchObject({ path: null, dependsOn: ['request.path'] });
  expect(missing.join()).toContain('audit:personal');
  expect((await world.replay({ texts: [wider] })).edges[0]).toMatchObject({
    class: 'newly_allowed',
    path: '/secret',
  });
});

test('a record of a workload that was registered anew since shows nothing of DENY rules', async () => {
  await world.apply(anyPath, deny('to: [{ operation: { hosts: [evil] } }]'));
  await world.record([world.counted()]);
  const more = pay('more', "rules: [{ from: [{ source: { principals: ['*/job'] } }] }]");
  expect((await world.replay({ texts: [more, webMay("methods: ['*']")] })).totals.unchanged).toBe(10);
  await world.mesh.updateEntry('ledger', { hint: 'other' }, { kind: 'uid', uid: 0, role: 'admin' });
  // Both depend on the same rule: nothing changes. With other rules nobody can tell.
  expect((await world.replay({ texts: [more] })).totals.unchanged).toBe(10);
  const other = await world.replay({ texts: [more, deny('to: [{ operation: { hosts: [evil, worse] } }]')] });
  expect(other.totals.unknown).toBe(10);
});

test('a candidate that would be refused says so, and is judged all the same', async () => {
  await world.apply(anyPath);
  await world.record([world.counted()]);
  const tested = `${webMay('methods: [PUT]')}  tests: [{ name: may read, allow: { from: example.org/ns/shop/sa/web, to: example.org/ns/pay/sa/ledger, method: GET, path: / } }]\n`;
  const { candidate, totals } = await world.replay({ texts: [tested] });
  expect(candidate.refused).toMatchObject({
    code: 'policy_test_failed',
    place: expect.stringContaining('new-0.yaml:'),
  });
  expect(totals.newlyDenied).toBe(10);
  await expect(world.replay({ texts: ['{'] })).rejects.toMatchObject({ code: 'document_syntax' });
});

test('what proxies alone told is judged as far as it goes', async () => {
  await world.apply(anyPath);
  const time = world.clock.now();
  const seen = {
    time,
    from: time,
    to: time,
    destination: ledger,
    rule: '',
    method: 'GET',
    outcome: 'ok',
  } as const;
  await world.record([
    world.counted(),
    // Of these the decisions are in the log.
    outcomes({ ...seen, source: web, count: 10 }),
    outcomes({ ...seen, source: job, count: 4 }),
    outcomes({ ...seen, source: job, method: 'OTHER', count: 1 }),
  ]);
  const { totals, edges } = await world.replay({
    texts: [
      pay('no', 'action: DENY\n  rules: [{ to: [{ operation: { methods: [GET] } }] }]'),
      pay('jobs', 'rules: [{}]'),
    ],
  });
  expect(totals).toMatchObject({ calls: 15, seen: 5, newlyDenied: 10, unknown: 1, unchanged: 4 });
  expect(edges.find((edge) => edge.class === 'unknown')).toMatchObject({ source: job, path: null });
});

test('a port that a proxy did not tell is not known', async () => {
  // With it in force all calls to a port that is not known would be denied before and after.
  await world.apply(anyPath, deny('to: [{ operation: { ports: ["9000"] } }]'));
  const time = world.clock.now();
  const told = { time, from: time, to: time, source: web, destination: ledger, rule: '', method: 'GET' };
  await world.record([outcomes({ ...told, outcome: 'ok', port: 0, count: 2 })]);
  const { totals } = await world.replay({ texts: [pay('no', 'action: DENY\n  rules: [{}]')] });
  expect(totals).toMatchObject({ newlyDenied: 2, unchanged: 0, unknown: 0 });
});

test('a banned caller is denied before and after', async () => {
  const by = { kind: 'uid', uid: 0, role: 'admin' } as const;
  await world.apply(anyPath);
  await world.record([world.counted()]);
  const target = { kind: 'spiffe-id', value: web };
  await world.mesh.ban({ ...target, reason: 'taken over' }, by);
  expect((await world.replay({ texts: [webMay('methods: [PUT]')] })).totals).toMatchObject({ unchanged: 10 });
  await world.mesh.unban(target.kind, target.value, by);
});

test('one at a time, and who goes away is not answered', async () => {
  await world.apply(anyPath);
  await world.record([world.counted()]);
  const open = world.openReplay(() => true);
  expect(() => world.openReplay(() => false)).toThrow(
    expect.objectContaining({ code: 'policy_replay_busy' }),
  );
  const choice = { files: [], without: ['pay/p'], revision: null };
  const meant = {
    since: world.clock.now(),
    until: null,
    destination: null,
    namespace: null,
    mayReadPersonal: true,
  };
  expect(await replayPolicies(choice, meant, 10, open.ports)).toBeUndefined();
  const late = { ...open.ports, isLeft: () => false, isTimeUp: () => true };
  open.close();
  expect(await replayPolicies(choice, meant, 10, late)).toMatchObject({ complete: true });
  world.openReplay(() => false).close();
});

test('in Istio mode calls that were counted cannot be told where policies change', async () => {
  const istio = await startReplayWorld('istio');
  await istio.apply(anyPath, pay('p', `rules: [{ ${fromWeb} }]`, 'shop'));
  await istio.record([
    istio.counted({ pathPattern: '*' }),
    istio.counted({ destination: job, count: 1 }),
    istio.decided({ source: job }),
  ]);
  const { totals, missing, mode } = await istio.replay({ texts: [pay('jobs', 'rules: [{}]')] });
  expect([mode, totals]).toEqual([
    'istio',
    expect.objectContaining({ unknown: 10, newlyAllowed: 1, unchanged: 1 }),
  ]);
  expect(missing.join()).toContain('in Istio mode');
  await istio.close();
});
