import { X509Certificate } from 'node:crypto';
import fc from 'fast-check';
import { beforeAll, describe, expect, test } from 'vitest';
import { booleanTrue, sequence, tlv } from '../../src/ca/der-writer.ts';
import { MeshError } from '../../src/errors.ts';
import { extensionOid } from '../../src/spiffe/extensions.ts';
import { SpiffeId } from '../../src/spiffe/id.ts';
import { inspectCertificateBundle } from '../../src/spiffe/inspect-bundle.ts';
import { inspectChain } from '../../src/spiffe/inspect-chain.ts';
import { checkX509Authority, checkX509SvidLeaf } from '../../src/spiffe/svid.ts';
import { makeKey, makeTestAuthority, type TestAuthority } from '../ca/test-authority.ts';
import { startCpuWatch } from '../harness/cpu-watch.ts';
import {
  altNames,
  basicConstraints,
  client,
  commonName,
  dns,
  extension,
  keyPurposes,
  keyUsage,
  leafExtensions,
  leafUri,
  oddCertificate,
  server,
  uri,
} from './odd-certificate.ts';

const now = new Date('2026-11-21T12:00:00Z');
let ca: TestAuthority;
let leaf: Uint8Array;
let chain: readonly Uint8Array[];

beforeAll(async () => {
  ca = await makeTestAuthority(now);
  const id = SpiffeId.parse(leafUri);
  const key = makeKey('ec-prime256v1');
  const prepared = ca.authority.prepare(
    { id, publicKey: key.spki, dnsNames: ['web.shop'], ttlSeconds: 3_600 },
    now,
  );
  chain = (await ca.authority.sign(prepared)).certificates;
  leaf = chain[0]!;
});

const rules = ({ broken }: { broken: readonly { rule: string }[] }) => broken.map(({ rule }) => rule);
const leafWith = (changes: Partial<Record<keyof typeof leafExtensions, Uint8Array | undefined>>) =>
  oddCertificate({
    extensions: Object.values({ ...leafExtensions, ...changes }).filter((der) => der !== undefined),
  });

