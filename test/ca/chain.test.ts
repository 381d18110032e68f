import { describe, expect, test } from 'vitest';
import { booleanTrue, octetString, sequence, tlv, unsignedInteger } from '../../src/ca/der-writer.ts';
import { checkImport, checkIssuerChain, maxChainBytes, readChain } from '../../src/ca/chain.ts';
import { readPublicKey } from '../../src/ca/public-key.ts';
import { TrustDomain } from '../../src/spiffe/id.ts';
import { encodePem } from '../../src/spiffe/pem.ts';
import * as odd from '../spiffe/odd-certificate.ts';
import { startCpuWatch } from '../harness/cpu-watch.ts';
import { days, type ForgedCa, forgeCa, type ForgeOptions, nameConstraints, now } from './forged-chain.ts';
import { makeKey } from './test-authority.ts';

const trustDomain = TrustDomain.parse('example.org');
const key = makeKey('ec-prime256v1');
const waiting = readPublicKey(key.spki);
const root = forgeCa('root');
const signerOf = (options: ForgeOptions = {}): ForgedCa =>
  forgeCa('signer', { key, issuer: root, ...options });
const pemOf = (...chain: readonly ForgedCa[]): string => chain.map(({ pem }) => pem).join('');

function check(text: string) {
  const parts = readChain(text, 'chain.pem');
  const chain = checkIssuerChain(parts, trustDomain);
  checkImport(chain, parts, waiting, now);
  return chain;
}

const rsa = makeKey('rsa-2048');
const rsaRoot = forgeCa('rsa root', { key: rsa });
const middle = forgeCa('middle', { issuer: root, pathLength: 1, until: days(200) });
const upper = forgeCa('upper', { issuer: root, pathLength: 2, until: days(200) });
const lower = forgeCa('lower', { issuer: upper, pathLength: 1, until: days(100) });
const constrained = (...more: readonly Uint8Array[]) => forgeCa('constrained', { more });
const under = (above: ForgedCa, options: ForgeOptions = {}) =>
  pemOf(signerOf({ issuer: above, ...options }), above);

describe('takes', () => {
  test.each<[string, () => string, number]>([
    ['a root and its intermediate', () => pemOf(signerOf(), root), 0],
    ['without a SPIFFE ID', () => pemOf(signerOf({ uris: [] }), root), 0],
    ['with that of the trust domain', () => pemOf(signerOf({ uris: [trustDomain.id] }), root), 0],
    ['a CA of somebody else in between', () => pemOf(signerOf({ issuer: middle }), middle, root), 1],
    ['two of them', () => pemOf(signerOf({ issuer: lower }), lower, upper, root), 2],
    ['an RSA root', () => under(rsaRoot), 0],
    [
      'a P-384 root with SHA-384',
      () => under(forgeCa('p384', { key: makeKey('ec-secp384r1'), hash: 'sha384' }), { hash: 'sha384' }),
      0,
    ],
    [
      'a root that permits our URI names',
      () => under(constrained(nameConstraints([odd.uri('example.org')]))),
      0,
    ],
    [
      'a root that excludes other URI names',
      () => under(constrained(nameConstraints([], [odd.uri('example.com')]))),
      0,
    ],
    [
      'a root that judges mail addresses',
      () => under(constrained(nameConstraints([tlv(0x81, Buffer.from('x.org'))]))),
      0,
    ],
    [
      'both key purposes',
      () => pemOf(signerOf({ more: [odd.keyPurposes(odd.server, odd.client)] }), root),
      0,
    ],
    ['any key purpose', () => pemOf(signerOf({ more: [odd.keyPurposes('2.5.29.37.0')] }), root), 0],
    ['CRLF', () => pemOf(signerOf(), root).replaceAll('\n', '\r\n'), 0],
  ])('%s', (_, text, upstream) => {
    const chain = check(text());
    expect(chain.upstream).toHaveLength(upstream);
    expect(chain.signer.publicKey.spkiSha256).toBe(waiting.spkiSha256);
  });
});

const ca = (...limit: readonly Uint8Array[]) => odd.basicConstraints(true, booleanTrue(), ...limit);
const zero = unsignedInteger(Uint8Array.of(0));
const usage = odd.keyUsage(true, 1, 0x06);

