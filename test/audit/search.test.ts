import { describe, expect, test } from 'vitest';
import { type CountGroup, type CountPage, maxCountGroups } from '../../src/audit/count.ts';
import { parseCountQuery } from '../../src/audit/count-question.ts';
import type { AuditPage } from '../../src/audit/query.ts';
import { parseAuditQuery } from '../../src/audit/question.ts';
import { collectCounts, collectPage } from '../../src/audit/search.ts';
import { noon } from './events.ts';

const rest = {
  head: { size: 0, root: '', checkpoint: '' },
  coverage: { folded: { count: 3, records: 1 } } as AuditPage['coverage'],
  searched: null,
};

describe('a search in several steps', () => {
  // What comes meanwhile is above what a search for the newest looks at; the last step up the log sees it.
  test.each([
    ['newest', 100],
    ['oldest', 102],
  ] as const)('%s first, has looked at the log up to %i', async (order, expected) => {
    const steps = [100, 101, 102];
    const page = await collectPage(
      async () => {
        const size = steps.shift() ?? 0;
        return { ...rest, rows: [], size, next: steps.length === 0 ? null : 'on' };
      },
      parseAuditQuery({ order }, noon),
      () => false,
    );
    expect(page.size).toBe(expected);
  });

  test('counts no more groups than an answer may have, and loses no record', async () => {
    const perStep = 4_000;
    let steps = 0;
    const page = await collectCounts(
      async (): Promise<CountPage> => {
        const from = steps++ * perStep;
        const groups = Array.from({ length: perStep }, (_, at) => group(`${from + at}`));
        const next = steps === 4 ? null : 'on';
        return { ...rest, groups: [...groups, group('0')], beyond: { count: 0, records: 0 }, next };
      },
      parseCountQuery({ by: ['time'] }, noon),
      () => false,
    );
    expect(page.groups).toHaveLength(maxCountGroups);
    expect(page.groups.find(({ values }) => values[0] === '0')?.records).toBe(5);
    expect(page.beyond).toEqual({ count: 12_000, records: 6_000 });
    expect(page.coverage.folded).toEqual({ count: 12, records: 4 });
  });
});

function group(value: string): CountGroup {
  return { values: [value], count: 2, records: 1, firstIndex: 0, lastIndex: 0, first: noon, last: noon };
}
