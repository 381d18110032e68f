import 'reflect-metadata';
import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  AuthorityKeyIdentifierExtension,
  BasicConstraintsExtension,
  KeyUsageFlags,
  KeyUsagesExtension,
  Pkcs10CertificateRequest,
  SubjectAlternativeNameExtension,
  SubjectKeyIdentifierExtension,
  X509Certificate,
} from '@peculiar/x509';
import { afterAll, describe, expect, test } from 'vitest';
import { readCsr } from '../../src/ca/csr.ts';
import { openIssuer } from '../../src/ca/issuer.ts';
import { createLeafTemplate } from '../../src/ca/leaf-template.ts';
import { createMemoryKey } from '../../src/ca/memory-key.ts';
import { readPublicKey } from '../../src/ca/public-key.ts';
import { makeSerial } from '../../src/ca/serial.ts';
import { createAuthorityRequest } from '../../src/ca/x509.ts';
import { SpiffeId, TrustDomain } from '../../src/spiffe/id.ts';
import { inspectCsr } from '../../src/spiffe/inspect-csr.ts';
import { encodePem } from '../../src/spiffe/pem.ts';
import { isHere } from '../harness/real-part.ts';
import { type MadeAuthority, makeKey, makeTestAuthority } from './test-authority.ts';

const now = new Date('2026-11-21T12:00:00Z');
const trustDomain = TrustDomain.parse('example.org');

test.each([
  ['ecdsa-p256', 'off'],
  ['ecdsa-p256', 'uri'],
  ['ecdsa-p384', 'off'],
  ['ecdsa-p384', 'uri'],
])(
  '@peculiar/x509 reads our CAs as they are meant: %s, name constraints %s',
  async (authorityKey, nameConstraints) => {
    const ca = await makeTestAuthority(now, { authorityKey, nameConstraints });
    const [root, intermediate] = [ca.root, ca.intermediate].map(
      ({ certificate }) => new X509Certificate(Buffer.from(certificate)),
    );
    if (root === undefined || intermediate === undefined) throw new Error('no CA');
    expect(await root.verify({ publicKey: root.publicKey, signatureOnly: true })).toBe(true);
    expect(await intermediate.verify({ publicKey: root.publicKey, signatureOnly: true })).toBe(true);
    for (const [made, certificate, pathLength] of [
      [ca.root, root, 1],
      [ca.intermediate, intermediate, 0],
    ] as const) {
      const kind = made.kind;
      expect(certificate.subject).toBe(`O=Countersign, CN=${kind} ${made.keyId.slice(0, 16)}`);
      expect(certificate.issuer).toBe(root.subject);
      expect(certificate.serialNumber).toBe(made.serial);
      expect([certificate.notBefore, certificate.notAfter]).toEqual([made.notBefore, made.notAfter]);
      expect(certificate.getExtension(BasicConstraintsExtension)).toMatchObject({
        ca: true,
        pathLength,
        critical: true,
      });
      expect(certificate.getExtension(KeyUsagesExtension)).toMatchObject({
        usages: KeyUsageFlags.keyCertSign | KeyUsageFlags.cRLSign,
        critical: true,
      });
      expect(certificate.getExtension(SubjectKeyIdentifierExtension)).toMatchObject({
        keyId: made.keyId,
        critical: false,
      });
      const names = certificate.getExtension(SubjectAlternativeNameExtension);
      expect(names?.names.toJSON()).toEqual([{ type: 'url', value: 'spiffe://example.org' }]);
      expect(certificate.getExtension(AuthorityKeyIdentifierExtension)?.keyId).toBe(
        kind === 'root' ? undefined : ca.root.keyId,
      );
      const constraints = certificate.getExtension('2.5.29.30');
      // SEQUENCE { [0] { SEQUENCE { [6] "example.org" } } }
      const permitted = `3011a00f300d860b${Buffer.from('example.org').toString('hex')}`;
      expect([constraints?.critical, hex(constraints?.value)]).toEqual(
        nameConstraints === 'uri' ? [true, permitted] : [undefined, ''],
      );
      expect(certificate.extensions).toHaveLength(
        (kind === 'root' ? 4 : 5) + (nameConstraints === 'uri' ? 1 : 0),
      );
    }
  },
);

