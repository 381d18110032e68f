import { generateKeyPairSync, type KeyObject } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type JwtRequest, type JwtSigningAlgorithm, prepareJwtSvid, signJwtSvid } from '../../src/ca/jwt.ts';
import {
  readBundleDocument,
  writeBundleDocument,
  writeJwtBundle,
  writeOidcKeys,
} from '../../src/spiffe/bundle-document.ts';
import { SpiffeId, TrustDomain } from '../../src/spiffe/id.ts';
import { validateJwtSvid } from '../../src/spiffe/jwt-svid.ts';
import { forgeAuthority } from '../spiffe/inspect-forge.ts';
import { buildGoClient, goIsHere, runClient } from './go-client.ts';

// go-spiffe judges by the machine's clock, so these tokens are of today.
const now = new Date();
const trustDomain = TrustDomain.parse('example.org');
const pairs = {
  ES256: generateKeyPairSync('ec', { namedCurve: 'P-256' }),
  ES384: generateKeyPairSync('ec', { namedCurve: 'P-384' }),
  RS256: generateKeyPairSync('rsa', { modulusLength: 2_048 }),
};
const spki = (key: KeyObject) => new Uint8Array(key.export({ format: 'der', type: 'spki' }));
const jwt = {
  trustDomain,
  authorities: Object.entries(pairs).map(([keyId, { publicKey }]) => ({ keyId, publicKey: spki(publicKey) })),
  sequence: 2,
};

function mint(algorithm: JwtSigningAlgorithm, more: Partial<JwtRequest> = {}, at = now): string {
  const request: JwtRequest = {
    id: SpiffeId.parse('spiffe://example.org/ns/shop/sa/web'),
    audiences: ['orders', 'spiffe://example.org/stock'],
    issuer: 'https://oidc.example.org',
    ttlSeconds: 300,
    keyId: algorithm,
    jwtId: 'id-1',
    algorithm,
  };
  return signJwtSvid(prepareJwtSvid({ ...request, ...more }, at), pairs[algorithm].privateKey);
}

describe.skipIf(!goIsHere())('go-spiffe and go-jose', () => {
  let client: string;
  let directory: string;
  beforeAll(async () => {
    directory = mkdtempSync(join(tmpdir(), 'countersign-jwt-'));
    client = await buildGoClient('jwtclient');
  }, 600_000);
  afterAll(() => rmSync(directory, { recursive: true, force: true }));

  async function check(tokens: readonly { token: string; audience: string }[]) {
    const x509Authorities = [forgeAuthority('root', { trustDomain: trustDomain.name }).der];
    const input = {
      trustDomain: trustDomain.name,
      bundle: writeBundleDocument({
        x509: { trustDomain, x509Authorities, sequence: 5 },
        jwt,
        refreshHintSeconds: 300,
      }),
      jwtBundle: writeJwtBundle(jwt),
      oidcKeys: writeOidcKeys(jwt),
      tokens,
    };
    const file = join(directory, 'input.json');
    writeFileSync(file, JSON.stringify(input));
    const { code, output } = await runClient(client, ['check', file]);
    expect([code, output]).toEqual([0, expect.stringContaining('bundle x509=1')]);
    return output.trim().split('\n').toSorted();
  }

  test('read our documents and believe our tokens', async () => {
    const tokens = (['ES256', 'ES384', 'RS256'] as const).map((algorithm) => mint(algorithm));
    const until = new Date((Math.floor(now.getTime() / 1_000) + 300) * 1_000)
      .toISOString()
      .replace('.000', '');
    const id = 'spiffe://example.org/ns/shop/sa/web';
    expect(await check(tokens.map((token) => ({ token, audience: 'orders' })))).toEqual(
      [
        'bundle x509=1 jwt=3 sequence=7 hint=5m0s',
        'jwt bundle jwt=3',
        ...Object.keys(pairs).map((name) => `oidc key ${name} use=sig alg=${name} valid=true public=true`),
        ...tokens.flatMap((_, i) => [
          `token ${i} by bundle: ${id} [orders spiffe://example.org/stock] until ${until}`,
          `token ${i} by jwt bundle: ${id} [orders spiffe://example.org/stock] until ${until}`,
          `token ${i} by oidc: ${id} iss=https://oidc.example.org`,
        ]),
      ].toSorted(),
    );
  });

  test('refuse what we refuse', async () => {
    const good = mint('ES256');
    const [head, body] = good.split('.');
    const old = mint('ES256', {}, new Date(now.getTime() - 600_000));
    const cases = [
      { token: good, audience: 'stock', code: 'jwt_audience_mismatch' },
      { token: old, audience: 'orders', code: 'jwt_expired' },
      { token: mint('ES256', { keyId: 'ES384' }), audience: 'orders', code: 'jwt_invalid' },
      { token: mint('ES256', { keyId: 'gone' }), audience: 'orders', code: 'jwt_key_unknown' },
      {
        token: `${head}.${body}.${mint('ES256', { jwtId: 'id-2' }).split('.')[2]}`,
        audience: 'orders',
        code: 'jwt_invalid',
      },
      {
        token: mint('ES256', { id: SpiffeId.parse('spiffe://partner.example/web') }),
        audience: 'orders',
        code: 'jwt_key_unknown',
      },
    ];
    const lines = await check(cases);
    const bundles = new Map([['example.org', jwt]]);
    for (const [i, { token, audience, code }] of cases.entries()) {
      expect(lines.filter((line) => line.startsWith(`token ${i} by bundle: refused: `))).toHaveLength(1);
      await expect(validateJwtSvid({ token, audience, bundles, now })).rejects.toMatchObject({ code });
    }
  });

  test('make a bundle and tokens that we read and believe', async () => {
    const { code, output } = await runClient(client, ['make', 'partner.example', 'orders']);
    expect(code).toBe(0);
    const made = JSON.parse(output) as { bundle: string; tokens: Record<string, string> };
    const partner = TrustDomain.parse('partner.example');
    const read = readBundleDocument(Buffer.from(made.bundle), partner);
    expect([read.x509, read.sequence, read.refreshHintSeconds]).toEqual([null, 42, 300]);
    const bundles = new Map([[partner.name, read.jwt]]);
    expect(Object.keys(made.tokens)).toHaveLength(9);
    for (const [alg, token] of Object.entries(made.tokens)) {
      const valid = await validateJwtSvid({ token, audience: 'orders', bundles, now: new Date() });
      expect([alg, valid.id.text, valid.keyId]).toEqual([alg, 'spiffe://partner.example/go', `kid-${alg}`]);
    }
  });
});
