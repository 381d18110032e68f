import { createHash } from 'node:crypto';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { booleanTrue, sequence, time, tlv, unsignedInteger } from '../../src/ca/der-writer.ts';
import { MeshError } from '../../src/errors.ts';
import { readCertificate } from '../../src/spiffe/certificate.ts';
import { checkX509Authority, checkX509SvidLeaf, peerCertificateIds } from '../../src/spiffe/svid.ts';
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

const invalid = expect.objectContaining({ code: 'svid_invalid' });
const bytes = (...octets: number[]) => Uint8Array.from(octets);
const leafWith = (changes: Partial<typeof leafExtensions>) =>
  oddCertificate({ extensions: Object.values({ ...leafExtensions, ...changes }) });
const leafWithout = (name: keyof typeof leafExtensions) =>
  oddCertificate({
    extensions: Object.entries(leafExtensions).flatMap(([key, der]) => (key === name ? [] : [der])),
  });
const falseBoolean = bytes(0x01, 0x01, 0x00);

/** Wrong for any certificate, leaf or CA. */
const wrongForm = (extensions: readonly Uint8Array[], subject: Uint8Array) => {
  const base = { extensions, subject };
  return [
    ['version 1', { ...base, version: new Uint8Array(0), extensions: [] }],
    ['version 2', { ...base, version: tlv(0xa0, unsignedInteger(bytes(1))) }],
    ['version 4', { ...base, version: tlv(0xa0, unsignedInteger(bytes(3))) }],
    ['serial zero', { ...base, serial: unsignedInteger(bytes(0)) }],
    ['a negative serial', { ...base, serial: tlv(0x02, bytes(0x80)) }],
    ['a padded serial', { ...base, serial: tlv(0x02, bytes(0, 1)) }],
    ['a serial of 21 octets', { ...base, serial: tlv(0x02, new Uint8Array(21).fill(1)) }],
    ['two algorithms', { ...base, outerAlgorithm: sequence() }],
    ['a unique identifier', { ...base, extra: bytes(0x81, 0x02, 0x00, 0x01) }],
    ['no extensions', { ...base, extensions: [] }],
    ['an extension twice', { ...base, extensions: [...extensions, extensions[0] ?? bytes()] }],
    ['an explicit critical FALSE', { ...base, extensions: [...extensions, explicitFalse] }],
    [
      'an unknown critical extension',
      { ...base, extensions: [...extensions, extension('1.2.3', true, bytes(5, 0))] },
    ],
    ['an end before the beginning', { ...base, notAfter: time(new Date('2020-01-01T00:00:00Z')) }],
    ['a malformed time', { ...base, notAfter: tlv(0x17, Buffer.from('Bad time value')) }],
    ['a GeneralizedTime before 2050', { ...base, notAfter: tlv(0x18, Buffer.from('20270101000000Z')) }],
    ['a name that is no DER', { ...base, issuer: sequence(bytes(0x31, 0x80)) }],
    ['bytes after the end', { ...base, trailing: bytes(0) }],
    [
      'too many bytes',
      { ...base, extensions: [...extensions, extension('1.2.3', false, new Uint8Array(32_768))] },
    ],
  ] as const;
};
const explicitFalse = sequence(bytes(0x06, 0x02, 0x2a, 0x03), falseBoolean, tlv(0x04, bytes(5, 0)));

