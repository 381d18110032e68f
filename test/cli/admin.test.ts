import { chmodSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test, vi } from 'vitest';
import { clientCertificate, configuredAdmin } from '../http/callers.ts';
import { type Harness, startHarness } from '../http/harness.ts';
import { createScope } from '../harness/scope.ts';
import { openCli, runCli } from './run-cli.ts';

// Each run is a process, which takes seconds to start on a machine that is busy.
vi.setConfig({ testTimeout: 240_000 });

const scope = createScope();
const run = openCli(scope, { cwd: tmpdir() });
let dir: string;
let harness: Harness;
let tls: readonly string[];
beforeAll(async () => {
  dir = mkdtempSync(join(tmpdir(), 'countersign-cli-admin-'));
  harness = await startHarness();
  write('ca.pem', harness.caPem);
  const port = harness.tls.address.split(':').at(-1);
  tls = ['--server', `https://localhost:${port}`, '--ca-file', join(dir, 'ca.pem')];
  const own = await clientCertificate(harness.clients.current, configuredAdmin, harness.clock.now());
  const stranger = await clientCertificate(
    harness.clients.current,
    'spiffe://example.org/ns/shop/sa/web',
    harness.clock.now(),
  );
  write('svid.pem', own.cert);
  write('key.pem', own.key);
  write('other.pem', stranger.cert);
  write('other-key.pem', stranger.key);
  write('admin.token', harness.tokens.admin);
});
afterAll(async () => {
  await harness.close();
  await scope.close();
  rmSync(dir, { recursive: true, force: true });
});

function write(name: string, text: string): void {
  writeFileSync(join(dir, name), text, { mode: 0o600 });
}
const withCertificate = (name: string, key: string, ...args: string[]) =>
  run([...tls, '--client-cert', join(dir, name), '--client-key', join(dir, key), ...args]);
const admin = (...args: string[]) => withCertificate('svid.pem', 'key.pem', ...args);

test('a certificate does what a token does, and grants are made, listed and deleted', async () => {
  const spiffeId = 'spiffe://example.org/ns/ci/sa/deployer';
  const made = await admin(
    'admin',
    'grant',
    'create',
    'ci',
    '--role',
    'operator',
    '--namespace',
    'shop',
    'bank',
    '--spiffe-id',
    spiffeId,
  );
  expect([made.code, made.err]).toEqual([0, '']);
  await admin(
    'admin',
    'grant',
    'create',
    'shop',
    '--role',
    'policy-author',
    '--namespace',
    'shop',
    '--oidc-issuer',
    'https://login.example.org',
    '--oidc-group',
    'shop team',
  );
  const listed = await admin('admin', 'grant', 'list');
  expect(listed.out).toMatch(/ci +operator +bank,shop +spiffe:\S+deployer\n/);
  expect(listed.out).toMatch(/shop +policy-author +shop +group shop team of https:\/\/login\.example\.org\n/);
  expect((await admin('admin', 'grant', 'delete', 'ci')).out).toBe('deleted ci\n');
  expect(JSON.parse((await admin('admin', 'grant', 'list', '-o', 'json')).out).items).toHaveLength(1);
});

test('a token says where it holds', async () => {
  const out = join(dir, 'shop.token');
  const made = await admin('token', 'create', '--role', 'policy-author', '--namespace', 'shop', '--out', out);
  expect(made.out).toMatch(/namespaces +shop\n/);
  expect((await admin('token', 'list')).out).toMatch(/policy-author +shop +20/);
  expect((await runCli([...tls, '--token-file', out, 'entry', 'list'])).code).toBe(0);
  expect((await runCli([...tls, '--token-file', out, 'status'])).code).toBe(77);
});

test.each<[string, () => Promise<{ code: number | null; err: string }>, number, string]>([
  [
    'a certificate without a grant',
    () => withCertificate('other.pem', 'other-key.pem', 'status'),
    77,
    'forbidden',
  ],
  ['a certificate and a token', () => admin('--token-file', join(dir, 'admin.token'), 'status'), 64, 'usage'],
  [
    'a certificate without its key',
    () => runCli([...tls, '--client-cert', join(dir, 'svid.pem'), 'status']),
    64,
    'usage',
  ],
  [
    'a policy-author of nothing said',
    () => admin('token', 'create', '--role', 'policy-author'),
    2,
    'grant_invalid',
  ],
  ['a role that is none', () => admin('token', 'create', '--role', 'root'), 64, 'usage'],
])('%s is refused', async (_, run, code, name) => {
  const { code: exit, err } = await run();
  expect([exit, err]).toEqual([code, expect.stringContaining(`error[${name}]`)]);
});

test('a key that others can read is not used, not through a link either', async () => {
  write('open.pem', 'a secret');
  chmodSync(join(dir, 'open.pem'), 0o644);
  symlinkSync(join(dir, 'open.pem'), join(dir, 'link.pem'));
  const { code, err } = await withCertificate('svid.pem', 'link.pem', 'status');
  expect([code, err]).toEqual([77, expect.stringContaining('error[file_permissions]')]);
  expect(err).not.toContain('a secret');
});

test('a workload that was given the name of the server is shown no token', async () => {
  const own = await harness.issueServerCertificate();
  const posing = await harness.issueServerCertificate('spiffe://example.org/ns/shop/sa/web');
  const status = () => runCli([...tls, '--token-file', join(dir, 'admin.token'), 'status']);
  harness.tls.renew(posing.certificate, posing.privateKey);
  expect(await status()).toMatchObject({
    code: 69,
    err: expect.stringContaining('a workload answers there'),
  });
  harness.tls.renew(own.certificate, own.privateKey);
  expect((await status()).code).toBe(0);
});
