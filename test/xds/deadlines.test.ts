import { expect, test } from 'vitest';
import { createDeadlines } from '../../src/xds/deadlines.ts';
import { manualClock } from '../harness/manual-clock.ts';

test('each wait runs out in its own time, whatever becomes of the others', async () => {
  const clock = manualClock();
  const { expect: wait } = createDeadlines(clock, 1_000);
  const late: string[] = [];
  const endFirst = wait(() => late.push('first'));
  await clock.advance(400);
  wait(() => late.push('second'));
  const endThird = wait(() => late.push('third'));
  await clock.advance(300);
  wait(() => late.push('fourth'));
  endFirst();
  await clock.advance(699);
  expect(late).toEqual([]);
  endThird();
  await clock.advance(1);
  expect(late).toEqual(['second']);
  await clock.advance(300);
  expect(late).toEqual(['second', 'fourth']);
});

test('without anybody who waits there is no timer, and with many there is one', async () => {
  const clock = manualClock();
  const { expect: wait } = createDeadlines(clock, 1_000);
  const ends = Array.from({ length: 100 }, () => wait(() => undefined));
  expect(clock.sleepers()).toBe(1);
  for (const end of ends) end();
  await new Promise(setImmediate);
  expect(clock.sleepers()).toBe(0);
  const late: number[] = [];
  wait(() => late.push(1));
  await clock.advance(1_000);
  expect([late, clock.sleepers()]).toEqual([[1], 0]);
});

test('who is late may wait again, and what was ended twice or too late is ended', async () => {
  const clock = manualClock();
  const { expect: wait } = createDeadlines(clock, 1_000);
  let rounds = 0;
  const again = (): void => {
    rounds += 1;
    if (rounds < 3) wait(again);
  };
  const end = wait(again);
  await clock.advance(3_500);
  expect(rounds).toBe(3);
  end();
  end();
  expect(clock.sleepers()).toBe(0);
});

test.each([
  ['back', -3_600_000, 1_000],
  ['forward', 3_600_000, 1_000],
])('a wall clock that is put %s makes nobody wait longer than before', async (_, jumpMs, withinMs) => {
  const clock = manualClock();
  const { expect: wait } = createDeadlines(clock, 1_000);
  const late: string[] = [];
  wait(() => late.push('before'));
  clock.jump(jumpMs);
  wait(() => late.push('after'));
  await clock.advance(withinMs);
  expect(late).toEqual(['before', 'after']);
});

test('who begins to wait once the last was late is late in time as well, in the same turn too', async () => {
  const clock = manualClock();
  const { expect: wait } = createDeadlines(clock, 1_000);
  const late: string[] = [];
  const waitAgain = async (): Promise<void> => {
    // By then whoever watched has seen that nobody waits any more.
    for (let step = 0; step < 10; step += 1) await Promise.resolve();
    wait(() => late.push('second'));
  };
  wait(() => {
    late.push('first');
    void waitAgain();
  });
  await clock.advance(2_000);
  expect(late).toEqual(['first', 'second']);
});
