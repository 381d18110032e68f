import fc from 'fast-check';
import { expect, test } from 'vitest';
import { createKeyOwners } from '../../src/identity/key-owners.ts';
import { createRateLimit } from '../../src/identity/rate-limit.ts';
import { SpiffeId } from '../../src/spiffe/id.ts';

const stopped = (start = 0) => {
  let nowMs = start;
  const clock = { now: () => new Date(nowMs), sleep: async () => undefined };
  return { clock, set: (ms: number) => void (nowMs = ms), add: (ms: number) => void (nowMs += ms) };
};
const many = (count: number, take: () => boolean) =>
  Array.from({ length: count }, take).filter(Boolean).length;

test('a burst, then as many as time gives back', () => {
  const time = stopped();
  const take = createRateLimit({ burst: 10, perSecond: 2 }, time.clock);
  expect(many(20, () => take(1))).toBe(10);
  time.add(499);
  expect(take(1)).toBe(false);
  time.add(1);
  expect(many(5, () => take(1))).toBe(1);
  time.add(3_600_000);
  expect(many(20, () => take(1))).toBe(10);
  expect(many(20, () => take(2))).toBe(10);
});

test('a clock put back gives nothing and takes nothing away', () => {
  const time = stopped(10_000_000);
  const take = createRateLimit({ burst: 2, perSecond: 1 }, time.clock);
  expect(many(5, () => take(1))).toBe(2);
  time.set(0);
  expect(take(1)).toBe(false);
  time.add(1_000);
  expect(many(5, () => take(1))).toBe(1);
});

test('never more than the burst and what time has given', () => {
  fc.assert(
    fc.property(fc.array(fc.nat(2_000), { maxLength: 200 }), (waits) => {
      const time = stopped();
      const take = createRateLimit({ burst: 5, perSecond: 3 }, time.clock);
      let [granted, passedMs] = [0, 0];
      for (const wait of waits) {
        time.add(wait);
        passedMs += wait;
        if (take(7)) granted++;
        expect(granted).toBeLessThanOrEqual(5 + (passedMs * 3) / 1_000);
      }
    }),
  );
});

test('a crowd of uids costs bounded memory, and only the longest unseen is forgotten', () => {
  const take = createRateLimit({ burst: 1, perSecond: 0 }, stopped().clock);
  for (let uid = 0; uid < 4_097; uid++) expect(take(uid)).toBe(true);
  expect([take(0), take(4_096), take(2)]).toEqual([true, false, false]);
});

test('a key belongs to the identity it was first certified for, as long as it is remembered', () => {
  const [a, b] = ['a', 'b'].map((name) => SpiffeId.parse(`spiffe://example.org/${name}`));
  const owners = createKeyOwners(2);
  expect([owners.claim('k1', a!), owners.claim('k1', b!), owners.claim('k1', a!)]).toEqual([
    true,
    false,
    true,
  ]);
  expect([owners.claim('k2', b!), owners.claim('k1', a!), owners.claim('k3', a!)]).toEqual([
    true,
    true,
    true,
  ]);
  expect([owners.claim('k1', b!), owners.claim('k2', a!)]).toEqual([false, true]);
});