describe('checkX509SvidLeaf refuses', () => {
  test.each(wrongForm(Object.values(leafExtensions), sequence()))('%s', (_, parts) => {
    expect(() => checkX509SvidLeaf(oddCertificate(parts))).toThrow(invalid);
  });

  test.each([
    ['no names', leafWithout('names')],
    ['an empty list of names', leafWith({ names: altNames(true) })],
    ['only a DNS name', leafWith({ names: altNames(true, dns('web')) })],
    ['two URI names', leafWith({ names: altNames(true, uri(leafUri), uri('https://example.org')) })],
    ['the same URI name twice', leafWith({ names: altNames(true, uri(leafUri), uri(leafUri)) })],
    ['a URI that is no SPIFFE ID', leafWith({ names: altNames(true, uri('https://example.org/a')) })],
    ["a trust domain's ID", leafWith({ names: altNames(true, uri('spiffe://example.org')) })],
    ['a NUL in the ID', leafWith({ names: altNames(true, uri('spiffe://example.org/a\0')) })],
    ['a byte over 127 in the ID', leafWith({ names: altNames(true, uri('spiffe://example.org/\xe9')) })],
    ['a byte over 127 in a DNS name', leafWith({ names: altNames(true, uri(leafUri), dns('\xe9')) })],
    ['a name of an unknown kind', leafWith({ names: altNames(true, uri(leafUri), tlv(0x89, bytes(1))) })],
    ['an empty subject and names not critical', leafWith({ names: altNames(false, uri(leafUri)) })],
    ['a CA', leafWith({ constraints: basicConstraints(true, booleanTrue()) })],
    ['cA written out as FALSE', leafWith({ constraints: basicConstraints(true, falseBoolean) })],
    ['a path length', leafWith({ constraints: basicConstraints(true, unsignedInteger(bytes(0))) })],
    ['no key usage', leafWithout('usage')],
    ['a key usage not critical', leafWith({ usage: keyUsage(false, 7, 0x80) })],
    ['an empty key usage', leafWith({ usage: keyUsage(true, 0) })],
    ['a key usage with trailing zero bits', leafWith({ usage: keyUsage(true, 6, 0x80) })],
    ['a key usage of three octets', leafWith({ usage: keyUsage(true, 0, 0x80, 0x80, 1) })],
    ['keyEncipherment alone', leafWith({ usage: keyUsage(true, 5, 0x20) })],
    ['keyCertSign too', leafWith({ usage: keyUsage(true, 2, 0x84) })],
    ['cRLSign too', leafWith({ usage: keyUsage(true, 1, 0x82) })],
    ['no key purposes within', leafWith({ purposes: keyPurposes() })],
    ['serverAuth alone', leafWith({ purposes: keyPurposes(server) })],
    ['clientAuth alone', leafWith({ purposes: keyPurposes(client) })],
    ['anyExtendedKeyUsage alone', leafWith({ purposes: keyPurposes('2.5.29.37.0') })],
  ])('%s', (_, der) => {
    expect(() => checkX509SvidLeaf(der)).toThrow(invalid);
  });
});

test.each([
  ['the usual', leafWith({}), []],
  ['no key purposes', leafWithout('purposes'), []],
  ['no basic constraints', leafWithout('constraints'), []],
  ['more key purposes', leafWith({ purposes: keyPurposes(server, '1.2.3', client) }), []],
  ['keyEncipherment too', leafWith({ usage: keyUsage(true, 5, 0xa0) }), []],
  ['DNS names', leafWith({ names: altNames(true, dns('a'), uri(leafUri), dns('b.c')) }), ['a', 'b.c']],
  ['an address', leafWith({ names: altNames(true, uri(leafUri), tlv(0x87, bytes(127, 0, 0, 1))) }), []],
])('checkX509SvidLeaf accepts %s', (_, der, dnsNames) => {
  const leaf = checkX509SvidLeaf(der);
  expect(leaf).toMatchObject({
    serial: '40ab',
    dnsNames,
    subjectKeyId: undefined,
    authorityKeyId: undefined,
  });
  expect(leaf.id.text).toBe(leafUri);
  expect(leaf.notBefore.toISOString()).toBe('2026-11-21T00:00:00.000Z');
  expect(leaf.spkiSha256).toMatch(/^[0-9a-f]{64}$/);
});

test('a subject makes non-critical names good enough', () => {
  const names = altNames(false, uri(leafUri));
  const extensions = Object.values({ ...leafExtensions, names });
  expect(checkX509SvidLeaf(oddCertificate({ subject: commonName('web'), extensions })).id.text).toBe(leafUri);
});

const caExtensions = {
  constraints: basicConstraints(true, booleanTrue(), unsignedInteger(bytes(1))),
  usage: keyUsage(true, 1, 0x06),
  names: altNames(false, uri('spiffe://example.org')),
};
const ca = (changes: Partial<Record<keyof typeof caExtensions, Uint8Array>> = {}, drop?: string) =>
  oddCertificate({
    subject: commonName('ca'),
    extensions: Object.entries({ ...caExtensions, ...changes }).flatMap(([key, der]) =>
      key === drop ? [] : [der],
    ),
  });

