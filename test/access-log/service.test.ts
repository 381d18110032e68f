import { Client, credentials, type ClientWritableStream } from '@grpc/grpc-js';
import { afterAll, afterEach, describe, expect, test } from 'vitest';
import type { Call, Connection } from '../../src/access-log/entry.ts';
import type { Reporter } from '../../src/access-log/access-log.ts';
import { type AccessLogServiceOptions, createAccessLogService } from '../../src/access-log/service.ts';
import type { RefusalEvent } from '../../src/audit/event.ts';
import { systemClock } from '../../src/clock.ts';
import { MeshError } from '../../src/errors.ts';
import { type GrpcListener, startGrpcListener } from '../../src/grpc/listener.ts';
import type { Attestation } from '../../src/identity/evidence.ts';
import { SpiffeId, TrustDomain } from '../../src/spiffe/id.ts';
import { createBreathe } from '../../src/up-breath.ts';
import { field } from '../ext-authz/proto-bytes.ts';
import { eventually } from '../harness/eventually.ts';
import { createScope } from '../harness/scope.ts';
import { makeTempDir } from '../harness/temp.ts';
import { httpEntry, message, orders, tcpEntry } from './entries.ts';
import { rawStreams } from './raw-stream.ts';

const scope = createScope();
afterAll(() => scope.close());

type Told = {
  calls: [Call, Reporter][];
  connections: [Connection, Reporter][];
  losses: [number, string][];
  refusals: RefusalEvent[];
};
let listener: GrpcListener | undefined;
let client: Client | undefined;
afterEach(async () => {
  client?.close();
  await listener?.close(100);
  [client, listener] = [undefined, undefined];
});

async function serve(options: Partial<AccessLogServiceOptions> = {}) {
  const told: Told = { calls: [], connections: [], losses: [], refusals: [] };
  const path = `${makeTempDir(scope)}/w.sock`;
  const service = createAccessLogService({
    attested: (peer) => ({ selectors: [], caller: peer }),
    entitledIds: () => [orders, second].map((id) => SpiffeId.parse(id)),
    trustDomain: TrustDomain.parse('mesh.test'),
    accessLog: {
      call: (call, reporter) => void told.calls.push([call, reporter]),
      connection: (connection, reporter) => void told.connections.push([connection, reporter]),
      lose: (count, cause) => void told.losses.push([count, cause]),
      tally: { told: () => undefined },
    },
    recordRefusal: (event) => void told.refusals.push(event),
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
    services: [{ ...service, requestBytes: 262_144 }],
  });
  const connected = (client = new Client(`unix:${path}`, credentials.createInsecure()));
  return { told, service, open: () => openStream(connected) };
}

/** A stream of a proxy, and the code that it ends with: 0 for OK. */
function openStream(of: Client) {
  const ended = Promise.withResolvers<number>();
  const pass = (bytes: Buffer): Buffer => bytes;
  const call: ClientWritableStream<Buffer> = of.makeClientStreamRequest(
    '/envoy.service.accesslog.v3.AccessLogService/StreamAccessLogs',
    pass,
    pass,
    (error) => ended.resolve(error?.code ?? 0),
  );
  call.on('error', () => undefined);
  return { call, ended: ended.promise };
}

const second = 'spiffe://mesh.test/ns/shop/sa/second';
const caller = { pid: process.pid, uid: process.getuid?.() ?? -1, gid: process.getgid?.() ?? -1 };

