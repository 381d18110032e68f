import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { KnownTexts } from '../../src/ext-authz/known-texts.ts';

describe('texts that come again', () => {
  test('are what the bytes say, whatever came before', () => {
    const texts = new KnownTexts({ capacity: 4, maxBytes: 300, read: (text) => text });
    // Alike where a mark is taken from, and of one length: such meet under one mark.
    const bytes = fc.oneof(
      fc.uint8Array({ maxLength: 6 }),
      fc.uint8Array({ minLength: 1, maxLength: 3 }).map((few) => {
        const long = new Uint8Array(310 - few.length * 5).fill(97);
        long.set(few, 100);
        return long;
      }),
    );
    fc.assert(
      fc.property(fc.array(bytes, { maxLength: 40 }), fc.nat(9), (all, before) => {
        for (const one of [...all, ...all]) {
          const buffer = Buffer.concat([Buffer.alloc(before, 0xff), one, Buffer.from('after')]);
          const text = texts.read(buffer, before, before + one.length);
          expect(text).toBe(Buffer.from(one).toString('utf8'));
        }
      }),
    );
  });

  test('do not change with the message that they came in', () => {
    const texts = new KnownTexts({ capacity: 4, maxBytes: 300, read: (text) => text });
    const buffer = Buffer.from('spiffe://example.org/web');
    texts.read(buffer, 0, buffer.length);
    buffer.fill('x');
    expect(texts.read(Buffer.from('spiffe://example.org/web'), 0, 24)).toBe('spiffe://example.org/web');
    expect(texts.read(buffer, 0, buffer.length)).toBe('x'.repeat(24));
  });
});
