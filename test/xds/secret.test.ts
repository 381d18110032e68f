import { createPrivateKey, X509Certificate } from 'node:crypto';
import { beforeAll, describe, expect, test } from 'vitest';
import type { WorkloadCredentials, X509Svid } from '../../src/identity/credentials.ts';
import { secretOf } from '../../src/xds/secret.ts';
import { type DataSource } from '../../src/wire/core.ts';
import { Secret, SPIFFECertValidatorConfig } from '../../src/wire/tls.ts';
import { createAuthority, credentialsOf, nothingOf, type TestAuthority } from './certificates.ts';

let own: TestAuthority;
let friend: TestAuthority;
let web: X509Svid;
let api: X509Svid;
let all: WorkloadCredentials;

beforeAll(async () => {
  [own, friend] = await Promise.all([createAuthority('example.org'), createAuthority('friend.example')]);
  [web, api] = await Promise.all([
    own.issue('spiffe://example.org/web'),
    own.issue('spiffe://example.org/api'),
  ]);
  all = credentialsOf(own, [web, api], [friend.bundle]);
});

describe('certificates', () => {
  test.each([
    ['default', () => web],
    ['spiffe://example.org/web', () => web],
    ['spiffe://example.org/api', () => api],
  ])('%s', (name, svid) => {
    const made = secretOf(all, name, { plainTrustedCa: false });
    expect(made).toMatchObject({ name, holdsKey: true });
    const secret = Secret.decode(made?.value ?? Buffer.alloc(0));
    expect(secret.name).toBe(name);
    if (secret.type?.$case !== 'tlsCertificate') throw new Error('another kind');
    const { certificateChain, privateKey } = secret.type.tlsCertificate;
    const chain = blocks(certificateChain);
    expect(chain).toHaveLength(2);
    const [leaf, intermediate] = chain.map((pem) => new X509Certificate(pem));
    expect(leaf?.subjectAltName).toBe(`URI:${svid().id.text}`);
    expect(leaf?.checkPrivateKey(createPrivateKey(text(privateKey)))).toBe(true);
    expect(text(privateKey)).toMatch(/^-----BEGIN PRIVATE KEY-----\n/);
    expect(intermediate?.ca).toBe(true);
    expect(intermediate && leaf?.verify(intermediate.publicKey)).toBe(true);
  });

  test('versions name the certificate, not the key', () => {
    const version = (svid: X509Svid) =>
      secretOf(credentialsOf(own, [svid]), 'default', { plainTrustedCa: false })?.version;
    expect(version({ ...web, privateKey: new Uint8Array(3) })).toBe(version(web));
    expect(version(api)).not.toBe(version(web));
  });
});

describe('bundles', () => {
  test.each([
    ['ROOTCA', ['example.org']],
    ['spiffe://example.org', ['example.org']],
    ['spiffe://friend.example', ['friend.example']],
    ['ALL', ['example.org', 'friend.example']],
  ])('%s is the SPIFFE validator', (name, domains) => {
    const context = contextOf(name, false);
    expect(context.trustedCa).toBeUndefined();
    expect(context.customValidatorConfig?.name).toBe('envoy.tls.cert_validator.spiffe');
    expect(context.customValidatorConfig?.typedConfig?.typeUrl).toBe(
      'type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.SPIFFECertValidatorConfig',
    );
    const { trustDomains } = SPIFFECertValidatorConfig.decode(
      context.customValidatorConfig?.typedConfig?.value ?? Buffer.alloc(0),
    );
    expect(trustDomains.map((domain) => domain.name)).toEqual(domains);
    for (const { name: domain, trustBundle } of trustDomains) {
      expect(blocks(trustBundle).map((pem) => new X509Certificate(pem).subject)).toEqual([
        `CN=${domain} root`,
      ]);
    }
  });

  test.each([
    ['ROOTCA', 'example.org'],
    ['spiffe://example.org', 'example.org'],
    ['spiffe://friend.example', 'friend.example'],
  ])('%s is a plain CA when that is asked for', (name, domain) => {
    const context = contextOf(name, true);
    expect(context.customValidatorConfig).toBeUndefined();
    expect(blocks(context.trustedCa).map((pem) => new X509Certificate(pem).subject)).toEqual([
      `CN=${domain} root`,
    ]);
  });

  test('ALL never pools the roots of several trust domains', () => {
    expect(contextOf('ALL', true)).toEqual(contextOf('ALL', false));
  });

  test('no bundle sets SAN matchers: they are the business of the proxy', () => {
    const { matchTypedSubjectAltNames, matchSubjectAltNames, allowExpiredCertificate } = contextOf(
      'ROOTCA',
      false,
    );
    expect([matchTypedSubjectAltNames, matchSubjectAltNames, allowExpiredCertificate]).toEqual([
      [],
      [],
      false,
    ]);
  });

  test('the order in which bundles are known does not matter', () => {
    const turned = { ...all, bundles: new Map([...all.bundles].reverse()) };
    expect(secretOf(turned, 'ALL', { plainTrustedCa: false })).toEqual(
      secretOf(all, 'ALL', { plainTrustedCa: false }),
    );
  });

  function contextOf(name: string, plainTrustedCa: boolean) {
    const made = secretOf(all, name, { plainTrustedCa });
    expect(made).toMatchObject({ name, holdsKey: false });
    const secret = Secret.decode(made?.value ?? Buffer.alloc(0));
    expect(secret.name).toBe(name);
    if (secret.type?.$case !== 'validationContext') throw new Error('another kind');
    return secret.type.validationContext;
  }
});

