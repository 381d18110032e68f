import { expect, test } from 'vitest';
import { complainOfEntry, createComplaints } from '../src/up-complaints.ts';
import { MeshError } from '../src/errors.ts';
import { manualClock } from './harness/manual-clock.ts';

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

test('of entries that fail for what may pass one is said, of others each', () => {
  const said: unknown[] = [];
  const complainOf = complainOfEntry(createComplaints(manualClock(), (detail) => said.push(detail)));
  const full = new MeshError('store_unavailable', 'the disk is full');
  for (const id of ['a', 'b', 'c']) complainOf({ id }, full);
  for (const id of ['a', 'b', 'a']) complainOf({ id }, new MeshError('identity_banned', 'banned'));
  expect(said).toMatchObject([
    { entry: 'a', code: 'store_unavailable' },
    { entry: 'a', code: 'identity_banned' },
    { entry: 'b', code: 'identity_banned' },
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
