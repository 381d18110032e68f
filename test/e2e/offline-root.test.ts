import { X509Certificate } from 'node:crypto';
import { mkdirSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import type { CaReport } from '../../src/http/ca-report.ts';
import { openCli, runCli } from '../cli/run-cli.ts';
import { startHttpApp } from '../harness/apps.ts';
import { type Authority, startAuthority } from '../harness/authority.ts';
import { eventually } from '../harness/eventually.ts';
import { ask } from '../harness/http.ts';
import { startLoad } from '../harness/load.ts';
import { entry, policy, type Sidecar, startSidecar } from '../harness/mesh.ts';
import { intermediateExtensions, makeOpensslRoot } from '../harness/openssl-ca.ts';
import { isHere } from '../harness/real-part.ts';
import { createScope } from '../harness/scope.ts';
import { freePorts, makeTempDir } from '../harness/temp.ts';

// Proxies that serve certificates under a root this machine never had the key of.
const scope = createScope();
const run = openCli(scope, { cwd: tmpdir() });
afterAll(() => scope.close());

type Mesh = {
  readonly authority: Authority;
  readonly web: Sidecar;
  readonly orders: Sidecar;
  readonly outbound: number;
};

/** Two sidecars that call each other, under an authority whose data directory is set up already. */
async function startMesh(directory: string, env: Readonly<Record<string, string>> = {}): Promise<Mesh> {
  const authority = await startAuthority(scope, { directory, env });
  const [inbound, outbound] = (await freePorts(2)) as [number, number];
  const app = await startHttpApp(scope, 'orders');
  const often = { connectionSeconds: 3 };
  const orders = startSidecar(scope, {
    authority,
    directory,
    service: 'shop/orders',
    ways: { inbound: `127.0.0.1:${inbound}`, app: `127.0.0.1:${app.port}` },
    ...often,
  });
  const web = startSidecar(scope, {
    authority,
    directory,
    service: 'shop/web',
    ways: { outbound: [`127.0.0.1:${outbound}=${orders.id}@127.0.0.1:${inbound}`] },
    ...often,
  });
  await authority.apply(
    [
      entry(web.id, web.binary, { ttlSeconds: 30, dnsNames: ['web.shop.svc'] }),
      entry(orders.id, orders.binary, { ttlSeconds: 30, dnsNames: ['orders.shop.svc', 'localhost'] }),
      policy('shop', 'all', { rules: [{}] }),
    ].join(''),
  );
  await Promise.all([web.live(), orders.live()]);
  await eventually('a call to pass', async () => (await ask({ to: outbound, path: '/' })).status === 200);
  return { authority, web, orders, outbound };
}

async function cli(args: readonly string[], stdin = ''): Promise<string> {
  const { code, out, err } = await (stdin === '' ? run(args) : runCli(args, { stdin }));
  if (code !== 0) throw new Error(`${args.join(' ')}: ${code} ${err}`);
  return out;
}

function prepare(): { readonly directory: string; readonly at: (name: string) => string } {
  const directory = makeTempDir(scope);
  return { directory, at: (name) => join(directory, name) };
}

const passphrase = 'the passphrase of the root\n';
const dataOf = (at: (name: string) => string) => ['--data-dir', at('data')];

test('a root of ours on a machine apart, confined to URI names: proxies talk, and renewal by import costs no request', async () => {
  const { directory, at } = prepare();
  const dir = ['--dir', at('root')];
  const secret = ['--passphrase-fd', '0'];
  await cli(
    ['ca', 'root', 'create', '--trust-domain', 'mesh.test', ...dir, '--name-constraints', 'uri', ...secret],
    passphrase,
  );
  await cli([
    'ca',
    'init',
    '--offline-root',
    ...dataOf(at),
    '--trust-domain',
    'mesh.test',
    '--out',
    at('1.csr'),
  ]);
  const early = await runCli(['up', ...dataOf(at)]);
  expect([early.code, early.err]).toEqual([2, expect.stringContaining('error[authority_waiting]') as string]);
  const sign = (from: string, to: string) =>
    cli(
      ['ca', 'root', 'sign', ...dir, '--csr', from, '--out', to, '--name-constraints', 'uri', ...secret],
      passphrase,
    );
  await sign(at('1.csr'), at('1.pem'));
  await cli(['ca', 'import', ...dataOf(at), at('1.pem')]);
  const { authority, web, orders, outbound } = await startMesh(directory);
  const socket = ['--socket', authority.adminSocket];
  const report = async () => JSON.parse(await cli(['ca', 'status', ...socket, '-o', 'json'])) as CaReport;
  const before = await report();
  expect(before.authorities.map(({ kind, offline }) => [kind, offline])).toEqual([
    ['root', true],
    ['intermediate', false],
  ]);
  expect((await orders.certificates())[0]?.uris).toEqual([orders.id]);

  const load = startLoad(scope, outbound, 100, '/load');
  await cli(['ca', 'rotate', ...socket]);
  expect((await report()).waiting).not.toBeNull();
  await cli(['ca', 'csr', ...socket, '--out', at('2.csr')]);
  await sign(at('2.csr'), at('2.pem'));
  await cli(['ca', 'import', ...socket, at('2.pem')]);
  const after = await report();
  const signer = after.authorities.find(({ kind, state }) => kind === 'intermediate' && state === 'active');
  expect(after).toMatchObject({ waiting: null, bundleSequence: before.bundleSequence });
  expect(before.authorities.map(({ keyId }) => keyId)).not.toContain(signer?.keyId);
  await eventually(
    'certificates of both intermediates to meet',
    async () => {
      const issued = await authority.audit('type=issuance');
      return issued.some(({ issuerKeyId }) => issuerKeyId === signer?.keyId);
    },
    { withinMs: 45_000 },
  );
  // Every connection is a new one after it.
  await new Promise((resolve) => setTimeout(resolve, 5_000));
  await load.stop();
  expect([...load.failed()]).toEqual([]);
  const failed = [web, orders].flatMap((sidecar) =>
    sidecar.accessLog().filter(({ path, status }) => path === '/load' && status !== 200),
  );
  expect(failed).toEqual([]);
  const log = await authority.audit('type=authority');
  expect(log.map(({ action, kind }) => `${String(action)} ${String(kind)}`)).toEqual([
    'requested intermediate',
    'created root',
    'created intermediate',
    'requested intermediate',
    'prepared intermediate',
    'activated intermediate',
  ]);
}, 120_000);

describe.skipIf(!isHere('openssl', 'version'))('OpenSSL', () => {
  test("a root of its own, a company's CA below it, then our intermediate: proxies present the whole chain", async () => {
    const { directory, at } = prepare();
    mkdirSync(at('corp'));
    const root = makeOpensslRoot(at('corp'), 'corp-root', {
      lines: 'nameConstraints = critical, permitted;URI:mesh.test',
    });
    const corp = root.subordinate('corp-mesh');
    await cli([
      'ca',
      'init',
      '--offline-root',
      ...dataOf(at),
      '--trust-domain',
      'mesh.test',
      '--out',
      at('1.csr'),
    ]);
    writeFileSync(at('1.pem'), corp.sign(at('1.csr')));
    await cli(['ca', 'import', ...dataOf(at), at('1.pem')]);
    const { authority, orders, outbound } = await startMesh(directory);
    expect((await ask({ to: outbound, path: '/orders' })).status).toBe(200);
    expect((await orders.certificates())[0]?.uris).toEqual([orders.id]);
    const bundle = await cli(['trust-bundle', '--socket', authority.adminSocket]);
    expect(new X509Certificate(bundle).subject).toContain('corp-root');

    // Then to another root, as with any rotation: on evidence.
    const next = makeOpensslRoot(at('corp'), 'next-root', {
      key: ['RSA', '-pkeyopt', 'rsa_keygen_bits:2048'],
    });
    const socket = ['--socket', authority.adminSocket];
    await cli(['ca', 'rotate', '--root', ...socket]);
    await cli(['ca', 'csr', ...socket, '--out', at('2.csr')]);
    writeFileSync(at('2.pem'), next.sign(at('2.csr'), intermediateExtensions('mesh.test')));
    const load = startLoad(scope, outbound, 50, '/load');
    await cli(['ca', 'import', ...socket, at('2.pem')]);
    await eventually('everybody to confirm both roots', async () => {
      const { next: step } = JSON.parse(await cli(['ca', 'status', ...socket, '-o', 'json'])) as CaReport;
      return step?.step === 'activate' && step.safe;
    });
    await cli(['ca', 'activate', ...socket]);
    await eventually(
      'the old root to be needless',
      async () => {
        const { next: step } = JSON.parse(await cli(['ca', 'status', ...socket, '-o', 'json'])) as CaReport;
        return step?.step === 'retire' && step.safe;
      },
      { withinMs: 40_000 },
    );
    await cli(['ca', 'retire', ...socket]);
    await new Promise((resolve) => setTimeout(resolve, 5_000));
    await load.stop();
    expect([...load.failed()]).toEqual([]);
    expect(new X509Certificate(await cli(['trust-bundle', ...socket])).subject).toContain('next-root');
  }, 150_000);
});
