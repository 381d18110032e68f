// The only file that knows @peculiar/x509. It makes CA certificates; leaves are written in leaf.ts. It is never given a
// string or a certificate of unknown origin: see openIssuer.
import 'reflect-metadata';
import { generateKeyPair, type webcrypto } from 'node:crypto';
import { promisify } from 'node:util';
import { Crypto } from '@peculiar/webcrypto';
import {
  AuthorityKeyIdentifierExtension,
  BasicConstraintsExtension,
  type Extension,
  type JsonName,
  KeyUsageFlags,
  KeyUsagesExtension,
  Name,
  SubjectAlternativeNameExtension,
  SubjectKeyIdentifierExtension,
  X509Certificate,
  X509CertificateGenerator,
} from '@peculiar/x509';
import { hexOf } from '../spiffe/der.ts';
import type { TrustDomain } from '../spiffe/id.ts';
import { openIssuer, refuseAuthority } from './issuer.ts';
import type { AuthorityKeyKind, Profile } from './profile.ts';
import { readPublicKey } from './public-key.ts';
import { makeSerial, type RandomBytes } from './serial.ts';
import { authorityValidity, type Validity } from './validity.ts';

/** A CA that was just made. */
export type CreatedAuthority = {
  readonly kind: 'root' | 'intermediate';
  /** DER. */
  readonly certificate: Uint8Array;
  /** PKCS#8 DER, in the clear: seal it at once (key-envelope.ts), never log it. */
  readonly privateKey: Uint8Array;
  /** Subject key identifier, lower-case hex. */
  readonly keyId: string;
  /** Lower-case hex. */
  readonly serial: string;
  readonly notBefore: Date;
  readonly notAfter: Date;
};

type CreateOptions = {
  readonly trustDomain: TrustDomain;
  readonly profile: Profile;
  readonly now: Date;
  readonly randomBytes: RandomBytes;
};

/**
 * Makes a root CA with a new key: signed by itself, path length 1, SAN `spiffe://<trust domain>`.
 * @throws MeshError `profile_invalid` when `now` is no usable date
 */
export function createRoot(options: CreateOptions): Promise<CreatedAuthority> {
  const { profile, now } = options;
  const validity = authorityValidity(now, profile.rootTtlSeconds, profile.backdateSeconds, undefined);
  return create('root', options, validity, undefined);
}

/**
 * Makes an intermediate CA with a new key, signed by `root` and within its dates: path length 0.
 * @param options.root its certificate (DER) and private key (PKCS#8 DER)
 * @throws MeshError `authority_invalid` when the root is none or of another trust domain, `issuer_expired` when it has
 *   less than an hour left
 */
export async function createIntermediate(
  options: CreateOptions & {
    readonly root: { readonly certificate: Uint8Array; readonly privateKey: Uint8Array };
  },
): Promise<CreatedAuthority> {
  const { profile, now } = options;
  const root = openIssuer(options.root.certificate, options.root.privateKey);
  if (root.certificate.trustDomain?.equals(options.trustDomain) !== true) {
    refuseAuthority(`is not of the trust domain ${options.trustDomain.name}`);
  }
  if (root.certificate.pathLength === 0) refuseAuthority('permits no intermediate');
  const validity = authorityValidity(
    now,
    profile.intermediateTtlSeconds,
    profile.backdateSeconds,
    root.certificate,
  );
  return create('intermediate', options, validity, {
    certificate: new X509Certificate(Buffer.from(root.certificate.der)),
    key: await importSigningKey(options.root.privateKey, curveOf(root.certificate.publicKey.kind)),
    algorithm: signingAlgorithms[curveOf(root.certificate.publicKey.kind)],
    keyId: root.certificate.keyId,
  });
}

type SigningRoot = {
  readonly certificate: X509Certificate;
  readonly key: webcrypto.CryptoKey;
  readonly algorithm: webcrypto.EcdsaParams;
  readonly keyId: string;
};

