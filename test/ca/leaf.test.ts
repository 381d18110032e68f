import { createHash, randomBytes, X509Certificate } from 'node:crypto';
import fc from 'fast-check';
import { beforeAll, describe, expect, test } from 'vitest';
import type { LeafRequest } from '../../src/ca/leaf.ts';
import { createAuthority } from '../../src/ca/authority.ts';
import { readCertificate } from '../../src/spiffe/certificate.ts';
import { hexOf } from '../../src/spiffe/der.ts';
import { SpiffeId, TrustDomain } from '../../src/spiffe/id.ts';
import { checkX509SvidLeaf } from '../../src/spiffe/svid.ts';
import { makeReferenceIssuer } from './reference-leaf.ts';
import { makeKey, makeTestAuthority, type TestAuthority, type TestKey } from './test-authority.ts';

const now = new Date('2026-11-21T12:00:00.750Z');
const id = SpiffeId.parse('spiffe://example.org/ns/shop/sa/web');
let ca: TestAuthority;
let ca384: TestAuthority;
let key: TestKey;
beforeAll(async () => {
  ca = await makeTestAuthority(now);
  ca384 = await makeTestAuthority(now, { authorityKey: 'ecdsa-p384' });
  key = makeKey('ec-prime256v1');
});

const request = (changes: Partial<LeafRequest> = {}): LeafRequest => ({
  id,
  publicKey: key.spki,
  dnsNames: [],
  ttlSeconds: 3_600,
  ...changes,
});
const coded = (code: string) => expect.objectContaining({ code });

test('a leaf says what was prepared, and nothing else', async () => {
  const prepared = ca.authority.prepare(request({ dnsNames: ['web', 'web.shop.svc'] }), now);
  const issued = await ca.authority.sign(prepared);
  const [der, intermediate] = issued.certificates;
  const leaf = checkX509SvidLeaf(der!);
  expect(intermediate).toEqual(ca.intermediate.certificate);
  expect(issued.certificates).toHaveLength(2);
  expect(leaf).toMatchObject({
    dnsNames: ['web', 'web.shop.svc'],
    serial: prepared.serial,
    notBefore: new Date('2026-11-21T11:59:30Z'),
    notAfter: new Date('2026-11-21T13:00:00Z'),
    spkiSha256: prepared.spkiSha256,
    authorityKeyId: ca.intermediate.keyId,
  });
  expect(leaf.id.equals(id)).toBe(true);
  expect(prepared.serial).toMatch(/^[4-7][0-9a-f]{39}$/);
  expect([issued.serial, issued.notBefore, issued.notAfter]).toEqual([
    leaf.serial,
    leaf.notBefore,
    leaf.notAfter,
  ]);
  expect(prepared.issuerKeyId).toBe(ca.authority.issuerKeyId);
});

describe('prepare refuses', () => {
  const dnsNames = (...names: string[]) => ({ dnsNames: names });
  test.each<[string, Partial<LeafRequest>, string]>([
    [
      'another trust domain',
      { id: SpiffeId.parse('spiffe://example.com/a') },
      'spiffe_id_foreign_trust_domain',
    ],
    [
      'a longer trust domain',
      { id: SpiffeId.parse('spiffe://example.org.evil/a') },
      'spiffe_id_foreign_trust_domain',
    ],
    ["the trust domain's own ID", { id: SpiffeId.parse('spiffe://example.org') }, 'spiffe_id_path_missing'],
    ...[0, 19, 86_401, -1, 3_600.5, 2 ** 31, 2 ** 53 + 2, 2 ** 63, Number.NaN, Infinity, -Infinity].map(
      (ttlSeconds): [string, Partial<LeafRequest>, string] => [
        `a lifetime of ${ttlSeconds}`,
        { ttlSeconds },
        'profile_invalid',
      ],
    ),
    ['an empty DNS name', dnsNames(''), 'profile_invalid'],
    ['a wildcard', dnsNames('*.example.org'), 'profile_invalid'],
    ['upper case', dnsNames('Web'), 'profile_invalid'],
    ['a trailing dot', dnsNames('web.'), 'profile_invalid'],
    ['an empty label', dnsNames('web..svc'), 'profile_invalid'],
    ['a hyphen first', dnsNames('-web'), 'profile_invalid'],
    ['a NUL', dnsNames('web\0.evil'), 'profile_invalid'],
    ['a second name smuggled in', dnsNames('web, URI:spiffe://example.org/b'), 'profile_invalid'],
    ['a line feed', dnsNames('web\n'), 'profile_invalid'],
    ['an address', dnsNames('127.0.0.1'), 'profile_invalid'],
    ['a number', dnsNames('1'), 'profile_invalid'],
    ['a label of 64', dnsNames('a'.repeat(64)), 'profile_invalid'],
    ['a name of 254', dnsNames(`${'a.'.repeat(126)}ab`), 'profile_invalid'],
    ['a name twice', dnsNames('web', 'web'), 'profile_invalid'],
    ['65 names', dnsNames(...Array.from({ length: 65 }, (_, i) => `a${i}`)), 'profile_invalid'],
    ['no key', { publicKey: new Uint8Array(0) }, 'public_key_unsupported'],
  ])('%s', (_, changes, code) => {
    expect(() => ca.authority.prepare(request(changes), now)).toThrow(coded(code));
  });

  test("a CA's own key", () => {
    for (const { certificate } of [ca.root, ca.intermediate]) {
      const { spki } = readCertificate(certificate);
      expect(() => ca.authority.prepare(request({ publicKey: spki }), now)).toThrow(
        coded('public_key_unsupported'),
      );
    }
  });

  test('a key or a lifetime outside the profile', async () => {
    const narrow = await makeTestAuthority(now, { leafKeys: ['ecdsa-p384'], maxLeafTtlSeconds: 600 });
    expect(() => narrow.authority.prepare(request({ ttlSeconds: 600 }), now)).toThrow(
      coded('public_key_unsupported'),
    );
    const publicKey = makeKey('ec-secp384r1').spki;
    expect(() => narrow.authority.prepare(request({ publicKey, ttlSeconds: 601 }), now)).toThrow(
      coded('profile_invalid'),
    );
    expect(() => narrow.authority.prepare(request({ publicKey, ttlSeconds: 600 }), now)).not.toThrow();
  });

  test.each([
    ['too little', () => new Uint8Array(19)],
    ['too much', () => new Uint8Array(21)],
    ['zeros', (size: number) => new Uint8Array(size)],
  ])('randomness that is broken: %s', (_, broken) => {
    const authority = createAuthority({ ...ca, randomBytes: broken });
    expect(() => authority.prepare(request(), now)).toThrow(coded('internal'));
  });
});

