import fc from 'fast-check';
import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { AuditEvent, AuditEventType } from '../../src/audit/event.ts';
import { collectSample, type SampleQuestion, sampleRank } from '../../src/audit/sample.ts';
import { readSampleStep } from '../../src/store/audit-sample.ts';
import { type Database, openForReading, openForWriting } from '../../src/store/database.ts';
import { openStore } from '../../src/store/store.ts';
import { decision, issuance, noon, oneOfEach } from '../audit/events.ts';
import { standingClock } from './directories.ts';

const of = (type: AuditEventType) => oneOfEach.find((event) => event.type === type)!;
// Between them what is no change, and actions that other types have too.
const makers: readonly ((n: number) => object)[] = [
  (n) => ({ ...of('entry_change'), action: 'created', after: { ttlSeconds: [60, 3_600, 86_400][n % 3] } }),
  (n) => ({ ...of('entry_change'), action: 'updated', after: { ttlSeconds: n, hint: 'ttlSeconds' } }),
  () => ({ ...of('entry_change'), action: 'deleted', after: null }),
  (n) => ({
    ...of('policy_change'),
    action: 'updated',
    ...(n % 4 === 0 ? { breakGlass: `outage ${n}` } : {}),
  }),
  () => ({ ...of('policy_change'), action: 'a'.repeat(250) }),
  (n) => ({ ...of('authority'), action: n % 2 === 0 ? 'forced' : 'created' }),
  () => of('ban'),
  (n) => ({ ...of('admin'), action: ['called', 'token_created', 'token_revoked'][n % 3] }),
  (n) => ({ ...of('node'), action: ['attested', 'evicted', 'token_created'][n % 3] }),
  () => decision(),
  (n) => issuance({ serial: n.toString(16).padStart(8, '0') }),
];
const size = 4_400;
const events = Array.from({ length: size }, (_, n) => ({
  ...makers[n % makers.length]!(Math.floor(n / makers.length)),
  time: new Date(noon.getTime() - 6_000_000 + n * 1_300 + ((n * 7_919) % 601) * 1_000),
})) as unknown as readonly (AuditEvent & Readonly<Record<string, unknown>>)[];

let dataDir: string;
beforeAll(async () => {
  dataDir = mkdtempSync(join(tmpdir(), 'countersign-sample-'));
  const store = await openStore({ dataDir, clock: standingClock, randomBytes });
  for (let at = 0; at < size; at += 550) await store.recordEvents(events.slice(at, at + 550));
  await store.close();
});
afterAll(() => rmSync(dataDir, { recursive: true }));

const times = fc.option(
  fc.integer({ min: -110, max: 20 }).map((minutes) => new Date(noon.getTime() + minutes * 60_000)),
);
const changes: readonly AuditEventType[] = ['entry_change', 'policy_change', 'authority', 'ban', 'jwt_key'];
const questions: fc.Arbitrary<SampleQuestion> = fc.record({
  populations: fc.subarray([
    { types: changes, action: null },
    { types: ['admin', 'node'], action: 'token_created' },
    { types: ['node'], action: 'evicted' },
    { types: ['lifecycle'], action: null },
  ] as const),
  since: times,
  until: times,
  seed: fc.constantFrom('one', 'two', 'Q4'),
  size: fc.constantFrom(1, 5, 200),
  marks: fc.subarray([
    { types: ['entry_change'], field: 'after.ttlSeconds', is: { above: 300 } },
    { types: ['policy_change'], field: 'breakGlass', is: 'present' },
    { types: ['authority', 'jwt_key'], field: 'action', is: { text: 'forced' } },
    { types: ['entry_change'], field: 'after.hint', is: 'present' },
  ] as const),
  maxMarked: fc.constantFrom(0, 3, 10_000),
  maxRecords: fc.constant(Infinity),
});

