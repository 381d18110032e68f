import { describe, expect, test } from 'vitest';
import { type CandidateCall, createCandidateCounter } from '../../src/ext-authz/candidate-counter.ts';
import type { CandidateCallsEvent } from '../../src/audit/rollout-event.ts';
import { manualClock } from '../harness/manual-clock.ts';

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
