import { beforeAll, describe, expect, test } from 'vitest';
import { sequence, tlv } from '../../src/ca/der-writer.ts';
import { extensionOid } from '../../src/spiffe/extensions.ts';
import { SpiffeId } from '../../src/spiffe/id.ts';
import { inspectChain } from '../../src/spiffe/inspect-chain.ts';
import { makeKey, makeTestAuthority, type TestAuthority } from '../ca/test-authority.ts';
import { forge, forgeAuthority } from './inspect-forge.ts';
import { commonName, dns, extension, leafUri, uri } from './odd-certificate.ts';

const now = new Date('2026-11-21T12:00:00Z');
const during = new Date('2026-11-21T00:30:00Z');
const later = new Date('2026-11-21T14:00:00Z');
let ca: TestAuthority;
let other: TestAuthority;
let leaf: Uint8Array;
let chain: readonly Uint8Array[];

beforeAll(async () => {
  ca = await makeTestAuthority(now);
  other = await makeTestAuthority(now, {}, 'example.com');
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
describe('a chain', () => {
  const inspect = (of: readonly Uint8Array[], authorities?: readonly Uint8Array[], at = now) =>
    inspectChain(of, authorities === undefined ? {} : { authorities, at });

  test('that ends at an authority is trusted, also with the root in it', () => {
    const root = ca.root.certificate;
    for (const given of [chain, [...chain, root]]) {
      const { facts, broken } = inspect(given, [root]);
      expect(broken).toEqual([]);
      expect(facts.trust?.anchor?.serial).toBe(ca.root.serial);
    }
    // An intermediate as the authority shortens the path.
    expect(rules(inspect([leaf], [ca.intermediate.certificate]))).toEqual([]);
  });

  test.each<[string, () => ReturnType<typeof inspect>, string[]]>([
    ['without its intermediate', () => inspect([leaf], [ca.root.certificate]), ['x509-svid-5.1-trust']],
    ['against nobody', () => inspect(chain, []), ['x509-svid-5.1-trust']],
    ['against a stranger', () => inspect(chain, [other.root.certificate]), ['x509-svid-5.1-trust']],
    ['after it expired', () => inspect(chain, [ca.root.certificate], later), ['rfc5280-6.1.3-validity']],
    [
      'before it began',
      () => inspect(chain, [ca.root.certificate], new Date('2020-01-01T00:00:00Z')),
      ['rfc5280-6.1.3-validity', 'rfc5280-6.1.3-validity', 'rfc5280-6.1.3-validity'],
    ],
    [
      'with the intermediate of another',
      () => inspect([leaf, other.intermediate.certificate]),
      ['rfc5280-6.1.3-issuer', 'rfc5280-6.1.3-signature'],
    ],
    [
      'in the wrong order',
      () => inspect([ca.intermediate.certificate, leaf]),
      [
        'x509-svid-3.1-path',
        'x509-svid-4.1-leaf-not-ca',
        'x509-svid-4.3-digital-signature',
        'x509-svid-4.3-leaf-no-key-cert-sign',
        'x509-svid-4.3-leaf-no-crl-sign',
      ],
    ],
  ])('%s breaks rules', (_, run, expected) => {
    expect(rules(run())).toEqual(expect.arrayContaining(expected));
    expect(rules(run())).not.toEqual([]);
  });

  test('with one bit of the signature turned is not trusted', () => {
    const bent = Uint8Array.from(leaf);
    bent[bent.length - 1]! ^= 1;
    const report = inspect([bent, ...chain.slice(1)], [ca.root.certificate]);
    expect(rules(report)).toEqual(['rfc5280-6.1.3-signature']);
  });

  test('with a CA more than its issuer permits is told, wherever that stands', () => {
    const root = forgeAuthority('root', { pathLength: 1 });
    const upper = forgeAuthority('upper', { issuer: root });
    const lower = forgeAuthority('lower', { issuer: upper });
    const bottom = forge({}, lower);
    const [one, two] = [root.der, upper.der];
    expect(inspect([bottom, lower.der, two], [one], during).broken).toMatchObject([
      { rule: 'rfc5280-6.1.4-path-length', part: 'trust bundle, authority 1' },
    ]);
    expect(rules(inspect([bottom, lower.der], [two], during))).toEqual([]);
    expect(rules(inspect([bottom, lower.der, two, one]))).toEqual(['rfc5280-6.1.4-path-length']);
  });

  test('of another trust domain than its authority is told', () => {
    const root = forgeAuthority('root', { trustDomain: 'example.com' });
    expect(rules(inspect([forge({}, root)], [root.der], during))).toEqual([
      'spiffe-bundle-3-one-trust-domain',
    ]);
    const own = forgeAuthority('root', { trustDomain: 'example.org' });
    expect(rules(inspect([forge({}, own)], [root.der, own.der], during))).toEqual([]);
  });

  test('signed by a leaf is not trusted, although every signature verifies', () => {
    const root = forgeAuthority('root');
    const key = makeKey('ec-prime256v1');
    const middle = forge({ subject: commonName('middle'), spki: key.spki }, root);
    const bottom = forge({}, { name: 'middle', key });
    expect(rules(inspect([bottom, middle], [root.der], during))).toEqual([
      'x509-svid-3.2-no-path',
      'x509-svid-4.1-ca',
      'x509-svid-4.3-key-cert-sign',
    ]);
  });

  test('of more than 16 certificates is not read', () => {
    expect(() => inspect(Array.from({ length: 17 }, () => leaf))).toThrow(
      expect.objectContaining({ code: 'input_too_large' }),
    );
  });

  const constraint = (tag: number, ...bases: Uint8Array[]) =>
    extension(extensionOid.nameConstraints, true, sequence(tlv(tag, ...bases.map((base) => sequence(base)))));
  const outside = 'x509-svid-4.2-name-constraints';
  test.each<[string, Uint8Array, boolean]>([
    ['its own host', constraint(0xa0, uri('example.org')), true],
    ['its own host in upper case', constraint(0xa0, uri('EXAMPLE.org')), true],
    ['every host', constraint(0xa0, uri('')), true],
    ['another host', constraint(0xa0, uri('example.com')), false],
    ['hosts below its own', constraint(0xa0, uri('.example.org')), false],
    ['hosts below the one above', constraint(0xa0, uri('.org')), true],
    ['another and its own host', constraint(0xa0, uri('example.com'), uri('example.org')), true],
    ['DNS names elsewhere, having none', constraint(0xa0, dns('example.com')), true],
    ['all but its own host', constraint(0xa1, uri('example.org')), false],
    ['all but another host', constraint(0xa1, uri('example.com')), true],
  ])('whose CA permits %s: %#', (_, der, permitted) => {
    const root = forgeAuthority('root', { extensions: [der] });
    const expected = permitted ? [] : [outside];
    expect(rules(inspect([forge({}, root)], [root.der], during))).toEqual(expected);
    expect(rules(inspect([forge({}, root), root.der]))).toEqual(expected);
  });

  test('whose CA has malformed name constraints is told', () => {
    const bad = extension(extensionOid.nameConstraints, true, tlv(5));
    const root = forgeAuthority('root', { extensions: [bad] });
    expect(rules(inspect([forge({}, root)], [root.der], during))).toEqual(['rfc5280-4.2-extension']);
  });
});
