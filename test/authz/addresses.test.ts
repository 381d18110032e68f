import fc from 'fast-check';
import { isIP } from 'node:net';
import { expect, test } from 'vitest';
import { addressKey, cidrKeys, isInCidr, parseAddress } from '../../src/authz/cidr.ts';
import { call } from './mesh.ts';
import { both, cautious, holds, neither } from './rule-effect.ts';

/** How a rule about a block fares, for a call from an address. */
function fares(block: string, sourceIp: string): typeof both {
  const one = { ...call(), context: { ...call().context, sourceIp } };
  return holds({ from: [{ source: { ipBlocks: [block] } }] }, one);
}

test.each<[block: string, inside: readonly string[], outside: readonly string[]]>([
  ['0.0.0.0/0', ['0.0.0.0', '255.255.255.255'], ['::', '2001:db8::1']],
  ['128.0.0.0/1', ['128.0.0.0', '255.255.255.255'], ['127.255.255.255']],
  ['10.0.0.0/8', ['10.0.0.0', '10.255.255.255'], ['9.255.255.255', '11.0.0.0']],
  // What stands behind the length does not count.
  ['10.1.2.3/8', ['10.9.9.9'], ['11.1.2.3']],
  ['10.1.2.128/25', ['10.1.2.128', '10.1.2.255'], ['10.1.2.127', '10.1.3.128']],
  ['10.1.2.2/31', ['10.1.2.2', '10.1.2.3'], ['10.1.2.1', '10.1.2.4']],
  ['10.1.2.3', ['10.1.2.3', '::ffff:10.1.2.3', '::FFFF:a01:203'], ['10.1.2.2', '::10.1.2.3']],
  ['255.255.255.255/32', ['255.255.255.255'], ['255.255.255.254']],
  ['::/0', ['::', '::1', 'ffff::'], ['0.0.0.0', '::ffff:0.0.0.0']],
  ['2001:DB8::/33', ['2001:db8::', '2001:db8:7fff::1'], ['2001:db8:8000::', '2001:db9::']],
  ['1:2:3:4:5:6:7::', ['1:2:3:4:5:6:7:0', '1:2:3:4:5:6:0007:0'], ['1:2:3:4:5:6:7:1', '0:1:2:3:4:5:6:7']],
  ['::2:3:4:5:6:7:8', ['0:2:3:4:5:6:7:8'], ['2:3:4:5:6:7:8:0']],
  ['1::8', ['1:0:0:0:0:0:0:8'], ['1:0:0:0:0:0:8:0', '1::8:0']],
  ['64:ff9b::10.0.0.1', ['64:ff9b::a00:1'], ['10.0.0.1', '64:ff9b::10.0.0.2']],
  // The longest text that an address has.
  [`${'ffff:'.repeat(6)}255.255.255.255`, ['ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff'], ['255.255.255.255']],
  // IPv4 in IPv6 form is IPv4, as an address and as a block.
  ['::ffff:0:0/96', ['0.0.0.0', '::ffff:9.9.9.9', '255.255.255.255'], ['::', '::fffe:0:0']],
  ['::ffff:10.0.0.0/104', ['10.9.9.9', '::ffff:10.9.9.9'], ['11.0.0.0']],
  // A block that holds more than such forms is of IPv6.
  ['::ffff:0:0/95', ['::fffe:10.0.0.1'], ['10.0.0.1', '::ffff:10.0.0.1']],
  ['::fffe:10.0.0.1', ['::fffe:a00:1'], ['10.0.0.1']],
  ['::feff:10.0.0.1', ['::feff:a00:1'], ['10.0.0.1']],
  ['1::ffff:10.0.0.1', ['1::ffff:a00:1'], ['10.0.0.1']],
  ['0:0:0:0:1:ffff:10.0.0.1', ['::1:ffff:a00:1'], ['10.0.0.1']],
])('the block %s', (block, inside, outside) => {
  for (const address of inside) expect([address, fares(block, address)]).toEqual([address, both]);
  for (const address of outside) expect([address, fares(block, address)]).toEqual([address, neither]);
});

