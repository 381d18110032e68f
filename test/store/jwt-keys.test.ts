import { expect, test } from 'vitest';
import type { JwtSlot } from '../../src/ca/jwt-slot.ts';
import { jwtIssuance, noon, oneOfEach } from '../audit/events.ts';
import { newDirectory, openTestStore } from './directories.ts';

const key = (keyId: string, change: Partial<JwtSlot> = {}): JwtSlot => ({
  keyId,
  keyType: 'ec-p256',
  publicKey: new Uint8Array([0x30, 0]),
  state: 'active',
  publishedAt: noon,
  activatedAt: noon,
  stoppedAt: null,
  ...change,
});
const [first, second] = [key('aa'), key('bb', { state: 'prepared', activatedAt: null })];
const event = oneOfEach.find(({ type }) => type === 'jwt_key');
const at = (minutes: number): Date => new Date(noon.getTime() + minutes * 60_000);

test('keys are put by key ID, with their sequence and their events', async () => {
  const dataDir = newDirectory();
  const store = await openTestStore(dataDir);
  await store.commitJwtKeys([first, second], 2, event === undefined ? [] : [event]);
  const [stopped, active] = [
    { ...first, state: 'retiring', stoppedAt: at(9) } as const,
    { ...second, state: 'active', activatedAt: at(9) } as const,
  ];
  // In either order: at no moment are two active.
  await store.commitJwtKeys([active, stopped], 2, []);
  await store.close();
  const again = await openTestStore(dataDir);
  expect(await again.loadJwtKeys()).toEqual([stopped, active]);
  expect([await again.readMeta('jwt_bundle_sequence'), await again.auditSize()]).toEqual(['2', 1]);
});

test.each([
  ['active', key('cc')],
  ['prepared', key('cc', { state: 'prepared' })],
])('two that are %s are refused, and nothing of the change is kept', async (_, third) => {
  const store = await openTestStore();
  await store.commitJwtKeys([first, second], 2, []);
  await expect(store.commitJwtKeys([third], 3, [jwtIssuance()])).rejects.toMatchObject({ code: 'internal' });
  expect(await store.loadJwtKeys()).toEqual([first, second]);
  expect([await store.readMeta('jwt_bundle_sequence'), await store.auditSize()]).toEqual(['2', 0]);
  expect(await store.jwtExpiries()).toEqual(new Map());
});

test('the last expiry of the tokens of each key is kept with their records, through restarts', async () => {
  const dataDir = newDirectory();
  const store = await openTestStore(dataDir);
  const token = (keyId: string, minutes: number) => jwtIssuance({ keyId, notAfter: at(minutes) });
  await store.recordEvents([token('aa', 7), token('bb', 1)]);
  await Promise.all([store.recordEvents([token('aa', 5)]), store.recordEvents([token('bb', 60)])]);
  await store.close();
  const again = await openTestStore(dataDir);
  await again.recordEvents([token('bb', 2)]);
  expect(await again.jwtExpiries()).toEqual(
    new Map([
      ['aa', at(7)],
      ['bb', at(60)],
    ]),
  );
});
