import { beforeEach, describe, expect, test } from 'vitest';
import type { RefusalEvent } from '../../src/audit/event.ts';
import type { Clock } from '../../src/clock.ts';
import { createRefusals, type Refusal, type Refusals } from '../../src/identity/refusals.ts';

let recorded: RefusalEvent[];
let refusals: Refusals;
let endWindow: () => Promise<void>;
let sleeps: number[];

beforeEach(() => {
  recorded = [];
  sleeps = [];
  let wake: () => void = () => undefined;
  const clock: Clock = {
    now: () => new Date(0),
    sleep: (ms, signal) => {
      sleeps.push(ms);
      return new Promise((resolve) => {
        wake = resolve;
        signal?.addEventListener('abort', () => resolve());
      });
    },
  };
  endWindow = async () => {
    wake();
    await new Promise((resolve) => setImmediate(resolve));
  };
  refusals = createRefusals((event) => recorded.push(event), clock);
});

describe('one kind', () => {
  test('the first is recorded at once, its repeats with their number', async () => {
    for (let i = 0; i < 5; i++) refusals.add(refusal());
    expect(counts()).toEqual([1]);
    await endWindow();
    expect(counts()).toEqual([1, 4]);
    expect(recorded[1]).toMatchObject({
      type: 'refusal',
      door: 'sds',
      code: 'identity_none',
      resource: 'default',
    });
  });

  test('without repeats there is one record', async () => {
    refusals.add(refusal());
    await endWindow();
    expect(counts()).toEqual([1]);
    expect(sleeps).toEqual([60_000]);
  });

  test('the next window begins with the next refusal', async () => {
    refusals.add(refusal());
    await endWindow();
    refusals.add(refusal());
    expect(counts()).toEqual([1, 1]);
    expect(sleeps).toEqual([60_000, 60_000]);
  });

  test('closing records what was counted, then nothing more', async () => {
    for (let i = 0; i < 3; i++) refusals.add(refusal());
    refusals.close();
    refusals.add(refusal());
    await endWindow();
    expect(counts()).toEqual([1, 2]);
  });
});

describe.each<[string, Partial<Refusal>]>([
  ['resource', { resource: 'ROOTCA' }],
  ['selectors', { selectors: ['unix:uid:7'] }],
  ['uid', { caller: { pid: 1, uid: 8, gid: 1 } }],
  ['code', { code: 'attestation_failed' }],
])('another %s', (_, change) => {
  test('is another kind', () => {
    refusals.add(refusal());
    refusals.add(refusal(change));
    expect(counts()).toEqual([1, 1]);
  });
});

test('another process of the same user is the same kind', async () => {
  refusals.add(refusal());
  refusals.add(refusal({ caller: { pid: 99, uid: 7, gid: 1 } }));
  expect(counts()).toEqual([1]);
});

test('invented names do not flood the record', async () => {
  for (let i = 0; i < 10_000; i++) refusals.add(refusal({ resource: `name-${i}` }));
  refusals.add(refusal({ caller: { pid: 1, uid: 8, gid: 1 }, resource: 'default' }));
  await endWindow();
  expect(recorded.filter(({ resource }) => resource.startsWith('name-'))).toHaveLength(32);
  expect(recorded.filter(({ resource }) => resource === '*').map(({ count }) => count)).toEqual([1, 9_967]);
  expect(recorded.filter(({ caller }) => caller.uid === 8)).toHaveLength(1);
  expect(recorded.reduce((sum, { count }) => sum + count, 0)).toBe(10_001);
});

test('who has shown a certificate hides nothing of those who have shown others', () => {
  const shown = (certificate: string) => ({ pid: 0, uid: 0, gid: 0, certificate });
  for (let i = 0; i < 100; i++) refusals.add(refusal({ caller: shown('aa'), resource: `name-${i}` }));
  refusals.add(refusal({ caller: shown('bb'), resource: 'theirs' }));
  expect(recorded.filter(({ resource }) => resource.startsWith('name-'))).toHaveLength(32);
  expect(recorded.map(({ resource }) => resource)).toContain('theirs');
});

test('nor do ten thousand users', async () => {
  for (let uid = 0; uid < 10_000; uid++) refusals.add(refusal({ caller: { pid: 1, uid, gid: 1 } }));
  await endWindow();
  expect(recorded.length).toBeLessThan(6_000);
});

function refusal(change: Partial<Refusal> = {}): Refusal {
  return {
    code: 'identity_none',
    message: 'no entry gives the caller this name',
    resource: 'default',
    selectors: ['unix:uid:7', 'unix:gid:1'],
    caller: { pid: 1, uid: 7, gid: 1 },
    ...change,
  };
}

function counts(): readonly number[] {
  return recorded.map(({ count }) => count);
}
