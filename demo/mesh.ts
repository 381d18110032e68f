import { execFile } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { startHttpApp } from '../test/harness/apps.ts';
import { type Authority, startAuthority } from '../test/harness/authority.ts';
import { type Sidecar, startSidecar } from '../test/harness/mesh.ts';
import type { Scope } from '../test/harness/scope.ts';
import { freePorts, makeTempDir } from '../test/harness/temp.ts';
import { type Assets, startAssets } from './assets.ts';

/** The mesh of the demo: an authority, three services behind their Envoys, one that is an NGINX, and a rogue. */
export type DemoMesh = {
  readonly authority: Authority;
  readonly directory: string;
  readonly web: Sidecar;
  readonly orders: Sidecar;
  readonly ledger: Sidecar;
  readonly assets: Assets;
  /** An Envoy like the others, but nobody made an entry for it. */
  readonly rogue: Sidecar;
  /** Loopback ports on which `shop/web` reaches the others through its own Envoy. */
  readonly webToOrders: number;
  readonly webToLedger: number;
  readonly webToAssets: number;
  /** The mTLS port of `shop/orders`. */
  readonly ordersPort: number;
  /** The command, as a reader of the README would use it. @returns its standard output */
  readonly countersign: (...args: readonly string[]) => Promise<string>;
  /** The same with its exit code: some answers are a no. */
  readonly run: (...args: readonly string[]) => Promise<{ readonly code: number; readonly stdout: string }>;
  /** The file with all entries and policies. */
  readonly meshFile: string;
  /** The file with the policy that is applied later. */
  readonly editFile: string;
};

const run = promisify(execFile);

/** Starts every process. Nothing is registered yet. */
export async function buildMesh(
  scope: Scope,
  options: { readonly without: readonly string[] },
): Promise<DemoMesh> {
  const directory = makeTempDir(scope);
  const authority = await startAuthority(scope, { directory, trustDomain: 'demo.mesh' });
  const apps = await Promise.all(
    ['shop/orders', 'pay/ledger', 'rogue'].map((name) => startHttpApp(scope, name)),
  );
  const [ordersApp, ledgerApp, rogueApp] = apps.map(({ port }) => `127.0.0.1:${port}`);
  const [ordersPort = 0, ledgerPort = 0, roguePort = 0, webToOrders = 0, webToLedger = 0, ...more] =
    await freePorts(7);
  const [assetsPort = 0, webToAssets = 0] = more;
  const at = (port: number) => `127.0.0.1:${port}`;
  const id = (service: string) => `spiffe://demo.mesh/ns/${service.replace('/', '/sa/')}`;
  const sidecar = (service: string, ways: Parameters<typeof startSidecar>[1]['ways']) =>
    startSidecar(scope, { authority, directory, service, ways });
  const web = sidecar('shop/web', {
    outbound: [
      `${at(webToOrders)}=${id('shop/orders')}@${at(ordersPort)}`,
      `${at(webToLedger)}=${id('pay/ledger')}@${at(ledgerPort)}`,
      `${at(webToAssets)}=${id('shop/assets')}@${at(assetsPort)}`,
    ],
  });
  const orders = sidecar('shop/orders', { inbound: at(ordersPort), app: ordersApp ?? '' });
  const ledger = sidecar('pay/ledger', { inbound: at(ledgerPort), app: ledgerApp ?? '' });
  const rogue = sidecar('shop/rogue', { inbound: at(roguePort), app: rogueApp ?? '' });
  const assets = startAssets(scope, { authority, directory, id: id('shop/assets'), port: assetsPort });
  const meshFile = join(directory, 'mesh.yaml');
  const editFile = join(directory, 'ledger-edit.yaml');
  const paths = new Map([
    ['WEB_ENVOY', web.binary],
    ['ORDERS_ENVOY', orders.binary],
    ['LEDGER_ENVOY', ledger.binary],
    ['ASSETS_NODE', assets.binary],
  ]);
  const command = (args: readonly string[]) =>
    run(process.execPath, [join(import.meta.dirname, '../src/cli/main.ts'), ...args], {
      env: { ...process.env, COUNTERSIGN_ADMIN_SOCKET: authority.adminSocket, NO_COLOR: '1' },
    });
  writeFileSync(meshFile, readDocuments('mesh.yaml', paths, options.without));
  writeFileSync(editFile, readDocuments('ledger-edit.yaml', paths, []));
  return {
    authority,
    directory,
    web,
    orders,
    ledger,
    assets,
    rogue,
    webToOrders,
    webToLedger,
    webToAssets,
    ordersPort,
    meshFile,
    editFile,
    countersign: async (...args) => (await command(args)).stdout,
    run: async (...args) => {
      try {
        return { code: 0, stdout: (await command(args)).stdout };
      } catch (error) {
        const { code, stdout } = error as { code?: unknown; stdout?: unknown };
        if (typeof code !== 'number' || typeof stdout !== 'string') throw error;
        return { code, stdout };
      }
    },
  };
}

/** The documents of a file beside this one, with this run's paths, less those that are to be left out. */
function readDocuments(file: string, paths: ReadonlyMap<string, string>, without: readonly string[]): string {
  const text = readFileSync(join(import.meta.dirname, file), 'utf8').replace(
    /\$\{([A-Z_]+)\}/g,
    (whole, name: string) => paths.get(name) ?? whole,
  );
  const documents = text.split(/^---\n/m);
  const kept = documents.filter((document) => {
    const kind = document.includes('kind: RegistrationEntry') ? 'entry' : 'policy';
    const name = /^ {2}name: (\S+)$/m.exec(document)?.[1] ?? '';
    return !without.includes(`${kind}:${name}`);
  });
  if (documents.length - kept.length !== without.length) {
    throw new Error(`${file} has not all of ${without.join(', ')}`);
  }
  return kept.join('---\n');
}
