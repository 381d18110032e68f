import { expect, test } from 'vitest';
import { createSpares } from '../../src/agent-spares.ts';
import type { X509Svid } from '../../src/identity/credentials.ts';
import type { RegistrationEntry } from '../../src/identity/entry.ts';
import type { AgentState } from '../../src/node/agent-cache.ts';
import { manualClock } from '../harness/manual-clock.ts';

const hour = 3_600_000;
const clock = manualClock();
const start = clock.now().getTime();
const entry = (revision: number) => ({ id: 'web', revision }) as RegistrationEntry;
const svid = { entryId: 'web', serial: 'a1', notAfter: new Date(start + hour) } as X509Svid;
const kept = (revision: number) =>
  ({
    svids: [svid],
    view: { mesh: { entries: new Map([['web', entry(revision)]]) } },
  }) as unknown as AgentState;

test.each<[string, number, number, X509Svid | undefined]>([
  ['is given to the entry it was made for', 1, 0, svid],
  ['is not given to an entry that has changed', 2, 0, undefined],
  ['is not given when it has ended', 1, hour, undefined],
])('what an earlier process kept %s', async (_, revision, laterMs, expected) => {
  const late = { ...clock, now: () => new Date(start + laterMs) };
  expect(createSpares(kept(1), late).take(entry(revision))).toBe(expected);
});

test('what nobody holds is kept for those who come back, once', () => {
  const spares = createSpares(null, clock);
  spares.put(svid, entry(1));
  expect(spares.take(entry(1))).toBe(svid);
  expect(spares.take(entry(1))).toBeUndefined();
});

test('what no entry needs any more is dropped, so that it does not pile up', () => {
  const spares = createSpares(null, clock);
  spares.put(svid, entry(1));
  expect(spares.keep(new Map([['web', entry(1)]]))).toEqual([svid]);
  expect(spares.keep(new Map())).toEqual([]);
  expect(spares.take(entry(1))).toBeUndefined();
});
