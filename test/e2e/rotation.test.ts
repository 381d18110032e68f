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
let outbound: number;

beforeAll(async () => {
  const directory = makeTempDir(scope);
  authority = await startAuthority(scope, { directory });
  const [inbound, port] = (await freePorts(2)) as [number, number];
  outbound = port;
  const app = await startHttpApp(scope, 'orders');
  orders = startSidecar(scope, {
    authority,
    directory,
    service: 'shop/orders',
    // Connections end often, so that requests meet handshakes with every new certificate.
    ways: {
      inbound: `127.0.0.1:${inbound}`,
      app: `127.0.0.1:${app.port}`,
      maxConnectionDuration: '10s',
    },
  });
  web = startSidecar(scope, {
    authority,
    directory,
    service: 'shop/web',
    ways: {
      outbound: [`127.0.0.1:${outbound}=${orders.id}@127.0.0.1:${inbound}`],
      maxConnectionDuration: '10s',
    },
  });
  await authority.apply(
    [
      entry(web.id, web.binary, { ttlSeconds: 20 }),
      entry(orders.id, orders.binary, { ttlSeconds: 20 }),
      policy('shop', 'all', { rules: [{}] }),
    ].join(''),
  );
  await Promise.all([web.live(), orders.live()]);
});

test('certificates of 20 seconds are renewed again and again under requests that all succeed', async () => {
  await eventually('a call to pass', async () => (await ask({ to: outbound, path: '/' })).status === 200);
  const serials = new Map([web, orders].map((sidecar) => [sidecar.name, new Set<string>()]));
  const statuses = new Map<number, number>();
  const enough = () => [...serials.values()].every((seen) => seen.size >= 3);
  const deadline = Date.now() + 50_000;
  const load = async (): Promise<void> => {
    while (!enough() && Date.now() < deadline) {
      const { status } = await ask({ to: outbound, path: '/load' });
      statuses.set(status, (statuses.get(status) ?? 0) + 1);
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
  };
  const watch = async (sidecar: Sidecar): Promise<void> => {
    while (!enough() && Date.now() < deadline) {
      for (const certificate of await sidecar.certificates()) {
        expect(certificate.validUntil.getTime()).toBeGreaterThan(Date.now());
        serials.get(sidecar.name)?.add(certificate.serial);
      }
      await new Promise((resolve) => setTimeout(resolve, 200));
    }
  };
  await Promise.all([load(), load(), watch(web), watch(orders)]);

  for (const [name, seen] of serials) expect([name, seen.size >= 3]).toEqual([name, true]);
  // Before the numbers, because this says why.
  const failed = [web, orders].flatMap((sidecar) =>
    sidecar
      .accessLog()
      .filter(
        ({ path, status, tls_failure: failure }) =>
          (path === '/load' && status !== 200) || typeof failure === 'string',
      ),
  );
  expect(failed).toEqual([]);
  expect([...statuses.keys()]).toEqual([200]);
  expect(statuses.get(200)).toBeGreaterThan(100);
  const issued = (await authority.audit('type=issuance')).map(({ serial }) => serial);
  for (const serial of [...serials.values()].flatMap((seen) => [...seen])) expect(issued).toContain(serial);
}, 80_000);
