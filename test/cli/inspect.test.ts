import { execFileSync } from 'node:child_process';
import { generateKeyPairSync, sign } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { inspectBundle, inspectInput, type InspectReport } from '../../src/cli/inspect-kinds.ts';
import { formatReport, formatSpan } from '../../src/cli/inspect-report.ts';
import { SpiffeId } from '../../src/spiffe/id.ts';
import { encodePem } from '../../src/spiffe/pem.ts';
import { makeKey, makeTestAuthority } from '../ca/test-authority.ts';
import { altNames, leafExtensions, leafUri, oddCertificate, uri } from '../spiffe/odd-certificate.ts';
import { createScope } from '../harness/scope.ts';
import { openCli, runCli } from './run-cli.ts';

const directory = mkdtempSync(join(tmpdir(), 'cs-inspect-'));
const scope = createScope();
const run = openCli(scope, { cwd: directory });
afterAll(async () => {
  await scope.close();
  rmSync(directory, { recursive: true, force: true });
});
const path = (name: string) => join(directory, name);
const put = (name: string, content: string | Uint8Array) => writeFileSync(path(name), content);
const now = new Date('2026-11-21T12:00:00Z');
const at = now.toISOString();

const ec = generateKeyPairSync('ec', { namedCurve: 'P-256' });
const jwks = { keys: [{ ...ec.publicKey.export({ format: 'jwk' }), use: 'jwt-svid', kid: 'a' }] };
const part = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url');
const signed = `${part({ alg: 'ES256', kid: 'a' })}.${part({ sub: leafUri, aud: 'x', exp: now.getTime() / 1_000 + 2_520 })}`;
const signature = sign('sha256', Buffer.from(signed), { key: ec.privateKey, dsaEncoding: 'ieee-p1363' });
const token = `${signed}.${signature.toString('base64url')}`;

beforeAll(async () => {
  const { authority, root } = await makeTestAuthority(now);
  const prepared = authority.prepare(
    {
      id: SpiffeId.parse(leafUri),
      publicKey: makeKey('ec-prime256v1').spki,
      dnsNames: ['web'],
      ttlSeconds: 3_600,
    },
    now,
  );
  const { certificates } = await authority.sign(prepared);
  put('svid.pem', certificates.map((der) => encodePem('CERTIFICATE', der)).join(''));
  put('svid.der', Buffer.concat(certificates));
  put('root.pem', encodePem('CERTIFICATE', root.certificate));
  put(
    'root.json',
    JSON.stringify({
      keys: [{ kty: 'EC', use: 'x509-svid', x5c: [Buffer.from(root.certificate).toString('base64')] }],
    }),
  );
  put('odd.pem', encodePem('CERTIFICATE', oddCertificate({ extensions: [leafExtensions.names] })));
  put('jwks.json', JSON.stringify(jwks));
  put('token', `${token}\n`);
  put('junk', 'junk');
  put('big', Buffer.alloc(1_048_577));
});

describe('exit codes', () => {
  test.each<[string[], number, RegExp]>([
    [['id', leafUri], 0, /^SPIFFE ID .*\n.*workload[^]*no rule broken\n$/],
    [['id', 'spiffe://a//b/'], 1, /2 rules broken\n× spiffe-id-2\.2-no-trailing-slash /],
    [['svid', path('svid.pem')], 0, /expired|expires in|begins in/],
    [['svid', path('odd.pem')], 1, /1 rule broken\n× x509-svid-4\.3-key-usage /],
    [
      ['svid', path('svid.der'), '--trust-bundle', path('root.pem'), '--at', at],
      0,
      /trust .*ends at O=Countersign/,
    ],
    [['svid', path('svid.pem'), '--trust-bundle', path('root.json'), '--at', at], 0, /no rule broken/],
    [['svid', path('svid.pem'), '--trust-bundle', path('jwks.json'), '--at', at], 1, /x509-svid-5\.1-trust/],
    [['svid', path('svid.pem'), '--at', '2026-12-01'], 1, /rfc5280-6\.1\.3-validity/],
    [['bundle', path('root.pem')], 0, /authorities +1/],
    [['jwt', path('token')], 0, /^signature +NOT VERIFIED/],
    [['jwt', path('token'), '--bundle', path('jwks.json'), '--at', at], 0, /^signature +verified/],
    [['jwt', path('token'), '--bundle', path('root.json'), '--at', at], 1, /^signature +INVALID/],
  ])('%j: %i', async (args, code, shown) => {
    const outcome = await run(['inspect', ...args]);
    expect(outcome).toMatchObject({ code, err: '' });
    expect(outcome.out).toMatch(shown);
  });

  test.each<[string[], number, string]>([
    [['svid', path('junk')], 2, 'der_invalid'],
    [['svid', path('none')], 2, 'file_missing'],
    [['svid', directory], 2, 'file_missing'],
    [['svid', path('big')], 2, 'input_too_large'],
    [['svid', path('svid.pem'), '--trust-bundle', path('junk')], 2, 'der_invalid'],
    [['jwt', path('junk')], 2, 'input_unreadable'],
    [['svid', path('svid.pem'), '--at', 'noon'], 64, 'usage'],
    [['svid'], 64, 'usage'],
    [['svid', path('svid.pem'), '--batch'], 64, 'usage'],
    [['svid', '-', '--trust-bundle', '-'], 64, 'usage'],
  ])('%j: %i, %s', async (args, exitCode, code) => {
    const outcome = await run(['inspect', ...args, '-o', 'json']);
    expect([outcome.code, outcome.out]).toEqual([exitCode, '']);
    expect(JSON.parse(outcome.err)).toMatchObject({ error: { code, exitCode } });
  });
});