describe('dates', () => {
  const at = (base: Date, seconds: number) => new Date(base.getTime() + seconds * 1_000);
  const end = () => ca.authority.notAfter;

  test.each([
    ['an hour before the end', 3_600, -3_600],
    ['a minute before the end', 3_600, -60],
    ['ten seconds before the end, for 20 seconds', 20, -10],
    ['29 seconds before the end, for 58', 58, -29],
  ])('clamped to the issuer: %s', (_, ttlSeconds, offset) => {
    const prepared = ca.authority.prepare(request({ ttlSeconds }), at(end(), offset));
    expect(prepared.notAfter).toEqual(end());
  });

  test.each([
    ['59 seconds before the end', 3_600, -59],
    ['at the end', 3_600, 0],
    ['years after the end', 3_600, 86_400 * 3_650],
    ['nine seconds before the end, for 20 seconds', 20, -9],
    ['28 seconds before the end, for 58', 58, -28],
  ])('issuer_expired: %s', (_, ttlSeconds, offset) => {
    expect(() => ca.authority.prepare(request({ ttlSeconds }), at(end(), offset))).toThrow(
      coded('issuer_expired'),
    );
  });

  test('a clock that went back: not before the issuer, and the backdating ends there', () => {
    const start = ca.intermediate.notBefore;
    expect(() => ca.authority.prepare(request(), at(start, -1))).toThrow(coded('issuer_expired'));
    expect(() => ca.authority.prepare(request(), new Date(86_400_000))).toThrow(coded('issuer_expired'));
    expect(ca.authority.prepare(request(), at(start, 5)).notBefore).toEqual(start);
  });

  test.each([new Date(Number.NaN), new Date(8.64e15), new Date(-1e12), new Date('9999-06-01')])(
    'no usable date: %s',
    (bad) => {
      expect(() => ca.authority.prepare(request(), bad)).toThrow(coded('profile_invalid'));
    },
  );

  test('over the year 2050, each date in its own form', async () => {
    const eve = new Date('2049-12-31T23:59:00Z');
    const { authority } = await makeTestAuthority(eve);
    const { certificates } = await authority.sign(authority.prepare(request(), eve));
    const hex = hexOf(certificates[0]!);
    expect(hex).toContain(`170d${Buffer.from('491231235830Z').toString('hex')}`);
    expect(hex).toContain(`180f${Buffer.from('20500101005900Z').toString('hex')}`);
  });
});

