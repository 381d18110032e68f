import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { maxRevoked, type RevokedCertificate, signRevocationList } from '../../src/ca/crl.ts';
import type { Issuer } from '../../src/ca/issuer.ts';
import { verifyBytes } from '../../src/ca/signature.ts';
import { DerReader, derTag, hexOf } from '../../src/spiffe/der.ts';
import { encodePem } from '../../src/spiffe/pem.ts';
import { createScope } from '../harness/scope.ts';
import { makeTempDir } from '../harness/temp.ts';
import { makeIssuer } from './crl-issuer.ts';

const scope = createScope();
afterAll(() => scope.close());
const now = new Date('2026-03-01T12:00:00.700Z');
const revokedAt = new Date('2026-03-01T10:00:00.000Z');
const revoked = (serial: string, rest: Partial<RevokedCertificate> = {}): RevokedCertificate => ({
  serial,
  revokedAt,
  reason: 'privilege_withdrawn',
  ...rest,
});

let issuers: readonly { readonly issuer: Issuer; readonly pem: string }[];
beforeAll(() => {
  issuers = ['ecdsa-p256', 'ecdsa-p384'].map(makeIssuer);
});

describe('a list', () => {
  test('is what OpenSSL reads, entry for entry, and verifies', async () => {
    for (const { issuer, pem } of issuers) {
      const entries = [
        revoked('7f' + 'ab'.repeat(19)),
        revoked('40' + '00'.repeat(19), { reason: 'key_compromise' }),
        revoked('80', { reason: 'certificate_hold', revokedAt: new Date('2026-03-01T11:59:00.000Z') }),
      ];
      const list = await signRevocationList(issuer, { number: 258, entries, now });
      const { text, verified } = openssl(list.der, pem);
      expect(verified).toContain('verify OK');
      expect(text).toContain('Version 2 (0x1)');
      expect(text).toContain('Last Update: Mar  1 11:00:00 2026 GMT');
      expect(text).toContain('Next Update: Mar  4 12:00:00 2026 GMT');
      expect(text).toMatch(/X509v3 CRL Number: \n +258/);
      const keyId = (issuer.certificate.subjectKeyId ?? '').toUpperCase().replace(/..(?=.)/g, '$&:');
      expect(text.replaceAll('keyid:', '')).toContain(keyId);
      expect(
        [...text.matchAll(/Serial Number: ([0-9A-F]+)/g)].map(([, serial]) => serial?.toLowerCase()),
      ).toEqual(entries.map(({ serial }) => serial).sort());
      expect([...text.matchAll(/Revocation Date: (.*)/g)].map(([, date]) => date)).toEqual([
        'Mar  1 10:00:00 2026 GMT',
        'Mar  1 10:00:00 2026 GMT',
        // No later than the list itself.
        'Mar  1 11:00:00 2026 GMT',
      ]);
      expect([...text.matchAll(/Reason Code: \n +(.*)/g)].map(([, reason]) => reason)).toEqual([
        'Key Compromise',
        'Privilege Withdrawn',
        'Certificate Hold',
      ]);
    }
  });

  test('of nothing leaves the entries out', async () => {
    const [{ issuer, pem }] = issuers as unknown as [{ issuer: Issuer; pem: string }];
    const { der } = await signRevocationList(issuer, { number: 1, entries: [], now });
    const { text, verified } = openssl(der, pem);
    expect(text).toContain('No Revoked Certificates.');
    expect(verified).toContain('verify OK');
  });

  test('is strict DER whose signature is over what it says, whatever it says', async () => {
    const [{ issuer }] = issuers as unknown as [{ issuer: Issuer }];
    const serial = fc
      .uint8Array({ minLength: 1, maxLength: 20 })
      .map((bytes) => Buffer.from(bytes).toString('hex'));
    await fc.assert(
      fc.asyncProperty(
        fc.uniqueArray(serial, { maxLength: 40 }),
        fc.integer({ min: 1, max: Number.MAX_SAFE_INTEGER }),
        async (serials, number) => {
          const list = await signRevocationList(issuer, {
            number,
            entries: serials.map((one) => revoked(one)),
            now,
          });
          const outer = DerReader.over(list.der).enter(derTag.sequence);
          const tbs = outer.element(derTag.sequence);
          outer.enter(derTag.sequence);
          const signature = outer.content(derTag.bitString).subarray(1);
          outer.finish();
          expect(verifyBytes('sha256', tbs, issuer.certificate.publicKey.key, signature)).toBe(true);
          const fields = DerReader.over(tbs).enter(derTag.sequence);
          fields.content(derTag.integer);
          fields.enter(derTag.sequence);
          expect(hexOf(fields.element(derTag.sequence))).toBe(hexOf(issuer.certificate.subject));
        },
      ),
      { numRuns: 60 },
    );
  });

  test('as long as it may be takes a proxy no more than 1 MiB', async () => {
    const [{ issuer, pem }] = issuers as unknown as [{ issuer: Issuer; pem: string }];
    const entries = Array.from({ length: maxRevoked }, () => revoked(`40${randomBytes(19).toString('hex')}`));
    const { der } = await signRevocationList(issuer, { number: 1, entries, now });
    expect(encodePem('X509 CRL', der).length).toBeLessThan(2 * 1_048_576);
    expect(openssl(der, pem).verified).toContain('verify OK');
  });

  test.each<[string, object]>([
    ['number 0', { number: 0 }],
    ['a number that is none', { number: Number.NaN }],
    ['a number beyond counting', { number: 2 ** 53 }],
    ['no date', { now: new Date(Number.NaN) }],
    ['a date before all time', { now: new Date(0) }],
    ['a date without a form', { now: new Date(8.64e15) }],
    ['an empty serial', { entries: [revoked('')] }],
    ['a serial of 21 octets', { entries: [revoked('40'.repeat(21))] }],
    ['a serial in upper case', { entries: [revoked('AB')] }],
    ['half an octet', { entries: [revoked('abc')] }],
    ['a serial twice', { entries: [revoked('40'), revoked('41'), revoked('40')] }],
    ['too many entries', { entries: Array.from({ length: maxRevoked + 1 }, () => revoked('40')) }],
  ])('is not made with %s', async (_, options) => {
    const [{ issuer }] = issuers as unknown as [{ issuer: Issuer }];
    await expect(
      signRevocationList(issuer, { number: 1, entries: [], now, ...options }),
    ).rejects.toMatchObject({ code: 'internal' });
  });

  test('is not made by a CA whose key usage does not permit it, nor returned when it does not verify', async () => {
    const [{ issuer }, other] = issuers as unknown as [{ issuer: Issuer }, { issuer: Issuer }];
    const barred = { ...issuer, certificate: { ...issuer.certificate, mayRevoke: false } };
    const mixed = { ...issuer, key: other.issuer.key };
    for (const wrong of [barred, mixed]) {
      await expect(signRevocationList(wrong, { number: 1, entries: [], now })).rejects.toMatchObject({
        code: 'internal',
      });
    }
  });
});

function openssl(der: Uint8Array, issuerPem: string): { readonly text: string; readonly verified: string } {
  const dir = makeTempDir(scope);
  const [crl, ca] = [join(dir, 'crl.der'), join(dir, 'ca.pem')];
  writeFileSync(crl, der);
  writeFileSync(ca, issuerPem);
  const run = (...args: string[]) =>
    execFileSync(
      'bash',
      ['-c', '"$@" 2>&1', 'openssl', 'openssl', 'crl', '-inform', 'DER', '-in', crl, ...args],
      {
        encoding: 'utf8',
        maxBuffer: 67_108_864,
      },
    );
  return { text: run('-noout', '-text'), verified: run('-noout', '-CAfile', ca) };
}
