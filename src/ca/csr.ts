import { MeshError, publicError } from '../errors.ts';
import { DerReader, derTag, hexOf } from '../spiffe/der.ts';
import { decodePem } from '../spiffe/pem.ts';
import { type PublicKey, readPublicKey } from './public-key.ts';
import { verifyBytes } from './signature.ts';

/** The largest certificate request read, DER or PEM. One with an RSA-4096 key and a hundred names is half of it. */
export const maxCsrBytes = 16_384;

/**
 * Reads a PKCS #10 certificate request and gives its public key, which the sender has proven to hold. Nothing else of
 * the request leaves this function: names, attributes and wishes in it have no way into a certificate.
 *
 * The whole must be strict DER of version 0 without a byte after it. Signatures are ECDSA or RSA (PKCS #1 v1.5) with
 * SHA-256, SHA-384 or SHA-512. Sizes and key are proven before any arithmetic is done with them.
 * @param input at most {@link maxCsrBytes}, DER, or PEM with one block
 * @throws MeshError `csr_invalid`, `public_key_unsupported` (see {@link readPublicKey}), `csr_proof_invalid`
 * @see RFC 2986 section 4
 */
export function readCsr(input: Uint8Array): PublicKey {
  if (input.length > maxCsrBytes) refuse(`is longer than ${maxCsrBytes} bytes`);
  const { info, spki, algorithm, signature } = orInvalid(() => takeApart(derOf(input)));
  const publicKey = readPublicKey(spki);
  const scheme = schemes.get(hexOf(algorithm));
  if (scheme === undefined) {
    refuse('is not signed with ECDSA or RSA (PKCS #1 v1.5) and SHA-256, SHA-384 or SHA-512');
  }
  if (!publicKey.kind.startsWith(scheme.family)) refuse('is signed with another kind of key than it holds');
  if (!holds(scheme.hash, info, publicKey, signature)) {
    throw new MeshError(
      'csr_proof_invalid',
      'the certificate request is not signed by the key that it holds',
      { fix: 'sign the request with the private key of the key in it' },
    );
  }
  return publicKey;
}

type Request = {
  /** The CertificationRequestInfo, header included: what is signed. */
  readonly info: Uint8Array;
  readonly spki: Uint8Array;
  /** The AlgorithmIdentifier of the signature, header included. */
  readonly algorithm: Uint8Array;
  readonly signature: Uint8Array;
};

/** What we read must not change under us: the bytes are copied before they are looked at. */
function derOf(input: Uint8Array): Uint8Array {
  if (input[0] !== hyphen) return new Uint8Array(input);
  const text = Buffer.from(input).toString('latin1');
  // Java's keytool and old OpenSSL say NEW (RFC 7468 section 7).
  const label = text.startsWith('-----BEGIN NEW ') ? 'NEW CERTIFICATE REQUEST' : 'CERTIFICATE REQUEST';
  const [block, more] = decodePem(text, label, { maxBytes: maxCsrBytes });
  if (block === undefined || more !== undefined) refuse('is one of several in its file');
  return block;
}

function takeApart(der: Uint8Array): Request {
  // All of it, also what nobody will read: what is not DER is not signed for.
  walk(DerReader.over(der));
  const file = DerReader.over(der);
  const request = file.enter(derTag.sequence);
  file.finish();
  const info = request.element(derTag.sequence);
  const algorithm = request.element(derTag.sequence);
  const { unusedBits, octets: signature } = request.bitString();
  request.finish();
  if (unusedBits !== 0) refuse('has a signature that is not a whole number of octets');

  const fields = DerReader.over(info).enter(derTag.sequence);
  if (fields.smallInteger() !== 0) refuse('is not of version 1');
  fields.element(derTag.sequence);
  const spki = fields.element(derTag.sequence);
  fields.element(attributesTag);
  fields.finish();
  return { info, spki, algorithm, signature };
}

function walk(reader: DerReader): void {
  for (let tag = reader.peek(); tag !== undefined; tag = reader.peek()) {
    if ((tag & classBits) !== 0) {
      if ((tag & constructedBit) === 0) reader.element(tag);
      else walk(reader.enter(tag));
    } else if (tag === derTag.sequence || tag === derTag.set) {
      walk(reader.enter(tag));
    } else {
      checkPrimitive(reader, tag);
    }
  }
}

function checkPrimitive(reader: DerReader, tag: number): void {
  switch (tag) {
    case derTag.boolean:
      reader.boolean();
      return;
    case derTag.integer:
      reader.integer();
      return;
    case derTag.bitString:
      reader.bitString();
      return;
    case derTag.null:
      if (reader.content(tag).length !== 0) refuse('has a null with content');
      return;
    case endOfContents:
    case derTag.sequence & ~constructedBit:
    case derTag.set & ~constructedBit:
      return refuse('has an element of a form that DER does not know');
    default:
      // Strings in pieces are BER.
      if ((tag & constructedBit) !== 0) refuse('has an element of a form that DER does not know');
      reader.element(tag);
  }
}

function holds(hash: string, info: Uint8Array, { key, kind }: PublicKey, signature: Uint8Array): boolean {
  const most = maxSignatureBytes.get(kind) ?? 0;
  if (signature.length === 0 || signature.length > most) return false;
  return verifyBytes(hash, info, key, signature);
}

function orInvalid<T>(read: () => T): T {
  try {
    return read();
  } catch (cause) {
    if (cause instanceof MeshError && cause.code === 'csr_invalid') throw cause;
    const why = cause instanceof MeshError ? publicError(cause).message : 'it cannot be read';
    throw new MeshError('csr_invalid', `the certificate request is refused: ${why}`, { fix, cause });
  }
}

function refuse(why: string): never {
  throw new MeshError('csr_invalid', `the certificate request ${why}`, { fix });
}

const fix = 'make the request again, for example with openssl req -new';
const hyphen = 0x2d;
const attributesTag = 0xa0;
const classBits = 0xc0;
const constructedBit = 0x20;
const endOfContents = 0x00;

type Scheme = { readonly family: 'ecdsa' | 'rsa'; readonly hash: 'sha256' | 'sha384' | 'sha512' };

// By the one DER encoding that RFC 5758 section 3.2 and RFC 4055 section 5 give the AlgorithmIdentifier.
const schemes: ReadonlyMap<string, Scheme> = new Map([
  ['300a06082a8648ce3d040302', { family: 'ecdsa', hash: 'sha256' }],
  ['300a06082a8648ce3d040303', { family: 'ecdsa', hash: 'sha384' }],
  ['300a06082a8648ce3d040304', { family: 'ecdsa', hash: 'sha512' }],
  ['300d06092a864886f70d01010b0500', { family: 'rsa', hash: 'sha256' }],
  ['300d06092a864886f70d01010c0500', { family: 'rsa', hash: 'sha384' }],
  ['300d06092a864886f70d01010d0500', { family: 'rsa', hash: 'sha512' }],
]);

/** Two INTEGERs in a SEQUENCE, or a number as wide as the modulus. */
const maxSignatureBytes: ReadonlyMap<PublicKey['kind'], number> = new Map([
  ['ecdsa-p256', 72],
  ['ecdsa-p384', 104],
  ['rsa-2048', 256],
  ['rsa-3072', 384],
  ['rsa-4096', 512],
]);
