import { expect, test } from 'vitest';
import { createTurns } from '../../src/identity/turns.ts';
import { settle } from '../harness/manual-clock.ts';

test.each([1, 3, 16])(
  'at most %i run at once, in the order they came, and a failure hands its turn on',
  async (limit) => {
    const turns = createTurns(limit);
    const started: number[] = [];
    const gates: PromiseWithResolvers<void>[] = [];
    const all = Array.from({ length: 40 }, (_, index) =>
      turns(async () => {
        started.push(index);
        gates[index] = Promise.withResolvers();
        await gates[index].promise;
        if (index % 2 === 1) throw new Error('odd');
      }).catch(() => undefined),
    );
    for (let ended = 0; ended < all.length; ended++) {
      await settle();
      expect(started).toHaveLength(Math.min(all.length, ended + limit));
      gates[ended]?.resolve();
    }
    await Promise.all(all);
    expect(started).toEqual([...started].sort((a, b) => a - b));
  },
);
