import { afterAll, beforeAll, expect, test } from 'vitest';
import { startHttpApp } from '../harness/apps.ts';
import { type Authority, startAuthority } from '../harness/authority.ts';
import { eventually } from '../harness/eventually.ts';
import { ask } from '../harness/http.ts';
import { entry, policy, type Sidecar, startSidecar } from '../harness/mesh.ts';
import { createScope } from '../harness/scope.ts';
import { freePorts, makeTempDir } from '../harness/temp.ts';

const scope = createScope();
afterAll(() => scope.close());

let authority: Authority;
let orders: Sidecar;
let web: Sidecar;
let inbound: number;
let outbound: number;

beforeAll(async () => {
  const directory = makeTempDir(scope);
  authority = await startAuthority(scope, { directory });
  [inbound, outbound] = (await freePorts(2)) as [number, number];
  const app = await startHttpApp(scope, 'orders');
  orders = startSidecar(scope, {
    authority,
    directory,
    service: 'shop/orders',
    ways: { inbound: `127.0.0.1:${inbound}`, app: `127.0.0.1:${app.port}` },
  });
  web = startSidecar(scope, {
    authority,
    directory,
    service: 'shop/web',
    ways: { outbound: [`127.0.0.1:${outbound}=${orders.id}@127.0.0.1:${inbound}`] },
  });
});

test('a proxy without an entry stays shut, and gets its certificate on the open stream once there is one', async () => {
  await authority.apply(entry(web.id, web.binary) + policy('shop', 'all', { rules: [{}] }));
  await web.live();
  await eventually('the refusal in the log', async () => (await authority.audit('type=refusal')).length > 0);
  await eventually(
    'an open SDS stream',
    async () => (await orders.stat(/^sds\..*\.control_plane\.connected_state$/)) >= 2,
  );
  expect(await orders.isLive()).toBe(false);
  expect(await orders.certificates()).toEqual([]);
  await expect(ask({ to: inbound, path: '/' })).rejects.toThrow(/ECONNREFUSED/);
  expect((await ask({ to: outbound, path: '/' })).status).toBe(503);

  const streams = await orders.stat(/^cluster\.countersign_identity\.upstream_rq_total$/);
  await authority.apply(entry(orders.id, orders.binary));
  await orders.live();
  expect((await orders.certificates()).map(({ uris }) => uris)).toEqual([[orders.id]]);
  await eventually('a call to pass', async () => (await ask({ to: outbound, path: '/' })).status === 200);
  expect(await orders.stat(/^cluster\.countersign_identity\.upstream_rq_total$/)).toBe(streams);
});

test('a proxy whose entry is taken away may not speak for it any more', async () => {
  await eventually('a call to pass', async () => (await ask({ to: outbound, path: '/' })).status === 200);
  await authority.deleteEntry('ns-shop-sa-orders');
  const denied = await eventually('a denial', async () => {
    const answer = await ask({ to: outbound, path: '/' });
    return answer.status === 403 ? answer : undefined;
  });
  expect(denied.body).toContain('caller_unknown');
});