describe('nothing', () => {
  test.each([
    '',
    'Default',
    'rootca',
    'all',
    'nobody',
    '__proto__',
    'constructor',
    'file-cert:/etc/shadow~/etc/shadow',
    'file-root:system',
    'kubernetes://secret',
    '../../etc/passwd',
    '*',
    'spiffe://',
    'spiffe://example.org/',
    'spiffe://example.org/other',
    'spiffe://example.org/web/',
    'spiffe://EXAMPLE.org/web',
    'spiffe://example.org/../web',
    'spiffe://stranger.example',
    'spiffe://friend.example/web',
    'example.org',
  ])('for %j', (name) => {
    expect(secretOf(all, name, { plainTrustedCa: false })).toBeUndefined();
  });

  test.each(['default', 'ROOTCA', 'ALL', 'spiffe://example.org', 'spiffe://example.org/web'])(
    'for %s when no entry matches',
    (name) => {
      expect(secretOf(nothingOf(own), name, { plainTrustedCa: false })).toBeUndefined();
    },
  );

  test('for an SVID without certificates, or a bundle without authorities', () => {
    const hollow = {
      ...credentialsOf(own, [{ ...web, certificates: [] }]),
      bundles: new Map([['example.org', { ...own.bundle, x509Authorities: [] }]]),
    };
    for (const name of ['default', 'ROOTCA', 'ALL', 'spiffe://example.org']) {
      expect(secretOf(hollow, name, { plainTrustedCa: true })).toBeUndefined();
    }
  });
});

function text(source: DataSource | undefined): string {
  if (source?.specifier?.$case !== 'inlineBytes') throw new Error('not inline');
  return source.specifier.inlineBytes.toString();
}

function blocks(source: DataSource | undefined): string[] {
  return text(source)
    .split(/(?<=-----END CERTIFICATE-----\n)/)
    .filter((block) => block !== '');
}

describe('revocation lists', () => {
  const crls = [Buffer.from('3000', 'hex'), Buffer.from('3001', 'hex')];
  const contextOf = (name: string, plainTrustedCa: boolean, lists: readonly Uint8Array[]) => {
    const made = secretOf({ ...all, crls: lists }, name, { plainTrustedCa });
    const { type } = Secret.decode(made?.value ?? Buffer.alloc(0));
    if (type?.$case !== 'validationContext') throw new Error('another kind');
    return { ...type.validationContext, version: made?.version };
  };

  test.each(['ROOTCA', 'spiffe://example.org'])('%s has them when it is plain, for leaves alone', (name) => {
    const context = contextOf(name, true, crls);
    expect(text(context.crl)).toMatch(
      /^-----BEGIN X509 CRL-----\nMAA=\n[^]*-----BEGIN X509 CRL-----\nMAE=\n/,
    );
    expect(context.onlyVerifyLeafCertCrl).toBe(true);
    expect(context.version).not.toBe(contextOf(name, true, []).version);
  });

  test.each<[string, boolean, readonly Uint8Array[]]>([
    ['ROOTCA', false, crls],
    ['ALL', true, crls],
    // Of another trust domain's CAs we have none, and one list would demand all.
    ['spiffe://friend.example', true, crls],
    ['ROOTCA', true, []],
  ])('%s, plain: %s, has none', (name, plain, lists) => {
    const context = contextOf(name, plain, lists);
    expect([context.crl, context.onlyVerifyLeafCertCrl]).toEqual([undefined, false]);
    expect(context.version).toBe(contextOf(name, plain, []).version);
  });
});

test('what many streams are given is made once, and made anew when anything in it changes', () => {
  const format = { plainTrustedCa: true };
  for (const name of ['default', 'ROOTCA', 'ALL', 'spiffe://friend.example']) {
    const made = secretOf({ ...all, crls: noLists }, name, format);
    expect(secretOf({ ...all, bundles: new Map(all.bundles), crls: noLists }, name, format)).toBe(made);
    expect(secretOf({ ...all, crls: noLists }, name, { plainTrustedCa: false })?.name).toBe(name);
  }
  const before = secretOf(all, 'ALL', format);
  const alone = secretOf({ ...all, bundles: new Map([...all.bundles].slice(0, 1)) }, 'ALL', format);
  expect(alone?.version).not.toBe(before?.version);
  expect(secretOf(all, 'ALL', format)?.version).toBe(before?.version);
});
const noLists: readonly Uint8Array[] = [];
