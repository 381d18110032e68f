import { Socket } from 'node:net';
import { afterAll, describe, expect, test } from 'vitest';
import type { DecisionEvent } from '../../src/audit/event.ts';
import type { CandidateCallsEvent } from '../../src/audit/rollout-event.ts';
import { parsePolicy } from '../../src/authz/parse.ts';
import { compileSnapshot, type Snapshot } from '../../src/authz/snapshot.ts';
import { systemClock } from '../../src/clock.ts';
import { type CandidateCall, createCandidateCounter } from '../../src/ext-authz/candidate-counter.ts';
import { readAsEnvoy } from '../../src/ext-authz/response.ts';
import { createExtAuthzService, type ExtAuthzOptions } from '../../src/ext-authz/service.ts';
import { enrollPeer } from '../../src/grpc/connections.ts';
import { noBans } from '../../src/identity/ban-list.ts';
import type { LiveRollout } from '../../src/identity/candidate.ts';
import type { UnixPeer } from '../../src/identity/evidence.ts';
import { SpiffeId, TrustDomain } from '../../src/spiffe/id.ts';
import { readDocuments } from '../../src/yaml.ts';
import { manualClock } from '../harness/manual-clock.ts';
import { checkBytes, type CheckInput } from './check-input.ts';

const rollout = 'ab'.repeat(16);
const callOf = (change: Partial<CandidateCall> = {}): CandidateCall => ({
  time: new Date('2026-01-31T12:00:00.000Z'),
  rollout,
  change: 'newly_denied',
  applied: 'active',
  reason: 'allow_rule',
  rule: 'shop/a rule[0]',
  candidateReason: 'no_allow_rule',
  candidateRule: '',
  revision: 3,
  source: 'spiffe://mesh.test/ns/shop/sa/web',
  destination: 'spiffe://mesh.test/ns/shop/sa/orders',
  protocol: 'http',
  method: 'GET',
  pathPattern: '/a/*',
  port: 8_080,
  caller: { pid: 1, uid: 2, gid: 3 },
  ...change,
});
const same = callOf({ change: 'same', source: '', method: '', pathPattern: '', rule: '' });

function start(maxKinds?: number) {
  const told: CandidateCallsEvent[] = [];
  const counter = createCandidateCounter({
    windowMs: 10_000,
    clock: manualClock(),
    tell: (event) => told.push(event),
    ...(maxKinds === undefined ? {} : { maxKinds }),
  });
  return { ...counter, told, counts: () => told.map(({ count }) => count) };
}

describe('calls that a candidate was asked about', () => {
  test('are told at once when the first of a kind came, and then together', () => {
    const { add, flush, told, counts } = start();
    for (let n = 0; n < 5; n++) add(callOf({ time: new Date(1_000 + n) }));
    expect(counts()).toEqual([1]);
    flush();
    expect(counts()).toEqual([1, 4]);
    expect(told[1]).toMatchObject({ from: new Date(1_001), to: new Date(1_004), time: new Date(1_004) });
    add(callOf());
    expect(counts()).toEqual([1, 4]);
    flush();
    expect(counts()).toEqual([1, 4, 1]);
    flush();
    expect(counts()).toEqual([1, 4, 1]);
  });

  test.each<[string, Partial<CandidateCall>]>([
    ['the other way round', { change: 'newly_allowed' }],
    ['answered by the candidate', { applied: 'candidate' }],
    ['saved by falling back', { applied: 'fallback' }],
    ['of another caller', { source: 'spiffe://mesh.test/ns/shop/sa/job' }],
    ['to another workload', { destination: 'spiffe://mesh.test/ns/shop/sa/other' }],
    ['with another method', { method: 'PUT' }],
    ['by another path', { pathPattern: '/b' }],
    ['by another rule of the candidate', { candidateRule: 'shop/b rule[0]', candidateReason: 'deny_rule' }],
    ['of another rollout', { rollout: 'cd'.repeat(16) }],
    ['through another proxy', { caller: { pid: 9, uid: 2, gid: 3 } }],
  ])('are told apart: %s', (_, change) => {
    const { add, counts } = start();
    add(callOf());
    add(callOf(change));
    expect(counts()).toEqual([1, 1]);
  });

  test('are one kind for a destination when both agree', () => {
    const { add, flush, counts } = start();
    add(same);
    add({ ...same, source: 'spiffe://mesh.test/x', method: 'PUT' });
    flush();
    expect(counts()).toEqual([1, 1]);
  });

  test('are all told when their kinds are too many', () => {
    const { add, told } = start(8);
    for (let n = 0; n < 100; n++) add(callOf({ method: `M${n}` }));
    expect(told).toHaveLength(100);
  });
});

