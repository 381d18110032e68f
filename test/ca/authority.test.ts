import { randomBytes } from 'node:crypto';
import { beforeAll, describe, expect, test } from 'vitest';
import { createAuthority } from '../../src/ca/authority.ts';
import { openMemoryKey } from '../../src/ca/memory-key.ts';
import { parseProfile, type ProfileConfig } from '../../src/ca/profile.ts';
import { bundlePem, makeBundle } from '../../src/spiffe/bundle.ts';
import { SpiffeId, TrustDomain } from '../../src/spiffe/id.ts';
import { decodePem } from '../../src/spiffe/pem.ts';
import { checkX509Authority } from '../../src/spiffe/svid.ts';
import {
  makeIntermediate,
  makeKey,
  makeRoot,
  makeTestAuthority,
  type TestAuthority,
} from './test-authority.ts';

const now = new Date('2026-11-21T12:00:00Z');
const day = 86_400_000;
const coded = (code: string) => expect.objectContaining({ code });
let ca: TestAuthority;
let other: TestAuthority;
let foreign: TestAuthority;
beforeAll(async () => {
  ca = await makeTestAuthority(now);
  other = await makeTestAuthority(now);
  foreign = await makeTestAuthority(now, {}, 'example.com');
});

test.each([[{}], [{ authorityKey: 'ecdsa-p384' }]])('root and intermediate of profile %j', async (config) => {
  const { root, intermediate, authority, trustDomain } = await makeTestAuthority(now, config);
  const [top, middle] = [root, intermediate].map(({ certificate }) => checkX509Authority(certificate));
  expect(top).toMatchObject({
    trustDomain,
    pathLength: 1,
    serial: root.serial,
    subjectKeyId: root.keyId,
    authorityKeyId: undefined,
    notBefore: new Date('2026-11-21T11:59:30Z'),
    notAfter: new Date(now.getTime() + 3_650 * day),
  });
  expect(middle).toMatchObject({
    trustDomain,
    pathLength: 0,
    serial: intermediate.serial,
    subjectKeyId: intermediate.keyId,
    authorityKeyId: root.keyId,
    notAfter: new Date(now.getTime() + 30 * day),
  });
  expect(root.serial).toMatch(/^[4-7][0-9a-f]{39}$/);
  expect(authority).toMatchObject({ issuerKeyId: intermediate.keyId, notAfter: intermediate.notAfter });
  expect(authority.bundle).toEqual({ trustDomain, x509Authorities: [root.certificate], sequence: 1 });
});

test('an intermediate made late ends with its root; too late, it is not made', async () => {
  const { root, trustDomain, profile } = ca;
  const before = (ms: number) => new Date(root.notAfter.getTime() - ms);
  const late = await makeIntermediate({ trustDomain, profile, root, randomBytes, now: before(day) });
  expect(late.notAfter).toEqual(root.notAfter);
  for (const moment of [before(3_599_000), before(-day), new Date(root.notBefore.getTime() - 1_000)]) {
    const making = makeIntermediate({ trustDomain, profile, root, randomBytes, now: moment });
    await expect(making).rejects.toThrow(coded('issuer_expired'));
  }
});

test('an intermediate is made only by a root of its own trust domain', async () => {
  const { trustDomain, profile, intermediate } = ca;
  const options = { trustDomain, profile, now, randomBytes };
  await expect(makeIntermediate({ ...options, root: foreign.root })).rejects.toThrow(
    coded('authority_invalid'),
  );
  await expect(makeIntermediate({ ...options, root: intermediate })).rejects.toThrow(
    coded('authority_invalid'),
  );
  const mixed = { certificate: ca.root.certificate, key: other.root.key };
  await expect(makeIntermediate({ ...options, root: mixed })).rejects.toThrow(coded('authority_invalid'));
});

test('a root is made only at a usable date, with working randomness', async () => {
  const { trustDomain, profile } = ca;
  const bad = async (date: Date, random = randomBytes as (size: number) => Uint8Array) =>
    makeRoot({ trustDomain, profile, now: date, randomBytes: random });
  await expect(bad(new Date(Number.NaN))).rejects.toThrow(coded('profile_invalid'));
  await expect(bad(new Date('1949-01-01'))).rejects.toThrow(coded('profile_invalid'));
  await expect(bad(now, (size) => new Uint8Array(size))).rejects.toThrow(coded('internal'));
});

