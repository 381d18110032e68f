import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:https';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { openLog } from '../src/log.ts';
import { bundlePem } from '../src/spiffe/bundle.ts';
import { type OidcConfig, openOidc, readIssuerKeys } from '../src/up-oidc.ts';
import { makeTestAuthority } from './ca/test-authority.ts';
import { serverCertificate } from './http/callers.ts';
import { ec, forge } from './spiffe/jwt-forge.ts';

// A real issuer: HTTPS, a discovery document and a JWKS.
let directory: string;
let server: Server;
let issuer: string;
let caFile: string;
let answers: Map<string, string>;
let asked: string[];
beforeAll(async () => {
  directory = mkdtempSync(join(tmpdir(), 'countersign-oidc-'));
  const { authority } = await makeTestAuthority(new Date());
  const { certificate, privateKey } = await serverCertificate(authority);
  caFile = join(directory, 'ca.pem');
  writeFileSync(caFile, bundlePem(authority.bundle));
  server = createServer({ cert: certificate, key: privateKey }, (request, response) => {
    asked.push(request.url ?? '');
    const text = answers.get(request.url ?? '');
    if (text?.startsWith('https:') === true) response.writeHead(302, { location: text });
    else if (text === undefined) response.writeHead(404);
    response.end(text);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  issuer = `https://localhost:${(server.address() as AddressInfo).port}`;
});
afterAll(async () => {
  server.closeAllConnections();
  await new Promise((resolve) => server.close(resolve));
  rmSync(directory, { recursive: true, force: true });
});

const jwks = JSON.stringify({ keys: [{ ...ec.publicKey.export({ format: 'jwk' }), kid: 'ec', use: 'sig' }] });
const discovery = '/.well-known/openid-configuration';
const document = (change: object = {}) => JSON.stringify({ issuer, jwks_uri: `${issuer}/keys`, ...change });
const serve = (pages: Record<string, string>) => {
  answers = new Map(Object.entries(pages));
  asked = [];
};
const config = (change: Partial<OidcConfig> = {}): OidcConfig => ({
  oidcIssuer: issuer,
  oidcAudience: 'countersign',
  oidcJwksFile: null,
  oidcCaFile: caFile,
  oidcGroupsClaim: 'groups',
  oidcMaxAgeSeconds: 3_600,
  ...change,
});

test('keys come from where the discovery document says', async () => {
  serve({ [discovery]: document(), '/keys': jwks });
  expect(await readIssuerKeys(config(), issuer)).toBe(jwks);
  expect(asked).toEqual([discovery, '/keys']);
});

test.each<[string, () => Record<string, string>, RegExp]>([
  [
    'a document of another issuer',
    () => ({ [discovery]: document({ issuer: 'https://evil.example' }) }),
    /another issuer/,
  ],
  [
    'an issuer with a slash more',
    () => ({ [discovery]: document({ issuer: `${issuer}/` }) }),
    /another issuer/,
  ],
  ['no document', () => ({}), /answers with 404/],
  ['a document that is no JSON', () => ({ [discovery]: '<html>' }), /not JSON/],
  ['keys over http', () => ({ [discovery]: document({ jwks_uri: 'http://127.0.0.1/keys' }) }), /not https/],
  ['keys of a file', () => ({ [discovery]: document({ jwks_uri: 'file:///etc/passwd' }) }), /not https/],
  [
    'keys with a user',
    () => ({ [discovery]: document({ jwks_uri: 'https://a:b@localhost/keys' }) }),
    /not https/,
  ],
  ['no place for keys', () => ({ [discovery]: document({ jwks_uri: 7 }) }), /no jwks_uri/],
  [
    'a redirect',
    () => ({ [discovery]: document(), '/keys': `${issuer}/other`, '/other': jwks }),
    /answers with 302/,
  ],
  [
    'too much',
    () => ({ [discovery]: document(), '/keys': ' '.repeat(262_145) }),
    /more than 262144 bytes|cut short/,
  ],
])('%s is refused', async (_, pages, why) => {
  serve(pages());
  await expect(readIssuerKeys(config(), issuer)).rejects.toThrow(why);
});

test('an issuer whose certificate nobody vouches for is not asked', async () => {
  serve({ [discovery]: document(), '/keys': jwks });
  await expect(readIssuerKeys(config({ oidcCaFile: null }), issuer)).rejects.toThrow(/certificate/);
  expect(asked).toEqual([]);
});

test('a token is verified with them; ten thousand of unknown keys ask once more at most', async () => {
  serve({ [discovery]: document(), '/keys': jwks });
  const now = new Date();
  const verify = openOidc(config(), { now: () => now, sleep: async () => {} }, openLog('silent'));
  if (verify === null) throw new Error('no issuer');
  const seconds = Math.floor(now.getTime() / 1_000);
  const claims = { iss: issuer, sub: 'bob', aud: 'countersign', iat: seconds, exp: seconds + 60 };
  expect(await verify(forge({ claims }))).toEqual({ issuer, subject: 'bob', groups: [] });
  const strange = forge({ claims, header: { alg: 'ES256', kid: 'other' } });
  await Promise.allSettled(Array.from({ length: 10_000 }, () => verify(strange)));
  expect(asked.filter((path) => path === '/keys').length).toBeLessThanOrEqual(2);
});

test('without an issuer there is nothing to verify with', () => {
  const nothing = config({ oidcIssuer: null, oidcAudience: null });
  expect(openOidc(nothing, { now: () => new Date(0), sleep: async () => {} }, openLog('silent'))).toBeNull();
});
