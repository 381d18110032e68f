import { execFile } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { beforeAll, describe, expect, test } from 'vitest';
import { SpiffeId } from '../../src/spiffe/id.ts';
import { makeKey, makeTestAuthority, type TestAuthority } from '../ca/test-authority.ts';
import { createScope } from '../harness/scope.ts';
import { makeTempDir } from '../harness/temp.ts';
import { installPkilint } from './pkilint.ts';

const run = promisify(execFile);

type Finding = { readonly severity: string; readonly code: string; readonly at: string };

const linter = installPkilint();
const scope = createScope();

describe.skipIf(linter === undefined)('pkilint finds nothing at ERROR or above', () => {
  let authorities: { readonly name: string; readonly ca: TestAuthority }[];
  beforeAll(async () => {
    authorities = await Promise.all(
      ['ecdsa-p256', 'ecdsa-p384'].map(async (authorityKey) => ({
        name: authorityKey,
        ca: await makeTestAuthority(new Date(), { authorityKey }),
      })),
    );
    return () => scope.close();
  });

  test.each(['root', 'intermediate'] as const)('in a %s', async (kind) => {
    for (const { ca } of authorities) expect(await errorsIn(ca[kind].certificate)).toEqual([]);
  });

  test.each([
    ['ec-prime256v1', []],
    ['ec-secp384r1', ['web.shop.svc', 'web.example']],
    ['rsa-2048', ['web.shop.svc']],
  ])('in a leaf for a key %s with the names %j', async (kind, dnsNames) => {
    for (const { ca } of authorities) {
      const id = SpiffeId.parse('spiffe://example.org/ns/shop/sa/web');
      const request = { id, publicKey: makeKey(kind).spki, dnsNames, ttlSeconds: 3_600 };
      const { certificates } = await ca.authority.sign(ca.authority.prepare(request, new Date()));
      expect(await errorsIn(certificates[0]!)).toEqual([]);
    }
  });
});

/**
 * What it finds, but for one thing: it knows a URI by a list of schemes (Python's `validators.url`), on which spiffe is
 * not. RFC 3986 section 3.1 has no such list.
 */
async function errorsIn(der: Uint8Array): Promise<readonly Finding[]> {
  const file = join(makeTempDir(scope), 'certificate.der');
  writeFileSync(file, der);
  const args = [
    '-m',
    'pkilint.bin.lint_pkix_cert',
    'lint',
    '--severity',
    'ERROR',
    '--format',
    'JSON',
    '--document-format',
    'DER',
    file,
  ];
  // It exits with the number of its findings.
  const { stdout } = await run(linter ?? '', args).catch((error: unknown) => error as { stdout: string });
  const { results } = JSON.parse(stdout) as {
    results: {
      node_path: string;
      finding_descriptions: { severity: string; code: string; message: string }[];
    }[];
  };
  return results.flatMap(({ node_path: at, finding_descriptions: found }) =>
    found
      .filter(
        ({ code, message }) =>
          !(
            code === 'pkix.invalid_uri_syntax' &&
            message.startsWith('Invalid URI syntax: "spiffe://example.org')
          ),
      )
      .map(({ severity, code }) => ({ severity, code, at })),
  );
}
