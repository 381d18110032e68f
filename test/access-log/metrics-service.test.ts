import { Client, credentials } from '@grpc/grpc-js';
import { afterAll, afterEach, describe, expect, test } from 'vitest';
import { createMetricsService, type MetricsServiceOptions } from '../../src/access-log/metrics-service.ts';
import { readPolicyCounters } from '../../src/access-log/proxy-counters.ts';
import type { ProxyCount } from '../../src/access-log/proxy-tally.ts';
import type { Caller } from '../../src/audit/event.ts';
import { systemClock } from '../../src/clock.ts';
import { MeshError } from '../../src/errors.ts';
import { type GrpcListener, startGrpcListener } from '../../src/grpc/listener.ts';
import { SpiffeId } from '../../src/spiffe/id.ts';
import { createBreathe } from '../../src/up-breath.ts';
import { CounterFamily, StreamMetricsMessage } from '../../src/wire/metrics.ts';
import { field } from '../ext-authz/proto-bytes.ts';
import { eventually } from '../harness/eventually.ts';
import { createScope } from '../harness/scope.ts';
import { makeTempDir } from '../harness/temp.ts';
import { orders } from './entries.ts';
import { rawStreams } from './raw-stream.ts';

const scope = createScope();
afterAll(() => scope.close());

type Families = Readonly<Record<string, number>>;
const at = 1_795_323_987_119;

/** A message as Envoy writes it; gauges are those that it has as such. */
function metrics(families: Families): Buffer {
  const envoyMetrics = Object.entries(families).map(([name, value]) => {
    const isGauge = /active|uptime/.test(name);
    const [counter, gauge] = isGauge ? [undefined, { value }] : [{ value }, undefined];
    const metric = [{ label: [], gauge, counter, timestampMs: BigInt(at) }];
    return Buffer.from(CounterFamily.encode({ name, type: isGauge ? 1 : 0, metric }).finish());
  });
  return Buffer.from(StreamMetricsMessage.encode({ envoyMetrics }).finish());
}

const usual: Families = {
  'http.inbound.rbac.allowed': 30,
  'http.inbound.rbac.denied': 4,
  'http.inbound.downstream_rq_active': 2,
  'server.uptime': 77,
  'cluster.app.upstream_rq_active': 9,
};

describe('the counters of policy in a message', () => {
  test.each<[string, Families, object | undefined]>([
    ['of one listener', usual, { judged: 34, active: 2, uptimeSeconds: 77, dropped: 0, atMs: at }],
    [
      'of several listeners, and what was dropped',
      {
        ...usual,
        'http.second.one.rbac.countersign.allowed': 6,
        'http.second.one.downstream_rq_active': 3,
        'access_logs.grpc_access_log.logs_dropped': 5,
      },
      { judged: 40, active: 5, dropped: 5 },
    ],
    [
      'of TCP are denials',
      { 'countersign_tcp.rbac.denied': 3, 'countersign_tcp.rbac.allowed': 9 },
      { judged: 3 },
    ],
    [
      'leave out trials, single rules and policies of others',
      {
        ...usual,
        'http.inbound.rbac.shadow_denied': 7,
        'http.inbound.rbac.policy.deny:no_policy.denied': 4,
        'http.inbound.rbac.mine.allowed': 4,
        'http.outbound.downstream_rq_active': 4,
      },
      { judged: 34, active: 2 },
    ],
    [
      'are none where there is no policy',
      { 'server.uptime': 77, 'http.inbound.downstream_rq_active': 2 },
      undefined,
    ],
    ['are none in nothing', {}, undefined],
    ['below zero are none', { 'http.inbound.rbac.allowed': -5 }, { judged: 0 }],
    ['that are no numbers are none', { 'http.inbound.rbac.allowed': Number.NaN }, { judged: 0 }],
    [
      'without an end have one',
      { 'http.a.rbac.allowed': Number.MAX_VALUE, 'http.b.rbac.allowed': Number.MAX_VALUE },
      { judged: 2 ** 40 },
    ],
    ['that are infinite are none', { 'http.a.rbac.allowed': Number.POSITIVE_INFINITY }, { judged: 0 }],
    ['are of whole calls', { 'http.a.rbac.allowed': 1.9 }, { judged: 1 }],
  ])('%s', (_, families, expected) => {
    const read = readPolicyCounters(metrics(families));
    if (expected === undefined) expect(read).toBeUndefined();
    else expect(read).toMatchObject(expected);
  });

  test.each([
    ['a family without a name', field(2, Buffer.alloc(0))],
    ['a name that is too long', metrics({ [`http.${'a'.repeat(1_000)}.rbac.allowed`]: 1 })],
    ['another field', field(9, 'x')],
  ])('are none in %s', (_, message) => {
    expect(readPolicyCounters(message)).toBeUndefined();
  });

  test('are none in what is no message', () => {
    expect(() => readPolicyCounters(Buffer.from([0xff, 0xff]))).toThrow();
    expect(() => readPolicyCounters(metrics(usual).subarray(0, -3))).toThrow();
  });
});

