import { describe, expect, test } from 'vitest';
import { createAccessLog } from '../../src/access-log/access-log.ts';
import type { Call, Connection } from '../../src/access-log/entry.ts';
import { handshakeFailures } from '../../src/audit/access-event.ts';
import type { AuditEvent } from '../../src/audit/event.ts';
import { MeshError } from '../../src/errors.ts';
import { caller, connections, noon, outcome } from '../audit/events.ts';
import { address } from './entries.ts';
import { manualClock } from '../harness/manual-clock.ts';

const orders = { destination: 'spiffe://example.org/ns/shop/sa/orders', caller };
const ledger = { destination: 'spiffe://example.org/ns/pay/sa/ledger', caller };

function call(change: Partial<Call> = {}): Call {
  const { type: _, destination: _destination, caller: _caller, upstream: _upstream, ...rest } = outcome();
  return {
    ...rest,
    upstreamAddress: address('::1', 8_080),
    outcome: 'ok',
    flags: '',
    status: 200,
    isRecorded: false,
    ...change,
  };
}

function connection(change: Partial<Connection> = {}): Connection {
  const {
    type: _,
    from: _from,
    to: _to,
    count: _count,
    destination: _destination,
    caller: _caller,
    ...rest
  } = connections();
  return { ...rest, sourceAddress: rest.sourceAddress.personal, ...change };
}

const at = (ms: number) => new Date(noon.getTime() + ms);

function start(options: { windowSeconds?: number; maxQueued?: number } = {}) {
  const clock = manualClock(noon);
  const told: AuditEvent[] = [];
  let isDown = false;
  const log = createAccessLog({
    record: async (events) => {
      if (isDown) throw new MeshError('store_unavailable', 'the disk is full');
      told.push(...events);
      return [];
    },
    clock,
    allowedCallsWindowSeconds: options.windowSeconds ?? 60,
    onError: () => undefined,
    maxQueued: options.maxQueued ?? 20_000,
  });
  return { log, told, clock, down: (is: boolean) => (isDown = is) };
}

