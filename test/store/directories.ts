import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach } from 'vitest';
import type { Clock } from '../../src/clock.ts';
import { openStore, type Store } from '../../src/store/store.ts';
import { noon } from '../audit/events.ts';

export const standingClock: Clock = { now: () => noon, sleep: async () => {} };

const dirs: string[] = [];
const stores: Store[] = [];

afterEach(async () => {
  for (const store of stores.splice(0)) await store.close();
  for (const dir of dirs.splice(0)) rmSync(dir, { recursive: true, force: true });
});

/** A directory that is removed after the test. */
export function newDirectory(): string {
  const dir = mkdtempSync(join(tmpdir(), 'countersign-store-'));
  dirs.push(dir);
  return dir;
}

/** A store that is closed after the test. */
export async function openTestStore(dataDir = newDirectory(), clock = standingClock): Promise<Store> {
  const store = await openStore({ dataDir, clock, randomBytes });
  stores.push(store);
  return store;
}
