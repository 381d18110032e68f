import { generateKeyPair } from 'node:crypto';
import { promisify } from 'node:util';
import type { GenerateKeyPair } from './identity/keeper.ts';

/** A key pair for a workload: ECDSA P-256. */
export const generateP256: GenerateKeyPair = async () => {
  const { publicKey, privateKey } = await promisify(generateKeyPair)('ec', { namedCurve: 'P-256' });
  return {
    publicKey: new Uint8Array(publicKey.export({ type: 'spki', format: 'der' })),
    privateKey: new Uint8Array(privateKey.export({ type: 'pkcs8', format: 'der' })),
  };
};

/** The private key of a new pair for signatures of our own: Ed25519, PKCS#8 DER. The caller wipes it. */
export async function generateEd25519(): Promise<Uint8Array> {
  const { privateKey } = await promisify(generateKeyPair)('ed25519');
  const { buffer, byteOffset, length } = privateKey.export({ format: 'der', type: 'pkcs8' });
  return new Uint8Array(buffer, byteOffset, length);
}
