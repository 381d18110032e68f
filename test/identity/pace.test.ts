import { expect, test } from 'vitest';
import { createLatch } from '../../src/identity/notice.ts';
import { createPace, noPace, pacedRaise } from '../../src/identity/pace.ts';
import { settle } from '../harness/manual-clock.ts';

/** A breath that lets `perTurn` pieces of work through, then waits for `turn`. */
function breaths(perTurn: number) {
  let used = 0;
  let next: PromiseWithResolvers<void> | undefined;
  return {
    breathe: () => {
      used += 1;
      if (used < perTurn) return undefined;
      next ??= Promise.withResolvers();
      return next.promise;
    },
    turn: async () => {
      used = 0;
      const ended = next;
      next = undefined;
      ended?.resolve();
      await settle();
    },
  };
}

test('work is spread over turns, in the order it came, and urgent work goes first', async () => {
  const { breathe, turn } = breaths(2);
  const pace = createPace(breathe);
  const done: string[] = [];
  for (let i = 0; i < 6; i++) pace(false, () => done.push(`usual ${i}`));
  await settle();
  expect(done).toEqual(['usual 0', 'usual 1']);
  pace(true, () => done.push('urgent 0'));
  pace(true, () => done.push('urgent 1'));
  pace(true, () => done.push('urgent 2'));
  await turn();
  expect(done.slice(2)).toEqual(['urgent 0', 'urgent 1']);
  pace(false, () => done.push('usual 6'));
  await turn();
  expect(done.slice(4)).toEqual(['urgent 2', 'usual 2']);
  for (let i = 0; i < 3; i++) await turn();
  expect(done.slice(6)).toEqual(['usual 3', 'usual 4', 'usual 5', 'usual 6']);
  // What comes when all is done needs no push.
  pace(false, () => done.push('later'));
  await turn();
  expect(done.at(-1)).toBe('later');
});

test('work put in by work waits behind what was there', async () => {
  const pace = createPace(() => undefined);
  const done: number[] = [];
  pace(false, () => {
    done.push(0);
    pace(false, () => {
      done.push(1);
      pace(false, () => done.push(3));
    });
    pace(false, () => done.push(2));
  });
  await settle();
  expect(done).toEqual([0, 1, 2, 3]);
});

test('told many times before its turn, a latch is raised once; once more when it becomes urgent', async () => {
  const waiting: { readonly isUrgent: boolean; readonly work: () => void }[] = [];
  const latch = createLatch();
  let urgent = false;
  const raise = pacedRaise(
    (isUrgent, work) => waiting.push({ isUrgent, work }),
    latch,
    () => urgent,
  );
  for (let i = 0; i < 5; i++) raise();
  expect(waiting.map(({ isUrgent }) => isUrgent)).toEqual([false]);
  urgent = true;
  for (let i = 0; i < 5; i++) raise();
  expect(waiting.map(({ isUrgent }) => isUrgent)).toEqual([false, true]);
  // Nothing that is told while it waits is lost: the latch is raised after it.
  let woken = 0;
  void latch.next(new AbortController().signal).then(() => (woken += 1));
  waiting[1]?.work();
  await settle();
  expect(woken).toBe(1);
  raise();
  expect(waiting).toHaveLength(3);
});

test('without a pace everything happens at its time', () => {
  let done = false;
  noPace(false, () => (done = true));
  expect(done).toBe(true);
});
