import { spawnSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { signRevocationList } from '../../src/ca/crl.ts';
import { makeIssuer } from '../ca/crl-issuer.ts';
import { createScope } from '../harness/scope.ts';
import { makeTempDir } from '../harness/temp.ts';
import { buildGoClient, goIsHere, runClient } from './go-client.ts';
import { installPkilint } from './pkilint.ts';

const scope = createScope();
afterAll(() => scope.close());
const now = new Date('2026-03-01T12:00:00.000Z');
const revokedAt = new Date('2026-03-01T10:00:00.000Z');
const serials = { low: '01', high: `80${'ab'.repeat(18)}`, long: `7f${'ff'.repeat(19)}` };

async function writeList(kind: string, isEmpty: boolean) {
  const directory = makeTempDir(scope);
  const [listFile, caFile] = [join(directory, 'list.der'), join(directory, 'ca.pem')];
  const { issuer, pem } = makeIssuer(kind);
  const entries = isEmpty
    ? []
    : [
        { serial: serials.long, revokedAt, reason: 'key_compromise' as const },
        { serial: serials.high, revokedAt, reason: 'certificate_hold' as const },
        { serial: serials.low, revokedAt, reason: 'privilege_withdrawn' as const },
      ];
  const { der } = await signRevocationList(issuer, { number: 2 ** 40, entries, now });
  writeFileSync(listFile, der);
  writeFileSync(caFile, pem);
  return { listFile, caFile, keyId: issuer.certificate.subjectKeyId };
}

const lists: readonly [string, boolean][] = [
  ['ecdsa-p256', false],
  ['ecdsa-p384', false],
  ['ecdsa-p256', true],
];

describe.skipIf(!goIsHere())('Go', () => {
  test.each(lists)('reads and verifies a list of a CA with %s, empty: %s', async (kind, isEmpty) => {
    const { listFile, caFile, keyId } = await writeList(kind, isEmpty);
    const { code, output } = await runClient(await buildGoClient('crlclient'), [listFile, caFile]);
    expect([code, output]).toEqual([0, expect.stringContaining('{')]);
    expect(JSON.parse(output)).toMatchObject({
      number: String(2 ** 40),
      keyId,
      thisUpdate: '2026-03-01T11:00:00Z',
      nextUpdate: '2026-03-04T12:00:00Z',
      entries: isEmpty
        ? []
        : [
            { serial: serials.low, reason: 9, revokedAt: '2026-03-01T10:00:00Z' },
            { serial: serials.long, reason: 1 },
            { serial: serials.high, reason: 6 },
          ],
    });
  });
});

const python = installPkilint();

describe.skipIf(python === undefined)('pkilint', () => {
  test.each(lists)('finds nothing in a list of a CA with %s, empty: %s', async (kind, isEmpty) => {
    const { listFile } = await writeList(kind, isEmpty);
    const args = [
      '-m',
      'pkilint.bin.lint_crl',
      'lint',
      '-t',
      'CRL',
      '-p',
      'PKIX',
      '-s',
      'WARNING',
      '-f',
      'JSON',
    ];
    const { stdout } = spawnSync(python ?? '', [...args, '--document-format', 'DER', listFile], {
      encoding: 'utf8',
    });
    expect(JSON.parse(stdout)).toMatchObject({ results: [] });
  });
});
