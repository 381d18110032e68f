import { createPublicKey, sign } from 'node:crypto';
import { beforeAll, expect, test } from 'vitest';
import { type Issuer, openIssuer } from '../../src/ca/issuer.ts';
import { createLeafTemplate } from '../../src/ca/leaf-template.ts';
import { type ExpectedLeaf, lintLeaf } from '../../src/ca/lint.ts';
import { adoptPublicKey, type PublicKey, readPublicKey } from '../../src/ca/public-key.ts';
import { SpiffeId } from '../../src/spiffe/id.ts';
import { makeKey, makeTestAuthority, type MadeAuthority } from './test-authority.ts';

// OpenSSL reads the first leaf of each form. What it has once found good must not let anything else through.
const now = new Date('2026-11-21T12:00:00Z');
const failed = expect.objectContaining({ code: 'lint_failed' });
let intermediate: MadeAuthority;
beforeAll(async () => {
  ({ intermediate } = await makeTestAuthority(now));
});

type Made = { readonly der: Uint8Array; readonly expected: ExpectedLeaf };

async function make(
  issuer: Issuer,
  spiffeId: string,
  dnsNames: string[],
  publicKey: PublicKey,
): Promise<Made> {
  const template = createLeafTemplate(issuer);
  const serial = Uint8Array.from({ length: 20 }, (_, at) =>
    at === 0 ? 0x40 : (at * 7 + spiffeId.length) & 0xff,
  );
  const validity = { notBefore: now, notAfter: new Date(now.getTime() + 600_000) };
  const id = SpiffeId.parse(spiffeId);
  const tbs = template.encode({ serial, validity, publicKey, id, dnsNames });
  const der = template.join(tbs, await issuer.key.sign(tbs));
  const serialHex = Buffer.from(serial).toString('hex');
  return { der, expected: { id, dnsNames, serial: serialHex, ...validity, publicKey, tbs } };
}

const open = () => openIssuer(intermediate.certificate, intermediate.key);
const newKey = (kind: string) => readPublicKey(makeKey(kind).spki);

/** A key that OpenSSL fails on when it is asked for: whoever judges a leaf with it has not asked OpenSSL. */
function untouchable({ kind, spki, keyId, spkiSha256 }: PublicKey): PublicKey {
  const key = adoptPublicKey({ kind, spki: new Uint8Array(spki), keyId, spkiSha256 });
  key.spki.fill(0);
  expect(() => key.key).toThrow();
  key.spki.set(spki);
  return adoptPublicKey({ kind, spki, keyId, spkiSha256 });
}

test('every single changed byte of a second leaf of a known form is noticed', async () => {
  const issuer = open();
  const key = newKey('ec-prime256v1');
  const first = await make(
    issuer,
    'spiffe://example.org/ns/shop/sa/aaa',
    ['aaa.shop'],
    newKey('ec-prime256v1'),
  );
  lintLeaf(first.der, first.expected, issuer);
  const { der, expected } = await make(issuer, 'spiffe://example.org/ns/shop/sa/bbb', ['bbb.shop'], key);
  lintLeaf(der, expected, issuer);
  for (let at = 0; at < der.length; at++) {
    for (const mask of [0x01, 0x80]) {
      const copy = Uint8Array.from(der);
      copy[at] = (copy[at] ?? 0) ^ mask;
      expect(() => lintLeaf(copy, expected, issuer), `byte ${at}`).toThrow(failed);
    }
  }
});

test('one leaf is not taken for another of the same form', async () => {
  const issuer = open();
  const a = await make(issuer, 'spiffe://example.org/ns/shop/sa/aaa', [], newKey('ec-prime256v1'));
  const b = await make(issuer, 'spiffe://example.org/ns/shop/sa/bbb', [], newKey('ec-prime256v1'));
  lintLeaf(a.der, a.expected, issuer);
  lintLeaf(b.der, b.expected, issuer);
  expect(() => lintLeaf(a.der, b.expected, issuer)).toThrow(failed);
  expect(() => lintLeaf(b.der, { ...b.expected, publicKey: a.expected.publicKey }, issuer)).toThrow(failed);
});

test('a leaf whose signature is of other bytes is refused, also when its form is known', async () => {
  const issuer = open();
  const key = newKey('ec-prime256v1');
  const { der, expected } = await make(issuer, 'spiffe://example.org/ns/shop/sa/web', [], key);
  lintLeaf(der, expected, issuer);
  const stranger = makeKey('ec-prime256v1');
  const template = createLeafTemplate(issuer);
  const forged = template.join(expected.tbs, sign('sha256', expected.tbs, stranger.privateKey));
  expect(() => lintLeaf(forged, expected, issuer)).toThrow(failed);
});

test.each(['ec-prime256v1', 'ec-secp384r1', 'rsa-2048'])(
  'an adopted %s key is the key that was read',
  async (kind) => {
    const issuer = open();
    const read = newKey(kind);
    const adopted = untouchable(read);
    expect(adopted.key.equals(read.key)).toBe(true);
    expect(adopted.key.equals(createPublicKey(read.key.export({ format: 'pem', type: 'spki' })))).toBe(true);
    const { der, expected } = await make(issuer, 'spiffe://example.org/web', ['web'], adopted);
    expect(() => lintLeaf(der, expected, issuer)).not.toThrow();
  },
);
