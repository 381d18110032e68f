import { renameSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import type { CaReport } from '../../src/http/ca-report.ts';
import { startHttpApp } from '../harness/apps.ts';
import { type Authority, startAuthority } from '../harness/authority.ts';
import { eventually } from '../harness/eventually.ts';
import { ask } from '../harness/http.ts';
import { type Load, startLoad } from '../harness/load.ts';
import { entry, policy, type Sidecar, startSidecar } from '../harness/mesh.ts';
import { createScope } from '../harness/scope.ts';
import { freePorts, makeTempDir } from '../harness/temp.ts';

const scope = createScope();
afterAll(() => scope.close());

let authority: Authority;
let orders: Sidecar;
let web: Sidecar;
let outbound: number;
let link: string;

beforeAll(async () => {
  const directory = makeTempDir(scope);
  authority = await startAuthority(scope, { directory });
  const [inbound, port] = (await freePorts(2)) as [number, number];
  outbound = port;
  const app = await startHttpApp(scope, 'orders');
  // Connections end often, so that requests meet handshakes in every state of the rotation.
  const often = { connectionSeconds: 3 };
  orders = startSidecar(scope, {
    authority,
    directory,
    service: 'shop/orders',
    ways: { inbound: `127.0.0.1:${inbound}`, app: `127.0.0.1:${app.port}` },
    ...often,
  });
  // Web reaches the authority through a link of its own, which a test can take away.
  link = join(directory, 'web.sock');
  symlinkSync(authority.workloadSocket, link);
  web = startSidecar(scope, {
    authority: { ...authority, workloadSocket: link },
    directory,
    service: 'shop/web',
    ways: { outbound: [`127.0.0.1:${outbound}=${orders.id}@127.0.0.1:${inbound}`] },
    ...often,
  });
  await authority.apply(
    [
      entry(web.id, web.binary, { ttlSeconds: 30 }),
      entry(orders.id, orders.binary, { ttlSeconds: 30 }),
      policy('shop', 'all', { rules: [{}] }),
    ].join(''),
  );
  await Promise.all([web.live(), orders.live()]);
  await eventually('a call to pass', async () => (await ask({ to: outbound, path: '/' })).status === 200);
});

test('a root is rotated from prepare to retire under load, and not one request fails', async () => {
  const [old] = rootsOf(await report());
  const load: Load = startLoad(scope, outbound, 260, '/load');
  // Every connection is a new one after it.
  const calm = () => new Promise((resolve) => setTimeout(resolve, 5_000));
  await calm();
  await ca('rotate', { scope: 'root' });
  await eventually('everybody to confirm both roots', async () => (await report()).next?.safe);
  await calm();
  const between = await ca('activate');
  expect(rootsOf(between)).toHaveLength(2);
  // Nobody waits for the old certificates to run out: they are replaced, and that is confirmed.
  await eventually('the old root to be needless', async () => (await report()).next?.safe, {
    withinMs: 25_000,
    everyMs: 250,
  });
  await ca('retire');
  await calm();
  await load.stop();

  const failed = [web, orders].flatMap((sidecar) =>
    sidecar.accessLog().filter(({ path, status }) => path === '/load' && status !== 200),
  );
  expect(failed).toEqual([]);
  expect([...load.failed()]).toEqual([]);
  console.log(`${load.passed()} requests passed, ${Math.round(load.rate())} a second`);
  expect(load.rate()).toBeGreaterThan(process.env['CI'] ? 200 : 100);
  const after = await report();
  expect(after).toMatchObject({ bundleSequence: 3, next: null });
  expect(rootsOf(after)).toHaveLength(1);
  expect(rootsOf(after)).not.toContain(old);
  const recorded = (await authority.audit('type=authority')).map(
    ({ action, kind }) => `${String(action)} ${String(kind)}`,
  );
  expect(recorded).toEqual([
    'created root',
    'created intermediate',
    'prepared root',
    'prepared intermediate',
    'activated root',
    'activated intermediate',
    'retired root',
    'retired intermediate',
  ]);
}, 90_000);

test('a proxy that is stopped while its certificate lives holds activation up, by name, until that is over', async () => {
  // With all of its life before it: the authority has to end and come back while it lives.
  await authority.apply(entry(web.id, web.binary, { ttlSeconds: 31 }));
  const [before] = await web.certificates();
  await eventually('web to have a new certificate', async () => {
    const [now] = await web.certificates();
    return now?.serial !== before?.serial && (await report()).coverage.confirmed === 2;
  });
  web.child.kill('SIGSTOP');
  try {
    await ca('rotate', { scope: 'root' });
    await eventually('orders to confirm', async () => (await report()).laggards.length === 1);
    const refused = await post('activate');
    expect(refused).toMatchObject({ status: 409, body: { code: 'rotation_unproven' } });
    expect(refused.body['detail']).toContain(web.id);
    expect(refused.body['detail']).not.toContain(orders.id);
    const during = await report();
    expect(during.authorities.filter(({ state }) => state === 'active')).toHaveLength(2);

    // The evidence is no memory of one process.
    await authority.kill();
    await authority.restart();
    await eventually('orders to be back', async () => {
      const { coverage, laggards } = await report();
      return laggards.some(({ spiffeId }) => spiffeId === web.id) && coverage.confirmed > 0;
    });
    expect((await post('activate')).status).toBe(409);

    await eventually(
      'the certificates of the stopped proxy to run out',
      async () => (await report()).next?.safe,
      {
        withinMs: 45_000,
        everyMs: 250,
      },
    );
    await ca('activate');
  } finally {
    web.child.kill('SIGCONT');
  }
  // And it comes back by itself.
  await eventually('a call to pass', async () => (await ask({ to: outbound, path: '/' })).status === 200, {
    withinMs: 40_000,
  });
  await eventually('the old root to be needless', async () => (await report()).next?.safe, {
    withinMs: 45_000,
    everyMs: 250,
  });
  await ca('retire');
  expect((await ask({ to: outbound, path: '/' })).status).toBe(200);
}, 180_000);

test('a proxy that is cut off, and carries traffic all the same, holds activation up until it is back', async () => {
  await authority.apply(entry(web.id, web.binary, { ttlSeconds: 120 }));
  const [before] = await web.certificates();
  await eventually(
    'web to have a longer certificate',
    async () => {
      const [now] = await web.certificates();
      return now?.serial !== before?.serial && (await report()).coverage.confirmed === 2;
    },
    { withinMs: 30_000 },
  );
  // What proxies confirm is stored a moment later.
  await new Promise((resolve) => setTimeout(resolve, 500));
  // Its stream breaks, and the way back is gone; orders finds its own.
  renameSync(link, `${link}.away`);
  await authority.stop();
  await authority.restart();
  await ca('rotate', { scope: 'root' });
  await eventually('orders to confirm', async () => {
    const { coverage, laggards } = await report();
    return coverage.confirmed === 1 && laggards.length === 1;
  });
  for (let i = 0; i < 20; i++) {
    expect((await ask({ to: outbound, path: '/cut-off' })).status).toBe(200);
  }
  const refused = await post('activate');
  expect(refused).toMatchObject({ status: 409, body: { code: 'rotation_unproven' } });
  expect(refused.body['detail']).toContain(web.id);
  expect((await report()).laggards).toMatchObject([
    { spiffeId: web.id, why: expect.stringMatching(/has confirmed bundle \d+, not \d+/) as string },
  ]);

  renameSync(`${link}.away`, link);
  await eventually('web to confirm', async () => (await report()).next?.safe, { withinMs: 60_000 });
  await ca('activate');
  expect((await ask({ to: outbound, path: '/back' })).status).toBe(200);
}, 150_000);

async function report(): Promise<CaReport> {
  const { body } = await ask({ to: authority.adminSocket, path: '/v1/ca' });
  return JSON.parse(body) as CaReport;
}

async function post(step: string, body: object = {}) {
  const answer = await ask({
    to: authority.adminSocket,
    method: 'POST',
    path: `/v1/ca/${step}`,
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(body),
    timeoutMs: 20_000,
  });
  return { status: answer.status, body: JSON.parse(answer.body) as Record<string, unknown> };
}

async function ca(step: string, body: object = {}): Promise<CaReport> {
  const { status, body: answer } = await post(step, body);
  if (status !== 200) throw new Error(`${step}: ${JSON.stringify(answer)}`);
  return answer as unknown as CaReport;
}

function rootsOf({ authorities }: CaReport): readonly string[] {
  return authorities.filter(({ kind }) => kind === 'root').map(({ keyId }) => keyId);
}