describe('one record, one signature', () => {
  test('the record made before signing describes the very bytes that are signed', async () => {
    const prepared = ca.authority.prepare(request(), now);
    const record = { ...prepared };
    const { certificates } = await ca.authority.sign(prepared);
    const { tbs, spki, serial } = readCertificate(certificates[0]!);
    const digest = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest('hex');
    expect(record).toMatchObject({ serial, tbsSha256: digest(tbs), spkiSha256: digest(spki) });
  });

  test('a crash between the record and the signature costs a serial and nothing else', async () => {
    const lost = ca.authority.prepare(request(), now);
    const restarted = createAuthority({ ...ca, randomBytes });
    await expect(restarted.sign(lost)).rejects.toThrow(coded('internal'));
    const next = restarted.prepare(request(), now);
    expect(next.serial).not.toBe(lost.serial);
    await expect(restarted.sign(next)).resolves.toMatchObject({ serial: next.serial });
  });

  test('a prepared leaf is spent by the first try', async () => {
    const prepared = ca.authority.prepare(request(), now);
    await ca.authority.sign(prepared);
    await expect(ca.authority.sign(prepared)).rejects.toThrow(coded('internal'));
  });

  test('two tries at once: one wins', async () => {
    const prepared = ca.authority.prepare(request(), now);
    const results = await Promise.allSettled([ca.authority.sign(prepared), ca.authority.sign(prepared)]);
    expect(results.map(({ status }) => status)).toEqual(['fulfilled', 'rejected']);
  });

  test('copies, inventions and leaves of another authority are not signed', async () => {
    const prepared = ca.authority.prepare(request(), now);
    await expect(ca.authority.sign({ ...prepared })).rejects.toThrow(coded('internal'));
    await expect(ca384.authority.sign(prepared)).rejects.toThrow(coded('internal'));
    expect(Object.isFrozen(prepared)).toBe(true);
    await expect(ca.authority.sign(prepared)).resolves.toMatchObject({ serial: prepared.serial });
  });

  test('what the caller changes after preparing does not reach the certificate', async () => {
    const publicKey = Uint8Array.from(key.spki);
    const dnsNames = ['web'];
    const moment = new Date(now);
    const prepared = ca.authority.prepare(request({ publicKey, dnsNames }), moment);
    publicKey.fill(0);
    dnsNames[0] = 'evil';
    moment.setTime(0);
    prepared.notAfter.setFullYear(2099);
    const issued = await ca.authority.sign(prepared);
    const leaf = checkX509SvidLeaf(issued.certificates[0]!);
    expect(issued.notAfter).toEqual(leaf.notAfter);
    expect(leaf).toMatchObject({ dnsNames: ['web'], notAfter: new Date('2026-11-21T13:00:00Z') });
    expect(leaf.spkiSha256).toBe(prepared.spkiSha256);
  });

  test('the same request twice gives two serials', () => {
    const serials = new Set(Array.from({ length: 200 }, () => ca.authority.prepare(request(), now).serial));
    expect(serials.size).toBe(200);
  });
});

test('our leaf is the one @peculiar/x509 writes, byte for byte before the signature', async () => {
  const keys = ['ec-prime256v1', 'ec-secp384r1', 'rsa-2048'].map(makeKey);
  const segment = fc.stringMatching(/^[A-Za-z0-9_-]{1,40}$/);
  const dnsName = fc.stringMatching(/^[a-z]([a-z0-9-]{0,20}[a-z0-9])?(\.[a-z]{1,10}){0,3}$/);
  const issuers = await Promise.all(
    [ca, ca384].map(async (one) => ({ ...one, reference: await makeReferenceIssuer(one.intermediate) })),
  );
  await fc.assert(
    fc.asyncProperty(
      fc.array(segment, { minLength: 1, maxLength: 8 }),
      fc.uniqueArray(dnsName, { maxLength: 5 }),
      fc.integer({ min: 20, max: 86_400 }),
      fc.integer({ min: 0, max: 25 * 86_400 }),
      fc.constantFrom(...keys),
      fc.constantFrom(...issuers),
      async (segments, dnsNames, ttlSeconds, later, { spki }, { authority, intermediate, reference }) => {
        const own = SpiffeId.parse(`spiffe://example.org/${segments.join('/')}`);
        const time = new Date(now.getTime() + later * 1_000);
        const prepared = authority.prepare({ id: own, publicKey: spki, dnsNames, ttlSeconds }, time);
        const { certificates, ...dates } = await authority.sign(prepared);
        const ours = readCertificate(certificates[0]!);
        const theirs = readCertificate(
          await reference({
            uri: own.text,
            dnsNames,
            spki,
            subjectKeyId: checkX509SvidLeaf(certificates[0]!).subjectKeyId!,
            ...dates,
          }),
        );
        for (const field of [
          'serial',
          'notBefore',
          'notAfter',
          'issuer',
          'subject',
          'spki',
          'extensions',
        ] as const) {
          expect([field, ours[field]]).toEqual([field, theirs[field]]);
        }
        expect(hexOf(ours.tbs)).toBe(hexOf(theirs.tbs));
        expect(hexOf(ours.signatureAlgorithm)).toBe(hexOf(theirs.signatureAlgorithm));
        expect(
          new X509Certificate(certificates[0]!).verify(
            new X509Certificate(intermediate.certificate).publicKey,
          ),
        ).toBe(true);
      },
    ),
    { numRuns: 60 },
  );
});

test('an authority of a strange but valid trust domain issues all the same', async () => {
  for (const name of ['__proto__', '1.2.3.4', '-._', 'a'.repeat(255)]) {
    const { authority } = await makeTestAuthority(now, {}, name);
    const own = SpiffeId.parse(`${TrustDomain.parse(name).id}/a`);
    const { certificates } = await authority.sign(authority.prepare(request({ id: own }), now));
    expect(checkX509SvidLeaf(certificates[0]!).id.text).toBe(own.text);
  }
});
