import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { createProxyTally, type ProxyCount } from '../../src/access-log/proxy-tally.ts';
import type { ProxyCoverageEvent } from '../../src/audit/proxy-event.ts';
import { caller, noon } from '../audit/events.ts';
import { manualClock } from '../harness/manual-clock.ts';

const destination = 'spiffe://example.org/ns/pay/sa/ledger';

function start() {
  const clock = manualClock(noon);
  const said: ProxyCoverageEvent[] = [];
  const tally = createProxyTally({ clock, tell: (event) => void said.push(event), everyMs: 60_000 });
  const now = () => clock.now().getTime();
  return {
    clock,
    said,
    tally,
    /** Calls that begin now and are told of at once. */
    tell: (count: number, beganMs = now()) => {
      for (let i = 0; i < count; i++) tally.told(caller, beganMs);
    },
    /** What its counters say now; a proxy that has run for ten seconds at noon. */
    count: (judged: number, change: Partial<ProxyCount> = {}) =>
      tally.counted({
        ...{ caller, destination, judged, active: 0, dropped: 0, atMs: now() },
        uptimeSeconds: 10 + (now() - noon.getTime()) / 1_000,
        ...change,
      }),
    sum: () => ({
      count: said.reduce((all, event) => all + event.count, 0),
      missing: said.reduce((all, event) => all + event.missing, 0),
    }),
  };
}

describe('calls that a proxy has counted', () => {
  test('and told of are covered, in a record a minute that begins where the last one ended', async () => {
    const { clock, said, tell, count } = start();
    for (let i = 1; i <= 30; i++) {
      tell(7);
      await clock.advance(5_000);
      count(7 * i);
    }
    expect(said).toHaveLength(2);
    expect(said[0]).toMatchObject({
      destination,
      caller,
      missing: 0,
      started: new Date(noon.getTime() - 10_000),
    });
    expect(said[0]?.from).toEqual(said[0]?.started);
    expect(said[1]?.from).toEqual(said[0]?.to);
    expect(said[1]?.counted).toBe((said[0]?.count ?? 0) + (said[1]?.count ?? 0));
  });

  test('and not told of are missing once two reports have passed, and no earlier', async () => {
    const { clock, tally, tell, count, sum } = start();
    tell(90);
    count(100);
    tally.flush();
    // Whoever asks now is told what is known now.
    expect(sum()).toEqual({ count: 100, missing: 10 });
    const other = start();
    other.tell(90);
    other.count(100);
    await other.clock.advance(5_000);
    other.tell(10, noon.getTime());
    other.count(100);
    await other.clock.advance(120_000);
    other.count(100);
    other.count(100);
    expect(other.sum()).toEqual({ count: 100, missing: 0 });
    expect(clock.sleepers()).toBe(0);
  });

  test('and that are going on are not missing, however long', async () => {
    const { clock, tally, tell, count, sum } = start();
    for (let i = 0; i < 20; i++) {
      tell(1);
      count(5 + i + 1, { active: 5 });
      await clock.advance(10_000);
    }
    tally.flush();
    expect(sum()).toEqual({ count: 25, missing: 0 });
    // Five of them are over, and nobody told of two of those.
    tell(3, noon.getTime() - 1_000);
    for (let i = 0; i < 4; i++) count(25);
    tally.flush();
    await clock.advance(100_000);
    count(26);
    tell(1);
    tally.flush();
    expect(sum()).toEqual({ count: 26, missing: 2 });
  });

  test('and that are told of while newer ones are lost are told apart', async () => {
    const { clock, tell, count, tally, sum } = start();
    // A thousand are lost; meanwhile as many others come in as would hide them.
    for (let i = 1; i <= 10; i++) {
      tell(900);
      await clock.advance(5_000);
      count(1_000 * i);
    }
    tally.flush();
    expect(sum()).toEqual({ count: 10_000, missing: 1_000 });
  });

  test('of another that has the number of the first begin anew', async () => {
    const { clock, said, tell, count, tally } = start();
    tell(100);
    count(100);
    await clock.advance(70_000);
    count(100);
    tell(4);
    // It goes down.
    count(4, { uptimeSeconds: 1 });
    tally.flush();
    expect(said).toMatchObject([
      { count: 100, counted: 100, missing: 0 },
      { count: 4, counted: 4 },
    ]);
    expect(said[1]?.started.getTime()).toBe(clock.now().getTime() - 1_000);
  });

  test('of one that makes them jump up and down are no record each', () => {
    const { said, count } = start();
    for (let i = 0; i < 1_000; i++) count(i % 2 === 0 ? 1_000_000 : 1, { uptimeSeconds: i * 20 });
    expect(said).toEqual([]);
  });

  test('of one that ends are told a little later, with its last words', async () => {
    const { clock, tally, tell, count, said } = start();
    tell(3);
    count(5);
    tally.ended(caller);
    await clock.advance(1_000);
    tell(1, noon.getTime() - 5);
    expect(said).toEqual([]);
    await clock.advance(3_000);
    expect(said).toMatchObject([{ count: 5, missing: 1 }]);
    tally.flush();
    expect(said).toHaveLength(1);
  });

  test('of more proxies than there is room for are told, the oldest first', () => {
    const { tally, said, count } = start();
    for (let pid = 1; pid <= 4_100; pid++) count(1, { caller: { ...caller, pid } });
    expect(said.map((event) => event.caller.pid)).toEqual([1, 2, 3, 4]);
    tally.flush();
    expect(said).toHaveLength(4_100);
  });

  test('are never more missing than there were, whatever is said in whatever order', async () => {
    const step = fc.oneof(
      fc.record({ tell: fc.nat(20), ago: fc.nat(20_000) }),
      fc.record({ count: fc.nat(50), active: fc.nat(5), afterMs: fc.nat(30_000) }),
    );
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 40 }), async (steps) => {
        const { clock, tally, tell, count, said } = start();
        let judged = 0;
        for (const one of steps) {
          if ('tell' in one) tell(one.tell, clock.now().getTime() - one.ago);
          else {
            judged += one.count;
            await clock.advance(one.afterMs);
            count(judged, { active: one.active });
          }
        }
        tally.flush();
        let before = 0;
        for (const { count: calls, missing, counted, from, to, started } of said) {
          expect(calls + missing).toBeGreaterThan(0);
          expect(missing >= 0 && missing <= counted).toBe(true);
          expect(counted).toBe(before + calls);
          expect(started <= from && from <= to).toBe(true);
          before = counted;
        }
        expect(before).toBe(judged);
      }),
    );
  });
});
