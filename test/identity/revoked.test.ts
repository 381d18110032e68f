import { describe, expect, test } from 'vitest';
import { maxRevoked } from '../../src/ca/crl.ts';
import type { Ban } from '../../src/identity/ban.ts';
import { expiredKeptMs, namedBy, type NamedCertificate, revocationsOf } from '../../src/identity/revoked.ts';

const now = new Date('2026-03-01T12:00:00.000Z');
const inHours = (hours: number) => new Date(now.getTime() + hours * 3_600_000);
const web = 'spiffe://mesh.test/web';
const key = 'aa'.repeat(32);
const ban = (kind: Ban['kind'], value: string, rest: Partial<Ban> = {}): Ban => ({
  kind,
  value,
  reason: 'test',
  until: null,
  createdAt: inHours(-1),
  actor: { kind: 'system' },
  revision: 1,
  ...rest,
});
const leaf = (serial: string, rest: Partial<NamedCertificate> = {}): NamedCertificate => ({
  serial,
  spiffeId: web,
  spkiSha256: key,
  issuerKeyId: 'ca',
  notAfter: inHours(1),
  ...rest,
});
const revoke = (
  bans: readonly Ban[],
  certificates: readonly NamedCertificate[],
  unknownSerials: string[] = [],
) => revocationsOf(bans, { certificates, unknownSerials }, now);

describe('the reason', () => {
  const later = inHours(2);
  test.each<[string, readonly Ban[], string]>([
    ['of an identity', [ban('spiffe-id', web)], 'privilege_withdrawn'],
    ['of a serial', [ban('serial', '40')], 'privilege_withdrawn'],
    ['of a key', [ban('key', key)], 'key_compromise'],
    ['of a ban with an end', [ban('spiffe-id', web, { until: later })], 'certificate_hold'],
    ['of a key for a while', [ban('key', key, { until: later })], 'certificate_hold'],
    ['of two', [ban('spiffe-id', web, { until: later }), ban('key', key)], 'key_compromise'],
    [
      'of two for a while and for ever',
      [ban('serial', '40', { until: later }), ban('spiffe-id', web)],
      'privilege_withdrawn',
    ],
  ])('%s', (_, bans, reason) => {
    expect(revoke(bans, [leaf('40')]).byIssuer.get('ca')).toMatchObject([{ serial: '40', reason }]);
  });
});

test.each<[string, readonly Ban[], readonly NamedCertificate[]]>([
  ['no ban', [], [leaf('40')]],
  ['a ban that has ended', [ban('spiffe-id', web, { until: now })], [leaf('40')]],
  ['a ban of somebody else', [ban('spiffe-id', `${web}2`), ban('serial', '41')], [leaf('40')]],
  [
    'a ban of a key, of a certificate whose key is not known',
    [ban('key', key)],
    [leaf('40', { spkiSha256: '' })],
  ],
  [
    'a certificate long expired',
    [ban('spiffe-id', web)],
    [leaf('40', { notAfter: new Date(now.getTime() - expiredKeptMs) })],
  ],
])('%s revokes nothing', (_, bans, certificates) => {
  expect(revoke(bans, certificates)).toEqual({ byIssuer: new Map(), nextEnd: null, omitted: 0 });
});

test('a serial that we never gave out, and a certificate of an issuer nobody knows, stand under every CA', () => {
  const { byIssuer } = revoke(
    [ban('serial', '99'), ban('spiffe-id', web)],
    [leaf('40', { issuerKeyId: '' })],
    ['99'],
  );
  expect([...byIssuer]).toMatchObject([['', [{ serial: '99' }, { serial: '40' }]]]);
});

test('the next end is that of a ban or of a certificate, whichever is first', () => {
  const certificates = [leaf('40'), leaf('41', { notAfter: inHours(5) })];
  expect(revoke([ban('spiffe-id', web)], certificates).nextEnd).toEqual(
    new Date(inHours(1).getTime() + expiredKeptMs),
  );
  expect(revoke([ban('spiffe-id', web, { until: inHours(0.5) })], certificates).nextEnd).toEqual(
    inHours(0.5),
  );
});

test('what a list has no room for is what expires first, and is counted', () => {
  const certificates = Array.from({ length: maxRevoked + 3 }, (_, i) =>
    leaf(i.toString(16).padStart(4, '0'), { notAfter: inHours(i < 3 ? 1 : 2) }),
  );
  const { byIssuer, omitted } = revoke([ban('spiffe-id', web)], certificates);
  expect([byIssuer.get('ca')?.length, omitted]).toEqual([maxRevoked, 3]);
  expect(byIssuer.get('ca')?.some(({ serial }) => ['0000', '0001', '0002'].includes(serial))).toBe(false);
});

test('only bans in force name anything', () => {
  const bans = [
    ban('spiffe-id', web),
    ban('serial', '40'),
    ban('key', key),
    ban('serial', '41', { until: now }),
  ];
  expect(namedBy(bans, now)).toEqual({ spiffeIds: [web], serials: ['40'], keys: [key] });
});
