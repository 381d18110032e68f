import fc from 'fast-check';
import { expect, test } from 'vitest';
import { createAdmission } from '../../src/identity/admission.ts';
import { createRoundRobin } from '../../src/identity/round-robin.ts';
import { settle } from '../harness/manual-clock.ts';

const never = new AbortController().signal;
const limits = { atOnce: 1, waiting: 4, waitingPerOwner: 2 };

test('one owner after the other is let in, however often the first asks', async () => {
  const admit = createAdmission({ ...limits, waiting: 100, waitingPerOwner: 100 });
  const order: string[] = [];
  const first = await admit('greedy', never);
  const all = ['greedy', 'greedy', 'greedy', 'b', 'c', 'b'].map(async (owner) => {
    const leave = await admit(owner, never);
    order.push(owner);
    leave();
  });
  first();
  await Promise.all(all);
  expect(order).toEqual(['greedy', 'b', 'c', 'greedy', 'b', 'greedy']);
});

test.each<[string, readonly string[]]>([
  ['too many of one owner', ['a', 'a', 'a']],
  ['too many in all', ['a', 'b', 'c', 'd', 'e']],
])('%s: the last is refused at once', async (_, owners) => {
  const admit = createAdmission(limits);
  await admit('inside', never);
  const answers = owners.map((owner) => admit(owner, never));
  answers.slice(0, -1).forEach((answer) => void answer.catch(() => expect.unreachable()));
  await expect(answers.at(-1)).rejects.toMatchObject({ code: 'server_busy', kind: 'exhausted' });
});

test('who gives up takes no place, and leaving twice gives one place back', async () => {
  const admit = createAdmission(limits);
  const leave = await admit('a', never);
  const patience = new AbortController();
  const gone = admit('b', patience.signal);
  patience.abort('tired');
  const leaveNothing = await gone;
  let entered = 0;
  const waits = ['c', 'd'].map((owner) => admit(owner, never).then(() => (entered += 1)));
  leaveNothing();
  await settle();
  expect(entered).toBe(0);
  leave();
  leave();
  await settle();
  expect(entered).toBe(1);
  void waits;
});

test('never more than the limit are inside, nobody is forgotten, and none waits beyond the bounds', async () => {
  const step = fc.oneof(
    fc.record({ kind: fc.constant('ask' as const), owner: fc.integer({ min: 0, max: 3 }) }),
    fc.record({ kind: fc.constant('leave' as const), at: fc.nat(9) }),
    fc.record({ kind: fc.constant('abort' as const), at: fc.nat(9) }),
  );
  await fc.assert(
    fc.asyncProperty(
      fc.array(step, { maxLength: 60 }),
      fc.integer({ min: 1, max: 3 }),
      async (steps, atOnce) => {
        const bounds = { atOnce, waiting: 5, waitingPerOwner: 3 };
        const admit = createAdmission(bounds);
        const inside: (() => void)[] = [];
        const asking = new Map<AbortController, string>();
        for (const one of steps) {
          if (one.kind === 'ask') {
            const patience = new AbortController();
            const owner = `${one.owner}`;
            asking.set(patience, owner);
            void admit(owner, patience.signal).then(
              (leave) => {
                asking.delete(patience);
                if (!patience.signal.aborted) inside.push(leave);
              },
              () => asking.delete(patience),
            );
          } else if (one.kind === 'leave') inside.splice(one.at % Math.max(1, inside.length), 1)[0]?.();
          else [...asking.keys()][one.at]?.abort('gave up');
          await settle();
          expect(inside.length).toBeLessThanOrEqual(atOnce);
          expect(asking.size).toBeLessThanOrEqual(bounds.waiting);
          // Nobody waits beside a free place.
          if (asking.size > 0) expect(inside).toHaveLength(atOnce);
          for (const owner of asking.values()) {
            expect([...asking.values()].filter((other) => other === owner).length).toBeLessThanOrEqual(3);
          }
        }
        while (inside.length > 0 || asking.size > 0) {
          inside.shift()?.();
          await settle();
        }
      },
    ),
    { numRuns: 60 },
  );
});

test('a queue gives back what was put in, each once, whatever is dropped', () => {
  fc.assert(
    fc.property(fc.array(fc.tuple(fc.integer({ min: 0, max: 3 }), fc.boolean())), (puts) => {
      const queue = createRoundRobin<number>();
      const kept = new Set<number>();
      puts.forEach(([owner], at) => {
        queue.put(`${owner}`, at);
        kept.add(at);
      });
      puts.forEach(([owner, isDropped], at) => {
        if (!isDropped) return;
        queue.drop(`${owner}`, at);
        queue.drop(`${owner}`, at);
        kept.delete(at);
      });
      expect(queue.size()).toBe(kept.size);
      for (let one = queue.take(); one !== undefined; one = queue.take()) expect(kept.delete(one)).toBe(true);
      expect([kept.size, queue.size()]).toEqual([0, 0]);
    }),
  );
});
