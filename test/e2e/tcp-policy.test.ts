import { connect } from 'node:net';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { type Authority, startAuthority } from '../harness/authority.ts';
import { eventually } from '../harness/eventually.ts';
import { entry, policy, type Sidecar, startSidecar } from '../harness/mesh.ts';
import { createScope } from '../harness/scope.ts';
import { startEchoApp } from '../harness/apps.ts';
import { freePorts, makeTempDir } from '../harness/temp.ts';

const scope = createScope();
afterAll(() => scope.close());

let authority: Authority;
let web: Sidecar;
let orders: Sidecar;
let inbound: number;
let toOrders: number;

beforeAll(async () => {
  const directory = makeTempDir(scope);
  authority = await startAuthority(scope, {
    directory,
    env: { COUNTERSIGN_ALLOWED_CALLS_WINDOW_SECONDS: '0' },
  });
  [inbound, toOrders] = (await freePorts(2)) as [number, number];
  const echo = await startEchoApp(scope);
  orders = startSidecar(scope, {
    authority,
    directory,
    service: 'shop/orders',
    ways: { inboundTcp: [`127.0.0.1:${inbound}=127.0.0.1:${echo.port}`] },
  });
  web = startSidecar(scope, {
    authority,
    directory,
    service: 'shop/web',
    ways: { outboundTcp: [`127.0.0.1:${toOrders}=${orders.id}@127.0.0.1:${inbound}`] },
  });
  await authority.apply([entry(web.id, web.binary), entry(orders.id, orders.binary)].join(''));
  await Promise.all([web.live(), orders.live()]);
});

const toInbound = () => [{ operation: { ports: [String(inbound)] } }];
const fromWeb = [{ source: { principals: ['mesh.test/ns/shop/sa/web'] } }];

test.each([
  ['no policy', () => null, '', 'no_policy'],
  [
    'an ALLOW for HTTP only',
    () => ({ rules: [{ from: fromWeb, to: [{ operation: { methods: ['GET'] } }] }] }),
    '',
    'no_allow_rule',
  ],
  ['an ALLOW for the port', () => ({ rules: [{ from: fromWeb, to: toInbound() }] }), 'hello', 'allow_rule'],
  ['a DENY for the port', () => ({ action: 'DENY', rules: [{ to: toInbound() }] }), '', 'deny_rule'],
])('a TCP connection under %s', async (_, spec, answer, reason) => {
  const made = spec();
  if (made !== null) await authority.apply(policy('shop', 'tcp', made));
  expect(await say('hello')).toBe(answer);
  const decision = await eventually('the decision in the log', async () =>
    (await authority.audit('type=decision')).find((event) => event['reason'] === reason),
  );
  expect(decision).toMatchObject({
    protocol: 'tcp',
    source: web.id,
    destination: orders.id,
    port: inbound,
    verdict: answer === '' ? 'deny' : 'allow',
  });
});

test('no new TCP connection passes while no decision can be had', async () => {
  await authority.apply(policy('shop', 'tcp', { rules: [{ from: fromWeb, to: toInbound() }] }));
  expect(await say('before')).toBe('before');
  await authority.kill();
  expect(await say('during')).toBe('');
});

/** What the echo application answers, or nothing when the connection is closed first. */
function say(text: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = connect(toOrders, '127.0.0.1', () => socket.write(text));
    let heard = '';
    socket.setTimeout(10_000, () => socket.destroy(new Error('no answer within 10 s')));
    socket.on('data', (chunk: Buffer) => {
      heard += chunk.toString('utf8');
      if (heard.length >= text.length) socket.destroy();
    });
    socket.on('error', reject);
    socket.on('close', () => resolve(heard));
  });
}
