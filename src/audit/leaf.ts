import { hash } from 'node:crypto';

/**
 * The hash of a leaf in the log's Merkle tree: SHA-256(0x00 || bytes), 32 bytes.
 * @see RFC 6962 section 2.1
 */
export function leafHash(bytes: Uint8Array): Uint8Array {
  const input = Buffer.allocUnsafe(bytes.length + 1);
  input[0] = leafPrefix;
  input.set(bytes, 1);
  return hash('sha256', input, 'buffer');
}

const leafPrefix = 0x00;