describe('checkX509Authority refuses', () => {
  test.each(wrongForm(Object.values(caExtensions), commonName('ca')))('%s', (_, parts) => {
    expect(() => checkX509Authority(oddCertificate(parts))).toThrow(invalid);
  });

  test.each([
    ['a leaf', oddCertificate()],
    ['no subject', oddCertificate({ extensions: Object.values(caExtensions) })],
    ['no basic constraints', ca({}, 'constraints')],
    ['basic constraints not critical', ca({ constraints: basicConstraints(false, booleanTrue()) })],
    ['cA FALSE', ca({ constraints: basicConstraints(true) })],
    [
      'a negative path length',
      ca({ constraints: basicConstraints(true, booleanTrue(), tlv(2, bytes(0xff))) }),
    ],
    ['no key usage', ca({}, 'usage')],
    ['a key usage not critical', ca({ usage: keyUsage(false, 1, 0x06) })],
    ['cRLSign alone', ca({ usage: keyUsage(true, 1, 0x02) })],
    [
      'two URI names',
      ca({ names: altNames(false, uri('spiffe://example.org'), uri('spiffe://example.com')) }),
    ],
    ['an ID with a path', ca({ names: altNames(false, uri(leafUri)) })],
    ['a URI that is no SPIFFE ID', ca({ names: altNames(false, uri('https://example.org')) })],
  ])('%s', (_, der) => {
    expect(() => checkX509Authority(der)).toThrow(invalid);
  });
});

test('checkX509Authority accepts CAs with and without a SPIFFE ID', () => {
  expect(checkX509Authority(ca())).toMatchObject({
    trustDomain: { name: 'example.org' },
    pathLength: 1,
    serial: '40ab',
  });
  expect(checkX509Authority(ca({}, 'names')).trustDomain).toBeUndefined();
  expect(
    checkX509Authority(ca({ constraints: basicConstraints(true, booleanTrue()) })).pathLength,
  ).toBeUndefined();
});

describe('peerCertificateIds', () => {
  test('gives all URI names as they stand, and the serial', () => {
    const names = altNames(false, uri('https://x/ y'), dns('web'), uri(leafUri));
    expect(peerCertificateIds(leafWith({ names }))).toEqual({
      uriSans: ['https://x/ y', leafUri],
      serial: '40ab',
      spkiSha256: checkX509SvidLeaf(leafWith({})).spkiSha256,
      tbsSha256: createHash('sha256')
        .update(readCertificate(leafWith({ names })).tbs)
        .digest('hex'),
    });
    expect(peerCertificateIds(leafWithout('names'))).toMatchObject({ uriSans: [], serial: '40ab' });
  });

  test('writes a serial as 20 octets without the sign octet', () => {
    const serial = tlv(0x02, bytes(0, 0xff, 1));
    expect(peerCertificateIds(oddCertificate({ serial })).serial).toBe('ff01');
  });

  test('is fast', () => {
    const der = leafWith({});
    const usedMs = startCpuWatch();
    for (let i = 0; i < 5_000; i++) peerCertificateIds(der);
    // Measured: 4 us. The bound is for a machine that is busy with something else.
    expect(usedMs() / 5_000).toBeLessThan(0.2);
  });
});

describe('damaged certificates', () => {
  const good = oddCertificate();

  test('cut short or lengthened anywhere: refused by all readers', () => {
    for (let size = 0; size < good.length; size++) {
      for (const read of [checkX509SvidLeaf, checkX509Authority, peerCertificateIds]) {
        expect(() => read(good.subarray(0, size))).toThrow(invalid);
        expect(() => read(Buffer.concat([good, good.subarray(0, size + 1)]))).toThrow(invalid);
      }
    }
  });

  test('with any bytes changed: read or svid_invalid, never anything else', () => {
    const change = fc.tuple(fc.nat({ max: good.length - 1 }), fc.integer({ min: 1, max: 255 }));
    fc.assert(
      fc.property(fc.array(change, { minLength: 1, maxLength: 3 }), (changes) => {
        const der = Uint8Array.from(good);
        for (const [at, flip] of changes) der[at] = (der[at] ?? 0) ^ flip;
        for (const read of [checkX509SvidLeaf, checkX509Authority, peerCertificateIds]) {
          try {
            read(der);
          } catch (error) {
            expect(error).toBeInstanceOf(MeshError);
            expect(error).toMatchObject({ code: 'svid_invalid' });
          }
        }
      }),
      { numRuns: 3_000 },
    );
  });
});
