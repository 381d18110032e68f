import { connect, type Socket } from 'node:net';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { addressKey } from '../../src/grpc/address-key.ts';
import { connectionsPerAddress } from '../../src/http/connection-limit.ts';
import { createTrustRate } from '../../src/http/trust-rate.ts';
import { manualClock } from '../harness/manual-clock.ts';
import { eventually } from '../harness/eventually.ts';
import { type Scope, createScope } from '../harness/scope.ts';
import { startHarness } from './harness.ts';
import { startTrust, type TrustHarness } from './trust-harness.ts';

const ample = { perAddress: { burst: 10_000, perSecond: 1 }, total: { burst: 10_000, perSecond: 1 } };
let scope: Scope;
beforeEach(() => {
  scope = createScope();
});
afterEach(() => scope.close());

async function start(options: Parameters<typeof startTrust>[0]): Promise<TrustHarness> {
  const trust = await startTrust({ rates: ample, ...options });
  scope.defer(() => trust.listener.close(0));
  return trust;
}

/** A connection that says nothing. @returns resolves with how long it lived, in ms */
function silent(port: number, from = '127.0.0.1'): { socket: Socket; closed: Promise<number> } {
  const socket = connect({ host: '127.0.0.1', port, localAddress: from });
  const openedAt = performance.now();
  socket.on('error', () => undefined);
  socket.resume();
  scope.defer(() => socket.destroy());
  return {
    socket,
    closed: new Promise((resolve) => socket.once('close', () => resolve(performance.now() - openedAt))),
  };
}

test.each([
  ['one address', { connections: 100, connectionsPerAddress: 8 }, ['127.0.0.1'], 8, 'address'],
  ['all', { connections: 12, connectionsPerAddress: 8 }, ['127.0.0.1', '127.0.0.2'], 12, 'total'],
] as const)('connections of %s are bounded, and come free again', async (_, limits, addresses, most, why) => {
  const trust = await start({ limits: { ...limits, arrivalMs: 60_000 } });
  const sockets = addresses.flatMap((from) => Array.from({ length: 40 }, () => silent(trust.port, from)));
  const left = () => sockets.filter(({ socket }) => !socket.destroyed).length;
  await eventually('the others to be closed', () => left() === most);
  expect(new Set(trust.turnedAway)).toContain(why);
  // Somebody else is served meanwhile, unless the whole door is full.
  if (why === 'address') expect((await trust.ask({ path: '/', from: '127.0.0.9' })).status).toBe(200);
  await expect(trust.ask({ path: '/', from: addresses[0] })).rejects.toThrow();
  for (const { socket } of sockets) socket.destroy();
  await eventually('a place', async () => (await trust.ask({ path: '/' })).status === 200);
});

test('what does not arrive in time is cut: handshake, header, body', async () => {
  const trust = await start({ limits: { arrivalMs: 1_000 } });
  const handshake = silent(trust.port);
  const half = silent(trust.port);
  half.socket.write(Buffer.from('16030100ff', 'hex'));
  const drip = await trust.dial();
  const openedAt = performance.now();
  const dripping = setInterval(() => drip.write('x'), 50);
  scope.defer(() => clearInterval(dripping));
  drip.write('GET / HTTP/1.1\r\nhost: x\r\nx-slow: ');
  const answer = new Promise<string>((resolve) => {
    let text = '';
    drip.on('data', (chunk: Buffer) => (text += chunk.toString('latin1')));
    drip.once('close', () => resolve(text));
  });
  expect(await answer).toMatch(/^HTTP\/1\.1 408 .*"code":"body_invalid"/s);
  // Without that limit it would be five seconds.
  expect(performance.now() - openedAt).toBeLessThan(4_500);
  expect(await handshake.closed).toBeLessThan(4_500);
  expect(await half.closed).toBeLessThan(4_500);
});

test('a connection ends by its age and by its requests, however busy it is', async () => {
  const trust = await start({ limits: { requestsPerConnection: 3 } });
  const request = 'GET / HTTP/1.1\r\nhost: x\r\n\r\n';
  const answers = (await trust.raw(request.repeat(10))).split('HTTP/1.1 ').slice(1);
  expect(answers.map((answer) => answer.slice(0, 3))).toEqual([
    '200',
    '200',
    '200',
    ...answers.slice(3).map(() => '503'),
  ]);
  expect(trust.answers.length).toBe(3);
  const aged = await start({ limits: { connectionAgeMs: 1_000 } });
  const busy = await aged.dial();
  const openedAt = performance.now();
  busy.resume();
  busy.write(request);
  await new Promise((resolve) => busy.once('close', resolve));
  // Before whoever is idle is turned out, which is after five seconds.
  expect(performance.now() - openedAt).toBeLessThan(4_500);
});

