import { randomBytes } from 'node:crypto';
import { beforeAll, describe, expect, test } from 'vitest';
import {
  type KeyEnvelope,
  openKey,
  productionCost,
  sealKey,
  type SealingSecret,
} from '../../src/ca/key-envelope.ts';
import { generatePkcs8, openMemoryKey } from '../../src/ca/memory-key.ts';
import { TrustDomain } from '../../src/spiffe/id.ts';
import { startCpuWatch } from '../harness/cpu-watch.ts';
import { makeKey } from './test-authority.ts';

const cost = 1_024;
const keyId = 'ab'.repeat(20);
const trustDomain = TrustDomain.parse('example.org');
const passphrase = Buffer.from('correct horse battery');
const secretOf = (bytes: Uint8Array): SealingSecret => ({ kind: 'passphrase', bytes });
const secret = secretOf(passphrase);
const randomKey: SealingSecret = {
  kind: 'random_key',
  bytes: Buffer.from(Array.from({ length: 32 }, (_, at) => at)),
};
const { pkcs8 } = makeKey('ec-prime256v1');
const coded = (code: string) => expect.objectContaining({ code });
let envelope: KeyEnvelope;
beforeAll(async () => {
  envelope = await sealKey({ pkcs8, keyId, trustDomain, secret, randomBytes, cost });
});
/** What `Buffer.from` and `Buffer.concat` copy small things into. */
const sharedPool = () => Buffer.from(Buffer.allocUnsafe(1).buffer);
const open = (changed: unknown, options: object = {}) =>
  openKey({ envelope: changed, keyId, trustDomain, secret, minCost: cost, ...options });

test('what is sealed is opened, through JSON', async () => {
  expect(await open(JSON.parse(JSON.stringify(envelope)))).toEqual(Uint8Array.from(pkcs8));
});

test('no copy of an opened key is left where buffers are shared', async () => {
  const made = await generatePkcs8('ecdsa-p256');
  const copy = Uint8Array.from(made);
  const sealed = await sealKey({ pkcs8: made, keyId, trustDomain, secret: randomKey, randomBytes });
  made.fill(0);
  const before = sharedPool();
  const opened = await openKey({ envelope: sealed, keyId, trustDomain, secret: randomKey });
  expect(opened).toEqual(copy);
  openMemoryKey(opened);
  opened.fill(0);
  for (const pool of [before, sharedPool()]) expect(pool.includes(Buffer.from(copy.buffer))).toBe(false);
});

test('by default it costs 2^17, and opens only at that cost', async () => {
  expect(productionCost).toBe(2 ** 17);
  const real = await sealKey({ pkcs8, keyId, trustDomain, secret, randomBytes });
  expect(real.kdf).toMatchObject({ N: 2 ** 17, r: 8, p: 1 });
  const options = { keyId, trustDomain, secret };
  expect(await openKey({ envelope: real, ...options })).toEqual(Uint8Array.from(pkcs8));
  await expect(openKey({ envelope, ...options })).rejects.toThrow(coded('key_envelope_invalid'));
});

test('no two envelopes share salt, nonce or ciphertext, and none shows the key', async () => {
  const second = await sealKey({ pkcs8, keyId, trustDomain, secret, randomBytes, cost });
  expect(second.kdf.salt).not.toBe(envelope.kdf.salt);
  expect(second.nonce).not.toBe(envelope.nonce);
  expect(second.ciphertext).not.toBe(envelope.ciphertext);
  const text = JSON.stringify(envelope);
  for (const hidden of [pkcs8, passphrase]) {
    for (const encoding of ['base64', 'hex', 'latin1'] as const) {
      expect(text).not.toContain(Buffer.from(hidden).toString(encoding).slice(0, 20));
    }
  }
});