async function create(
  kind: CreatedAuthority['kind'],
  { trustDomain, profile, randomBytes }: CreateOptions,
  validity: Validity,
  root: SigningRoot | undefined,
): Promise<CreatedAuthority> {
  const { spki, pkcs8 } = await generateKey(profile.authorityKey);
  const publicKey = readPublicKey(spki);
  const keyId = hexOf(publicKey.keyId);
  const name = new Name(authorityName(kind, keyId));
  const algorithm = root?.algorithm ?? signingAlgorithms[profile.authorityKey];
  const serial = hexOf(makeSerial(randomBytes));
  const certificate = await X509CertificateGenerator.create(
    {
      serialNumber: serial,
      issuer: root?.certificate.subjectName ?? name,
      subject: name,
      notBefore: validity.notBefore,
      notAfter: validity.notAfter,
      publicKey: await provider.subtle.importKey('spki', spki, importParams[profile.authorityKey], true, [
        'verify',
      ]),
      signingKey: root?.key ?? (await importSigningKey(pkcs8, profile.authorityKey)),
      signingAlgorithm: algorithm,
      extensions: authorityExtensions(kind, trustDomain, keyId, root?.keyId),
    },
    provider,
  );
  const der = new Uint8Array(certificate.rawData);
  // Read back with our own reader and with OpenSSL: a CA that cannot be opened again is never handed out.
  const opened = openIssuer(der, pkcs8);
  if (opened.certificate.serial !== serial || opened.certificate.keyId !== keyId)
    refuseAuthority('was made wrongly');
  return { kind, certificate: der, privateKey: pkcs8, keyId, serial, ...validity };
}

/** The name says whose key it is, so that two roots of one trust domain never share a name. */
function authorityName(kind: CreatedAuthority['kind'], keyId: string): JsonName {
  return [{ O: ['Countersign'] }, { CN: [`${kind} ${keyId.slice(0, 16)}`] }];
}

function authorityExtensions(
  kind: CreatedAuthority['kind'],
  trustDomain: TrustDomain,
  keyId: string,
  issuerKeyId: string | undefined,
): Extension[] {
  return [
    new BasicConstraintsExtension(true, kind === 'root' ? 1 : 0, true),
    new KeyUsagesExtension(KeyUsageFlags.keyCertSign | KeyUsageFlags.cRLSign, true),
    new SubjectKeyIdentifierExtension(keyId, false),
    ...(issuerKeyId === undefined ? [] : [new AuthorityKeyIdentifierExtension(issuerKeyId, false)]),
    new SubjectAlternativeNameExtension([{ type: 'url', value: trustDomain.id }], false),
  ];
}

async function generateKey(
  kind: AuthorityKeyKind,
): Promise<{ spki: Uint8Array<ArrayBuffer>; pkcs8: Uint8Array<ArrayBuffer> }> {
  const { publicKey, privateKey } = await promisify(generateKeyPair)('ec', {
    namedCurve: importParams[kind].namedCurve,
  });
  return {
    spki: new Uint8Array(publicKey.export({ format: 'der', type: 'spki' })),
    pkcs8: new Uint8Array(privateKey.export({ format: 'der', type: 'pkcs8' })),
  };
}

function importSigningKey(pkcs8: Uint8Array, kind: AuthorityKeyKind): Promise<webcrypto.CryptoKey> {
  return provider.subtle.importKey('pkcs8', new Uint8Array(pkcs8), importParams[kind], false, ['sign']);
}

function curveOf(kind: string): AuthorityKeyKind {
  return kind === 'ecdsa-p384' ? 'ecdsa-p384' : 'ecdsa-p256';
}

const provider = new Crypto();
const importParams = {
  'ecdsa-p256': { name: 'ECDSA', namedCurve: 'P-256' },
  'ecdsa-p384': { name: 'ECDSA', namedCurve: 'P-384' },
} as const;
const signingAlgorithms = {
  'ecdsa-p256': { name: 'ECDSA', hash: 'SHA-256' },
  'ecdsa-p384': { name: 'ECDSA', hash: 'SHA-384' },
} as const;
