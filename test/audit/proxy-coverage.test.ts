import { describe, expect, test } from 'vitest';
import { completeCoverage, type SaidBefore } from '../../src/audit/proxy-coverage.ts';
import type { ProxyCoverageEvent } from '../../src/audit/proxy-event.ts';
import { decision, noon } from './events.ts';
import { proxyCoverage } from './proxy-events.ts';

const started = new Date('2026-01-31T11:00:00.000Z');
const before: SaidBefore = { counted: 50, to: new Date('2026-01-31T11:30:00.000Z') };
const first = (change: Partial<ProxyCoverageEvent> = {}): ProxyCoverageEvent =>
  proxyCoverage({ from: started, started, count: 80, counted: 80, missing: 0, ...change });
const complete = (event: ProxyCoverageEvent, said: SaidBefore | undefined) =>
  completeCoverage([event], async () => said);

describe('what a proxy has counted', () => {
  test.each<[string, ProxyCoverageEvent, SaidBefore | undefined, object[]]>([
    ['and nobody has said before', first(), undefined, [{ count: 80, from: started }]],
    ['loses what was said before', first(), before, [{ count: 30, missing: 0, from: before.to }]],
    [
      'and nobody was there to hear is missing, as far as it was not said before',
      first({ missing: 60 }),
      before,
      [
        { count: 30, missing: 10 },
        { type: 'loss', what: 'proxy_verdict', count: 10, cause: 'not_told', from: before.to, to: noon },
      ],
    ],
    [
      'and an earlier agent was told is not missing',
      first({ missing: 50 }),
      before,
      [{ count: 30, missing: 0 }],
    ],
    ['is nothing when all was said before', first({ count: 50, counted: 50 }), before, []],
    [
      'goes on where the same agent has said the last',
      proxyCoverage({ missing: 0 }),
      before,
      [{ count: 120, missing: 0 }],
    ],
    [
      'and did not tell of is a loss, of its service',
      proxyCoverage({ missing: 3 }),
      undefined,
      [{ missing: 3 }, { type: 'loss', count: 3, service: proxyCoverage().destination }],
    ],
  ])('%s', async (_, event, said, expected) => {
    const events = await complete(event, said);
    expect(events).toMatchObject(expected);
    expect(events).toHaveLength(expected.length);
  });

  test('leaves all else as it is, in its order', async () => {
    const events = [decision(), proxyCoverage({ missing: 0 }), decision({ decisionId: 'd-2' })];
    expect(await completeCoverage(events, () => Promise.reject(new Error('nobody asks')))).toEqual(events);
    const others = [decision()];
    expect(await completeCoverage(others, () => Promise.reject(new Error('nobody asks')))).toBe(others);
  });
});
