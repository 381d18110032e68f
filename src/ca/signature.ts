import { type KeyObject, sign, verify } from 'node:crypto';
import { MeshError } from '../errors.ts';

// At once and not on the pool of threads: there each signature costs two wake-ups of a thread, and those cost more than
// the arithmetic. The key is given as it is and not within options: Node 24 spends as long as a signature takes on
// finding out what those are.

/** Signs bytes with an ECDSA key; the signature is DER. @throws MeshError `internal` */
export function signBytes(hash: string, bytes: Uint8Array, key: KeyObject): Uint8Array {
  try {
    return sign(hash, bytes, key);
  } catch (cause) {
    throw new MeshError('internal', 'the certificate could not be signed', { cause });
  }
}

/** Whether a signature (ECDSA: DER; RSA: PKCS #1 v1.5) is that of the key. What cannot be a signature is none. */
export function verifyBytes(hash: string, bytes: Uint8Array, key: KeyObject, signature: Uint8Array): boolean {
  try {
    return verify(hash, bytes, key, signature);
  } catch {
    return false;
  }
}
