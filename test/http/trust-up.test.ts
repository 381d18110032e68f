import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createLocalJWKSet, jwtVerify, type JSONWebKeySet } from 'jose';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { type ConfigText, loadConfig } from '../../src/config.ts';
import type { ErrorCode } from '../../src/errors.ts';
import { openLog } from '../../src/log.ts';
import { type Running, startUp } from '../../src/up.ts';
import { runCli } from '../cli/run-cli.ts';
import { eventually } from '../harness/eventually.ts';
import { ask } from '../harness/http.ts';
import { freePorts } from '../harness/temp.ts';
import { askOver, type TrustAsk, type TrustReply, webPair } from './trust-harness.ts';

let directory: string;
let running: Running[];
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'cs-trust-up-'));
  running = [];
});
afterEach(async () => {
  for (const one of running) await one.close();
  rmSync(directory, { recursive: true, force: true });
});

async function start(flags: ConfigText): Promise<Running> {
  const config = loadConfig({
    flags: {
      dataDir: join(directory, 'data'),
      workloadSocket: join(directory, 'w.sock'),
      adminSocket: join(directory, 'a.sock'),
      adminAddress: 'off',
      trustAddress: '127.0.0.1:0',
      shutdownGraceSeconds: '0',
      ...flags,
    },
    environment: {},
    file: null,
    isRoot: false,
  });
  const one = await startUp(config, openLog('fatal'));
  running.push(one);
  return one;
}

// oxlint-disable-next-line typescript/no-explicit-any -- tests look into answers freely
async function admin(method: string, path: string, body?: object): Promise<any> {
  const answer = await ask({
    to: join(directory, 'a.sock'),
    method,
    path,
    ...(body === undefined
      ? {}
      : { headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) }),
  });
  expect([path, answer.status < 300 ? '' : answer.body]).toEqual([path, '']);
  return answer.body.startsWith('{') ? JSON.parse(answer.body) : answer.body;
}

/** Asks the public door as somebody who verifies the chain with the CA certificates, and the SPIFFE ID. */
async function visit(one: Running, askFor: TrustAsk): Promise<TrustReply> {
  const { trustEndpoint } = await one.status();
  const ca = String(await admin('GET', '/v1/trust-bundle'));
  return askOver(
    {
      host: '127.0.0.1',
      port: Number(trustEndpoint?.url.split(':').at(-1)),
      ca,
      agent: false,
      checkServerIdentity: (_: string, { subjectaltname = '' }: { subjectaltname?: string }) =>
        subjectaltname.includes(`URI:${trustEndpoint?.spiffeId}`) ? undefined : new Error(subjectaltname),
    },
    askFor,
  );
}

test('a running authority serves its bundle, whose sequence grows with every change of a key', async () => {
  const one = await start({ trustDomain: 'shop.test' });
  const { trustEndpoint } = await one.status();
  expect(trustEndpoint).toEqual({
    url: expect.stringMatching(/^https:\/\/127\.0\.0\.1:\d+$/) as string,
    profile: 'https_spiffe',
    spiffeId: 'spiffe://shop.test/countersign/trust-endpoint',
  });
  const seen: { sequence: number; etag: string | undefined; keys: number }[] = [];
  const look = async (from: Running) => {
    const { status, headers, json } = await visit(from, { path: '/' });
    expect(status).toBe(200);
    expect(await admin('GET', '/v1/trust-bundle?format=spiffe')).toEqual(json);
    seen.push({ sequence: json.spiffe_sequence, etag: headers.etag, keys: json.keys.length });
  };
  await look(one);
  await admin('POST', '/v1/ca/rotate', { scope: 'root' });
  await look(one);
  await admin('POST', '/v1/ca/rotate', { scope: 'jwt' });
  await look(one);
  const [first, second, third] = seen;
  expect(seen.map(({ sequence }) => sequence - first!.sequence)).toEqual([0, 1, 2]);
  expect([second!.keys - first!.keys, third!.keys - second!.keys]).toEqual([1, 1]);
  expect(new Set(seen.map(({ etag }) => etag)).size).toBe(3);
  // Our own certificate waits for nobody, and nobody waits for it.
  expect((await admin('GET', '/v1/ca')).coverage).toMatchObject({ holders: 0 });
  await one.close();
  await look(await start({}));
  expect(seen.at(-1)).toEqual(third);
});

test('the command line prints the same document, and where the door is', async () => {
  const one = await start({ trustDomain: 'shop.test' });
  const cli = (...args: readonly string[]) => runCli(['--socket', join(directory, 'a.sock'), ...args]);
  const { json } = await visit(one, { path: '/bundle' });
  for (const more of [[], ['-o', 'json']]) {
    const { code, out } = await cli('trust-bundle', '--format', 'spiffe', ...more);
    expect([code, JSON.parse(out)]).toEqual([0, json]);
  }
  expect((await cli('trust-bundle')).out).toBe(await admin('GET', '/v1/trust-bundle?format=pem'));
  expect((await cli('status')).out).toMatch(
    /^trust endpoint +https:\/\/127\.0\.0\.1:\d+ \(https_spiffe spiffe:\/\/shop\.test\/countersign\/trust-endpoint\)$/m,
  );
  expect((await cli('trust-bundle', '--format', 'der')).code).toBe(64);
  const wrong = await ask({ to: join(directory, 'a.sock'), path: '/v1/trust-bundle?format=der' });
  expect([wrong.status, wrong.body]).toEqual([400, expect.stringContaining('query_invalid') as string]);
});