describe('a leaf', () => {
  test('that is as it should be breaks nothing, and tells what it is', () => {
    const { facts, broken } = inspectChain(chain);
    const { serialNumber, fingerprint256 } = new X509Certificate(leaf);
    expect(broken).toEqual([]);
    expect(facts.trust).toBeNull();
    expect(facts.certificates).toHaveLength(2);
    expect(facts.certificates[0]).toMatchObject({
      spiffeId: leafUri,
      serial: serialNumber.toLowerCase(),
      notAfter: new Date('2026-11-21T13:00:00Z'),
      key: 'ECDSA P-256',
      signature: 'ECDSA with SHA-256',
      subject: '',
      authorityKeyId: ca.intermediate.keyId,
      dnsNames: ['web.shop'],
      ca: false,
      keyUsage: ['digitalSignature'],
      keyPurposes: ['serverAuth', 'clientAuth'],
      sha256: fingerprint256.replaceAll(':', '').toLowerCase(),
    });
    expect(facts.certificates[1]).toMatchObject({
      ca: true,
      pathLength: 0,
      spiffeId: 'spiffe://example.org',
    });
  });

  test.each<[string, () => Uint8Array, string[]]>([
    ['without a URI name', () => leafWith({ names: altNames(true, dns('a')) }), ['x509-svid-2-one-uri-san']],
    [
      'without names',
      () => leafWith({ names: undefined }),
      ['x509-svid-2-one-uri-san', 'x509-svid-3.1-san-critical'],
    ],
    [
      'with two URI names, one of them odd',
      () => leafWith({ names: altNames(true, uri(leafUri), uri('https://example.org/a?b')) }),
      ['x509-svid-2-one-uri-san', 'spiffe-id-2-scheme', 'spiffe-id-2-no-query'],
    ],
    [
      'with a trust domain ID',
      () => leafWith({ names: altNames(true, uri('spiffe://example.org')) }),
      ['x509-svid-3.1-path'],
    ],
    [
      'with names that are not critical',
      () => leafWith({ names: altNames(false, uri(leafUri)) }),
      ['x509-svid-3.1-san-critical'],
    ],
    [
      'that is a CA',
      () => leafWith({ constraints: basicConstraints(true, booleanTrue()) }),
      ['x509-svid-4.1-leaf-not-ca'],
    ],
    ['without key usage', () => leafWith({ usage: undefined }), ['x509-svid-4.3-key-usage']],
    [
      'with key usage that is not critical',
      () => leafWith({ usage: keyUsage(false, 7, 0x80) }),
      ['x509-svid-4.3-key-usage-critical'],
    ],
    [
      'that may sign certificates and lists only',
      () => leafWith({ usage: keyUsage(true, 1, 0x06) }),
      [
        'x509-svid-4.3-digital-signature',
        'x509-svid-4.3-leaf-no-key-cert-sign',
        'x509-svid-4.3-leaf-no-crl-sign',
      ],
    ],
    ['for servers only', () => leafWith({ purposes: keyPurposes(server) }), ['x509-svid-4.4-client-auth']],
    ['for clients only', () => leafWith({ purposes: keyPurposes(client) }), ['x509-svid-4.4-server-auth']],
    [
      'for neither',
      () => leafWith({ purposes: keyPurposes('1.2.3') }),
      ['x509-svid-4.4-server-auth', 'x509-svid-4.4-client-auth'],
    ],
    [
      'with two unknown critical extensions',
      () =>
        oddCertificate({
          extensions: [
            ...Object.values(leafExtensions),
            extension('1.2.3', true, tlv(5)),
            extension('1.2.4', true, tlv(5)),
          ],
        }),
      ['rfc5280-4.2-unknown-critical', 'rfc5280-4.2-unknown-critical'],
    ],
    [
      'with several malformed extensions',
      () =>
        leafWith({
          names: extension(extensionOid.subjectAltName, true, tlv(5)),
          usage: extension(extensionOid.keyUsage, true, tlv(5)),
          purposes: extension(extensionOid.extendedKeyUsage, false, tlv(5)),
          constraints: extension(extensionOid.basicConstraints, true, tlv(5)),
        }),
      [
        'rfc5280-4.2-extension',
        'rfc5280-4.2-extension',
        'rfc5280-4.2-extension',
        'rfc5280-4.2-extension',
        'x509-svid-2-one-uri-san',
        'x509-svid-4.3-digital-signature',
      ],
    ],
    [
      'that is wrong in every way at once',
      () =>
        oddCertificate({
          extensions: [
            altNames(false, uri('SPIFFE://user@Example.org:1//a/../b%20/?q#f')),
            keyUsage(false, 1, 0x06),
            keyPurposes(server),
            basicConstraints(false, booleanTrue()),
          ],
        }),
      [
        'x509-svid-4.3-key-usage-critical',
        'spiffe-id-2-scheme',
        'spiffe-id-2-no-query',
        'spiffe-id-2-no-fragment',
        'spiffe-id-2.1-no-userinfo',
        'spiffe-id-2.1-no-port',
        'spiffe-id-2.1-trust-domain-char',
        'spiffe-id-2.2-no-trailing-slash',
        'spiffe-id-2.2-no-empty-segment',
        'spiffe-id-2.2-no-dot-segment',
        'spiffe-id-2.2-path-char',
        'x509-svid-3.1-san-critical',
        'x509-svid-4.1-leaf-not-ca',
        'x509-svid-4.3-digital-signature',
        'x509-svid-4.3-leaf-no-key-cert-sign',
        'x509-svid-4.3-leaf-no-crl-sign',
        'x509-svid-4.4-client-auth',
      ],
    ],
  ])('%s breaks exactly these rules', (_, make, expected) => {
    expect(rules(inspectChain([make()]))).toEqual(expected);
  });
});

