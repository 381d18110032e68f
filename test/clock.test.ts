import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { systemClock } from '../src/clock.ts';

// The one test with fake timers: what is tested is how the timer and the two clocks of the machine are joined.
beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

async function sleeping(ms: number): Promise<{ over: boolean }> {
  const state = { over: false };
  void systemClock.sleep(ms).then(() => (state.over = true));
  await vi.advanceTimersByTimeAsync(0);
  return state;
}

test('sleeps as long as it was told', async () => {
  const state = await sleeping(100_000);
  await vi.advanceTimersByTimeAsync(99_999);
  expect(state.over).toBe(false);
  await vi.advanceTimersByTimeAsync(1);
  expect(state.over).toBe(true);
});

test.each([
  { what: 'put forward past the end', jumpMs: 7_200_000, overAfterMs: 15_000 },
  { what: 'put back a year', jumpMs: -31_536_000_000, overAfterMs: 3_600_000 },
])('a wall clock that is $what does not prolong a sleep of an hour', async ({ jumpMs, overAfterMs }) => {
  const state = await sleeping(3_600_000);
  vi.setSystemTime(Date.now() + jumpMs);
  await vi.advanceTimersByTimeAsync(overAfterMs - 1);
  expect(state.over).toBe(false);
  await vi.advanceTimersByTimeAsync(1);
  expect(state.over).toBe(true);
});
