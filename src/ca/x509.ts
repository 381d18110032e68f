import { extensionOid, keyUsageBit } from '../spiffe/extensions.ts';
import { bytesEqual, derTag, hexOf } from '../spiffe/der.ts';
import type { TrustDomain } from '../spiffe/id.ts';
import {
  ascii,
  bitString,
  booleanTrue,
  objectIdentifier,
  octetString,
  sequence,
  time,
  tlv,
  unsignedInteger,
} from './der-writer.ts';
import { openAuthorityCertificate, openIssuer, refuseAuthority } from './issuer.ts';
import type { CaKey, KeyHash } from './key-port.ts';
import type { Profile } from './profile.ts';
import type { PublicKey } from './public-key.ts';
import { makeSerial, type RandomBytes } from './serial.ts';
import { verifyBytes } from './signature.ts';
import { authorityValidity, type Validity } from './validity.ts';

/** A CA certificate that was just made. */
export type CreatedAuthority = {
  readonly kind: 'root' | 'intermediate';
  /** DER. */
  readonly certificate: Uint8Array;
  /** What we call its key, lower-case hex. */
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
 * Makes the certificate of a root CA: signed by itself, path length 1, SAN `spiffe://<trust domain>`.
 * @throws MeshError `profile_invalid` when `now` is no usable date
 */
export async function createRoot(
  options: CreateOptions & { readonly key: CaKey },
): Promise<CreatedAuthority> {
  const { profile, now, key } = options;
  const validity = authorityValidity(now, profile.rootTtlSeconds, profile.backdateSeconds, undefined);
  const { publicKey } = key;
  const subject = authorityName('root', publicKey);
  return create('root', options, validity, publicKey, { name: subject, key, keyId: undefined });
}

/**
 * Makes the certificate of an intermediate CA, signed by `root` and within its dates: path length 0. Of whom it is for
 * it takes the public key and nothing else.
 * @param options.publicKey ECDSA on P-256 or P-384; its holder has proven to have the private key
 * @throws MeshError `authority_invalid` when the root is none or of another trust domain, or the key is no CA's;
 *   `issuer_expired` when the root has less than an hour left
 */
export async function createIntermediate(
  options: CreateOptions & {
    readonly publicKey: PublicKey;
    readonly root: { readonly certificate: Uint8Array; readonly key: CaKey };
  },
): Promise<CreatedAuthority> {
  const { profile, now, publicKey } = options;
  const { certificate } = openIssuer(options.root.certificate, options.root.key);
  if (certificate.trustDomain?.equals(options.trustDomain) !== true) {
    refuseAuthority(`is not of the trust domain ${options.trustDomain.name}`);
  }
  if (certificate.pathLength === 0) refuseAuthority('permits no intermediate');
  if (!publicKey.kind.startsWith('ecdsa'))
    refuseAuthority('would have a key that is not ECDSA P-256 or P-384');
  const validity = authorityValidity(
    now,
    profile.intermediateTtlSeconds,
    profile.backdateSeconds,
    certificate,
  );
  return create('intermediate', options, validity, publicKey, {
    name: certificate.subject,
    key: options.root.key,
    keyId: certificate.subjectKeyId,
  });
}

/**
 * Makes the request (PKCS #10, DER) for an intermediate's certificate, signed with its key. It asks for what we demand
 * of the certificate: CA with path length 0, keyCertSign and cRLSign, our subject key identifier, SAN
 * `spiffe://<trust domain>`.
 * @see RFC 2986 section 4
 */
export async function createAuthorityRequest(key: CaKey, trustDomain: TrustDomain): Promise<Uint8Array> {
  const wishes = authorityExtensions('intermediate', trustDomain, key.publicKey, undefined, false);
  const attribute = sequence(objectIdentifier(extensionRequestOid), tlv(derTag.set, sequence(...wishes)));
  const info = sequence(
    unsignedInteger(Uint8Array.of(0)),
    authorityName('intermediate', key.publicKey),
    key.publicKey.spki,
    tlv(attributesTag, attribute),
  );
  return signed(info, key);
}

type Signer = { readonly name: Uint8Array; readonly key: CaKey; readonly keyId: string | undefined };

async function create(
  kind: CreatedAuthority['kind'],
  { trustDomain, profile, randomBytes }: CreateOptions,
  validity: Validity,
  publicKey: PublicKey,
  signer: Signer,
): Promise<CreatedAuthority> {
  const serial = makeSerial(randomBytes);
  const confined = profile.nameConstraints === 'uri';
  const tbs = sequence(
    version3,
    unsignedInteger(serial),
    algorithms[signer.key.hash],
    signer.name,
    sequence(time(validity.notBefore), time(validity.notAfter)),
    authorityName(kind, publicKey),
    publicKey.spki,
    tlv(
      extensionsTag,
      sequence(...authorityExtensions(kind, trustDomain, publicKey, signer.keyId, confined)),
    ),
  );
  const certificate = await signed(tbs, signer.key);
  readBack(certificate, publicKey, signer.key, hexOf(serial));
  return { kind, certificate, keyId: hexOf(publicKey.keyId), serial: hexOf(serial), ...validity };
}

/** Reads it with our own reader and with OpenSSL: a CA that cannot be opened again is never handed out. */
function readBack(der: Uint8Array, publicKey: PublicKey, signer: CaKey, serial: string): void {
  const certificate = openAuthorityCertificate(der);
  const right =
    certificate.serial === serial &&
    certificate.subjectKeyId === hexOf(publicKey.keyId) &&
    bytesEqual(certificate.spki, publicKey.spki) &&
    certificate.x509.verify(signer.publicKey.key);
  if (!right) refuseAuthority('was made wrongly');
}

/** `SEQUENCE { content, algorithm, signature }`: a certificate or a request. */
async function signed(content: Uint8Array, key: CaKey): Promise<Uint8Array> {
  const signature = await key.sign(content);
  // A fault in the arithmetic of ECDSA can give the key away.
  if (!verifyBytes(key.hash, content, key.publicKey.key, signature)) refuseAuthority('was signed wrongly');
  return sequence(content, algorithms[key.hash], bitString(signature));
}

/** The name says whose key it is, so that two roots of one trust domain never share a name. */
function authorityName(kind: CreatedAuthority['kind'], { keyId }: PublicKey): Uint8Array {
  const part = (oid: string, text: string) =>
    tlv(derTag.set, sequence(objectIdentifier(oid), tlv(utf8Tag, ascii(text))));
  return sequence(part('2.5.4.10', 'Countersign'), part('2.5.4.3', `${kind} ${hexOf(keyId).slice(0, 16)}`));
}

function authorityExtensions(
  kind: CreatedAuthority['kind'],
  trustDomain: TrustDomain,
  { keyId }: PublicKey,
  issuerKeyId: string | undefined,
  confined: boolean,
): Uint8Array[] {
  const pathLength = unsignedInteger(Uint8Array.of(kind === 'root' ? 1 : 0));
  const extensions = [
    extension(extensionOid.basicConstraints, true, sequence(booleanTrue(), pathLength)),
    extension(
      extensionOid.keyUsage,
      true,
      bitString(Uint8Array.of(keyUsageBit.keyCertSign | keyUsageBit.crlSign), 1),
    ),
    extension(extensionOid.subjectKeyIdentifier, false, octetString(keyId)),
  ];
  if (issuerKeyId !== undefined) {
    const issuer = tlv(keyIdTag, Buffer.from(issuerKeyId, 'hex'));
    extensions.push(extension(extensionOid.authorityKeyIdentifier, false, sequence(issuer)));
  }
  extensions.push(
    extension(extensionOid.subjectAltName, false, sequence(tlv(uriTag, ascii(trustDomain.id)))),
  );
  if (confined) {
    // The host part of the URI, exactly (RFC 5280 section 4.2.1.10): no period in front, so no subdomains.
    const subtree = sequence(tlv(uriTag, ascii(trustDomain.name)));
    extensions.push(extension(extensionOid.nameConstraints, true, sequence(tlv(permittedTag, subtree))));
  }
  return extensions;
}

function extension(oid: string, critical: boolean, value: Uint8Array): Uint8Array {
  return sequence(objectIdentifier(oid), ...(critical ? [booleanTrue()] : []), octetString(value));
}

const version3 = tlv(0xa0, unsignedInteger(Uint8Array.of(2)));
const attributesTag = 0xa0;
const permittedTag = 0xa0;
const extensionsTag = 0xa3;
const keyIdTag = 0x80;
const uriTag = 0x86;
const utf8Tag = 0x0c;
const extensionRequestOid = '1.2.840.113549.1.9.14';
/** ecdsa-with-SHA256 and -SHA384, without parameters. @see RFC 5758 section 3.2 */
const algorithms: Readonly<Record<KeyHash, Uint8Array>> = {
  sha256: sequence(objectIdentifier('1.2.840.10045.4.3.2')),
  sha384: sequence(objectIdentifier('1.2.840.10045.4.3.3')),
};