describe('calls', () => {
  test('that agree are counted together, and told once when their window ends', async () => {
    const { log, told, clock } = start();
    log.call(call({ time: at(2_000), durationMs: 7, bytesSent: 10, bytesReceived: 1, status: 204 }), ledger);
    log.call(
      call({ time: at(9_000), durationMs: 90, bytesSent: 5, bytesReceived: 2, decisionId: 'd-2' }),
      ledger,
    );
    log.call(call({ time: at(1_000), durationMs: 8, bytesSent: 1, bytesReceived: 3 }), ledger);
    log.call(call({ status: 404 }), ledger);
    log.call(call(), orders);
    await clock.advance(59_000);
    expect([told, log.depth().queued]).toEqual([[], 3]);
    await clock.advance(2_000);
    expect(told).toMatchObject([
      {
        type: 'outcomes',
        ...{ from: at(1_000), to: at(9_000), time: at(9_000), count: 3 },
        ...{
          statusClass: '2xx',
          longestMs: 90,
          bytesSent: 16,
          bytesReceived: 6,
          destination: ledger.destination,
        },
      },
      { type: 'outcomes', statusClass: '4xx', count: 1 },
      { type: 'outcomes', destination: orders.destination, count: 1 },
    ]);
    expect(told[0]).not.toHaveProperty('decisionId');
  });

  test.each<[string, Partial<Call>]>([
    ['denied', { outcome: 'denied', isRecorded: true }],
    ['marked by a rule', { isRecorded: true }],
    ['failed', { outcome: 'error', status: 503 }],
  ])('that were %s have a record of their own at once', async (_, change) => {
    const { log, told, clock } = start();
    log.call(call(change), ledger);
    await clock.advance(100);
    expect(told).toMatchObject([{ type: 'outcome', decisionId: 'd-1', upstream: '[::1]:8080', ...ledger }]);
    expect(told[0]).not.toHaveProperty('upstreamAddress');
    expect(told[0]).not.toHaveProperty('isRecorded');
  });

  test('have a record of their own each where no window is kept', async () => {
    const { log, told, clock } = start({ windowSeconds: 0 });
    for (let i = 0; i < 3; i++) log.call(call(), ledger);
    await clock.advance(100);
    expect(told.map(({ type }) => type)).toEqual(['outcome', 'outcome', 'outcome']);
  });

  test('that fail again and again are counted, and none is lost', async () => {
    const { log, told, clock } = start();
    for (let i = 0; i < 1_000; i++) log.call(call({ outcome: 'error', status: 503 }), ledger);
    log.call(call({ outcome: 'error', status: 503 }), orders);
    await log.close();
    const own = told.filter(({ type }) => type === 'outcome');
    expect(own).toHaveLength(51);
    expect(told.reduce((sum, event) => sum + ('count' in event ? event.count : 1), 0)).toBe(1_001);
    expect(clock.sleepers()).toBe(0);
  });

  test('that one proxy tells of without end are counted, and those of another have records', async () => {
    const { log, told } = start();
    for (let i = 0; i < 6_000; i++) log.call(call({ outcome: 'denied', isRecorded: true }), ledger);
    log.call(call({ outcome: 'denied', isRecorded: true }), orders);
    await log.close();
    expect(told.filter(({ type }) => type === 'outcome')).toHaveLength(5_001);
    expect(told.reduce((sum, event) => sum + ('count' in event ? event.count : 1), 0)).toBe(6_001);
  });

  test('of more kinds than there is room for are told early, those of others later', async () => {
    const { log, told, clock } = start();
    log.call(call(), orders);
    for (let i = 0; i < 300; i++) log.call(call({ port: i }), ledger);
    await clock.advance(1_000);
    expect(told.map((event) => 'destination' in event && event.destination)).toEqual(
      Array.from({ length: 256 }, () => ledger.destination),
    );
    await log.close();
    expect(told).toHaveLength(301);
  });

  test.each([
    ['no address', Buffer.alloc(0)],
    ['one that is none', Buffer.from([0xff])],
    ['one that is too long', Buffer.alloc(5_000)],
  ])('with %s of who answered have none', async (_, upstreamAddress) => {
    const { log, told } = start();
    log.call(call({ isRecorded: true, upstreamAddress }), ledger);
    await log.close();
    expect(told).toMatchObject([{ type: 'outcome', upstream: '' }]);
  });
});

