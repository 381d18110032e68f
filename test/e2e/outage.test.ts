import { connect, type Socket } from 'node:net';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { type HttpApp, startEchoApp, startHttpApp } from '../harness/apps.ts';
import { type Authority, startAuthority } from '../harness/authority.ts';
import { eventually } from '../harness/eventually.ts';
import { ask } from '../harness/http.ts';
import { entry, policy, type Sidecar, startSidecar } from '../harness/mesh.ts';
import { createScope } from '../harness/scope.ts';
import { freePorts, makeTempDir } from '../harness/temp.ts';

const scope = createScope();
afterAll(() => scope.close());

let authority: Authority;
let web: Sidecar;
let orders: Sidecar;
let app: HttpApp;
let toHttp: number;
let toTcp: number;

beforeAll(async () => {
  const directory = makeTempDir(scope);
  authority = await startAuthority(scope, { directory });
  const [inHttp, inTcp, outHttp, outTcp] = (await freePorts(4)) as [number, number, number, number];
  [toHttp, toTcp] = [outHttp, outTcp];
  app = await startHttpApp(scope, 'orders');
  const echo = await startEchoApp(scope);
  const at = (port: number) => `127.0.0.1:${port}`;
  orders = startSidecar(scope, {
    authority,
    directory,
    service: 'shop/orders',
    ways: { inbound: at(inHttp), app: at(app.port), inboundTcpOpen: [`${at(inTcp)}=${at(echo.port)}`] },
  });
  web = startSidecar(scope, {
    authority,
    directory,
    service: 'shop/web',
    ways: {
      outbound: [`${at(outHttp)}=${orders.id}@${at(inHttp)}`],
      outboundTcp: [`${at(outTcp)}=${orders.id}@${at(inTcp)}`],
    },
  });
  await authority.apply(
    [
      // Half of it passes during the test: both renew once the authority is back.
      entry(web.id, web.binary, { ttlSeconds: 60 }),
      entry(orders.id, orders.binary, { ttlSeconds: 60 }),
      policy('shop', 'all', { rules: [{}] }),
    ].join(''),
  );
  await Promise.all([web.live(), orders.live()]);
});

test('an authority that is killed takes no connection with it, lets no call pass, and is found again', async () => {
  const open = await openEcho();
  expect(await open.say('before')).toBe('before');
  await eventually('a call to pass', async () => (await ask({ to: toHttp, path: '/1' })).status === 200);
  const serial = (await orders.certificates())[0]?.serial;

  await authority.kill();
  expect(await open.say('during')).toBe('during');
  const handshakes = await orders.stat(/^listener\..*\.ssl\.handshake$/);
  const fresh = await openEcho();
  expect(await fresh.say('a new connection')).toBe('a new connection');
  expect(await orders.stat(/^listener\..*\.ssl\.handshake$/)).toBe(handshakes + 1);
  const passed = app.seen.length;
  for (let i = 0; i < 20; i++) {
    expect((await ask({ to: toHttp, path: `/outage/${i}` })).status).toBe(503);
  }
  expect(app.seen.length).toBe(passed);
  const logged = await eventually('the outage in the access log', () =>
    orders.accessLog().find(({ path }) => path === '/outage/0'),
  );
  expect(logged).toMatchObject({ status: 503, status_details: 'ext_authz_error' });

  await authority.restart();
  const back = { withinMs: 10_000 };
  await eventually(
    'calls to pass again',
    async () => (await ask({ to: toHttp, path: '/2' })).status === 200,
    back,
  );
  for (const sidecar of [web, orders]) {
    await eventually(
      `${sidecar.name} to speak SDS again`,
      async () => (await sidecar.stat(/^sds\..*\.control_plane\.connected_state$/)) >= 2,
      back,
    );
  }
  expect(await open.say('after')).toBe('after');
  expect(await (await openEcho()).say('another')).toBe('another');
  // And the open SDS stream is a live one: the next renewal arrives.
  await eventually(
    'a new certificate',
    async () => (await orders.certificates()).some((certificate) => certificate.serial !== serial),
    { withinMs: 45_000, everyMs: 250 },
  );
}, 100_000);

/** A TCP connection through both sidecars. */
async function openEcho(): Promise<{ say: (text: string) => Promise<string> }> {
  const socket: Socket = connect(toTcp, '127.0.0.1');
  scope.defer(() => socket.destroy());
  let heard = '';
  let failed: Error | undefined;
  socket.on('data', (chunk: Buffer) => {
    heard += chunk.toString('utf8');
  });
  socket.on('error', (error) => {
    failed = error;
  });
  socket.on('close', () => {
    failed ??= new Error('the connection was closed');
  });
  return {
    say: async (text) => {
      heard = '';
      socket.write(text);
      await eventually(
        `an echo of ${text}`,
        () => {
          if (failed !== undefined) throw failed;
          return heard.length >= text.length;
        },
        { withinMs: 5_000, everyMs: 10 },
      );
      return heard;
    },
  };
}
