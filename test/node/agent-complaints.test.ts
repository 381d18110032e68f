import { expect, test } from 'vitest';
import { createComplaints } from '../../src/agent-complaints.ts';
import { manualClock } from '../harness/manual-clock.ts';

test('the first of each kind is said at once, then one in a minute with the number of the others', async () => {
  const clock = manualClock();
  const said: unknown[] = [];
  const complain = createComplaints(clock, (detail, message) => said.push([message, detail]));
  for (let at = 0; at < 100; at += 1) complain('away', 'not made', { at });
  complain('banned', 'not made', {});
  complain('away', 'not kept', {});
  await clock.advance(60_000);
  complain('away', 'not made', { at: 100 });
  await clock.advance(60_000);
  complain('away', 'not made', { at: 101 });
  expect(said).toEqual([
    ['not made', { at: 0 }],
    ['not made', {}],
    ['not kept', {}],
    ['not made', { at: 100, more: 99 }],
    ['not made', { at: 101 }],
  ]);
});

test('a clock that was put back silences nothing for longer than a minute', () => {
  const clock = manualClock();
  let said = 0;
  const complain = createComplaints(clock, () => (said += 1));
  complain('away', 'not made', {});
  clock.jump(-86_400_000);
  complain('away', 'not made', {});
  expect(said).toBe(2);
});
