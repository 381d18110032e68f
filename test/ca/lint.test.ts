import { beforeAll, describe, expect, test } from 'vitest';
import {
  bitString,
  booleanTrue,
  octetString,
  sequence,
  time,
  tlv,
  unsignedInteger,
} from '../../src/ca/der-writer.ts';
import { type Issuer, openIssuer } from '../../src/ca/issuer.ts';
import { type ExpectedLeaf, lintLeaf } from '../../src/ca/lint.ts';
import { readPublicKey } from '../../src/ca/public-key.ts';
import { readCertificate } from '../../src/spiffe/certificate.ts';
import { SpiffeId } from '../../src/spiffe/id.ts';
import * as odd from '../spiffe/odd-certificate.ts';
import { makeKey, makeTestAuthority } from './test-authority.ts';

const now = new Date('2026-11-21T12:00:00Z');
const failed = expect.objectContaining({ code: 'lint_failed' });
const serial = Buffer.concat([Uint8Array.of(0x40), new Uint8Array(19).fill(7)]);
const publicKey = readPublicKey(makeKey('ec-prime256v1').spki);
const otherKey = readPublicKey(makeKey('ec-prime256v1').spki);
const notBefore = new Date('2026-11-21T12:00:00Z');
const notAfter = new Date('2026-11-21T13:00:00Z');
let issuer: Issuer;
let other: Issuer;
beforeAll(async () => {
  const { intermediate } = await makeTestAuthority(now);
  issuer = openIssuer(intermediate.certificate, intermediate.key);
  const second = (await makeTestAuthority(now)).intermediate;
  other = openIssuer(second.certificate, second.key);
});

const named = {
  ...odd.leafExtensions,
  subjectKeyId: odd.extension('2.5.29.14', false, octetString(publicKey.keyId)),
};
const authorityKeyId = (keyId: Uint8Array) => odd.extension('2.5.29.35', false, sequence(tlv(0x80, keyId)));

/** A leaf that `signer` really signed, with odd parts or extensions, and what was signed. */
function signed(parts: Partial<odd.Parts> = {}, extensions: object = {}, signer = issuer) {
  const list = {
    ...named,
    authorityKeyId: authorityKeyId(signer.certificate.publicKey.keyId),
    ...extensions,
  };
  const draft = odd.oddCertificate({
    serial: unsignedInteger(serial),
    issuer: signer.certificate.subject,
    notBefore: time(notBefore),
    notAfter: time(notAfter),
    spki: publicKey.spki,
    extensions: Object.values(list),
    ...parts,
  });
  const { tbs, signatureAlgorithm } = readCertificate(draft);
  const signature = signer.key.sign(tbs) as Uint8Array;
  return {
    der: sequence(tbs, signatureAlgorithm, bitString(signature)),
    tbs,
  };
}

const expected = (tbs: Uint8Array): ExpectedLeaf => ({
  id: SpiffeId.parse(odd.leafUri),
  dnsNames: [],
  serial: serial.toString('hex'),
  notBefore,
  notAfter,
  publicKey,
  tbs,
});

test('a leaf of the profile passes', () => {
  const { der, tbs } = signed();
  expect(() => lintLeaf(der, expected(tbs), issuer)).not.toThrow();
});

describe('a good leaf is refused when it is not the expected one:', () => {
  test.each<[string, Partial<ExpectedLeaf>]>([
    ['id', { id: SpiffeId.parse(`${odd.leafUri}x`) }],
    ['DNS names', { dnsNames: ['web'] }],
    ['serial', { serial: '41'.padEnd(40, '0') }],
    ['beginning', { notBefore: new Date(notBefore.getTime() + 1_000) }],
    ['end', { notAfter: new Date(notAfter.getTime() - 1_000) }],
    ['key', { publicKey: otherKey }],
    ['signed bytes', { tbs: Uint8Array.of(0x30, 0) }],
  ])('%s', (_, changes) => {
    const { der, tbs } = signed();
    expect(() => lintLeaf(der, { ...expected(tbs), ...changes }, issuer)).toThrow(failed);
  });

  test('issuer', () => {
    const { der, tbs } = signed();
    expect(() => lintLeaf(der, expected(tbs), other)).toThrow(failed);
  });
});

describe('a leaf that is truly signed is refused when it has', () => {
  const bytes = (...octets: number[]) => Uint8Array.from(octets);
  test.each<[string, Partial<odd.Parts>, object]>([
    ['a subject', { subject: odd.commonName('web') }, {}],
    ['another issuer name', { issuer: odd.commonName('issuer') }, {}],
    ['another key', { spki: otherKey.spki }, {}],
    ['another end', { notAfter: time(new Date('2026-11-21T13:00:01Z')) }, {}],
    ['another serial', { serial: unsignedInteger(bytes(1)) }, {}],
    ['another ID', {}, { names: odd.altNames(true, odd.uri(`${odd.leafUri}2`)) }],
    ['a DNS name too many', {}, { names: odd.altNames(true, odd.uri(odd.leafUri), odd.dns('evil')) }],
    ['names that are not critical', {}, { names: odd.altNames(false, odd.uri(odd.leafUri)) }],
    ['cA', {}, { constraints: odd.basicConstraints(true, booleanTrue()) }],
    ['basic constraints not critical', {}, { constraints: odd.basicConstraints(false) }],
    ['keyCertSign', {}, { usage: odd.keyUsage(true, 2, 0x84) }],
    ['a key usage not critical', {}, { usage: odd.keyUsage(false, 7, 0x80) }],
    ['serverAuth alone', {}, { purposes: odd.keyPurposes(odd.server) }],
    ['a key purpose too many', {}, { purposes: odd.keyPurposes(odd.server, odd.client, '2.5.29.37.0') }],
    [
      'another subject key id',
      {},
      { subjectKeyId: odd.extension('2.5.29.14', false, octetString(otherKey.keyId)) },
    ],
    ['another authority key id', {}, { authorityKeyId: authorityKeyId(otherKey.keyId) }],
    ['an extension too many', {}, { more: odd.extension('1.2.3', false, bytes(5, 0)) }],
    ['a critical extension too many', {}, { more: odd.extension('1.2.3', true, bytes(5, 0)) }],
  ])('%s', (_, parts, extensions) => {
    const { der, tbs } = signed(parts, extensions);
    expect(() => lintLeaf(der, expected(tbs), issuer)).toThrow(failed);
  });

  test.each(['purposes', 'usage', 'constraints', 'subjectKeyId', 'authorityKeyId'])('no %s', (name) => {
    const all = { ...named, authorityKeyId: authorityKeyId(issuer.certificate.publicKey.keyId) };
    const extensions = Object.entries(all).flatMap(([key, der]) => (key === name ? [] : [der]));
    const { der, tbs } = signed({ extensions });
    expect(() => lintLeaf(der, expected(tbs), issuer)).toThrow(failed);
  });
});

test('every single changed byte, missing byte and added byte is noticed', () => {
  const { der, tbs } = signed();
  const lint = (bytes: Uint8Array) => expect(() => lintLeaf(bytes, expected(tbs), issuer)).toThrow(failed);
  for (let at = 0; at < der.length; at++) {
    const copy = Uint8Array.from(der);
    copy[at] = (copy[at] ?? 0) ^ 0x01;
    lint(copy);
  }
  lint(der.subarray(0, -1));
  lint(Buffer.concat([der, Uint8Array.of(0)]));
  lint(new Uint8Array(0));
});
