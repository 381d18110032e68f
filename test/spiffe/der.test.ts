import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { objectIdentifier, sequence, time, tlv, unsignedInteger } from '../../src/ca/der-writer.ts';
import { checkDer, DerReader, hexOf, maxDerDepth } from '../../src/spiffe/der.ts';

const der = (hex: string) => Uint8Array.from(Buffer.from(hex.replaceAll(' ', ''), 'hex'));
const ascii = (text: string) => Buffer.from(text, 'latin1').toString('hex');
const invalid = expect.objectContaining({ code: 'der_invalid' });

describe('elements that are refused', () => {
  test.each([
    ['nothing', ''],
    ['a tag alone', '30'],
    ['content cut short', '3002 05'],
    ['an indefinite length', '3080 0500 0000'],
    ['a one-octet length in long form', '308101 05'],
    ['a long length with a leading zero', `30820080 ${'00'.repeat(128)}`],
    ['a length of four octets', '308400000001 00'],
    ['a length that reaches 4 GiB', '3084ffffffff'],
    ['a length octet cut short', '3082 01'],
    ['a high tag number', '3f8101 00'],
    ['an inner element longer than the outer', '3003 0405 00'],
    ['bytes after the end', '3000 00'],
    ['another tag', '3100'],
  ])('%s', (_, hex) => {
    expect(() => checkDer(der(hex))).toThrow(invalid);
  });

  test('nesting beyond the cap, quickly', () => {
    let nested = sequence();
    for (let depth = 1; depth < maxDerDepth; depth++) nested = sequence(nested);
    expect(() => checkDer(nested)).not.toThrow();
    expect(() => checkDer(sequence(nested))).toThrow(invalid);
    const bomb = Buffer.concat(Array.from({ length: 5_000 }, () => Buffer.from([0x30, 0x80])));
    expect(() => checkDer(bomb)).toThrow(invalid);
  });
});

describe('values that are refused', () => {
  test.each([
    ['an empty integer', '0200', (r: DerReader) => r.integer()],
    ['an integer with a needless 00', '0202 007f', (r: DerReader) => r.integer()],
    ['an integer with a needless ff', '0202 ff80', (r: DerReader) => r.integer()],
    ['a small integer of 128', '0202 0080', (r: DerReader) => r.smallInteger()],
    ['a small integer below zero', '0201 ff', (r: DerReader) => r.smallInteger()],
    ['a boolean of 01', '0101 01', (r: DerReader) => r.boolean()],
    ['a boolean of two octets', '0102 ffff', (r: DerReader) => r.boolean()],
    ['an empty boolean', '0100', (r: DerReader) => r.boolean()],
    ['an empty bit string', '0300', (r: DerReader) => r.bitString()],
    ['a bit string with eight unused bits', '0302 0800', (r: DerReader) => r.bitString()],
    ['a bit string without octets and unused bits', '0301 01', (r: DerReader) => r.bitString()],
    ['a bit string with set padding', '0302 0701', (r: DerReader) => r.bitString()],
    ['a constructed bit string', '2302 0700', (r: DerReader) => r.bitString()],
    ['an empty object identifier', '0600', (r: DerReader) => r.oid()],
    ['an object identifier that does not end', '0602 5581', (r: DerReader) => r.oid()],
    ['an object identifier with a padded arc', '0603 558001', (r: DerReader) => r.oid()],
    ['an object identifier with a huge arc', '0606 55ffffffff7f', (r: DerReader) => r.oid()],
    ['a very long object identifier', `0621 ${'01'.repeat(33)}`, (r: DerReader) => r.oid()],
  ])('%s', (_, hex, read) => {
    expect(() => read(DerReader.over(der(hex)))).toThrow(invalid);
  });

  test.each([
    ['17', '261121000000'],
    ['17', '2611210000Z'],
    ['17', '261121000000+0000'],
    ['17', '261321000000Z'],
    ['17', '260230000000Z'],
    ['17', '261121240000Z'],
    ['17', '261121006000Z'],
    ['17', '261121000060Z'],
    ['17', '2611210000 0Z'],
    ['18', '20491231235959Z'],
    ['18', '20500101000000.5Z'],
    ['18', '00000101000000Z'],
    ['18', '20500001000000Z'],
    ['18', '99999999999999Z'],
    ['18', 'Bad time value'],
    ['04', '261121000000Z'],
  ])('time %s %s', (tag, text) => {
    const bytes = tlv(Number.parseInt(tag, 16), Buffer.from(text));
    expect(hexOf(bytes)).toContain(ascii(text));
    expect(() => DerReader.over(bytes).time()).toThrow(invalid);
  });
});

test.each([
  ['17', '500101000000Z', '1950-01-01T00:00:00.000Z'],
  ['17', '491231235959Z', '2049-12-31T23:59:59.000Z'],
  ['17', '240229120000Z', '2024-02-29T12:00:00.000Z'],
  ['18', '20500101000000Z', '2050-01-01T00:00:00.000Z'],
  ['18', '99991231235959Z', '9999-12-31T23:59:59.000Z'],
])('time %s %s is %s', (tag, text, iso) => {
  const bytes = tlv(Number.parseInt(tag, 16), Buffer.from(text));
  expect(DerReader.over(bytes).time().toISOString()).toBe(iso);
  expect(time(new Date(iso))).toEqual(bytes);
});

test.each(['2.5.29.17', '1.2.840.10045.4.3.2', '1.3.6.1.5.5.7.3.1', '0.9.2342', '1.3.132.0.34', '2.999.1'])(
  'object identifier %s',
  (dotted) => {
    expect(DerReader.over(objectIdentifier(dotted)).oid()).toBe(dotted);
  },
);

test('what the writer writes, the reader reads', () => {
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 1, maxLength: 300 }), (magnitude) => {
      const reader = DerReader.over(unsignedInteger(magnitude));
      const value = reader.integer();
      reader.finish();
      expect(BigInt(`0x${hexOf(value)}`)).toBe(BigInt(`0x${hexOf(magnitude)}`));
    }),
  );
  for (const size of [0, 1, 127, 128, 255, 256, 65_535, 65_536]) {
    const reader = DerReader.over(tlv(0x04, new Uint8Array(size)));
    expect(reader.content(0x04).length).toBe(size);
    reader.finish();
  }
});

test('any bytes are read or refused, never anything else', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 60 }), (bytes) => {
      try {
        checkDer(bytes);
      } catch (error) {
        expect(error).toMatchObject({ code: 'der_invalid' });
      }
    }),
    { numRuns: 3_000 },
  );
});
