import { mkdirSync } from 'node:fs';
import { afterEach, expect, test } from 'vitest';
import { defaultWholeCheckBytes } from '../../src/store/start-check.ts';
import { type StoreThread, startOnDemand, startThread } from '../../src/store/thread.ts';
import { noon } from '../audit/events.ts';
import { newDirectory, openTestStore } from './directories.ts';

const code = (name: string) => expect.objectContaining({ code: name });
const size = { kind: 'read', question: { kind: 'auditSize', ask: null } } as const;

const lost: string[] = [];
afterEach(() => void lost.splice(0));

/** A reader of a directory, started on demand, and how often it was started. */
function readerOf(dataDir: string) {
  let starts = 0;
  const reader = startOnDemand((): Promise<StoreThread> => {
    starts += 1;
    const wholeCheckBytes = defaultWholeCheckBytes;
    const start = { role: 'reader', dataDir, nowMs: noon.getTime(), wholeCheckBytes } as const;
    return startThread(start, (cause) => void lost.push(cause));
  });
  return { ...reader, starts: () => starts };
}

test('a thread on demand starts at the first call, once for all that come at once', async () => {
  const dataDir = newDirectory();
  await openTestStore(dataDir);
  const reader = readerOf(dataDir);
  expect(reader.starts()).toBe(0);
  expect(await Promise.all([reader.call(size), reader.call(size)])).toEqual([0, 0]);
  expect(await reader.call(size)).toBe(0);
  expect(reader.starts()).toBe(1);
  await reader.close();
  await expect(reader.call(size)).rejects.toThrow(code('store_unavailable'));
});

test('a thread that does not open fails its calls, is no loss to the store, and the next call starts another', async () => {
  const dataDir = newDirectory();
  mkdirSync(dataDir, { recursive: true });
  const reader = readerOf(dataDir);
  const early = await Promise.allSettled([reader.call(size), reader.call(size)]);
  expect(early.map(({ status }) => status)).toEqual(['rejected', 'rejected']);
  expect(early[0]).toMatchObject({ reason: code('store_unavailable') });
  expect(reader.starts()).toBe(1);
  await openTestStore(dataDir);
  expect(await reader.call(size)).toBe(0);
  expect(reader.starts()).toBe(2);
  expect(lost).toEqual([]);
  await reader.close();
});

test('a thread that nobody asked for closes without having started', async () => {
  const reader = readerOf(newDirectory());
  await reader.close();
  expect(reader.starts()).toBe(0);
});

test('a close while it starts waits for the answer to what was asked before', async () => {
  const dataDir = newDirectory();
  await openTestStore(dataDir);
  const reader = readerOf(dataDir);
  const answer = reader.call(size);
  await reader.close();
  expect(await answer).toBe(0);
  expect(lost).toEqual([]);
});