/** The same by looking at every event. */
function naive({ populations, since, until, seed, size: most, marks, maxMarked }: SampleQuestion) {
  const isIn = ({ type, action, time }: (typeof events)[number], population: (typeof populations)[number]) =>
    population.types.includes(type) &&
    (population.action === null || population.action === action) &&
    (since === null || time >= since) &&
    (until === null || time < until);
  const parts = populations.map((population) =>
    events.map((event, index) => ({ event, index })).filter(({ event }) => isIn(event, population)),
  );
  const kinds: Record<string, readonly number[]> = {};
  for (const { event, index } of parts.flat()) {
    const kind = `${event.type} ${event['action'] as string}`;
    kinds[kind] = [...(kinds[kind] ?? []), index];
  }
  const isMarked = ({ type, action, after, breakGlass }: (typeof events)[number]): boolean => {
    const { ttlSeconds = 0, hint = '' } = (after ?? {}) as { ttlSeconds?: number; hint?: string };
    return marks.some(({ types, field }) => {
      if (!types.includes(type)) return false;
      if (field === 'action') return action === 'forced';
      if (field === 'breakGlass') return breakGlass !== undefined;
      return field === 'after.hint' ? hint !== '' : ttlSeconds > 300;
    });
  };
  return {
    records: parts.flat().length,
    kinds: Object.fromEntries(
      Object.entries(kinds).map(([kind, all]) => [kind, [all.length, Math.min(...all), Math.max(...all)]]),
    ),
    drawn: parts
      .flat()
      .map(({ index }) => index)
      .sort((a, b) => (sampleRank(seed, a) < sampleRank(seed, b) ? -1 : 1))
      .slice(0, most),
    marked: parts
      .flatMap((part) => part.toReversed().filter(({ event }) => isMarked(event)))
      .map(({ index }) => index)
      .slice(0, maxMarked),
  };
}

async function drawn(db: Database, question: SampleQuestion, step: number) {
  const budget = { ms: Infinity, events: step };
  const read = (query: Parameters<typeof readSampleStep>[1]) =>
    Promise.resolve(readSampleStep(db, query, budget));
  const sample = await collectSample(read, question, () => false);
  expect(sample.end).toBe('whole');
  return {
    records: sample.records,
    kinds: Object.fromEntries(
      sample.kinds.map((kind) => [
        `${kind.type} ${kind.action}`,
        [kind.records, kind.firstIndex, kind.lastIndex],
      ]),
    ),
    drawn: sample.drawn.map(({ index }) => index),
    marked: sample.marked.map(({ index }) => index),
  };
}

describe('a sample', () => {
  test('is what a look at all events draws, however small the steps are', async () => {
    const db = openForReading(dataDir);
    await fc.assert(
      fc.asyncProperty(questions, fc.constantFrom(37, 500, 100_000), async (question, step) => {
        expect(await drawn(db, question, step)).toEqual(naive(question));
      }),
      { numRuns: 60 },
    );
    db.close();
  });

  const whole: SampleQuestion = {
    populations: [{ types: changes, action: null }],
    since: null,
    until: null,
    seed: 'one',
    size: 25,
    marks: [{ types: ['policy_change'], field: 'breakGlass', is: 'present' }],
    maxMarked: 10_000,
    maxRecords: Infinity,
  };

  test('has what each record did, also where no fact of it is kept', async () => {
    const db = openForWriting(dataDir, noon);
    // 7: the action.
    db.exec('BEGIN; DELETE FROM audit_facts WHERE field = 7 AND idx % 3 = 0');
    expect(await drawn(db, whole, 500)).toEqual(naive(whole));
    db.exec('ROLLBACK');
    db.close();
  });

  test('is of the log as it was at first', async () => {
    const db = openForReading(dataDir);
    const steps: (number | null)[] = [];
    const sample = await collectSample(
      (query) => {
        steps.push(query.below);
        const step = readSampleStep(db, query, { ms: Infinity, events: 1_000 });
        return Promise.resolve({ ...step, size: step.size + steps.length });
      },
      { ...whole, populations: [...whole.populations, { types: ['node'], action: 'evicted' }] },
      () => false,
    );
    expect(sample.end).toBe('whole');
    expect(steps[0]).toBeNull();
    expect(steps.filter((below) => below === null || below > size)).toEqual([null, size + 1]);
    db.close();
  });

  test.each([
    ['too many', { maxRecords: 99 }, false, 'too_many'],
    ['no time', {}, true, 'time_up'],
  ] as const)('of a part says so: %s', async (_, limits, isTimeUp, end) => {
    const db = openForReading(dataDir);
    const budget = { ms: Infinity, events: 100 };
    const sample = await collectSample(
      (query) => Promise.resolve(readSampleStep(db, query, budget)),
      { ...whole, ...limits },
      () => isTimeUp,
    );
    expect([sample.end, sample.records]).toEqual([end, 100]);
    db.close();
  });
});