let listener: GrpcListener | undefined;
let client: Client | undefined;
afterEach(async () => {
  client?.close();
  await listener?.close(100);
  [client, listener] = [undefined, undefined];
});

async function serve(options: Partial<MetricsServiceOptions> = {}) {
  const told = { counts: [] as ProxyCount[], ended: [] as Caller[] };
  const path = `${makeTempDir(scope)}/w.sock`;
  const service = createMetricsService({
    attested: (peer) => ({ selectors: [], caller: peer }),
    entitledIds: () => [SpiffeId.parse(orders)],
    tally: {
      counted: (count) => void told.counts.push(count),
      ended: (caller) => void told.ended.push(caller),
    },
    clock: systemClock,
    breathe: createBreathe(3),
    report: (error) => {
      throw error;
    },
    ...options,
  });
  listener = await startGrpcListener({
    path,
    mode: 0o600,
    services: [{ ...service, requestBytes: 1_048_576 }],
  });
  const connected = (client = new Client(`unix:${path}`, credentials.createInsecure()));
  const open = () => {
    const ended = Promise.withResolvers<number>();
    const pass = (bytes: Buffer): Buffer => bytes;
    const call = connected.makeClientStreamRequest<Buffer, Buffer>(
      '/envoy.service.metrics.v3.MetricsService/StreamMetrics',
      pass,
      pass,
      (error) => ended.resolve(error?.code ?? 0),
    );
    call.on('error', () => undefined);
    return { call, ended: ended.promise };
  };
  return { told, service, open };
}

const caller = { pid: process.pid, uid: process.getuid?.() ?? -1, gid: process.getgid?.() ?? -1 };

describe('a proxy that tells its counters', () => {
  test('counts for itself, and is known by its process', async () => {
    const { told, open } = await serve();
    const { call, ended } = open();
    call.write(metrics({ 'server.uptime': 1 }));
    call.end(metrics(usual));
    // Two in half a second are one: the first.
    expect(await ended).toBe(0);
    const again = open();
    again.call.end(metrics(usual));
    expect(await again.ended).toBe(0);
    expect(told.counts).toMatchObject([{ judged: 34, destination: orders, caller }]);
    expect(told.ended).toEqual([caller]);
  });

  test('is told apart from one that has no identity, or ends with its process', async () => {
    const nobody = await serve({ entitledIds: () => [] });
    expect(await nobody.open().ended).toBe(7);
  });

  test.each<[string, Partial<MetricsServiceOptions>, Buffer, number]>([
    ['that cannot be attested', { attested: () => gone() }, metrics(usual), 16],
    ['that sends what is no message', {}, Buffer.from([0xff, 0xff]), 3],
    ['that sends too much', {}, metrics({ ...usual, ['x'.repeat(1_100_000)]: 1 }), 8],
  ])('%s is refused', async (_, options, message, code) => {
    const { open, told } = await serve(options);
    const { call, ended } = open();
    call.write(message);
    expect([await ended, told.counts]).toEqual([code, []]);
  });

  test('that has just ended is heard to its end, and a minute later is not', async () => {
    let attested = 0;
    let now = systemClock.now().getTime();
    const clock = { ...systemClock, now: () => new Date(now) };
    const { open, told } = await serve({
      clock,
      attested: (peer) => (++attested > 2 ? gone() : { selectors: [], caller: peer }),
    });
    const { call, ended } = open();
    call.write(metrics(usual));
    await eventually('the first', () => told.counts.length === 1);
    now += 1_000;
    call.write(metrics({ ...usual, 'http.inbound.rbac.allowed': 31 }));
    await eventually('the last', () => told.counts.length === 2);
    now += 60_000;
    call.write(metrics(usual));
    expect(await ended).toBe(16);
    expect(told.counts).toHaveLength(2);
  });

  test('that never comes to the end of its message is turned away where too much is held already', async () => {
    const { told } = await serve({ limits: { partialBytesPerUid: 75_000 } });
    const body = metrics({ ...usual, ['x'.repeat(30_000)]: 1 });
    const framed = Buffer.concat([Buffer.alloc(5), body]);
    framed.writeUInt32BE(body.length, 1);
    const open = rawStreams(scope, listener!.path, '/envoy.service.metrics.v3.MetricsService/StreamMetrics');
    const begin = async () => {
      const { stream, write, status } = open();
      await write(framed.subarray(0, -1));
      return { stream, status };
    };
    const held = [await begin(), await begin()];
    expect(await (await begin()).status).toBe('8');
    for (const { stream, status } of held) {
      stream.end(framed.subarray(-1));
      expect(await status).toBe('0');
    }
    expect(told.counts.length).toBeGreaterThan(0);
  });

  test('has four streams at most, and loses them in peace when the door closes', async () => {
    const { open, service } = await serve();
    const all = Array.from({ length: 5 }, () => open());
    expect(await Promise.race(all.map(({ ended }) => ended))).toBe(8);
    service.close();
    const codes = await Promise.all(all.map(({ ended }) => ended));
    expect(codes.toSorted()).toEqual([0, 0, 0, 0, 8]);
    expect(await open().ended).toBe(14);
  });
});

function gone(): never {
  throw new MeshError('attestation_failed', 'the process has ended');
}