test('reading it leaves no record, and is counted', async () => {
  const one = await start({});
  const size = async () => (await one.status()).auditSize;
  const atStart = await size();
  // A visit asks the admin API for the bundle: the first time is on record, and no other within the hour.
  await admin('GET', '/v1/trust-bundle');
  await eventually('that is on record', async () => (await size()) === atStart + 1);
  for (let i = 0; i < 20; i++) await visit(one, { path: i % 2 === 0 ? '/' : '/nothing' });
  expect(await size()).toBe(atStart + 1);
  const metrics = String(await admin('GET', '/metrics'));
  expect(metrics).toContain('countersign_trust_answers_total{answer="bundle"} 10\n');
  expect(metrics).toContain('countersign_trust_answers_total{answer="refused"} 10\n');
  expect(metrics).toContain('countersign_trust_connections_turned_away_total{limit="rate"} 0\n');
});

test('a token of a running authority verifies with the keys that discovery leads to', async () => {
  const jwtIssuer = 'https://tokens.shop.test/mesh';
  const one = await start({ trustDomain: 'shop.test', jwtIssuer });
  await admin('POST', '/v1/entries', {
    id: 'web',
    spiffeId: 'spiffe://shop.test/web',
    selectors: ['unix:uid:4000'],
  });
  const { token } = await admin('POST', '/v1/jwt/mint', { entryId: 'web', audience: ['reports'] });
  const found = await visit(one, { path: '/mesh/.well-known/openid-configuration' });
  expect(found.json).toMatchObject({ issuer: jwtIssuer, jwks_uri: `${jwtIssuer}/keys` });
  const { json } = await visit(one, { path: new URL(String(found.json.jwks_uri)).pathname });
  const { payload } = await jwtVerify(String(token), createLocalJWKSet(json as JSONWebKeySet), {
    issuer: jwtIssuer,
    audience: 'reports',
  });
  expect(payload.sub).toBe('spiffe://shop.test/web');
});

test('with certificate files it is a door of the web, without a SPIFFE ID', async () => {
  const { certificate, privateKey } = await webPair();
  const [trustTlsCertificate, trustTlsKey] = [join(directory, 'c.pem'), join(directory, 'k.pem')];
  writeFileSync(trustTlsCertificate, certificate);
  writeFileSync(trustTlsKey, privateKey, { mode: 0o600 });
  const one = await start({ trustTlsCertificate, trustTlsKey });
  const { trustEndpoint } = await one.status();
  expect(trustEndpoint).toMatchObject({ profile: 'https_web', spiffeId: null });
  const port = Number(trustEndpoint?.url.split(':').at(-1));
  const { status } = await askOver(
    { host: '127.0.0.1', port, servername: 'localhost', ca: certificate, agent: false },
    { path: '/bundle' },
  );
  expect(status).toBe(200);
});

test.each<[string, () => Promise<ConfigText>, ErrorCode]>([
  [
    'a key that others can read',
    async () => {
      const { certificate, privateKey } = await webPair();
      writeFileSync(join(directory, 'c.pem'), certificate);
      writeFileSync(join(directory, 'k.pem'), privateKey, { mode: 0o644 });
      return { trustTlsCertificate: join(directory, 'c.pem'), trustTlsKey: join(directory, 'k.pem') };
    },
    'file_permissions',
  ],
  ['a certificate without its key', async () => ({ trustTlsCertificate: '/c.pem' }), 'config_invalid'],
  ['a key without its certificate', async () => ({ trustTlsKey: '/k.pem' }), 'config_invalid'],
  [
    'files that are not there',
    async () => ({ trustTlsCertificate: '/c', trustTlsKey: '/k' }),
    'file_missing',
  ],
  ['an address of another machine', async () => ({ trustAddress: '192.0.2.1:8443' }), 'config_invalid'],
  ['no port', async () => ({ trustAddress: 'localhost' }), 'config_invalid'],
  [
    'an address in use',
    async () => {
      const [port] = await freePorts(1);
      return { trustAddress: `127.0.0.1:${port}`, adminAddress: `127.0.0.1:${port}` };
    },
    'address_in_use',
  ],
])('a start with %s is refused, and leaves nothing open', async (_, flags, code) => {
  await expect(flags().then(start)).rejects.toThrow(expect.objectContaining({ code }) as Error);
  // The lock and the sockets are free again.
  expect((await (await start({ trustAddress: 'off' })).status()).trustEndpoint).toBeNull();
});