describe('refuses', () => {
  test.each<[string, () => string, string, number]>([
    ['nothing', () => '', 'chain_malformed', 1],
    ['text', () => 'hello', 'chain_malformed', 1],
    ['a request', () => encodePem('CERTIFICATE REQUEST', root.der), 'chain_malformed', 1],
    [
      'a key beside it',
      () => pemOf(signerOf(), root) + encodePem('PRIVATE KEY', key.pkcs8),
      'chain_malformed',
      1,
    ],
    ['text between', () => `${signerOf().pem}subject=CN = root\n${root.pem}`, 'chain_malformed', 1],
    ['five certificates', () => pemOf(signerOf(), root, root, root, root), 'chain_malformed', -1],
    ['more than 128 KiB', () => 'A'.repeat(maxChainBytes + 1), 'chain_malformed', 1],
    [
      'bytes that are no certificate',
      () => encodePem('CERTIFICATE', Uint8Array.of(0x30, 0)) + root.pem,
      'chain_malformed',
      1,
    ],
    [
      'bytes after the certificate',
      () => signerOf().pem + encodePem('CERTIFICATE', Buffer.concat([root.der, Buffer.alloc(1)])),
      'chain_malformed',
      -1,
    ],
    ['the intermediate alone', () => pemOf(signerOf()), 'chain_root_missing', 1],
    [
      'an intermediate without a subject key identifier',
      () => pemOf(signerOf({ subjectKeyId: null }), root),
      'chain_not_ca',
      1,
    ],
    ['the root alone', () => pemOf(root), 'chain_root_missing', 1],
    ['a chain that ends early', () => pemOf(signerOf({ issuer: middle }), middle), 'chain_root_missing', -1],
    ['the root first', () => pemOf(root, signerOf()), 'chain_root_missing', -1],
    [
      'the wrong order in between',
      () => pemOf(signerOf({ issuer: lower }), upper, lower, root),
      'chain_broken',
      1,
    ],
    ['another key', () => pemOf(forgeCa('signer', { issuer: root }), root), 'chain_key_mismatch', 1],
    ['the root in place of the intermediate', () => pemOf(root, root), 'chain_broken', 1],
    [
      'our key as the root',
      () => pemOf(signerOf({ issuer: forgeCa('self', { key }) }), forgeCa('self', { key })),
      'chain_broken',
      1,
    ],
    ['a CA twice', () => pemOf(signerOf({ issuer: middle }), middle, middle, root), 'chain_broken', -1],
    ['a root of the same name and another key', () => pemOf(signerOf(), forgeCa('root')), 'chain_broken', 1],
    [
      'a signature of somebody else',
      () => pemOf(signerOf({ signedBy: makeKey('ec-prime256v1') }), root),
      'chain_broken',
      1,
    ],
    [
      'a root somebody else signed',
      () => under(forgeCa('root2', { signedBy: makeKey('ec-prime256v1') })),
      'chain_broken',
      -1,
    ],
    [
      'an issuer key that is named otherwise',
      () => pemOf(signerOf({ authorityKeyId: new Uint8Array(20).fill(1) }), root),
      'chain_broken',
      1,
    ],
    [
      'a leaf',
      () => pemOf(signerOf({ usage: [odd.basicConstraints(true), odd.keyUsage(true, 7, 0x80)] }), root),
      'chain_not_ca',
      1,
    ],
    [
      'basic constraints that are not critical',
      () => pemOf(signerOf({ usage: [odd.basicConstraints(false, booleanTrue(), zero), usage] }), root),
      'chain_not_ca',
      1,
    ],
    ['no key usage', () => pemOf(signerOf({ usage: [ca(zero)] }), root), 'chain_not_ca', 1],
    [
      'a key usage without keyCertSign',
      () => pemOf(signerOf({ usage: [ca(zero), odd.keyUsage(true, 7, 0x80)] }), root),
      'chain_not_ca',
      1,
    ],
    [
      'a critical extension nobody knows',
      () => pemOf(signerOf({ more: [odd.extension('1.2.3.4', true, octetString(new Uint8Array(1)))] }), root),
      'chain_not_ca',
      1,
    ],
    [
      'a root that is none',
      () => under(forgeCa('leaf', { usage: [odd.basicConstraints(true), usage] })),
      'chain_not_ca',
      -1,
    ],
    ['no path length', () => pemOf(signerOf({ pathLength: null }), root), 'chain_path_length', 1],
    ['a path length of 1', () => pemOf(signerOf({ pathLength: 1 }), root), 'chain_path_length', 1],
    ['a root of path length 0', () => under(forgeCa('short', { pathLength: 0 })), 'chain_path_length', -1],
    [
      'one in between of path length 0',
      () => {
        const short = forgeCa('short', { issuer: root, pathLength: 0, until: days(200) });
        return pemOf(signerOf({ issuer: short }), short, root);
      },
      'chain_path_length',
      -1,
    ],
    [
      'a root that permits too few',
      () => {
        const one = forgeCa('one', { pathLength: 1 });
        const sub = forgeCa('sub', { issuer: one, pathLength: 1, until: days(200) });
        return pemOf(signerOf({ issuer: sub }), sub, one);
      },
      'chain_path_length',
      -1,
    ],
    ['SHA-1', () => pemOf(signerOf({ hash: 'sha1' }), root), 'chain_algorithm', 1],
    ['a root signed with SHA-1', () => under(forgeCa('old', { hash: 'sha1' })), 'chain_algorithm', -1],
    ['a P-521 root', () => under(forgeCa('p521', { key: makeKey('ec-secp521r1') })), 'chain_algorithm', -1],
    ['an RSA-1024 root', () => under(forgeCa('small', { key: makeKey('rsa-1024') })), 'chain_algorithm', -1],
    [
      'another trust domain',
      () => pemOf(signerOf({ uris: ['spiffe://example.com'] }), root),
      'chain_trust_domain',
      1,
    ],
    [
      'a root of another trust domain',
      () => under(forgeCa('other', { uris: ['spiffe://example.com'] })),
      'chain_trust_domain',
      -1,
    ],
    [
      'the SPIFFE ID of a workload',
      () => pemOf(signerOf({ uris: ['spiffe://example.org/web'] }), root),
      'chain_not_ca',
      1,
    ],
    [
      'a URI that is no SPIFFE ID',
      () => pemOf(signerOf({ uris: ['https://example.org'] }), root),
      'chain_trust_domain',
      1,
    ],
    ['one that ended', () => pemOf(signerOf({ until: days(-0.5) }), root), 'chain_dates', 1],
    ['one that ends in half an hour', () => pemOf(signerOf({ until: days(1 / 48) }), root), 'chain_dates', 1],
    ['one of tomorrow', () => pemOf(signerOf({ from: days(1) }), root), 'chain_dates', 1],
    ['one older than its issuer', () => pemOf(signerOf({ from: days(-2) }), root), 'chain_dates', 1],
    ['one that outlives its issuer', () => pemOf(signerOf({ until: days(400) }), root), 'chain_dates', 1],
    [
      'a root that ended',
      () => under(forgeCa('gone', { until: days(-0.5) }), { until: days(-0.6) }),
      'chain_dates',
      1,
    ],
    [
      'a root that permits other hosts',
      () => under(constrained(nameConstraints([odd.uri('example.com')]))),
      'chain_constraints',
      -1,
    ],
    [
      'a root that permits subdomains only',
      () => under(constrained(nameConstraints([odd.uri('.example.org')]))),
      'chain_constraints',
      -1,
    ],
    [
      'a root that excludes our host',
      () => under(constrained(nameConstraints([], [odd.uri('example.org')]))),
      'chain_constraints',
      -1,
    ],
    [
      'a root that judges DNS names',
      () => under(constrained(nameConstraints([odd.dns('corp')]))),
      'chain_constraints',
      -1,
    ],
    [
      'a root that judges directory names',
      () => under(constrained(nameConstraints([tlv(0xa4, odd.commonName('x'))]))),
      'chain_constraints',
      -1,
    ],
    [
      'constraints that cannot be read',
      () => under(constrained(odd.extension('2.5.29.30', true, octetString(Uint8Array.of(1))))),
      'chain_malformed',
      -1,
    ],
    [
      'key purposes without clientAuth',
      () => pemOf(signerOf({ more: [odd.keyPurposes(odd.server)] }), root),
      'chain_constraints',
      1,
    ],
    [
      'a root for mail only',
      () => under(constrained(odd.keyPurposes('1.3.6.1.5.5.7.3.4'))),
      'chain_constraints',
      -1,
    ],
    [
      'key purposes that cannot be read',
      () => pemOf(signerOf({ more: [odd.extension('2.5.29.37', false, sequence())] }), root),
      'chain_malformed',
      1,
    ],
  ])('%s', (_, text, code, line) => {
    const given = text();
    let thrown: unknown;
    try {
      check(given);
    } catch (error) {
      thrown = error;
    }
    expect(thrown).toMatchObject({
      code,
      place: { file: 'chain.pem', column: 1 },
      fix: expect.any(String) as string,
    });
    // -1: not the first certificate, and at its first line.
    const place = (thrown as { place: { line: number } }).place.line;
    if (line > 0) expect(place).toBe(line);
    else expect([place > 1, given.split('\n')[place - 1]]).toEqual([true, '-----BEGIN CERTIFICATE-----']);
  });
});

test('a hostile chain takes no time', () => {
  const usedMs = startCpuWatch();
  for (const text of [
    '-----BEGIN CERTIFICATE-----\n'.repeat(4_000),
    '-'.repeat(maxChainBytes),
    'A\n'.repeat(60_000),
  ]) {
    expect(() => readChain(text, 'x')).toThrow(expect.objectContaining({ code: 'chain_malformed' }) as Error);
  }
  expect(usedMs()).toBeLessThan(500);
});
