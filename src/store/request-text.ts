import type { StoredRequest } from '../ca/stored.ts';
import { MeshError } from '../errors.ts';

/** A waiting key as one line of text: key ID and request; empty when none waits. */
export function requestText(request: StoredRequest | null): string {
  return request === null ? '' : `${request.keyId} ${Buffer.from(request.csr).toString('base64')}`;
}

/** @throws MeshError `store_corrupt` */
export function requestOf(text: string | null): StoredRequest | null {
  if (text === null || text === '') return null;
  const match = /^(?<keyId>[0-9a-f]{40}) (?<csr>[A-Za-z0-9+/]+={0,2})$/.exec(text);
  const { keyId, csr } = match?.groups ?? {};
  if (keyId === undefined || csr === undefined) {
    throw new MeshError('store_corrupt', 'the store holds a certificate request that cannot be read', {
      fix: 'restore the data directory from a backup',
    });
  }
  return { keyId, csr: new Uint8Array(Buffer.from(csr, 'base64')) };
}
