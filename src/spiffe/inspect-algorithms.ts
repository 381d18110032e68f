import { MeshError } from '../errors.ts';
import { DerReader, derTag } from './der.ts';

/** A public key in words, and whether a signature of it is cheap and safe to check with any OpenSSL. */
export type KeyKind = {
  /** `ECDSA P-256`, `RSA 2048`, `Ed25519`, or the object identifier. */
  readonly text: string;
  readonly family: 'ec' | 'rsa' | 'ed25519' | 'unknown';
};

/**
 * The kind of key that a SubjectPublicKeyInfo holds, from its outline alone: no arithmetic is done with it. A key whose
 * outline cannot be read, or whose curve or size is out of the ordinary, is of the family `unknown`.
 */
export function describeKey(spki: Uint8Array): KeyKind {
  return orUnknown(() => {
    const fields = DerReader.over(spki).enter(derTag.sequence);
    const algorithm = fields.enter(derTag.sequence);
    const { octets } = fields.bitString();
    fields.finish();
    const oid = algorithm.oid();
    switch (oid) {
      case '1.2.840.10045.2.1': {
        // Explicit curve parameters, which have no object identifier here, are never handed to OpenSSL.
        const curve = algorithm.oid();
        const name = curves.get(curve);
        return name === undefined ? unknown(`EC ${curve}`) : { text: `ECDSA ${name}`, family: 'ec' };
      }
      case '1.2.840.113549.1.1.1': {
        const bits = rsaBits(octets);
        return bits > maxRsaBits ? unknown(`RSA ${bits}`) : { text: `RSA ${bits}`, family: 'rsa' };
      }
      case '1.3.101.112':
        return { text: 'Ed25519', family: 'ed25519' };
      default:
        return unknown(oid);
    }
  });
}

/** A signature algorithm in words, or its object identifier. The digest is null where the algorithm brings its own. */
export function describeSignature(algorithm: Uint8Array): {
  readonly text: string;
  readonly digest: string | null;
  readonly family: KeyKind['family'];
} {
  try {
    const oid = DerReader.over(algorithm).enter(derTag.sequence).oid();
    const [text, digest, family] = signatures.get(oid) ?? [oid, null, 'unknown' as const];
    return { text, digest, family };
  } catch (error) {
    if (!(error instanceof MeshError)) throw error;
    return { text: 'unreadable', digest: null, family: 'unknown' };
  }
}

function rsaBits(octets: Uint8Array): number {
  const fields = DerReader.over(octets).enter(derTag.sequence);
  const modulus = fields.integer();
  const exponent = fields.integer();
  fields.finish();
  // A large exponent makes each check slow, for nothing.
  if (exponent.length > maxExponentOctets) return Number.POSITIVE_INFINITY;
  const first = modulus[0] === 0 ? 1 : 0;
  return (modulus.length - first) * 8 - Math.clz32(modulus[first] ?? 0) + 24;
}

function orUnknown(read: () => KeyKind): KeyKind {
  try {
    return read();
  } catch (error) {
    if (!(error instanceof MeshError)) throw error;
    return unknown('unreadable');
  }
}

function unknown(text: string): KeyKind {
  return { text, family: 'unknown' };
}

const maxRsaBits = 8_192;
const maxExponentOctets = 5;

const curves: ReadonlyMap<string, string> = new Map([
  ['1.2.840.10045.3.1.7', 'P-256'],
  ['1.3.132.0.34', 'P-384'],
  ['1.3.132.0.35', 'P-521'],
]);

const signatures: ReadonlyMap<string, readonly [string, string | null, KeyKind['family']]> = new Map([
  ['1.2.840.10045.4.3.2', ['ECDSA with SHA-256', 'sha256', 'ec']],
  ['1.2.840.10045.4.3.3', ['ECDSA with SHA-384', 'sha384', 'ec']],
  ['1.2.840.10045.4.3.4', ['ECDSA with SHA-512', 'sha512', 'ec']],
  ['1.2.840.113549.1.1.11', ['RSA with SHA-256', 'sha256', 'rsa']],
  ['1.2.840.113549.1.1.12', ['RSA with SHA-384', 'sha384', 'rsa']],
  ['1.2.840.113549.1.1.13', ['RSA with SHA-512', 'sha512', 'rsa']],
  ['1.3.101.112', ['Ed25519', null, 'ed25519']],
]);
