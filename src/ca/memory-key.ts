import { createPrivateKey, createPublicKey, generateKeyPair, type KeyObject } from 'node:crypto';
import { promisify } from 'node:util';
import { hexOf } from '../spiffe/der.ts';
import { refuseAuthority } from './issuer.ts';
import { type CaKey, hashOf } from './key-port.ts';
import type { AuthorityKeyKind } from './profile.ts';
import { readPublicKey } from './public-key.ts';
import { signBytes } from './signature.ts';

/**
 * Opens a private key in this process. Nothing gives its bytes back.
 * @param pkcs8 DER; an ECDSA key on P-256 or P-384. The caller may wipe it afterwards.
 * @throws MeshError `authority_invalid`
 */
export function openMemoryKey(pkcs8: Uint8Array): CaKey {
  let privateKey: KeyObject;
  let spki: Uint8Array;
  try {
    // INVARIANT: the same memory, not a copy, which nobody would wipe.
    const bytes = Buffer.from(pkcs8.buffer, pkcs8.byteOffset, pkcs8.length);
    privateKey = createPrivateKey({ key: bytes, format: 'der', type: 'pkcs8' });
    spki = createPublicKey(privateKey).export({ format: 'der', type: 'spki' });
  } catch (cause) {
    // What OpenSSL says about a private key stays inside.
    return refuseAuthority('has a private key that cannot be read', cause);
  }
  const publicKey = readPublicKey(spki);
  const { kind } = publicKey;
  if (kind !== 'ecdsa-p256' && kind !== 'ecdsa-p384') {
    return refuseAuthority('has a key that is not ECDSA P-256 or P-384');
  }
  const hash = hashOf(kind);
  return Object.freeze({
    keyId: hexOf(publicKey.keyId),
    kind,
    hash,
    publicKey,
    sign: (bytes: Uint8Array) => signBytes(hash, bytes, privateKey),
  });
}

/** Makes a private key: PKCS#8 DER in the clear, which whoever keeps it seals at once and wipes. */
export async function generatePkcs8(kind: AuthorityKeyKind): Promise<Uint8Array> {
  const { privateKey } = await promisify(generateKeyPair)('ec', { namedCurve: curves[kind] });
  const { buffer, byteOffset, length } = privateKey.export({ format: 'der', type: 'pkcs8' });
  return new Uint8Array(buffer, byteOffset, length);
}

/** A key that lives and dies with this process. */
export async function createMemoryKey(kind: AuthorityKeyKind): Promise<CaKey> {
  const pkcs8 = await generatePkcs8(kind);
  try {
    return openMemoryKey(pkcs8);
  } finally {
    pkcs8.fill(0);
  }
}

const curves: Record<AuthorityKeyKind, string> = { 'ecdsa-p256': 'P-256', 'ecdsa-p384': 'P-384' };
