import 'reflect-metadata';
import { generateKeyPairSync, webcrypto } from 'node:crypto';
import * as x509 from '@peculiar/x509';
import type { WorkloadCredentials, X509Svid } from '../../src/identity/credentials.ts';
import type { TrustBundle } from '../../src/spiffe/bundle.ts';
import { SpiffeId, TrustDomain } from '../../src/spiffe/id.ts';

/** A certificate authority of one trust domain, made of real keys. */
export type TestAuthority = {
  readonly trustDomain: TrustDomain;
  readonly bundle: TrustBundle;
  /** A new key and a certificate for it, under an intermediate; with `more` names than one it is no SVID. */
  readonly issue: (id: string, ...more: readonly string[]) => Promise<X509Svid>;
};

const notBefore = new Date(Date.now() - 60_000);
const notAfter = new Date(Date.now() + 3_600_000);
const algorithm = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' };
let lastSerial = 0x1000;

export async function createAuthority(domain: string): Promise<TestAuthority> {
  x509.cryptoProvider.set(webcrypto);
  const trustDomain = TrustDomain.parse(domain);
  const root = await keyPair();
  const intermediate = await keyPair();
  const rootCertificate = await sign(
    `CN=${domain} root`,
    `CN=${domain} root`,
    root,
    root,
    authority(trustDomain.id),
  );
  const intermediateCertificate = await sign(
    `CN=${domain}`,
    `CN=${domain} root`,
    intermediate,
    root,
    authority(trustDomain.id),
  );
  return {
    trustDomain,
    bundle: { trustDomain, x509Authorities: [new Uint8Array(rootCertificate.rawData)], sequence: 1 },
    issue: async (text, ...more) => {
      const id = SpiffeId.parse(text);
      const key = await keyPair();
      const leaf = await sign('', `CN=${domain}`, key, intermediate, [
        new x509.SubjectAlternativeNameExtension(
          [text, ...more].map((value) => ({ type: 'url' as const, value })),
          true,
        ),
        new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature, true),
      ]);
      return {
        id,
        certificates: [leaf, intermediateCertificate].map(({ rawData }) => new Uint8Array(rawData)),
        privateKey: key.pkcs8,
        serial: leaf.serialNumber,
        issuerKeyId: 'aa'.repeat(20),
        notBefore,
        notAfter,
        hint: '',
        entryId: 'test',
      };
    },
  };
}

/** What a caller has who is entitled to these SVIDs of one authority, and knows these foreign bundles. */
export function credentialsOf(
  { trustDomain, bundle }: TestAuthority,
  svids: readonly X509Svid[],
  foreign: readonly TrustBundle[] = [],
): WorkloadCredentials {
  const bundles = new Map([bundle, ...foreign].map((one) => [one.trustDomain.name, one]));
  return { trustDomain, svids, banned: [], isDefaultBanned: false, bundles, jwtBundles: new Map() };
}

/** What a caller has whom no entry matches. */
export function nothingOf({ trustDomain }: TestAuthority): WorkloadCredentials {
  return {
    trustDomain,
    svids: [],
    banned: [],
    isDefaultBanned: false,
    bundles: new Map(),
    jwtBundles: new Map(),
  };
}

type Keys = {
  readonly publicKey: webcrypto.CryptoKey;
  readonly privateKey: webcrypto.CryptoKey;
  readonly pkcs8: Uint8Array;
};

async function keyPair(): Promise<Keys> {
  const pair = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const pkcs8 = new Uint8Array(pair.privateKey.export({ type: 'pkcs8', format: 'der' }));
  const spki = pair.publicKey.export({ type: 'spki', format: 'der' });
  return {
    publicKey: await webcrypto.subtle.importKey('spki', spki, algorithm, true, ['verify']),
    privateKey: await webcrypto.subtle.importKey('pkcs8', pkcs8, algorithm, true, ['sign']),
    pkcs8,
  };
}

function authority(id: string): x509.Extension[] {
  return [
    new x509.BasicConstraintsExtension(true, undefined, true),
    new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign, true),
    new x509.SubjectAlternativeNameExtension([{ type: 'url', value: id }]),
  ];
}

function sign(
  subject: string,
  issuer: string,
  { publicKey }: Keys,
  { privateKey }: Keys,
  extensions: x509.Extension[],
): Promise<x509.X509Certificate> {
  lastSerial += 1;
  return x509.X509CertificateGenerator.create({
    serialNumber: lastSerial.toString(16),
    subject,
    issuer,
    notBefore,
    notAfter,
    publicKey,
    signingKey: privateKey,
    signingAlgorithm: algorithm,
    extensions,
  });
}
