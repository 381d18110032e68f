import fc from 'fast-check';
import { expect, test } from 'vitest';
import { foreignHeaderPatterns, isForeign } from '../../src/ext-authz/foreign-header.ts';

const patterns = foreignHeaderPatterns.map((pattern) => new RegExp(`^(?:${pattern})$`));
const matched = (name: string): boolean => patterns.some((pattern) => pattern.test(name));

test.each([
  ['x-countersign-decision', true],
  ['x_countersign.decision', true],
  ['x-countersign-', true],
  ['x-countersign', false],
  ['x-countersigned-by', false],
  ['x-forwarded-client-cert', false],
  ['x-forwarded-client_cert', true],
  ['x.forwarded-client-cert', true],
  ['x-forwarded_client_cert', true],
  ['x-forwarded-client-certs', false],
  ['x-forwarded-for', false],
  ['xy-countersign-decision', false],
  ['', false],
])('the header %j is foreign: %s', (name, foreign) => {
  expect([isForeign(name), matched(name)]).toEqual([foreign, foreign]);
});

test('a proxy takes the same names for foreign as we do', () => {
  const sign = fc.constantFrom('-', '_', '.', '!', '~', 'a', '0', '');
  const word = (text: string) => fc.constantFrom(text, text, text, `${text}s`, '');
  const countersign = fc.tuple(word('x'), sign, word('countersign'), sign, word('decision'));
  const caller = fc.tuple(word('x'), sign, word('forwarded'), sign, word('client'), sign, word('cert'));
  fc.assert(
    fc.property(fc.oneof(countersign, caller), (parts) => {
      const name = parts.join('');
      expect({ name, foreign: matched(name) }).toEqual({ name, foreign: isForeign(name) });
    }),
    { numRuns: 2_000 },
  );
});