test('a reader that does not read holds no more than its own connection', async () => {
  const trust = await start({ limits: { connectionAgeMs: 2_000 } });
  const socket = await trust.dial();
  socket.pause();
  socket.write('GET / HTTP/1.1\r\nhost: x\r\n\r\n'.repeat(1_000));
  const before = trust.answers.length;
  await eventually('answers', () => trust.answers.length > before);
  await new Promise((resolve) => setTimeout(resolve, 2_100));
  expect(trust.answers.length).toBeLessThanOrEqual(100);
  socket.destroy();
});

test('an address that asks too often is told so, and others are not', async () => {
  const rates = { perAddress: { burst: 10, perSecond: 1 }, total: { burst: 1_000, perSecond: 1 } };
  const trust = await start({ rates });
  const socket = await trust.dial('127.0.0.2');
  let text = '';
  socket.on('data', (chunk: Buffer) => (text += chunk.toString('latin1')));
  const closed = new Promise((resolve) => socket.once('close', resolve));
  socket.write('GET / HTTP/1.1\r\nhost: x\r\n\r\n'.repeat(12));
  await closed;
  expect(text.match(/HTTP\/1\.1 200 /g)).toHaveLength(9);
  expect(text).toMatch(/HTTP\/1\.1 429 .*retry-after: 5.*"code":"rate_limited"/s);
  // Even its next connection is closed unread.
  await expect(trust.ask({ path: '/', from: '127.0.0.2' })).rejects.toThrow();
  expect(trust.turnedAway).toEqual(['rate']);
  expect((await trust.ask({ path: '/', from: '127.0.0.3' })).status).toBe(200);
  trust.clock.jump(5_000);
  await expect(trust.ask({ path: '/', from: '127.0.0.2' })).resolves.toMatchObject({ status: 200 });
});

test('all addresses together have one allowance, which one that has used up its own cannot take', async () => {
  const clock = manualClock();
  const rates = { perAddress: { burst: 5, perSecond: 1 }, total: { burst: 20, perSecond: 2 } };
  const take = createTrustRate(clock, rates);
  const granted = (address: string, times: number) =>
    Array.from({ length: times }, () => take(address)).filter(Boolean).length;
  expect(granted('a', 100)).toBe(5);
  expect(['b', 'c', 'd', 'e'].map((address) => granted(address, 10))).toEqual([5, 5, 5, 0]);
  clock.jump(1_000);
  expect(['f', 'a'].map((address) => granted(address, 10))).toEqual([2, 0]);
  // A clock that is put back gives nothing.
  clock.jump(-3_600_000);
  expect(granted('g', 10)).toBe(0);
});

test('closing cuts those who wait in a handshake', async () => {
  const trust = await startTrust({ rates: ample });
  const waiting = silent(trust.port);
  await new Promise((resolve) => waiting.socket.once('connect', resolve));
  const startedAt = performance.now();
  await trust.listener.close(100);
  expect(performance.now() - startedAt).toBeLessThan(4_500);
  await waiting.closed;
});

test.each([
  ['192.0.2.7', '192.0.2.7'],
  ['::ffff:192.0.2.7', '192.0.2.7'],
  ['::FFFF:192.0.2.7', '192.0.2.7'],
  ['2001:db8:1:2:3:4:5:6', '2001:db8:1:2::/64'],
  ['2001:0DB8:0001:0002::1', '2001:db8:1:2::/64'],
  ['2001:db8::1', '2001:db8:0:0::/64'],
  ['2001:db8:0:0:ffff::', '2001:db8:0:0::/64'],
  ['fe80::1%eth0', 'fe80:0:0:0::/64'],
  ['::1', '0:0:0:0::/64'],
  ['::', '0:0:0:0::/64'],
  ['64:ff9b::192.0.2.7', '64:ff9b:0:0::/64'],
  [undefined, ''],
  ['nonsense', 'nonsense'],
])('the address %s counts as %s', (address, key) => {
  expect(addressKey(address)).toBe(key);
});

test('the admin API over TLS has the same bound for one address', async () => {
  const harness = await startHarness();
  scope.defer(harness.close);
  const port = Number(harness.tls.address.split(':').at(-1));
  const sockets = Array.from({ length: connectionsPerAddress + 20 }, () => silent(port, '127.0.0.2'));
  await eventually(
    'the others to be closed',
    () => sockets.filter(({ socket }) => !socket.destroyed).length === connectionsPerAddress,
  );
  expect((await harness.overTls({ path: '/v1/status' })).status).toBe(200);
});