describe('createAuthority refuses', () => {
  type Options = Parameters<typeof createAuthority>[0];
  const key = (bytes: Uint8Array) => ({
    certificate: ca.intermediate.certificate,
    key: openMemoryKey(bytes),
  });
  const flipped = (bytes: Uint8Array, at: number) => {
    const copy = Uint8Array.from(bytes);
    copy[copy.length + at] = (copy[copy.length + at] ?? 0) ^ 1;
    return copy;
  };
  test.each<[string, () => Partial<Options>]>([
    ['another trust domain', () => ({ trustDomain: TrustDomain.parse('example.com') })],
    ['a foreign root', () => ({ root: foreign.root })],
    ['another root of the same domain', () => ({ root: other.root })],
    ['a foreign intermediate', () => ({ intermediate: foreign.intermediate })],
    ["another root's intermediate", () => ({ intermediate: other.intermediate })],
    ['an intermediate as root', () => ({ root: ca.intermediate })],
    ['a root as intermediate', () => ({ intermediate: ca.root })],
    ["another CA's key", () => ({ intermediate: key(other.intermediate.privateKey) })],
    ["the root's key", () => ({ intermediate: key(ca.root.privateKey) })],
    ['an RSA key', () => ({ intermediate: key(makeKey('rsa-2048').pkcs8) })],
    ['an empty key', () => ({ intermediate: key(new Uint8Array(0)) })],
    ['a damaged key', () => ({ intermediate: key(ca.intermediate.privateKey.subarray(1)) })],
    [
      'a root whose signature is damaged',
      () => ({ root: { certificate: flipped(ca.root.certificate, -1) } }),
    ],
    [
      'an intermediate whose signature is damaged',
      () => ({
        intermediate: { ...ca.intermediate, certificate: flipped(ca.intermediate.certificate, -1) },
      }),
    ],
    [
      'a root with bytes after it',
      () => ({ root: { certificate: Buffer.concat([ca.root.certificate, Buffer.alloc(1)]) } }),
    ],
    ['no root', () => ({ root: { certificate: new Uint8Array(0) } })],
  ])('%s', (_, changes) => {
    expect(() => createAuthority({ ...ca, randomBytes, ...changes() })).toThrow(coded('authority_invalid'));
  });

  test('a leaf in either place', async () => {
    const request = {
      id: SpiffeId.parse('spiffe://example.org/a'),
      publicKey: makeKey('ec-prime256v1').spki,
      dnsNames: [],
      ttlSeconds: 60,
    };
    const { certificates } = await ca.authority.sign(ca.authority.prepare(request, now));
    const leaf = { certificate: certificates[0]!, key: ca.intermediate.key };
    expect(() => createAuthority({ ...ca, randomBytes, root: leaf })).toThrow(coded('authority_invalid'));
    expect(() => createAuthority({ ...ca, randomBytes, intermediate: leaf })).toThrow(
      coded('authority_invalid'),
    );
  });
});

describe('makeBundle', () => {
  test.each<[string, () => Parameters<typeof makeBundle>]>([
    ['no authority', () => [ca.trustDomain, [], 1]],
    ['an authority twice', () => [ca.trustDomain, [ca.root.certificate, ca.root.certificate], 1]],
    [
      "another trust domain's authority",
      () => [ca.trustDomain, [ca.root.certificate, foreign.root.certificate], 1],
    ],
    ['noise', () => [ca.trustDomain, [Uint8Array.of(1, 2, 3)], 1]],
    [
      'too many authorities',
      () => [ca.trustDomain, Array.from({ length: 65 }, () => ca.root.certificate), 1],
    ],
    ['a sequence below zero', () => [ca.trustDomain, [ca.root.certificate], -1]],
    [
      'a sequence that is no whole number',
      () => [TrustDomain.parse('example.org'), [ca.root.certificate], 1.5],
    ],
  ])('refuses %s', (_, args) => {
    expect(() => makeBundle(...args())).toThrow(coded('bundle_invalid'));
  });

  test('keeps the order, and copies', () => {
    const ders = [other.root.certificate, ca.root.certificate].map((der) => Uint8Array.from(der));
    const bundle = makeBundle(ca.trustDomain, ders, 7);
    ders[0]!.fill(0);
    expect(bundle.x509Authorities).toEqual([other.root.certificate, ca.root.certificate]);
    expect(decodePem(bundlePem(bundle), 'CERTIFICATE', { maxBytes: 10_000 })).toEqual(bundle.x509Authorities);
  });
});

describe('parseProfile', () => {
  test.each<[ProfileConfig]>([
    [{ authorityKey: 'rsa-2048' }],
    [{ authorityKey: 'ed25519' }],
    [{ authorityKey: '__proto__' }],
    [{ rootTtlSeconds: 86_399 }],
    [{ rootTtlSeconds: 20 * 365 * 86_400 + 1 }],
    [{ intermediateTtlSeconds: 3_599 }],
    [{ intermediateTtlSeconds: 365 * 86_400 + 1 }],
    [{ rootTtlSeconds: 86_400, intermediateTtlSeconds: 86_401 }],
    [{ maxLeafTtlSeconds: 19 }],
    [{ maxLeafTtlSeconds: 86_401 }],
    [{ intermediateTtlSeconds: 3_600, maxLeafTtlSeconds: 3_600 }],
    [{ maxLeafTtlSeconds: 60.5 }],
    [{ maxLeafTtlSeconds: Number.NaN }],
    [{ maxLeafTtlSeconds: Infinity }],
    [{ backdateSeconds: -1 }],
    [{ backdateSeconds: 601 }],
    [{ leafKeys: [] }],
    [{ leafKeys: ['ecdsa-p256', 'rsa-1024'] }],
  ])('refuses %j', (config) => {
    expect(() => parseProfile(config)).toThrow(coded('profile_invalid'));
  });

  test('has the documented defaults', () => {
    expect(parseProfile()).toMatchObject({
      authorityKey: 'ecdsa-p256',
      rootTtlSeconds: 315_360_000,
      intermediateTtlSeconds: 2_592_000,
      maxLeafTtlSeconds: 86_400,
      backdateSeconds: 30,
    });
    expect(parseProfile({ rootTtlSeconds: 86_400 }).intermediateTtlSeconds).toBe(86_400);
    expect(parseProfile({ intermediateTtlSeconds: 3_600 }).maxLeafTtlSeconds).toBe(3_599);
  });
});