describe('connections', () => {
  test('that agree are counted together, with the last address and the last claimed serial', async () => {
    const { log, told } = start();
    log.connection(connection({ time: at(5_000) }), ledger);
    log.connection(
      connection({ time: at(1_000), claimedSerial: '02', sourceAddress: '192.0.2.7:1' }),
      ledger,
    );
    await log.close();
    const { claimedSource, failure } = connections();
    expect(told).toEqual([
      {
        ...connections({ from: at(1_000), to: at(5_000), time: at(5_000), count: 2 }),
        ...{ claimedSource, failure, claimedSerial: '02', sourceAddress: { personal: '192.0.2.7:1' } },
      },
    ]);
  });

  test('of strangers that make up names are told under a few of them, and all of them are counted', async () => {
    const { log, told } = start();
    for (let i = 0; i < 10_000; i++) {
      log.connection(connection({ claimedSource: `spiffe://x/${i}`, claimedSerial: i.toString(16) }), ledger);
    }
    log.connection(connection({ claimedSource: 'spiffe://x/a' }), orders);
    expect(log.depth().queued).toBe(34);
    await log.close();
    const names = told.map((event) => event.type === 'connections' && event.claimedSource);
    expect(names.filter((name) => name === '*')).toHaveLength(1);
    expect(names).toContain('spiffe://x/a');
    expect(told.reduce((sum, event) => sum + ('count' in event ? event.count : 0), 0)).toBe(10_001);
  });

  test('of a trust domain that makes up names are bound, too', async () => {
    const { log, told } = start();
    const foreign = { kind: 'foreign', claimedSource: '', claimedSerial: '', failure: '' } as const;
    for (let i = 0; i < 100; i++) {
      const source = `spiffe://other/${i}`;
      log.connection(connection({ ...foreign, source, sourceSerial: 'aa' }), ledger);
    }
    await log.close();
    expect(told).toHaveLength(33);
    expect(told.at(-1)).toMatchObject({ source: '', sourceSerial: '', claimedSource: '*', count: 68 });
  });

  const nobody = { source: '', sourceSerial: '', claimedSerial: '' };
  test.each<[string, (i: number) => Partial<Connection>]>([
    [
      'serials of certificates of another trust domain with two names',
      (i) => ({ kind: 'foreign', claimedSource: 'spiffe://other/a', failure: '', sourceSerial: `${i}` }),
    ],
    [
      'serials of certificates without a name',
      (i) => ({ kind: 'foreign', claimedSource: '', failure: '', sourceSerial: `${i}` }),
    ],
    [
      'names, ports and ways to fail',
      (i) => ({
        kind: 'tls_failed',
        claimedSource: `spiffe://x/${i % 1_000}`,
        port: i % 3,
        failure: handshakeFailures[i % 7]!,
      }),
    ],
  ])('of strangers that make up %s are bound, and cut no window short', async (_, change) => {
    const { log, told, clock } = start();
    for (let i = 0; i < 5_000; i++) log.connection(connection({ ...nobody, ...change(i) }), ledger);
    await clock.advance(1_000);
    expect(told).toEqual([]);
    await log.close();
    expect(told.length).toBeLessThanOrEqual(32 + 3 * 7);
    expect(told.reduce((sum, event) => sum + ('count' in event ? event.count : 0), 0)).toBe(5_000);
  });

  test('of peers of ours are told one by one', async () => {
    const { log, told } = start();
    const source = 'spiffe://example.org/ns/shop/sa/web';
    const mtls = { kind: 'mtls', source, claimedSource: '', claimedSerial: '', failure: '' } as const;
    for (let i = 0; i < 100; i++) log.connection(connection({ ...mtls, sourceSerial: `${i}` }), ledger);
    await log.close();
    expect(told).toHaveLength(100);
  });

  test('wait for company also where calls do not', async () => {
    const { log, told, clock } = start({ windowSeconds: 0 });
    for (let i = 0; i < 50; i++) log.connection(connection(), ledger);
    await clock.advance(2_000);
    expect(told).toMatchObject([{ type: 'connections', count: 50 }]);
    await log.close();
  });
});

describe('what is lost', () => {
  test('is told by its cause, once a second at most', async () => {
    const { log, told, clock } = start();
    for (let i = 0; i < 5; i++) log.lose(1, 'undecodable');
    log.lose(7, 'reporter_unknown');
    log.lose(1, 'stream_broken');
    await clock.advance(2_000);
    expect(told).toMatchObject([
      { type: 'loss', what: 'access_log', count: 5, cause: 'undecodable' },
      { type: 'loss', what: 'access_log', count: 7, cause: 'reporter_unknown' },
      { type: 'loss', what: 'access_log', count: 1, cause: 'stream_broken' },
    ]);
    await log.close();
  });

  test('for want of room is counted by what it stood for, while the log takes nothing', async () => {
    const { log, told, clock, down } = start({ maxQueued: 10 });
    down(true);
    for (let i = 0; i < 30; i++) log.call(call({ isRecorded: true }), ledger);
    for (let i = 0; i < 40; i++) log.connection(connection(), ledger);
    await clock.advance(61_000);
    down(false);
    await clock.advance(5_000);
    expect(told.filter(({ type }) => type === 'outcome')).toHaveLength(10);
    expect(told.filter(({ type }) => type === 'loss')).toMatchObject([
      { what: 'access_log', count: 60, cause: 'queue_full' },
    ]);
    await log.close();
  });

  test('comes after the end, and is said by whoever closed', async () => {
    const { log, told } = start();
    log.call(call(), ledger);
    await log.close();
    expect(told).toMatchObject([{ type: 'outcomes', count: 1 }]);
    log.connection(connection(), ledger);
    expect(log.depth()).toEqual({ queued: 0, lost: 1, lostInAll: 1 });
  });
});
