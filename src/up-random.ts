import { randomBytes as cryptoRandomBytes } from 'node:crypto';

/** The randomness of a running process: bytes of the system's CSPRNG, in memory of their own. */
export function randomBytes(size: number): Uint8Array {
  return new Uint8Array(cryptoRandomBytes(size));
}