test('standard input and -o json', async () => {
  const csr = execFileSync(
    'openssl',
    [
      'req',
      '-new',
      '-newkey',
      'ec',
      '-pkeyopt',
      'ec_paramgen_curve:P-521',
      '-nodes',
      '-keyout',
      '/dev/null',
      '-subj',
      '/CN=web',
    ],
    { stdio: ['ignore', 'pipe', 'ignore'] },
  ).toString();
  const { code, out } = await runCli(['inspect', 'csr', '-', '-o', 'json'], { stdin: csr });
  expect(code).toBe(1);
  expect(JSON.parse(out)).toMatchObject({
    kind: 'csr',
    ok: false,
    facts: { subject: 'CN=web', key: 'ECDSA P-521' },
    broken: [{ rule: 'csr-key', section: 'Countersign, key policy', part: '' }],
  });
});

test('--batch answers every line and exits 0', async () => {
  const stdin = `{"name":"a","input":"${leafUri}"}\njunk\n{"name":"b","input":"x"}`;
  const { code, out, err } = await runCli(['inspect', 'id', '--batch'], { stdin });
  const lines = out
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line) as { name: string; ok: boolean });
  expect([code, err]).toEqual([0, '']);
  expect(lines.map(({ name, ok }) => [name, ok])).toEqual([
    ['a', true],
    [null, false],
    ['b', false],
  ]);
});

describe('bundles are never pooled', () => {
  const keys = jwks.keys;
  const judge = async (bundle: object) => {
    const { usable } = inspectBundle({ bytes: Buffer.from(JSON.stringify(bundle)), exact: true });
    const { ok } = await inspectInput(
      'jwt',
      { bytes: Buffer.from(token), exact: true },
      { bundles: usable, at: now },
    );
    return ok;
  };

  test.each<[string, object, boolean]>([
    ['a bundle that names nobody', { keys }, true],
    ['the bundle of its trust domain', { trust_domains: { 'example.org': { keys } } }, true],
    ['the bundle of another', { trust_domains: { 'example.com': { keys } } }, false],
    ['several of others', { trust_domains: { a: { keys }, b: { keys } } }, false],
    [
      'its own, empty, beside another',
      { trust_domains: { 'example.org': { keys: [] }, b: { keys } } },
      false,
    ],
  ])('a token against %s', async (_, bundle, ok) => {
    expect(await judge(bundle)).toBe(ok);
  });
});

describe('the report', () => {
  const report = async (kind: InspectReport['kind'], content: string | Uint8Array): Promise<string> =>
    formatReport(await inspectInput(kind, { bytes: Buffer.from(content), exact: true }), now);

  test.each<[InspectReport['kind'], string | Uint8Array]>([
    ['id', 'spiffe://a/\u001b[31m\u202e'],
    ['jwt', `${part({ alg: '\u001b[31m', kid: '\u202e' })}.${part({ sub: '\u001b[0m', 'a\nb': 1 })}.AAAA`],
    [
      'bundle',
      JSON.stringify({
        trust_domains: { '\u001b\u202e': { keys: [{ ...jwks.keys[0], kid: '\u001b[0m' }] } },
      }),
    ],
    ['svid', oddCertificate({ extensions: [altNames(true, uri('spiffe://a/\u001b[31m\n'))] })],
  ])('of %s prints nothing that drives a terminal: %#', async (kind, content) => {
    expect(await report(kind, content)).not.toMatch(/[\u0000-\u0009\u000b-\u001f\u007f-\u009f\u202e]/);
  });

  test('of a token never shows the token', async () => {
    expect(await report('jwt', token)).not.toContain(signature.toString('base64url').slice(0, 20));
    expect(await report('jwt', token)).toContain('expires in 42 min');
  });

  test.each([
    [0, '0 s'],
    [119_999, '119 s'],
    [120_000, '2 min'],
    [7_199_999, '119 min'],
    [7_200_000, '2 h'],
    [172_800_000, '2 days'],
  ])('a span of %i ms is %j', (ms, text) => {
    expect(formatSpan(ms)).toBe(text);
  });
});
