import { expect, test } from 'vitest';
import { issuance, noon } from '../audit/events.ts';
import type { Store } from '../../src/store/store.ts';
import { newDirectory, openTestStore } from './directories.ts';

const later = new Date(noon.getTime() + 3_600_000);
const [web, job] = ['spiffe://example.org/web', 'spiffe://example.org/job'] as const;
const [keyA, keyB] = ['aa'.repeat(32), 'bb'.repeat(32)] as const;
type Names = Parameters<Store['namedCertificates']>[0];
const none: Names = { spiffeIds: [], serials: [], keys: [] };

test('certificates are held against what their issuances say', async () => {
  const store = await openTestStore(newDirectory());
  const [ours, theirs] = ['11'.repeat(32), '22'.repeat(32)];
  await store.recordEvents([issuance({ serial: '41', tbsSha256: ours })]);
  const seen = [
    { serial: '41', tbsSha256: ours },
    { serial: '41', tbsSha256: theirs },
    { serial: '41', tbsSha256: '' },
    { serial: '99', tbsSha256: theirs },
  ];
  const { copied } = await store.namedCertificates({ ...none, seen }, later);
  expect(copied).toEqual([seen[1]]);
});

test('certificates are found by identity, serial and key while they are valid, each once', async () => {
  const store = await openTestStore(newDirectory());
  const make = (serial: string, spiffeId: string, spkiSha256: string, notAfter = later) =>
    issuance({ serial, spiffeId, spkiSha256, notAfter, issuerKeyId: 'cc'.repeat(20) });
  await store.recordEvents([
    make('41', web, keyA),
    make('42', web, keyB),
    make('43', job, keyA),
    make('44', web, keyA, noon),
  ]);
  const find = async (names: Partial<Names>, now = noon) => {
    const { certificates, unknownSerials } = await store.namedCertificates({ ...none, ...names }, now);
    return [certificates.map(({ serial }) => serial).sort(), unknownSerials];
  };
  expect(await find({ spiffeIds: [web] })).toEqual([['41', '42'], []]);
  expect(await find({ keys: [keyA] })).toEqual([['41', '43'], []]);
  expect(await find({ spiffeIds: [web, job], keys: [keyA], serials: ['41'] })).toEqual([
    ['41', '42', '43'],
    [],
  ]);
  // 44 has expired, and is ours all the same; 99 nobody here gave out.
  expect(await find({ serials: ['43', '44', '99'] })).toEqual([['43'], ['99']]);
  expect(await find({ spiffeIds: [web] }, later)).toEqual([[], []]);
  // No key is known of those an earlier version issued: they are not all of one key.
  expect(await find({ keys: [''] })).toEqual([[], []]);
  expect(await find({})).toEqual([[], []]);
  const { certificates } = await store.namedCertificates({ ...none, serials: ['43'] }, noon);
  expect(certificates).toEqual([
    { serial: '43', spiffeId: job, spkiSha256: keyA, issuerKeyId: 'cc'.repeat(20), notAfter: later },
  ]);
});
