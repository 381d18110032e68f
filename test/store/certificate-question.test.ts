import { expect, test } from 'vitest';
import type { AuditEvent } from '../../src/audit/event.ts';
import { readQuestion } from '../../src/identity/questions/ask.ts';
import { findQuestion } from '../../src/identity/questions/catalogue.ts';
import type { Asking } from '../../src/identity/questions/question.ts';
import { logReaders } from '../../src/up-log-readers.ts';
import { issuance, noon, oneOfEach } from '../audit/events.ts';
import { openTestStore, standingClock } from '../store/directories.ts';

const change = (entryId: string, revision: number): AuditEvent => ({
  ...(oneOfEach.find(({ type }) => type === 'entry_change') as Extract<AuditEvent, { type: 'entry_change' }>),
  entryId,
  revision,
});

test('a certificate names the change that made its entry what it was', async () => {
  // What its entry was by the certificate, and the index of that change; undefined: it is not in the log.
  const expected: readonly (readonly [entryRevision: number, index: number | undefined])[] = [
    // The latest, an earlier one, and the first.
    [8, 3],
    [5, 1],
    [3, 0],
    // Older than the first, between two, of another entry, and newer than the latest.
    [2, undefined],
    [4, undefined],
    [6, undefined],
    [9, undefined],
  ];
  const store = await openTestStore();
  await store.recordEvents([
    ...[change('web', 3), change('web', 5), change('other', 6), change('web', 8)],
    ...expected.map(([entryRevision]) =>
      issuance({ serial: `a${entryRevision}`, entryId: 'web', entryRevision }),
    ),
    // What came after the certificate is no reason for it.
    change('web', 9),
  ]);
  const asking = { ...logReaders(store, standingClock, () => false), may: () => false } as unknown as Asking;
  const found: unknown[] = [];
  for (const [entryRevision] of expected) {
    const fields = new Map([['serial', `a${entryRevision}`]]);
    const { tables } = await readQuestion(findQuestion('certificate'), fields, noon)(asking);
    const because = tables.find(({ name }) => name === 'because')?.items ?? [];
    found.push([because[0]?.['revision'] ?? entryRevision, because[0]?.index ?? undefined]);
  }
  expect(found).toEqual(expected);
});
