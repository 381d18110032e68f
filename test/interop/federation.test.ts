import { createPrivateKey, randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { prepareJwtSvid, signJwtSvid } from '../../src/ca/jwt.ts';
import { writeBundleDocument } from '../../src/spiffe/bundle-document.ts';
import { SpiffeId } from '../../src/spiffe/id.ts';
import {
  endpointId,
  jwtBundleOf,
  type Pair,
  startTrust,
  type TrustHarness,
  webPair,
} from '../http/trust-harness.ts';
import { createAuthority, type TestAuthority } from '../xds/certificates.ts';
import { buildGoClient, type ClientRun, goIsHere, runClient } from './go-client.ts';

let client: string;
let dir: string;
let authority: TestAuthority;
let web: Pair;
let tokenKeys: ReturnType<typeof jwtBundleOf>;

/** Writes a file for the client. */
function file(name: string, text: string): string {
  writeFileSync(join(dir, name), text);
  return join(dir, name);
}

function bundleText(of: TestAuthority): string {
  const jwt = { trustDomain: of.trustDomain, authorities: [], sequence: 0 };
  return writeBundleDocument({ x509: of.bundle, jwt, refreshHintSeconds: 300 });
}

/** Runs the client with options; what is undefined is left out. */
function run(options: Readonly<Record<string, string | undefined>>): Promise<ClientRun> {
  return runClient(
    client,
    Object.entries(options).flatMap(([name, value]) => (value === undefined ? [] : [`-${name}`, value])),
  );
}

describe.skipIf(!goIsHere())('other implementations at the trust endpoint', () => {
  beforeAll(async () => {
    dir = mkdtempSync(join(tmpdir(), 'cs-federation-'));
    [client, authority, web] = await Promise.all([
      buildGoClient('federation'),
      createAuthority('example.org'),
      webPair(),
    ]);
    tokenKeys = jwtBundleOf(authority);
  }, 600_000);
  afterAll(() => rmSync(dir, { recursive: true, force: true }));

  async function within(
    options: Parameters<typeof startTrust>[0],
    work: (trust: TrustHarness) => Promise<void>,
  ): Promise<void> {
    const trust = await startTrust({ authority, jwt: tokenKeys, ...options });
    try {
      await work(trust);
    } finally {
      await trust.listener.close(0);
    }
  }

  test("go-spiffe fetches with the profile https_spiffe, and the bundle's sequence and keys are ours", async () => {
    await within({}, async ({ listener }) => {
      for (const path of ['', '/', '/bundle']) {
        const { code, output } = await run({
          mode: 'spiffe',
          url: `${listener.address}${path}`,
          'trust-domain': 'example.org',
          'endpoint-id': endpointId,
          bundle: file('known.json', bundleText(authority)),
        });
        expect([code, output]).toEqual([
          0,
          'bundle trust_domain=example.org sequence=2 hint=5m0s x509=1 jwt=1\n',
        ]);
      }
    });
  });

  test.each([
    ['another endpoint', { 'endpoint-id': 'spiffe://example.org/countersign/server' }, /unexpected ID/],
    ['a bundle of other keys', { bundle: 'strange.json' }, /unknown authority|authority/],
  ])('go-spiffe refuses the endpoint when it expects %s', async (_, changes, message) => {
    file('strange.json', bundleText(await createAuthority('example.org')));
    await within({}, async ({ listener }) => {
      const { code, output } = await run({
        mode: 'spiffe',
        url: listener.address,
        'trust-domain': 'example.org',
        'endpoint-id': endpointId,
        ...changes,
        bundle: 'bundle' in changes ? join(dir, changes.bundle) : file('known.json', bundleText(authority)),
      });
      expect(code).toBe(1);
      expect(output).toMatch(message);
    });
  });

  test('go-spiffe fetches with the profile https_web, and verifies a JWT-SVID with what it got', async () => {
    await within({ oldestTls: 'TLSv1.2', pair: web }, async ({ port }) => {
      const options = {
        mode: 'web',
        url: `https://localhost:${port}/bundle`,
        'trust-domain': 'example.org',
        roots: file('roots.pem', web.certificate),
        token: file('token', mint(null)),
      };
      const { code, output } = await run({ ...options, audience: 'reports' });
      expect([code, output]).toEqual([
        0,
        'bundle trust_domain=example.org sequence=2 hint=5m0s x509=1 jwt=1\ntoken id=spiffe://example.org/web\n',
      ]);
      expect((await run({ ...options, audience: 'others' })).output).toMatch(/audience/);
      const strange = file('strange.pem', (await webPair()).certificate);
      expect((await run({ ...options, roots: strange })).output).toMatch(/unknown authority|certificate/);
    });
  });

  test.each(['', '/tokens'])(
    'go-oidc discovers an issuer with the path "%s" and verifies its token',
    async (path) => {
      // The issuer has the port in it, which is known only when the door is open: a first one finds a free one.
      let port = 0;
      await within({ oldestTls: 'TLSv1.2', pair: web }, async (trust) => void (port = trust.port));
      const issuer = `https://localhost:${port}${path}`;
      await within({ oldestTls: 'TLSv1.2', pair: web, issuer, port }, async () => {
        const options = { mode: 'oidc', roots: file('roots.pem', web.certificate), audience: 'reports' };
        const good = await run({ ...options, url: issuer, token: file('token', mint(issuer)) });
        expect([good.code, good.output]).toEqual([
          0,
          `token issuer=${issuer} subject=spiffe://example.org/web audience=[reports]\n`,
        ]);
        const refusals: [string, Record<string, string>, RegExp][] = [
          ['another audience', { audience: 'others' }, /audience/],
          [
            'a token of another issuer',
            { token: file('other', mint('https://localhost')) },
            /different provider/,
          ],
          ['a token without an issuer', { token: file('none', mint(null)) }, /different provider/],
          [
            'a token of another key',
            { token: file('forged', mint(issuer, jwtBundleOf(authority))) },
            /verify/,
          ],
          ['a slash after the issuer', { url: `${issuer}/` }, /did not match|404/],
        ];
        for (const [what, changes, message] of refusals) {
          const options2 = { ...options, url: issuer, token: join(dir, 'token'), ...changes };
          const { code, output } = await run(options2);
          expect([what, code, message.test(output) ? '' : output]).toEqual([what, 1, '']);
        }
      });
    },
  );
});

function mint(issuer: string | null, keys = tokenKeys): string {
  const prepared = prepareJwtSvid(
    {
      id: SpiffeId.parse('spiffe://example.org/web'),
      audiences: ['reports'],
      issuer,
      ttlSeconds: 300,
      keyId: keys.authorities[0]?.keyId ?? '',
      jwtId: randomBytes(8).toString('hex'),
    },
    // Go judges by the machine's clock.
    new Date(),
  );
  return signJwtSvid(
    prepared,
    createPrivateKey({ key: Buffer.from(keys.key), format: 'der', type: 'pkcs8' }),
  );
}
