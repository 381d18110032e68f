import { expect, test } from 'vitest';
import { watchClock } from '../src/up-clock.ts';

test.each<[string, number, RegExp | null]>([
  ['a minute forward', 60, null],
  ['a minute back', -60, null],
  ['over a minute forward', 61, /forward by 61 seconds/],
  ['an hour back', -3_600, /back by 3600 seconds/],
  ['ten years forward', 315_360_000, /forward by 315360000 seconds/],
])('%s', (_, stepSeconds, said) => {
  let [wall, steady] = [Date.UTC(2026, 0, 1), 5_000];
  const pass = (seconds: number) => {
    wall += seconds * 1_000;
    steady += seconds * 1_000;
  };
  const doubt = watchClock({ now: () => new Date(wall), sleep: async () => undefined }, () => steady);
  expect(doubt()).toBeNull();
  pass(7_200);
  expect(doubt()).toBeNull();
  wall += stepSeconds * 1_000;
  const found = doubt();
  if (said === null) expect(found).toBeNull();
  else expect(found).toMatch(said);
  pass(3_599);
  expect(doubt() === null).toBe(said === null);
  // It has stayed there for an hour: that is the time now.
  pass(1);
  expect(doubt()).toBeNull();
  // And a clock that is put right is trusted again at once.
  wall += 240_000;
  expect(doubt()).not.toBeNull();
  wall -= 240_000;
  expect(doubt()).toBeNull();
});
