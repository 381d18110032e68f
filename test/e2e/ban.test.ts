import { Agent, request } from 'node:http';
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest';
import { startHttpApp } from '../harness/apps.ts';
import { type Authority, startAuthority } from '../harness/authority.ts';
import { eventually } from '../harness/eventually.ts';
import { entry, policy, type Sidecar, startSidecar } from '../harness/mesh.ts';
import { createScope } from '../harness/scope.ts';
import { freePorts, makeTempDir } from '../harness/temp.ts';

const scope = createScope();
afterAll(() => scope.close());

let authority: Authority;
let web: Sidecar;
let orders: Sidecar;
let toOrders: number;
const connectionSeconds = 5;
const agent = new Agent({ keepAlive: true, maxSockets: 1 });
scope.defer(() => agent.destroy());

beforeAll(async () => {
  const directory = makeTempDir(scope);
  // The serial that a call has shown is looked for in its own record.
  const env = { COUNTERSIGN_ALLOWED_CALLS_WINDOW_SECONDS: '0' };
  authority = await startAuthority(scope, { directory, env });
  const [inbound, outbound] = (await freePorts(2)) as [number, number];
  toOrders = outbound;
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
    // A new certificate reaches the other side with the next connection.
    connectionSeconds,
  });
  await authority.apply(
    [
      entry(web.id, web.binary, { ttlSeconds: 20 }),
      entry(orders.id, orders.binary),
      policy('shop', 'all', { rules: [{}] }),
    ].join(''),
  );
  await Promise.all([web.live(), orders.live()]);
});

beforeEach(async () => {
  await eventually('a call to pass', async () => (await call()).status === 200);
});

test('denies the very next calls of an open connection, stops renewal, and lifts without a restart', async () => {
  const connections = await orders.stat(/^http\.inbound.*downstream_cx_total$/);
  const denials = [];
  const from = Date.now();
  await authority.ban('spiffe-id', web.id);
  for (let i = 0; i < 5; i++) denials.push(await call());
  expect(denials.map(({ status }) => status)).toEqual([403, 403, 403, 403, 403]);
  expect(denials[0]?.body).toContain('denied by policy: banned; decision ');
  const aged = 1 + Math.floor((Date.now() - from) / (connectionSeconds * 1_000));
  expect(await orders.stat(/^http\.inbound.*downstream_cx_total$/)).toBeLessThanOrEqual(connections + aged);

  // Its certificate lives 20 seconds: without the ban there would be new ones.
  const [before] = await web.certificates();
  const issued = await issuances();
  await new Promise((resolve) => setTimeout(resolve, 12_000));
  expect(await issuances()).toBe(issued);
  expect((await web.certificates()).map(({ serial }) => serial)).toEqual([before?.serial]);
  await eventually('the refusal in the log', async () =>
    (await authority.audit('type=refusal')).some(
      ({ door, code, resource }) => door === 'sds' && code === 'identity_banned' && resource === web.id,
    ),
  );

  await authority.unban('spiffe-id', web.id);
  await eventually('a new certificate', async () =>
    (await web.certificates()).some(({ serial }) => serial !== before?.serial),
  );
  await eventually('a call to pass', async () => (await call()).status === 200);
  const bans = await authority.audit('type=ban');
  expect(bans.map(({ action, value }) => [action, value])).toEqual([
    ['created', web.id],
    ['lifted', web.id],
  ]);
}, 60_000);

test('of a destination denies the calls to it', async () => {
  await authority.ban('spiffe-id', orders.id);
  expect(await call()).toMatchObject({ status: 403, body: expect.stringContaining('banned') as string });
  await authority.unban('spiffe-id', orders.id);
  expect((await call()).status).toBe(200);
});

test.each(['serial', 'key'] as const)(
  'of a %s denies the certificate that has it, and no other',
  async (kind) => {
    // A connection may outlive a renewal: only a certificate that is both shown and held can be the one to end.
    const serial = await eventually('a call with the certificate of now', async () => {
      await call();
      const shown = (await authority.audit('type=decision')).at(-1)?.['sourceSerial'];
      const [held] = await web.certificates();
      // With time left until it is renewed: the next connection would show another one.
      const isYoung = Number(held?.validUntil) - Date.now() > 13_000;
      return isYoung && shown === held?.serial && held?.serial;
    });
    const [issuance] = await authority.audit(`type=issuance&serial=${serial}`);
    await authority.ban(kind, kind === 'serial' ? serial : String(issuance?.['spkiSha256']));
    expect(await call()).toMatchObject({ status: 403, body: expect.stringContaining('banned') as string });
    // A new certificate is made at once; it is used when the connection that was denied has reached its age.
    await eventually('a new certificate', async () => !(await serialsOf(web)).includes(serial));
    await eventually('a call to pass', async () => (await call()).status === 200);
    const denied = (await authority.audit('type=decision&verdict=deny')).filter(
      ({ reason, sourceSerial }) => reason === 'banned' && sourceSerial === serial,
    );
    expect(denied.length).toBeGreaterThan(0);
  },
  60_000,
);

async function issuances(): Promise<number> {
  return (await authority.audit(`type=issuance&source=${encodeURIComponent(web.id)}`)).length;
}

async function serialsOf(sidecar: Sidecar): Promise<string[]> {
  return (await sidecar.certificates()).map(({ serial }) => serial);
}

/** A call over one connection that stays open. */
function call(): Promise<{ status: number; body: string }> {
  return new Promise((resolve, reject) => {
    const sent = request(
      { host: '127.0.0.1', port: toOrders, path: '/x', agent, timeout: 10_000 },
      (response) => {
        const chunks: Buffer[] = [];
        response.on('data', (chunk: Buffer) => chunks.push(chunk));
        response.on('error', reject);
        response.on('end', () =>
          resolve({ status: response.statusCode ?? 0, body: Buffer.concat(chunks).toString('utf8') }),
        );
      },
    );
    sent.on('timeout', () => sent.destroy(new Error('no answer')));
    sent.on('error', reject);
    sent.end();
  });
}
