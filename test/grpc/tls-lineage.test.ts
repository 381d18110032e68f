import fc from 'fast-check';
import { expect, test } from 'vitest';
import { createLineage } from '../../src/grpc/tls-lineage.ts';

const now = new Date('2027-01-01T00:00:00Z');
const later = (seconds: number): Date => new Date(now.getTime() + seconds * 1_000);
const shown = (serial: string) => ({ serial, spkiSha256: `key ${serial}` });

test('a certificate knows what was shown for it, the last first', () => {
  const lineage = createLineage();
  lineage.note({ serial: 'b', notAfter: later(60) }, shown('a'), now);
  lineage.note({ serial: 'c', notAfter: later(60) }, shown('b'), now);
  expect([...lineage.of('c')]).toEqual([shown('b'), shown('a')]);
  expect([...lineage.of('b')]).toEqual([shown('a')]);
  expect([...lineage.of('a')]).toEqual([]);
  expect(['a', 'b', 'c', 'x'].map(lineage.originOf)).toEqual(['a', 'a', 'a', 'x']);
});

test('what led to a live one is known after it has expired itself', () => {
  const lineage = createLineage();
  lineage.note({ serial: 'b', notAfter: later(60) }, shown('a'), now);
  lineage.note({ serial: 'c', notAfter: later(600) }, shown('b'), later(30));
  lineage.note({ serial: 'x', notAfter: later(600) }, shown('y'), later(200));
  expect(lineage.size()).toBe(2);
  expect([...lineage.of('c')]).toEqual([shown('b'), shown('a')]);
});

test('it never holds more lines than it may', () => {
  const lineage = createLineage(3);
  for (let i = 0; i < 10; i++) lineage.note({ serial: `${i}`, notAfter: later(60) }, shown('a'), now);
  expect(lineage.size()).toBe(3);
  expect([...lineage.of('9')]).toEqual([shown('a')]);
});

test('whoever was given what, no line goes round in a circle or gains another beginning', () => {
  const step = fc.tuple(fc.integer({ min: 0, max: 8 }), fc.integer({ min: 0, max: 8 }));
  fc.assert(
    fc.property(fc.array(step, { maxLength: 40 }), (steps) => {
      const lineage = createLineage();
      const lines = new Map<string, string[]>();
      for (const [given, from] of steps) {
        lineage.note({ serial: `${given}`, notAfter: later(60) }, shown(`${from}`), now);
        for (const [serial, line] of lines) {
          expect([...lineage.of(serial)].map((one) => one.serial)).toEqual(line);
        }
        for (let i = 0; i <= 8; i++) {
          const line = [...lineage.of(`${i}`)].map(({ serial }) => serial);
          expect(line.length).toBeLessThanOrEqual(steps.length);
          if (line.length > 0) lines.set(`${i}`, line);
        }
      }
    }),
  );
});
