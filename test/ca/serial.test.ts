import { randomBytes } from 'node:crypto';
import { describe, expect, test } from 'vitest';
import { makeSerial, poolRandom } from '../../src/ca/serial.ts';

const broken = expect.objectContaining({ code: 'internal' });

describe('a pool of random octets', () => {
  test('gives each octet of its source once, in order, and keeps none', () => {
    const drawn: Uint8Array[] = [];
    const source = (size: number) => {
      const bytes = new Uint8Array(randomBytes(size));
      drawn.push(Uint8Array.from(bytes));
      return bytes;
    };
    const pool = poolRandom(source);
    const given = Array.from({ length: 204 }, () => pool(20));
    expect(drawn).toHaveLength(1);
    expect(Buffer.concat(given)).toEqual(Buffer.from(drawn[0] ?? []).subarray(0, 204 * 20));
    // 16 octets are left: too few, so they are never given.
    expect(Buffer.from(pool(20))).toEqual(Buffer.from(drawn[1] ?? []).subarray(0, 20));
  });

  test('does not change what it gave when it gives more', () => {
    const pool = poolRandom(randomBytes);
    const first = pool(20);
    const copy = Uint8Array.from(first);
    pool(20);
    expect(first).toEqual(copy);
    expect(first.buffer.byteLength).toBe(20);
  });

  test('asks its source for what is large', () => {
    const sizes: number[] = [];
    const pool = poolRandom((size) => (sizes.push(size), new Uint8Array(randomBytes(size))));
    expect(pool(257)).toHaveLength(257);
    expect(sizes).toEqual([257]);
  });

  test('makes serials that differ', () => {
    const pool = poolRandom(randomBytes);
    const serials = Array.from({ length: 2_000 }, () => Buffer.from(makeSerial(pool)).toString('hex'));
    expect(new Set(serials).size).toBe(serials.length);
  });

  test.each<[string, (size: number) => Uint8Array]>([
    ['gives nothing', () => new Uint8Array(0)],
    ['gives too little', (size) => new Uint8Array(randomBytes(size - 1))],
    ['gives zeros', (size) => new Uint8Array(size)],
    ['gives the same octet again and again', (size) => new Uint8Array(size).fill(7)],
  ])('a source that %s makes no serial', (_, source) => {
    const pool = poolRandom(source);
    for (let i = 0; i < 3; i++) expect(() => makeSerial(pool)).toThrow(broken);
  });
});
