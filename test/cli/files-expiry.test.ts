import { expect, test } from 'vitest';
import { createExpiryWatch } from '../../src/cli/files-output.ts';
import type { FilesEvent } from '../../src/cli/files-report.ts';

const madeAt = new Date('2026-11-21T12:00:00Z');
const after = (seconds: number): Date => new Date(madeAt.getTime() + seconds * 1_000);

// Renewals come at half of the life that was asked for, and a tenth of it later at the latest.
test.each([
  [5, 30],
  [20, 30],
  [40, 30],
  [59, 30],
  [60, 30],
  [3_600, 30],
  [86_400, 30],
  // Of an authority that begins it when it is made.
  [20, 0],
  [3_600, 0],
])('a certificate for %i s that begins %i s early is not said to expire before its renewal', (ttl, early) => {
  const said: FilesEvent['kind'][] = [];
  const watch = createExpiryWatch((_output, { kind }) => said.push(kind));
  const certificate = {
    spiffeId: 'spiffe://mesh.test/a',
    serial: '1',
    notBefore: after(-early),
    notAfter: after(ttl),
  };
  const at = (share: number): readonly string[] => {
    watch('one', { certificate: () => certificate }, after(ttl * share));
    return said;
  };
  expect([...at(0), ...at(0.5), ...at(0.6)]).toEqual([]);
  expect(at(0.99)).toContain('expiring');
  expect(at(1).at(-1)).toBe('expired');
});
