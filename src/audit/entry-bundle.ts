import { tileWidth } from './merkle-tree.ts';

/**
 * Entries as one bundle: the length of each as two bytes, high byte first, before its bytes.
 * @param entries at most 65,535 bytes each
 * @see https://c2sp.org/tlog-tiles
 */
export function encodeBundle(entries: readonly Uint8Array[]): Uint8Array {
  const bundle = Buffer.allocUnsafe(entries.reduce((sum, { length }) => sum + lengthBytes + length, 0));
  let at = 0;
  for (const entry of entries) {
    at = bundle.writeUInt16BE(entry.length, at);
    bundle.set(entry, at);
    at += entry.length;
  }
  return bundle;
}

/**
 * The entries of a bundle, 256 at most, and what is left at its end that is none: 0 bytes of a bundle that is whole. Of
 * zeros alone one could hold millions.
 */
export function decodeBundle(bundle: Uint8Array): {
  readonly entries: readonly Uint8Array[];
  readonly rest: number;
} {
  const view = new DataView(bundle.buffer, bundle.byteOffset, bundle.length);
  const entries: Uint8Array[] = [];
  let at = 0;
  while (entries.length < tileWidth && at + lengthBytes <= bundle.length) {
    const end = at + lengthBytes + view.getUint16(at);
    if (end > bundle.length) break;
    entries.push(bundle.subarray(at + lengthBytes, end));
    at = end;
  }
  return { entries, rest: bundle.length - at };
}

const lengthBytes = 2;
