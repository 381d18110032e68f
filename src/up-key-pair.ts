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