describe('a proxy', () => {
  test('tells of calls and connections, and of itself alone', async () => {
    const { told, open } = await serve();
    const { call, ended } = open();
    call.write(
      message(
        'http',
        httpEntry(),
        httpEntry({ own: second }),
        httpEntry({ own: 'spiffe://mesh.test/ns/pay/sa/ledger' }),
      ),
    );
    call.write(message('tcp', tcpEntry({ own: null, peer: null })));
    call.end();
    expect(await ended).toBe(0);
    const destinations = [...told.calls, ...told.connections].map(([, reporter]) => reporter);
    // What it may not be, it is not, whatever it shows: its own identity is told in its place.
    expect(destinations).toEqual(
      [orders, second, orders, orders].map((destination) => ({ destination, caller })),
    );
    expect(told.losses).toEqual([]);
  });

  test('that never says which log it is, and waits, is served like any other', async () => {
    const { told, open } = await serve();
    const { call } = open();
    call.write(field(2, field(1, httpEntry())));
    await eventually('the call', () => told.calls.length === 1);
    call.cancel();
    await eventually('the loss', () => told.losses.length === 1);
    // What was on its way is lost, and how much of it nobody knows.
    expect(told.losses).toEqual([[1, 'stream_broken']]);
  });

  test.each<[string, Buffer, number, object[]]>([
    [
      'an entry that is none, between others',
      message('http', httpEntry(), Buffer.from([0xff]), httpEntry()),
      2,
      [[1, 'undecodable']],
    ],
    ['an empty entry', message('tcp', Buffer.alloc(0)), 0, [[1, 'undecodable']]],
    ['a message that is none', Buffer.from([0xff, 0xff, 0xff]), 0, [[1, 'undecodable']]],
    [
      'a message that was cut',
      message('http', httpEntry(), httpEntry()).subarray(0, -9),
      0,
      [[1, 'undecodable']],
    ],
    ['an empty message', Buffer.alloc(0), 0, []],
    ['fields that nobody knows', Buffer.concat([field(9, 'x'), message('http', httpEntry())]), 1, []],
  ])('sends %s, and goes on', async (_, bytes, calls, losses) => {
    const { told, open } = await serve();
    const { call, ended } = open();
    call.write(bytes);
    call.write(message('http', httpEntry()));
    call.end();
    expect(await ended).toBe(0);
    expect([told.calls.length, told.losses]).toEqual([calls + 1, losses]);
  });

  test('that opens and leaves without a word has lost nothing', async () => {
    const { told, open } = await serve();
    for (let i = 0; i < 20; i++) {
      const { call, ended } = open();
      call.cancel();
      await ended;
    }
    expect(told.losses).toEqual([]);
  });

  test('with more entries in a message than there is time for keeps nobody waiting', async () => {
    const { told, open } = await serve();
    const { call, ended } = open();
    const entries = Array.from({ length: 300 }, () => httpEntry());
    for (let i = 0; i < 40; i++) call.write(message('http', ...entries));
    // A hundred thousand that are nothing.
    call.write(field(2, Buffer.concat(Array.from({ length: 100_000 }, () => field(1, '')))));
    call.end();
    let turns = 0;
    const counting = setInterval(() => (turns += 1), 1);
    expect(await ended).toBe(0);
    clearInterval(counting);
    expect(told.calls).toHaveLength(12_000);
    expect(told.losses).toHaveLength(100_000);
    expect(turns).toBeGreaterThan(20);
  }, 60_000);

  test('with a message that is too large loses it and its stream, and nothing else', async () => {
    const { told, open } = await serve();
    const { call, ended } = open();
    call.write(message('http', httpEntry()));
    await eventually('the call', () => told.calls.length === 1);
    call.write(Buffer.alloc(300_000));
    expect(await ended).not.toBe(0);
    await eventually('the loss', () => told.losses.length === 1);
    expect(told.losses).toEqual([[1, 'stream_broken']]);
    const again = open();
    again.call.end(message('http', httpEntry()));
    expect(await again.ended).toBe(0);
    expect(told.calls).toHaveLength(2);
  });
});

