import { existsSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';
import { documentBypasses } from './authz/bypass-documents.ts';
import { factBypasses } from './authz/bypass-facts.ts';
import { requestBypasses } from './authz/bypass-requests.ts';
import { settingBypasses } from './cli/bypass-settings.ts';
import { checkBypasses, laterCallIds, lookalikeIds } from './ext-authz/bypass-checks.ts';

const page = new URL('../docs/bypasses.md', import.meta.url);
const rows = readFileSync(page, 'utf8')
  .split('\n')
  .filter((line) => line.startsWith('| `'))
  .map((line) => {
    const cells = line.split('|').slice(1, -1);
    return {
      ids: [...(cells[0] ?? '').matchAll(/`([^`]+)`/g)].map(([, id = '']) => id),
      links: [...line.matchAll(/\]\((\.\.[^)#]+)\)/g)].map(([, link = '']) => link),
      isTested: cells.length === 4,
      reason: cells.at(-1)?.trim() ?? '',
    };
  });

test.each([
  [
    '../test/authz/bypasses.test.ts',
    idsOf(...[...requestBypasses, ...factBypasses, ...documentBypasses].map(({ ids }) => ids)),
  ],
  [
    '../test/ext-authz/bypasses.test.ts',
    idsOf(...checkBypasses.map(({ ids }) => ids), laterCallIds, lookalikeIds),
  ],
  ['../test/cli/bypasses.test.ts', idsOf(...settingBypasses.map(({ ids }) => ids))],
])('docs/bypasses.md names each way around policy that %s tries, and no other', (suite, tried) => {
  const named = rows.filter(({ links }) => links.includes(suite)).flatMap(({ ids }) => ids);
  expect(named.toSorted()).toEqual(tried);
});

test('every row has a test or a reason, and each identifier one row', () => {
  const all = rows.flatMap(({ ids }) => ids);
  expect(all.filter((id, index) => all.indexOf(id) !== index)).toEqual([]);
  for (const { ids, links, isTested, reason } of rows) {
    expect({ ids, isHeld: !isTested || links.some((link) => link.endsWith('.test.ts')) }).toMatchObject({
      isHeld: true,
    });
    expect(reason.length).toBeGreaterThan(10);
    for (const link of links)
      expect({ link, exists: existsSync(fileURLToPath(new URL(link, page))) }).toMatchObject({
        exists: true,
      });
  }
});

function idsOf(...groups: readonly string[]): readonly string[] {
  return [...new Set(groups.flatMap((group) => group.split(' ')))].toSorted();
}
