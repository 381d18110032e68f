import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { AllowedCallsEvent } from '../../src/audit/event.ts';
import { type AllowedCall, createCallCounter } from '../../src/ext-authz/call-counter.ts';
import { allowedCalls, caller } from '../audit/events.ts';
import { manualClock } from '../harness/manual-clock.ts';

describe('allowed calls of one kind', () => {
  test('are told of once, when the window since the first has passed', async () => {
    const { counter, told, clock } = start();
    for (let i = 0; i < 5; i++) {
      counter.add(call({ time: clock.now() }));
      await clock.advance(1_000);
    }
    expect([told, counter.held()]).toEqual([[], 1]);
    await clock.advance(5_000);
    const [from, to] = [at(0), at(4_000)];
    expect(told).toEqual([{ ...call(), type: 'allowed_calls', time: to, from, to, count: 5 }]);
    expect([counter.held(), clock.sleepers()]).toEqual([0, 0]);
  });

  test('begin a new window with the next call, and not before', async () => {
    const { counter, told, clock } = start();
    counter.add(call());
    await clock.advance(60_000);
    expect(clock.sleepers()).toBe(0);
    counter.add(call());
    await clock.advance(9_999);
    expect(told).toHaveLength(1);
    await clock.advance(1);
    expect(told.map(({ count }) => count)).toEqual([1, 1]);
  });

  test('have the earliest and the latest time also when a clock is put back', () => {
    const { counter, told } = start();
    for (const ms of [5_000, 9_000, 1_000, 7_000]) counter.add(call({ time: at(ms) }));
    counter.flush();
    expect(told).toMatchObject([{ from: at(1_000), to: at(9_000), time: at(9_000), count: 4 }]);
  });

  test.each<[string, Partial<AllowedCall>]>([
    ['caller', { source: 'spiffe://example.org/ns/shop/sa/other' }],
    ['certificate', { sourceSerial: '0b' }],
    ['certificate of the same serial', { sourceTbsSha256: '22'.repeat(32) }],
    ['destination', { destination: 'spiffe://example.org/ns/pay/sa/other' }],
    ['port', { port: 9_090 }],
    ['protocol', { protocol: 'tcp' }],
    ['method', { method: 'POST' }],
    ['path pattern', { pathPattern: '/accounts/7' }],
    ['rule', { rule: 'pay/read rule[1]' }],
    ['reason', { reason: 'allow_by_default' }],
    ['revision', { revision: 4 }],
    ['process of the proxy', { caller: { ...caller, pid: 4_712 } }],
    ['uid of the proxy', { caller: { ...caller, uid: 7 } }],
    ['gid of the proxy', { caller: { ...caller, gid: 7 } }],
  ])('are not those of another %s', (_, change) => {
    const { counter, told } = start();
    for (const one of [call(), call(change), call()]) counter.add(one);
    counter.flush();
    expect(told.map(({ count }) => count)).toEqual([2, 1]);
    expect(told[1]).toMatchObject(change);
  });

  test.each<[string, (i: number) => Partial<AllowedCall>, number]>([
    ['many callers', (i) => ({ source: `spiffe://example.org/ns/shop/sa/w${i}` }), 100],
    ['methods that a caller makes up', (i) => ({ method: `M${i}` }), 64],
  ])('are told early when there are too many kinds: %s', (_, change, most) => {
    const { counter, told } = start();
    for (let i = 0; i < 1_000; i++) {
      counter.add(call(change(i)));
      expect(counter.held()).toBeLessThanOrEqual(most);
    }
    counter.flush();
    expect(told).toHaveLength(1_000);
    expect(told.every(({ count }) => count === 1)).toBe(true);
  });

  test('go on being counted when somebody makes up methods', () => {
    const { counter, told } = start();
    counter.add(call());
    for (let i = 0; i < 1_000; i++) {
      counter.add(call({ source: 'spiffe://example.org/ns/shop/sa/noisy', method: `M${i}` }));
      counter.add(call());
    }
    expect(told.some(({ source }) => source === call().source)).toBe(false);
    counter.flush();
    expect(told.find(({ source }) => source === call().source)).toMatchObject({ count: 1_001 });
  });

  test('are all told, each once, whatever comes when', async () => {
    const changes = [{}, { method: 'PUT' }, { source: 'x' }, { rule: '' }, { revision: 9 }];
    const step = fc.oneof(
      fc.record({ wait: fc.nat(15_000) }),
      fc.record({ calls: fc.array(fc.constantFrom(...changes), { maxLength: 6 }) }),
    );
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 30 }), async (steps) => {
        const { counter, told, clock } = start(3);
        let added = 0;
        for (const one of steps) {
          if ('wait' in one) await clock.advance(one.wait);
          else for (const change of one.calls) counter.add(call({ ...change, time: clock.now() }));
          if ('calls' in one) added += one.calls.length;
          expect(counter.held()).toBeLessThanOrEqual(3);
          // INVARIANT: nothing is held without a window that will end.
          expect(clock.sleepers()).toBe(counter.held() === 0 ? 0 : 1);
        }
        counter.flush();
        expect(told.reduce((sum, { count }) => sum + count, 0)).toBe(added);
        expect(told.every(({ from, to }) => from <= to && to.getTime() - from.getTime() <= 10_000)).toBe(
          true,
        );
      }),
      { numRuns: 60 },
    );
  });
});

function start(maxKinds = 100) {
  const told: AllowedCallsEvent[] = [];
  const clock = manualClock(at(0));
  const tell = (event: AllowedCallsEvent): void => void told.push(event);
  return { counter: createCallCounter({ windowMs: 10_000, clock, tell, maxKinds }), told, clock };
}

function at(ms: number): Date {
  return new Date(Date.UTC(2026, 0, 31, 12) + ms);
}

function call(change: Partial<AllowedCall> = {}): AllowedCall {
  const { type: _, from: _from, to: _to, count: _count, ...rest } = allowedCalls();
  return { ...rest, time: at(0), ...change };
}