describe('a process', () => {
  test.each<[string, Partial<AccessLogServiceOptions>, number, string]>([
    ['without an identity', { entitledIds: () => [] }, 7, 'identity_none'],
    [
      'that cannot be attested',
      { attested: () => Promise.reject(new MeshError('attestation_failed', 'it is gone')) },
      16,
      'attestation_failed',
    ],
  ])('%s is refused before anything is read, and on record', async (_, options, code, refused) => {
    const { told, open } = await serve(options);
    for (let i = 0; i < 3; i++) {
      const { call, ended } = open();
      call.write(message('http', httpEntry()));
      expect(await ended).toBe(code);
    }
    expect(told.calls).toEqual([]);
    expect(told.refusals).toMatchObject([{ door: 'access_log', code: refused, caller, count: 1 }]);
  });

  test('that loses its identity tells no more, and what it told is lost', async () => {
    let ids = [SpiffeId.parse(orders)];
    const { told, open } = await serve({ entitledIds: () => ids });
    const { call, ended } = open();
    call.write(message('http', httpEntry()));
    await eventually('the call', () => told.calls.length === 1);
    ids = [];
    call.write(message('http', httpEntry(), httpEntry()));
    expect(await ended).toBe(7);
    expect(told.losses).toEqual([[2, 'reporter_unknown']]);
  });

  test('that has ended a moment ago has told its last', async () => {
    let isGone = false;
    const attested = (): Attestation => {
      if (isGone) throw new MeshError('attestation_failed', 'the process has ended');
      return { selectors: [], caller };
    };
    const { told, open } = await serve({ attested });
    const { call, ended } = open();
    call.write(message('http', httpEntry()));
    await eventually('the call', () => told.calls.length === 1);
    isGone = true;
    call.end(message('http', httpEntry()));
    expect(await ended).toBe(0);
    expect([told.calls.length, told.losses, told.refusals]).toEqual([2, [], []]);
  });

  test('may open so many streams and no more, and others when it has closed some', async () => {
    const { told, open } = await serve({ limits: { streamsPerConnection: 2 } });
    const tell = (): ReturnType<typeof open> => {
      const stream = open();
      stream.call.write(message('http', httpEntry()));
      return stream;
    };
    const [first] = [tell(), tell()];
    await eventually('two', () => told.calls.length === 2);
    expect(await tell().ended).toBe(8);
    first.call.end();
    expect(await first.ended).toBe(0);
    const third = tell();
    third.call.end();
    expect(await third.ended).toBe(0);
  });
});

test('messages that never come to their end are held up to a bound, of a uid and of all', async () => {
  const { told } = await serve({ limits: { partialBytesPerUid: 75_000, partialBytes: 10_000_000 } });
  const begin = rawStreams(
    scope,
    listener!.path,
    '/envoy.service.accesslog.v3.AccessLogService/StreamAccessLogs',
  );
  const body = Buffer.concat([message('http', httpEntry({})), field(99, Buffer.alloc(30_000))]);
  const framed = Buffer.concat([Buffer.alloc(5), body]);
  framed.writeUInt32BE(body.length, 1);
  const held = [begin(), begin()];
  for (const { write } of held) await write(framed.subarray(0, -1));
  const third = begin();
  await third.write(framed.subarray(0, -1));
  expect(await third.status).toBe('8');
  expect(told.refusals.map(({ code }) => code)).toEqual(['stream_limit']);
  expect(told.losses).toEqual([[1, 'stream_broken']]);
  // Those that were there before are served, and what the other held is given free.
  for (const { stream, status } of held) {
    stream.end(framed.subarray(-1));
    expect(await status).toBe('0');
  }
  for (let more = 0; more < 3; more++) {
    const { stream, status } = begin();
    stream.end(framed);
    expect(await status).toBe('0');
  }
  expect(told.calls).toHaveLength(5);
});

test('at the end streams are ended in order, and nothing of it is a loss', async () => {
  const { told, open, service } = await serve();
  const { call, ended } = open();
  call.write(message('http', httpEntry()));
  await eventually('the call', () => told.calls.length === 1);
  service.close();
  expect(await ended).toBe(0);
  expect(told.losses).toEqual([]);
  expect(await open().ended).toBe(14);
});

test('of a proxy that tells faster than it is read, little is kept', async () => {
  const held = Promise.withResolvers<undefined>();
  let isFirst = true;
  const { told, open } = await serve({
    // Whoever reads stands still after the first entry.
    breathe: () => {
      if (!isFirst) return undefined;
      isFirst = false;
      return held.promise;
    },
  });
  const { call, ended } = open();
  const large = message('http', ...Array.from({ length: 300 }, () => httpEntry()));
  let written = 0;
  const write = (): void => {
    while (written < 200) {
      written += 1;
      if (!call.write(large)) break;
    }
  };
  call.on('drain', write);
  write();
  await eventually('the first', () => told.calls.length === 1);
  // However long: what does not fit waits at the sender.
  await new Promise((resolve) => setTimeout(resolve, 200));
  expect(written).toBeLessThan(100);
  held.resolve(undefined);
  await eventually('all to be written', () => written === 200, { withinMs: 60_000 });
  call.end();
  expect(await ended).toBe(0);
  expect(told.calls).toHaveLength(60_000);
}, 90_000);
