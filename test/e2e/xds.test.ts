import { afterAll, beforeAll, expect, test } from 'vitest';
import type { CaReport } from '../../src/http/ca-report.ts';
import { startHttpApp } from '../harness/apps.ts';
import { type Authority, startAuthority } from '../harness/authority.ts';
import { eventually } from '../harness/eventually.ts';
import { ask } from '../harness/http.ts';
import { entry, idOf, policy, type Sidecar, startSidecar } from '../harness/mesh.ts';
import { createScope } from '../harness/scope.ts';
import { freePorts, makeTempDir } from '../harness/temp.ts';

// Envoys that ask for their certificates in the three ways that are not the default, and call each other in a ring.
const ways = ['delta-sds', 'ads', 'delta-ads'] as const;

const scope = createScope();
afterAll(() => scope.close());

let authority: Authority;
let sidecars: Sidecar[];
let outbounds: number[];
let entries: string;
const patient = { withinMs: 60_000, everyMs: 100 };

beforeAll(async () => {
  const directory = makeTempDir(scope);
  authority = await startAuthority(scope, { directory });
  const inbounds = await freePorts(3);
  outbounds = await freePorts(3);
  const app = await startHttpApp(scope, 'app');
  sidecars = ways.map((xds, i) => {
    const next = (i + 1) % ways.length;
    const peer = idOf(authority, `shop/${ways[next]}`);
    return startSidecar(scope, {
      authority,
      directory,
      service: `shop/${xds}`,
      ways: {
        xds,
        inbound: `127.0.0.1:${inbounds[i]}`,
        app: `127.0.0.1:${app.port}`,
        outbound: [`127.0.0.1:${outbounds[i]}=${peer}@127.0.0.1:${inbounds[next]}`],
        maxConnectionDuration: '10s',
      },
    });
  });
  // Renewed every ten seconds or so.
  entries = sidecars.map(({ id, binary }) => entry(id, binary, { ttlSeconds: 20 })).join('');
}, 90_000);

test('a port without its certificate stays shut, however the certificate is asked for', async () => {
  for (const { name, id, isLive } of sidecars) {
    const refused = async () =>
      (await authority.audit('type=refusal')).some(({ resource }) => resource === id);
    await eventually(`${name} to have asked`, refused, patient);
    expect([name, await isLive()]).toEqual([name, false]);
  }
  await authority.apply(entries + policy('shop', 'all', { rules: [{}] }));
  for (const sidecar of sidecars) await sidecar.live(60_000);
  await eventually('calls to pass', allPass, patient);
}, 150_000);

test('certificates are renewed when half of their life is over', async () => {
  await allToRenew(await Promise.all(sidecars.map(serialsOf)));
  await eventually('calls to pass', allPass, patient);
}, 150_000);

test('a root is rotated on the word of all of them, from prepare to retire', async () => {
  await ca('rotate', { scope: 'root' });
  await eventually('everybody to confirm both roots', async () => (await report()).next?.safe, patient);
  await ca('activate');
  await eventually(
    'everybody to confirm the new certificates',
    async () => (await report()).next?.safe,
    patient,
  );
  await ca('retire');
  await eventually('calls to pass', allPass, patient);
}, 200_000);

test('an authority that is killed and comes back is found again by all of them', async () => {
  const serials = await Promise.all(sidecars.map(serialsOf));
  await authority.kill();
  await authority.restart();
  await allToRenew(serials);
  await eventually('calls to pass', allPass, patient);
}, 150_000);

test('a deleted entry takes nothing from a running Envoy, which is given it back without a restart', async () => {
  const [delta] = sidecars as [Sidecar];
  const updates = () => delta.stat(/^sds\..*\.update_success$/);
  const [before, serials] = [await updates(), await serialsOf(delta)];
  await authority.deleteEntry('ns-shop-sa-delta-sds');
  await eventually('the removal to be acknowledged', async () => (await updates()) > before, patient);
  expect([await delta.isLive(), (await serialsOf(delta)).length]).toEqual([true, serials.length]);
  const removed = await updates();
  await authority.apply(entries);
  await eventually('the secret to be sent again', async () => (await updates()) > removed, patient);
  await eventually('calls to pass', allPass, patient);
  for (const { name, stat } of sidecars) expect([name, await stat(/update_rejected$/)]).toEqual([name, 0]);
}, 150_000);

async function allPass(): Promise<boolean> {
  const answers = await Promise.all(outbounds.map((port) => ask({ to: port, path: '/' })));
  return answers.every(({ status }) => status === 200);
}

/** Waits until each holds a certificate that it did not have before. */
async function allToRenew(before: readonly (readonly string[])[]): Promise<void> {
  for (const [i, sidecar] of sidecars.entries()) {
    const isRenewed = async () =>
      (await serialsOf(sidecar)).some((serial) => before[i]?.includes(serial) === false);
    await eventually(`another certificate of ${sidecar.name}`, isRenewed, patient);
  }
}

async function serialsOf(sidecar: Sidecar): Promise<readonly string[]> {
  return (await sidecar.certificates()).map(({ serial }) => serial);
}

async function report(): Promise<CaReport> {
  const { body } = await ask({ to: authority.adminSocket, path: '/v1/ca' });
  return JSON.parse(body) as CaReport;
}

async function ca(step: string, body: object = {}): Promise<void> {
  const { status, body: answer } = await ask({
    to: authority.adminSocket,
    method: 'POST',
    path: `/v1/ca/${step}`,
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(body),
    timeoutMs: 30_000,
  });
  if (status !== 200) throw new Error(`${step}: ${answer}`);
}