describe('a signing certificate', () => {
  const cn = commonName('ca');
  const constraints = basicConstraints(true, booleanTrue());
  const usage = keyUsage(true, 1, 0x06);
  test.each<[string, Partial<Parameters<typeof oddCertificate>[0]>, string[]]>([
    ['that is proper', { subject: cn, extensions: [constraints, usage] }, []],
    ['without a subject', { extensions: [constraints, usage] }, ['rfc5280-4.1.2.6-ca-subject']],
    [
      'that is no CA',
      { subject: cn, extensions: [usage] },
      ['x509-svid-4.1-ca', 'rfc5280-4.2.1.9-ca-critical'],
    ],
    [
      'that is a CA, not critically',
      { subject: cn, extensions: [basicConstraints(false, booleanTrue()), usage] },
      ['rfc5280-4.2.1.9-ca-critical'],
    ],
    ['without key usage', { subject: cn, extensions: [constraints] }, ['x509-svid-4.3-key-usage']],
    [
      'that may not sign',
      { subject: cn, extensions: [constraints, keyUsage(true, 7, 0x80)] },
      ['x509-svid-4.3-key-cert-sign'],
    ],
    [
      'whose ID has a path',
      { subject: cn, extensions: [constraints, usage, altNames(false, uri(leafUri))] },
      ['x509-svid-3.2-no-path'],
    ],
    [
      'with two IDs',
      {
        subject: cn,
        extensions: [constraints, usage, altNames(false, uri('spiffe://a'), uri('spiffe://b'))],
      },
      ['x509-svid-2-one-uri-san'],
    ],
  ])('%s breaks exactly these rules', (_, parts, expected) => {
    expect(rules(inspectCertificateBundle([oddCertificate(parts)]))).toEqual(expected);
  });
});

describe('for any certificate', () => {
  const anyExtensions = fc.shuffledSubarray([
    ...Object.values(leafExtensions).slice(1),
    extension('1.2.3', true, tlv(5)),
    extension('1.2.4', false, tlv(5)),
  ]);
  const anyNames = fc.constantFrom(
    leafExtensions.names,
    altNames(false, uri(leafUri)),
    altNames(true, uri('spiffe://example.org')),
    altNames(true, uri(leafUri), uri(leafUri)),
    altNames(true, dns('a')),
    altNames(true, uri('http://a/b')),
  );
  const anyUsage = fc.constantFrom(leafExtensions.usage, keyUsage(true, 1, 0x06), keyUsage(false, 7, 0x80));
  const anySubject = fc.constantFrom(sequence(), commonName('x'));

  const accepts = (check: () => unknown): boolean => {
    try {
      check();
      return true;
    } catch (error) {
      expect(error).toBeInstanceOf(MeshError);
      return false;
    }
  };

  test('nothing is broken exactly when the strict reader takes it', () => {
    fc.assert(
      fc.property(anyExtensions, anyNames, anyUsage, anySubject, (rest, names, usage, subject) => {
        const der = oddCertificate({
          subject,
          extensions: [names, usage, ...rest.filter((one) => one !== leafExtensions.usage)],
        });
        expect(inspectChain([der]).broken.length === 0).toBe(accepts(() => checkX509SvidLeaf(der)));
        expect(inspectCertificateBundle([der]).broken.length === 0).toBe(
          accepts(() => checkX509Authority(der)),
        );
      }),
      { numRuns: 500 },
    );
  });

  test('bent bytes are read or refused, quickly, and what is signed is never trusted', () => {
    const root = ca.root.certificate;
    const bend = fc.record({
      at: fc.nat(leaf.length - 1),
      to: fc.nat(255),
      cut: fc.nat(8),
      twice: fc.boolean(),
    });
    const times: number[] = [];
    fc.assert(
      fc.property(fc.array(bend, { minLength: 1, maxLength: 4 }), fc.boolean(), (bends, ofIssuer) => {
        let der = Uint8Array.from(ofIssuer ? ca.intermediate.certificate : leaf);
        for (const { at, to, cut, twice } of bends) {
          der[at % der.length] = to;
          if (cut === 0) der = der.subarray(0, -1);
          if (twice) der = Uint8Array.from([...der.subarray(0, at), ...der.subarray(at % der.length)]);
        }
        const given = ofIssuer ? [leaf, der] : [der, ca.intermediate.certificate];
        const same = Buffer.from(der).equals(ofIssuer ? ca.intermediate.certificate : leaf);
        const usedMs = startCpuWatch();
        try {
          const { broken } = inspectChain(given, { authorities: [root], at: now });
          expect(broken.length > 0 || same).toBe(true);
        } catch (error) {
          expect(error).toBeInstanceOf(MeshError);
        }
        times.push(usedMs());
      }),
      { numRuns: 2_000 },
    );
    // One in a hundred may meet a pause that is not ours.
    times.sort((a, b) => a - b);
    expect(times[Math.floor(times.length * 0.99)]).toBeLessThan(50);
    expect(times.at(-1)).toBeLessThan(1_000);
  });

  test('random bytes are refused', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 300 }), (der) => {
        expect(() => inspectChain([der])).toThrow(MeshError);
      }),
    );
  });
});
