import fc from 'fast-check';
import { expect, test } from 'vitest';
import { addressKey, cidrKeys, isInCidr, parseAddress } from '../../src/authz/cidr.ts';

test.each([4, 16])(
  'an address of %d bytes is of a block when its key begins as one of the block does',
  (size) => {
    const address = fc.array(fc.integer({ min: 0, max: 255 }), { minLength: size, maxLength: size });
    const bits = fc.integer({ min: 0, max: size * 8 });
    fc.assert(
      fc.property(address, address, bits, bits, (bytes, other, length, shared) => {
        const block = { bytes, length };
        const keys = cidrKeys(block);
        expect(keys.length).toBeLessThanOrEqual(8);
        // Of two addresses by chance most share nothing.
        const near = bytes.map((byte, i) => {
          const kept = Math.min(8, Math.max(0, shared - i * 8));
          const mask = 0xff >> kept;
          return (byte & ~mask & 0xff) | ((other[i] ?? 0) & mask);
        });
        for (const one of [other, near]) {
          const led = keys.filter((key) => addressKey(one).startsWith(key)).length;
          expect(led).toBe(isInCidr(one, block) ? 1 : 0);
        }
      }),
    );
  },
);

test.each([
  ['0.0.0.0', [0, 0, 0, 0]],
  ['10.200.30.4', [10, 200, 30, 4]],
  ['255.255.255.255', [255, 255, 255, 255]],
  ['', undefined],
  ['1.2.3', undefined],
  ['1.2.3.', undefined],
  ['.1.2.3', undefined],
  ['1..2.3', undefined],
  ['1.2.3.4.', undefined],
  ['1.2.3.4.5', undefined],
  ['01.2.3.4', undefined],
  ['1.2.3.00', undefined],
  ['256.2.3.4', undefined],
  ['1.2.3.1000', undefined],
  ['1.2.3.0x4', undefined],
  ['1.2.3.4 ', undefined],
  ['+1.2.3.4', undefined],
  ['-1.2.3.4', undefined],
  ['1.2.3./', undefined],
  ['1.2.3.:', undefined],
  ['\u{661}.2.3.4', undefined],
  ['1'.repeat(100_000), undefined],
  ['::', Array.from({ length: 16 }, () => 0)],
])('%j is an address of version 4, or is not', (text, bytes) => {
  expect(parseAddress(text)).toEqual(bytes);
});
