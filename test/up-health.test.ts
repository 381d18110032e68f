import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { type ConditionCode, conditionCodes } from '../src/http/condition.ts';
import { type HealthFacts, judgeHealth } from '../src/up-health.ts';
import { processState } from '../src/up-process.ts';

const now = new Date('2027-01-01T00:00:00Z');
const days = (count: number) => new Date(now.getTime() + count * 86_400_000);
const mebibyte = 1_048_576;
const well: HealthFacts = {
  store: { ok: true },
  damage: null,
  outlook: { warnings: [], ended: null },
  issuer: { notBefore: days(-1), notAfter: days(29) },
  doubt: null,
  freeBytes: 10_000 * mebibyte,
  decisions: { queued: 0, lost: 0 },
  alarms: 0,
  policies: { ending: 0, ended: 0 },
  process: {
    loopDelaySeconds: 0.01,
    residentBytes: 100 * mebibyte,
    heapUsedBytes: 50 * mebibyte,
    heapLimitBytes: 1_000 * mebibyte,
    garbageSeconds: 1,
  },
  now,
};

const witnessed = (disputing: number, behindSince: Date | null) => ({
  disputing,
  count: 3,
  behindSince,
  size: 5,
});
const waiting = { warnings: ['its successor waits'], ended: null };
const troubles: readonly [string, Partial<HealthFacts>, readonly (readonly [ConditionCode, string])[]][] = [
  ['nothing', {}, []],
  ['a broken store', { store: { ok: false, cause: 'SQLITE_FULL' } }, [['store_failed', 'cause']]],
  ['a damaged entry', { damage: 'the audit log is damaged: entry 7' }, [['log_damaged', 'warning']]],
  ['an issuer that ended', { outlook: { warnings: [], ended: 'ca: it ended' } }, [['issuer_ended', 'cause']]],
  ['a successor that waits', { outlook: waiting }, [['successor_waiting', 'warning']]],
  [
    'an issuer near its end',
    { issuer: { notBefore: days(-26), notAfter: days(4) } },
    [['issuer_ending', 'warning']],
  ],
  [
    'an issuer near its end whose successor waits',
    { issuer: { notBefore: days(-26), notAfter: days(4) }, outlook: waiting },
    [['successor_waiting', 'warning']],
  ],
  ['an issuer with a fifth of its life', { issuer: { notBefore: days(-24), notAfter: days(6) } }, []],
  ['no issuer yet', { issuer: null }, []],
  ['a clock that was put', { doubt: 'the clock was put' }, [['clock_put', 'warning']]],
  ['255 MiB', { freeBytes: 255 * mebibyte }, [['disk_low', 'warning']]],
  ['256 MiB', { freeBytes: 256 * mebibyte }, []],
  ['a disk nobody has looked at', { freeBytes: null }, []],
  ['a long queue', { decisions: { queued: 10_000, lost: 0 } }, [['log_behind', 'warning']]],
  ['a shorter queue', { decisions: { queued: 9_999, lost: 0 } }, []],
  ['a loss', { decisions: { queued: 0, lost: 1 } }, [['decisions_lost', 'warning']]],
  ['a certificate of nobody', { alarms: 1 }, [['unknown_serial', 'warning']]],
  ['witnesses that keep up', { witnesses: witnessed(0, null) }, []],
  ['a witness that disputes', { witnesses: witnessed(1, null) }, [['log_disputed', 'warning']]],
  [
    'witnesses away for less than ten minutes',
    { witnesses: witnessed(0, new Date(now.getTime() - 599_000)) },
    [],
  ],
  [
    'witnesses away for ten minutes',
    { witnesses: witnessed(0, new Date(now.getTime() - 600_000)) },
    [['log_unwitnessed', 'warning']],
  ],
  ['a policy near its end', { policies: { ending: 1, ended: 0 } }, [['policies_ending', 'warning']]],
  ['a policy that has ended', { policies: { ending: 0, ended: 1 } }, [['policies_ending', 'warning']]],
  ['a slow loop', { process: { ...well.process, loopDelaySeconds: 1 } }, [['event_loop_slow', 'warning']]],
  [
    'a full heap',
    { process: { ...well.process, heapUsedBytes: 900 * mebibyte } },
    [['memory_low', 'warning']],
  ],
  [
    'two at once: the cause stands first',
    { store: { ok: false, cause: 'SQLITE_FULL' }, freeBytes: 0 },
    [
      ['store_failed', 'cause'],
      ['disk_low', 'warning'],
    ],
  ],
];

test.each(troubles)('%s is judged', (_, change, expected) => {
  const found = judgeHealth({ ...well, ...change });
  expect(found.map(({ code, level }) => [code, level])).toEqual(expected);
  for (const { text, fix } of found) {
    expect([text, fix].every((words) => words !== '' && !words.endsWith('.'))).toBe(true);
    // /readyz shows it to anybody.
    expect(text).not.toMatch(/(^|\s)\//);
  }
});

test('every code is the answer to some trouble, and docs/observability.md says what each means', () => {
  const found = new Set(troubles.flatMap(([, , conditions]) => conditions.map(([code]) => code)));
  expect([...found].sort()).toEqual([...conditionCodes].sort());
  const text = readFileSync('docs/observability.md', 'utf8');
  const documented = [...text.matchAll(/^\| `([a-z_]+)` +\| (?:cause|warning) /gm)].map(([, code]) => code);
  expect(documented.toSorted()).toEqual([...conditionCodes].sort());
});

test('the process looks at itself', () => {
  const state = processState();
  expect(state.residentBytes).toBeGreaterThan(10 * mebibyte);
  expect(state.heapUsedBytes).toBeGreaterThan(mebibyte);
  expect(state.heapLimitBytes).toBeGreaterThan(state.heapUsedBytes);
  expect(state.loopDelaySeconds).toBeGreaterThanOrEqual(0);
});
