import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { decodePem, encodePem } from '../../src/spiffe/pem.ts';
import { startCpuWatch } from '../harness/cpu-watch.ts';

const limits = { maxBytes: 1_000_000 };
const block = encodePem('CERTIFICATE', Uint8Array.of(1, 2, 3));
const begin = '-----BEGIN CERTIFICATE-----';
const end = '-----END CERTIFICATE-----';

describe('decodePem refuses', () => {
  test.each([
    ['nothing', ''],
    ['blank lines', '\n\n'],
    ['text before', `hello\n${block}`],
    ['text after', `${block}hello`],
    ['text between', `${block}subject=x\n${block}`],
    ['another label', block.replaceAll('CERTIFICATE', 'PRIVATE KEY')],
    ['labels that differ', block.replace('END CERTIFICATE', 'END X509 CRL')],
    ['a begin within a block', `${begin}\n${block}`],
    ['no end', `${begin}\nAQID\n`],
    ['no begin', `AQID\n${end}\n`],
    ['an end alone', `${end}\n`],
    ['an empty block', `${begin}\n${end}\n`],
    ['a blank line within', `${begin}\n\nAQID\n${end}\n`],
    ['a header', `${begin}\nProc-Type: 4,ENCRYPTED\n\nAQID\n${end}\n`],
    ['a space at a line end', `${begin}\nAQID \n${end}\n`],
    ['a space before the begin', ` ${block}`],
    ['a character that is not base64', `${begin}\nAQ!ID\n${end}\n`],
    ['base64url', `${begin}\n-_-_\n${end}\n`],
    ['missing padding', `${begin}\nAQI\n${end}\n`],
    ['padding in the middle', `${begin}\nAQ==\nAQID\n${end}\n`],
    ['stray bits under the padding', `${begin}\nAR==\n${end}\n`],
    ['a NUL', `${begin}\nAQID\0\n${end}\n`],
    ['a byte order mark', `\uFEFF${block}`],
    ['a line of 77', `${begin}\n${'A'.repeat(77)}\n${end}\n`],
    ['a lone carriage return', block.replaceAll('\n', '\r')],
    ['markers on one line', `${begin}AQID${end}`],
    ['more than the limit', block.repeat(30_000)],
  ])('%s', (_, text) => {
    expect(() => decodePem(text, 'CERTIFICATE', limits)).toThrow(
      expect.objectContaining({ code: 'der_invalid' }),
    );
  });
});

test.each([
  ['one block', block, 1],
  ['two blocks', block + block, 2],
  ['blank lines around', `\n${block}\n\n${block}\n`, 2],
  ['CRLF', block.replaceAll('\n', '\r\n'), 1],
  ['no newline at the end', block.trimEnd(), 1],
])('decodePem reads %s', (_, text, count) => {
  const blocks = decodePem(text, 'CERTIFICATE', limits);
  expect(blocks).toEqual(Array.from({ length: count }, () => Uint8Array.of(1, 2, 3)));
});

test('a limit is a limit: n is read, n + 1 is not', () => {
  expect(decodePem(block, 'CERTIFICATE', { maxBytes: block.length })).toHaveLength(1);
  expect(() => decodePem(block, 'CERTIFICATE', { maxBytes: block.length - 1 })).toThrow();
});

test('what is encoded is decoded', () => {
  const bytes = fc.uint8Array({ minLength: 1, maxLength: 500 });
  fc.assert(
    fc.property(fc.array(bytes, { minLength: 1, maxLength: 4 }), (ders) => {
      const text = ders.map((der) => encodePem('CERTIFICATE', der)).join('');
      expect(decodePem(text, 'CERTIFICATE', limits)).toEqual(ders.map((der) => Uint8Array.from(der)));
    }),
  );
});

test.each([
  ['openings', '-----BEGIN '.repeat(90_000)],
  ['opening lines', `${begin}\n`.repeat(30_000)],
  ['dashes', '-'.repeat(990_000)],
  ['line feeds', '\n'.repeat(990_000)],
  ['base64 that never ends', `${begin}\n${`${'A'.repeat(64)}\n`.repeat(15_000)}`],
])('a megabyte of %s takes no time', (_, text) => {
  const usedMs = startCpuWatch();
  expect(() => decodePem(text, 'CERTIFICATE', limits)).toThrow(
    expect.objectContaining({ code: 'der_invalid' }),
  );
  expect(usedMs()).toBeLessThan(2_000);
});