describe('a changed byte anywhere is noticed:', () => {
  test.each([
    [
      'ciphertext',
      (e: KeyEnvelope, flip: (b: string) => string) => ({ ...e, ciphertext: flip(e.ciphertext) }),
    ],
    ['tag', (e: KeyEnvelope, flip: (b: string) => string) => ({ ...e, tag: flip(e.tag) })],
    ['nonce', (e: KeyEnvelope, flip: (b: string) => string) => ({ ...e, nonce: flip(e.nonce) })],
    [
      'salt',
      (e: KeyEnvelope, flip: (b: string) => string) => ({ ...e, kdf: { ...e.kdf, salt: flip(e.kdf.salt) } }),
    ],
  ])('%s', async (_, change) => {
    const size = Buffer.from(change(envelope, (b) => b).ciphertext, 'base64').length;
    for (const at of [0, 5, 11, size - 1]) {
      const flip = (base64: string) => {
        const bytes = Buffer.from(base64, 'base64');
        const i = at % bytes.length;
        bytes[i] = (bytes[i] ?? 0) ^ 1;
        return bytes.toString('base64');
      };
      await expect(open(change(envelope, flip))).rejects.toThrow(coded('key_passphrase_wrong'));
    }
  });

  test('key id and trust domain, even when the reader expects the false ones', async () => {
    const otherId = 'cd'.repeat(20);
    const other = TrustDomain.parse('example.com');
    const renamed = { ...envelope, keyId: otherId };
    const moved = { ...envelope, trustDomain: other.name };
    await expect(open(renamed, { keyId: otherId })).rejects.toThrow(coded('key_passphrase_wrong'));
    await expect(open(moved, { trustDomain: other })).rejects.toThrow(coded('key_passphrase_wrong'));
    await expect(open({ ...envelope, kdf: { ...envelope.kdf, N: 2_048 } })).rejects.toThrow(
      coded('key_passphrase_wrong'),
    );
  });
});

test.each([
  ['another one', Buffer.from('correct horse batterx')],
  ['none', Buffer.alloc(0)],
  ['a prefix', passphrase.subarray(0, -1)],
  ['one with a line feed more', Buffer.concat([passphrase, Buffer.from('\n')])],
  ['a megabyte', Buffer.alloc(1_000_000, 1)],
])('wrong passphrase: %s', async (_, wrong) => {
  await expect(open(envelope, { secret: secretOf(wrong) })).rejects.toThrow(coded('key_passphrase_wrong'));
});

describe('key_envelope_invalid, without any work done:', () => {
  const kdf = (changes: object) => (e: KeyEnvelope) => ({ ...e, kdf: { ...e.kdf, ...changes } });
  const top = (changes: object) => (e: KeyEnvelope) => ({ ...e, ...changes });
  test.each<[string, (e: KeyEnvelope) => unknown]>([
    ['null', () => null],
    ['a string', (e) => JSON.stringify(e)],
    ['a list', (e) => [e]],
    ['an empty object', () => ({})],
    ['a field too many', top({ extra: 1 })],
    ['a field missing', (e) => Object.fromEntries(Object.entries(e).filter(([key]) => key !== 'tag'))],
    ['a field of the wrong type', top({ nonce: 7 })],
    ['version 2', top({ v: 2 })],
    ['version "1"', top({ v: '1' })],
    ['another cipher', top({ cipher: 'aes-256-ctr' })],
    ['another derivation', kdf({ name: 'pbkdf2' })],
    ['kdf null', top({ kdf: null })],
    ['N of 2', kdf({ N: 2 })],
    ['N below the floor', kdf({ N: 512 })],
    ['N of 2^20', kdf({ N: 2 ** 20 })],
    ['N of 2^30, a terabyte', kdf({ N: 2 ** 30 })],
    ['N of 2^53', kdf({ N: 2 ** 53 })],
    ['N that is no power of two', kdf({ N: 1_025 })],
    ['N as text', kdf({ N: '1024' })],
    ['N below zero', kdf({ N: -1_024 })],
    ['N that is no number', kdf({ N: Number.NaN })],
    ['r of 1', kdf({ r: 1 })],
    ['r of 2^20', kdf({ r: 2 ** 20 })],
    ['p of 0', kdf({ p: 0 })],
    ['p of 1,000', kdf({ p: 1_000 })],
    ['a short salt', kdf({ salt: 'AAAA' })],
    ['a salt that is not base64', kdf({ salt: '!'.repeat(44) })],
    ['a nonce of 11 bytes', top({ nonce: Buffer.alloc(11).toString('base64') })],
    ['a tag of 4 bytes', top({ tag: 'AAAAAA==' })],
    ['an empty ciphertext', top({ ciphertext: '' })],
    ['a huge ciphertext', top({ ciphertext: Buffer.alloc(20_000).toString('base64') })],
    ['base64 with a space', (e) => ({ ...e, tag: ` ${e.tag}` })],
    ['base64 with stray bits', (e) => ({ ...e, tag: `${e.tag.slice(0, 21)}B==` })],
    ['a line feed in a name', top({ trustDomain: 'example.org\n' })],
    ["another key's id", top({ keyId: 'cd'.repeat(20) })],
    ['another trust domain', top({ trustDomain: 'example.com' })],
    ['a key id that is none', top({ keyId: '../../etc' })],
  ])('%s', async (_, change) => {
    const usedMs = startCpuWatch();
    await expect(open(change(envelope))).rejects.toThrow(coded('key_envelope_invalid'));
    expect(usedMs()).toBeLessThan(1_000);
  });
});