describe('at the door', () => {
  const orders = SpiffeId.parse('spiffe://example.org/ns/shop/sa/orders');
  const peer = { connectionId: 'rollout', pid: 11, uid: 12, gid: 13 };
  const socket = new Socket();
  enrollPeer({ kind: 'unix', ...peer, isAlive: () => true } satisfies UnixPeer, socket);
  afterAll(() => socket.destroy());

  const snapshotOf = (rule: string, previous?: Snapshot): Snapshot =>
    compileSnapshot({
      revision: 7,
      trustDomain: TrustDomain.parse('example.org'),
      rootNamespace: 'istio-system',
      policies: readDocuments({
        file: 'p.yaml',
        text: `{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {name: p, namespace: shop}, spec: {rules: [${rule}]}}`,
      }).map(parsePolicy),
      workloads: [{ id: orders, labels: {} }],
      ...(previous === undefined ? {} : { previous }),
    });
  const active = snapshotOf('{to: [{operation: {methods: [GET, POST], paths: ["/orders/*"]}}]}');
  const candidate = snapshotOf('{to: [{operation: {methods: [GET, PUT], paths: ["/orders/1"]}}]}', active);

  function start(stage: 'shadow' | 'canary', options: Partial<ExtAuthzOptions> = {}) {
    const [compared, records, counted]: [CandidateCall[], DecisionEvent[], unknown[]] = [[], [], []];
    const state = { id: rollout, stage, percent: stage === 'canary' ? 100 : 0, maxNewDenials: 0 };
    const live = { rollout: state, candidate: { policies: new Map(), snapshot: candidate } };
    const { implementation } = createExtAuthzService({
      attest: async () => ({ selectors: [] }) as never,
      entitledIds: () => [orders],
      snapshot: () => active,
      rollout: () => live as unknown as LiveRollout,
      compare: (call) => compared.push(call),
      bans: () => noBans,
      record: (event) => records.push(event),
      count: (call) => counted.push(call),
      clock: systemClock,
      newDecisionId: () => 'd-1',
      observer: { decided: () => undefined, outage: () => undefined, failed: () => undefined },
      ...options,
    });
    const check = (input: CheckInput) =>
      new Promise((resolve) => {
        const call = { request: checkBytes(input), getPeer: () => peer.connectionId };
        implementation.check(call as never, (_, bytes) => resolve(readAsEnvoy(bytes ?? Buffer.alloc(0))));
      });
    return { check, compared, records, counted };
  }

  test('a shadow answers as ever and tells what differs, by the path of the rule that allows', async () => {
    const { check, compared, counted, records } = start('shadow');
    expect([await check({}), await check({ method: 'POST' }), await check({ method: 'PUT' })]).toEqual([
      'allow',
      'allow',
      'deny',
    ]);
    expect(
      compared.map(({ change, applied, method, pathPattern }) => [change, applied, method, pathPattern]),
    ).toEqual([
      ['same', 'active', '', ''],
      ['newly_denied', 'active', 'POST', '/orders/*'],
      ['newly_allowed', 'active', 'PUT', '/orders/1'],
    ]);
    expect([counted.length, records.map(({ verdict, rollout: by }) => [verdict, by])]).toEqual([
      2,
      [['deny', undefined]],
    ]);
  });

  test('a canary answers with what it newly allows, in a record that names it, and saves what it would deny', async () => {
    const { check, compared, counted, records } = start('canary');
    expect([await check({ method: 'PUT' }), await check({ method: 'POST' })]).toEqual(['allow', 'allow']);
    expect(compared.map(({ change, applied }) => `${change} ${applied}`)).toEqual([
      'newly_allowed candidate',
      'newly_denied fallback',
    ]);
    expect(records).toMatchObject([{ verdict: 'allow', rollout, rule: 'shop/p rule[0]' }]);
    expect(counted).toHaveLength(1);
  });

  test('connections without HTTP are judged by both, too', async () => {
    const { check, compared } = start('shadow');
    expect(await check({ http: null })).toBe('deny');
    expect(compared).toMatchObject([{ change: 'same' }]);
  });

  test('what cannot be told denies nobody', async () => {
    const errors: unknown[] = [];
    const { check } = start('shadow', {
      compare: () => {
        throw new Error('full');
      },
      observer: { decided: () => undefined, outage: () => undefined, failed: (error) => errors.push(error) },
    });
    expect(await check({})).toBe('allow');
    expect(errors).toHaveLength(1);
  });
});