test.each(['ecdsa-p256', 'ecdsa-p384'] as const)('a request for an intermediate, %s', async (kind) => {
  const key = await createMemoryKey(kind);
  const csr = await createAuthorityRequest(key, trustDomain);
  expect(readCsr(csr).spkiSha256).toBe(key.publicKey.spkiSha256);
  expect(inspectCsr(csr)).toMatchObject({
    broken: [],
    facts: { uris: ['spiffe://example.org'], dnsNames: [] },
  });
  const read = new Pkcs10CertificateRequest(Buffer.from(csr));
  expect(await read.verify()).toBe(true);
  const wishes = ['2.5.29.19', '2.5.29.15', '2.5.29.14', '2.5.29.17'].map((oid) => read.getExtension(oid));
  expect(read.extensions).toHaveLength(wishes.length);
  // CA, path length 0; keyCertSign and cRLSign; our key identifier; the trust domain.
  expect(wishes.map((wish) => `${wish?.critical} ${hex(wish?.value)}`)).toEqual([
    'true 30060101ff020100',
    'true 03020106',
    `false 0414${key.keyId}`,
    `false 30168614${Buffer.from(trustDomain.id).toString('hex')}`,
  ]);
});

describe.skipIf(!isHere('openssl', 'version'))('OpenSSL and name constraints', () => {
  const dir = mkdtempSync(join(tmpdir(), 'cs-constraints-'));
  afterAll(() => rmSync(dir, { recursive: true, force: true }));
  const file = (name: string, der: Uint8Array): string => {
    writeFileSync(join(dir, name), encodePem('CERTIFICATE', der));
    return join(dir, name);
  };

  test('the leaves of a confined CA verify, those of another host do not, with DNS names either way', async () => {
    const today = new Date();
    const ca = await makeTestAuthority(today, { nameConstraints: 'uri' });
    const issue = async (of: typeof ca) => {
      const id = SpiffeId.parse(`${of.trustDomain.id}/ns/shop/sa/web`);
      const request = {
        id,
        publicKey: makeKey('ec-prime256v1').spki,
        dnsNames: ['web.shop.svc'],
        ttlSeconds: 600,
      };
      return (await of.authority.sign(of.authority.prepare(request, today))).certificates[0]!;
    };
    const verify = (root: Uint8Array, middle: Uint8Array, leaf: Uint8Array) => {
      const args = ['-CAfile', file('root', root), '-untrusted', file('middle', middle), file('leaf', leaf)];
      return execFileSync('openssl', ['verify', '-x509_strict', ...args], {
        encoding: 'utf8',
        stdio: 'pipe',
      });
    };
    expect(verify(ca.root.certificate, ca.intermediate.certificate, await issue(ca))).toContain('OK');
    // What the very same CA is made to sign for another host: only the constraints are in its way.
    const { root, intermediate } = ca;
    const foreign = forgeLeaf(intermediate, 'spiffe://example.com/ns/shop/sa/web', today);
    expect(() => verify(root.certificate, intermediate.certificate, foreign)).toThrow(
      /permitted subtree violation/,
    );
    const free = await makeTestAuthority(today);
    const passed = forgeLeaf(free.intermediate, 'spiffe://example.com/ns/shop/sa/web', today);
    expect(verify(free.root.certificate, free.intermediate.certificate, passed)).toContain('OK');
  });
});

function hex(value: ArrayBuffer | undefined): string {
  return Buffer.from(value ?? new ArrayBuffer(0)).toString('hex');
}

/** A leaf that our own checks would never let out. */
function forgeLeaf({ certificate, key }: MadeAuthority, id: string, from: Date): Uint8Array {
  const issuer = openIssuer(certificate, key);
  const template = createLeafTemplate(issuer);
  const tbs = template.encode({
    serial: makeSerial((size) => new Uint8Array(randomBytes(size))),
    validity: { notBefore: issuer.certificate.notBefore, notAfter: new Date(from.getTime() + 600_000) },
    publicKey: readPublicKey(makeKey('ec-prime256v1').spki),
    id: SpiffeId.parse(id),
    dnsNames: [],
  });
  return template.join(tbs, key.sign(tbs) as Uint8Array);
}