test.each<[string, Partial<Parameters<typeof sealKey>[0]>, string]>([
  ['an empty key', { pkcs8: new Uint8Array(0) }, 'key_envelope_invalid'],
  ['a key of 16 KiB and a byte', { pkcs8: new Uint8Array(16_385) }, 'key_envelope_invalid'],
  ['a passphrase of seven bytes', { secret: secretOf(Buffer.alloc(7, 1)) }, 'key_envelope_invalid'],
  ['a passphrase of 1,025 bytes', { secret: secretOf(Buffer.alloc(1_025, 1)) }, 'key_envelope_invalid'],
  ['a malformed key id', { keyId: 'AB'.repeat(20) }, 'key_envelope_invalid'],
  ['a cost that is no power of two', { cost: 1_000 }, 'key_envelope_invalid'],
  ['a cost that is too high', { cost: 2 ** 20 }, 'key_envelope_invalid'],
  ['broken randomness', { randomBytes: (size) => new Uint8Array(size) }, 'internal'],
])('sealKey refuses %s', async (_, changes, code) => {
  const options = { pkcs8, keyId, trustDomain, secret, randomBytes, cost };
  await expect(sealKey({ ...options, ...changes })).rejects.toThrow(coded(code));
});

describe('a random key', () => {
  let cheap: KeyEnvelope;
  beforeAll(async () => {
    cheap = await sealKey({ pkcs8, keyId, trustDomain, secret: randomKey, randomBytes });
  });
  const openAs = (changed: unknown, by: SealingSecret) =>
    openKey({ envelope: changed, keyId, trustDomain, secret: by, minCost: cost });

  test('seals without stretching, and opens what it sealed', async () => {
    expect(cheap).toMatchObject({ v: 2, kdf: { name: 'hkdf-sha256' } });
    expect(Object.keys(cheap.kdf)).toEqual(['name', 'salt']);
    const usedMs = startCpuWatch();
    expect(await openAs(JSON.parse(JSON.stringify(cheap)), randomKey)).toEqual(Uint8Array.from(pkcs8));
    expect(usedMs()).toBeLessThan(50);
  });

  test('opens what earlier versions sealed with the same bytes under scrypt', async () => {
    const old = await sealKey({
      pkcs8,
      keyId,
      trustDomain,
      secret: secretOf(randomKey.bytes),
      randomBytes,
      cost,
    });
    expect(old.v).toBe(1);
    expect(await openAs(old, randomKey)).toEqual(Uint8Array.from(pkcs8));
  });

  test.each<[string, () => unknown, SealingSecret, string]>([
    ['the same bytes given as a passphrase', () => cheap, secretOf(randomKey.bytes), 'key_passphrase_wrong'],
    [
      'another random key',
      () => cheap,
      { kind: 'random_key', bytes: randomBytes(32) },
      'key_passphrase_wrong',
    ],
    [
      'a changed salt',
      () => ({ ...cheap, kdf: { ...cheap.kdf, salt: envelope.kdf.salt } }),
      randomKey,
      'key_passphrase_wrong',
    ],
    ['version 1 with its derivation', () => ({ ...cheap, v: 1 }), randomKey, 'key_envelope_invalid'],
    ['version 2 with scrypt', () => ({ ...envelope, v: 2 }), secret, 'key_envelope_invalid'],
    [
      'version 2 with a cost',
      () => ({ ...cheap, kdf: { ...cheap.kdf, N: 1 } }),
      randomKey,
      'key_envelope_invalid',
    ],
    ['version 3', () => ({ ...cheap, v: 3 }), randomKey, 'key_envelope_invalid'],
    [
      'another name of the derivation',
      () => ({ ...cheap, kdf: { ...cheap.kdf, name: 'none' } }),
      randomKey,
      'key_envelope_invalid',
    ],
    ["another key's id", () => ({ ...cheap, keyId: 'cd'.repeat(20) }), randomKey, 'key_envelope_invalid'],
  ])('does not open %s', async (_, changed, by, code) => {
    await expect(openAs(changed(), by)).rejects.toThrow(coded(code));
  });

  test.each([0, 31, 33, 64])('of %i bytes is refused', async (size) => {
    const short: SealingSecret = { kind: 'random_key', bytes: Buffer.alloc(size, 1) };
    await expect(sealKey({ pkcs8, keyId, trustDomain, secret: short, randomBytes })).rejects.toThrow(
      coded('key_envelope_invalid'),
    );
  });
});