const noAddresses = [
  ...['', 'a', '1', '1.2.3', '1.2.3.4.5', '1.2.3.', '.1.2.3', '1..2.3', '1.2.3.256', '1.2.3.04', '1.2.3.00'],
  ...['1.2.3.+4', '1.2.3.x4', '1.2.3.4x', '1.2.3.1000', '0x1.2.3.4', ' 1.2.3.4', '1.2.3.4 ', '1.2.3.4\n'],
  ...[':', ':::', '1:2:3:4:5:6:7', '1:2:3:4:5:6:7:8:9', ':1:2:3:4:5:6:7', '1:2:3:4:5:6:7:', '1::2::3'],
  ...['1:2:3:4:5:6:7:8::', '::1:2:3:4:5:6:7:8', '1:2:3:4::5:6:7:8', '12345::', 'g::', '::-1', '::1%eth0'],
  ...['1.2.3.4::', '::1.2.3.4:5', '1.2.3.4:5::', '::1.2.3', '::1.2.3.256', '1:2:3:4:5:6:7:1.2.3.4'],
  ...['1:2:3:4:5:1.2.3.4', '1.2.3.4:1:2:3:4:5:6', '::1 ', ' ::1', '[::1]', `::${'0'.repeat(44)}`],
];

test.each(noAddresses)('%j is no address: no block has it, and a call from it cannot be told', (text) => {
  expect(() => fares(text, '10.0.0.1')).toThrow(expect.objectContaining({ code: 'policy_invalid' }) as Error);
  expect(fares('0.0.0.0/0', text)).toEqual(cautious);
  expect(fares('::/0', text)).toEqual(cautious);
});

test.each([
  ...['/', '/33', '/32/', '/8/8', '/08', '/00', '/+8', '/-1', '/x8', '/8x', '/1e1', '/8.0', '/ 8', '/8 '],
  ...['/1000', '/255.0.0.0', ' /8', '//8'],
])('10.0.0.0%s is no block', (length) => {
  expect(() => fares(`10.0.0.0${length}`, '10.0.0.1')).toThrow(
    expect.objectContaining({ code: 'policy_invalid' }) as Error,
  );
});

test.each(['::/129', '::/999', '::/1000', '::1%lo/64', '/64'])('%s is no block', (text) => {
  expect(() => fares(text, '::1')).toThrow(expect.objectContaining({ code: 'policy_invalid' }) as Error);
});

test('what is an address to the system is one here, and nothing else', () => {
  const piece = fc.constantFrom(
    '0',
    '1',
    '9',
    '25',
    '255',
    '256',
    'a',
    'F',
    'fff',
    'ffff',
    ':',
    ':',
    '::',
    '.',
  );
  const text = fc.oneof(
    fc.array(piece, { maxLength: 16 }).map((all) => all.join('')),
    fc.ipV4(),
    fc.ipV6(),
  );
  fc.assert(
    fc.property(text, (one) => {
      const bytes = parseAddress(one);
      expect(bytes?.length).toBe({ 0: undefined, 4: 4, 6: 16 }[isIP(one)]);
    }),
    { numRuns: 400 },
  );
});

test('IPv4 and IPv6 have no address in common', () => {
  const [four, six] = [Array<number>(4).fill(0), Array<number>(16).fill(0)];
  for (const key of cidrKeys({ bytes: six, length: 0 })) expect(addressKey(four).startsWith(key)).toBe(false);
  for (const key of cidrKeys({ bytes: four, length: 0 })) expect(addressKey(six).startsWith(key)).toBe(false);
});

test('an address is of a block when its bits begin as those of the block do', () => {
  const bytes = (count: number) =>
    fc.array(fc.nat(255), { minLength: count, maxLength: count }).map((all): readonly number[] => all);
  const pair = fc
    .constantFrom(4, 16)
    .chain((count) => fc.tuple(bytes(count), fc.nat(8 * count), fc.nat(8 * count - 1)));
  const bitsOf = (all: readonly number[]) => all.reduce((bits, byte) => (bits << 8n) | BigInt(byte), 0n);
  fc.assert(
    fc.property(pair, ([address, length, flipped]) => {
      const block = {
        bytes: address.with(flipped >> 3, address[flipped >> 3]! ^ (0x80 >> (flipped & 7))),
        length,
      };
      const shift = BigInt(8 * address.length - length);
      const isIn = bitsOf(address) >> shift === bitsOf(block.bytes) >> shift;
      expect(isIn).toBe(flipped >= length);
      expect(isInCidr(address, block)).toBe(isIn);
      const key = addressKey(address);
      expect(cidrKeys(block).some((one) => key.startsWith(one))).toBe(isIn);
    }),
    { numRuns: 300 },
  );
});
