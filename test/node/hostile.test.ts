import { PassThrough } from 'node:stream';
import { setTimeout } from 'node:timers/promises';
import { credentials, type ServiceError } from '@grpc/grpc-js';
import { beforeAll, afterEach, expect, test } from 'vitest';
import { isStale } from '../../src/agent-staleness.ts';
import type { AuditEvent, DecisionEvent } from '../../src/audit/event.ts';
import { systemClock } from '../../src/clock.ts';
import { createDecisionLog } from '../../src/ext-authz/decision-log.ts';
import type { GrpcService } from '../../src/grpc/listener.ts';
import { createTlsConnections, type TlsPeer } from '../../src/grpc/tls-connections.ts';
import { startTlsGrpcListener } from '../../src/grpc/tls-listener.ts';
import { type AttestationOptions, createAttestationService } from '../../src/node/attestation-service.ts';
import { type Shipment, writeShipment } from '../../src/node/event-shipment.ts';
import { createEventShipper } from '../../src/node/event-shipper.ts';
import { type CoverageNote, noteToWire } from '../../src/node/coverage-wire.ts';
import { ask, failureOf, openNodeChannel, watchView } from '../../src/node/node-client.ts';
import { createNodeService, type NodeServiceOptions } from '../../src/node/node-service.ts';
import { bundlePem } from '../../src/spiffe/bundle.ts';
import { SpiffeId } from '../../src/spiffe/id.ts';
import {
  AttestationClient,
  type NodeClient,
  type SignX509Item,
  type SignX509Results,
} from '../../src/wire/node.ts';
import { decision } from '../audit/events.ts';
import { makeTestAuthority, type TestAuthority } from '../ca/test-authority.ts';
import { eventually } from '../harness/eventually.ts';
import { createScope } from '../harness/scope.ts';
import { attestedNode, makeNodeCertificate, makeShown, type Shown } from './node-certificates.ts';

let ours: TestAuthority;
let server: Shown;
let web: Shown;
const start = new Date(Math.floor(Date.now() / 1_000) * 1_000);
const epoch = 'ab'.repeat(16);
let scope = createScope();

beforeAll(async () => {
  ours = await makeTestAuthority(new Date(start.getTime() - 86_400_000), {}, 'mesh.test');
  server = await makeShown(ours, '/countersign/server', start);
  web = await makeNodeCertificate(ours, 'web-1', start);
});
afterEach(async () => {
  await scope.close();
  scope = createScope();
});

test('the largest decisions that a proxy can cause are shipped, and hold up nobody', async () => {
  const { client, stored } = await serve();
  const shipper = createEventShipper({ client: () => client, epoch });
  const log = createDecisionLog({
    record: shipper.record,
    clock: systemClock,
    allowedCallsWindowSeconds: 10,
    onError: () => undefined,
  });
  const widest = '世'.repeat(2_048);
  // No agent names a caller that is none.
  const longestId = `spiffe://mesh.test/${'a'.repeat(2_048 - 'spiffe://mesh.test/'.length)}`;
  for (let at = 0; at < 250; at += 1) {
    log.push(own({ path: { personal: widest }, source: longestId, why: '世'.repeat(512) }));
  }
  log.push(own());
  await log.close();
  await shipper.flush();
  expect(stored.filter(({ type }) => type === 'decision')).toHaveLength(251);
  expect(stored).toHaveLength(251);
});

test('an event that the server will never take is counted as lost alone, and holds up nobody', async () => {
  const { client, stored } = await serve();
  const shipper = createEventShipper({ client: () => client, epoch });
  await shipper.record([own({ verdict: 'maybe' as 'deny' }), own({ decisionId: 'd-1' })]);
  await shipper.record([own({ decisionId: 'd-2' })]);
  await shipper.flush();
  expect(stored).toMatchObject([
    { type: 'loss', what: 'decision', count: 1, cause: 'node web-1: message_invalid' },
    { type: 'decision', decisionId: 'd-1' },
    { type: 'decision', decisionId: 'd-2' },
  ]);
});

test('a node has one batch at a time in the queue that everybody writes through', async () => {
  const kept = Promise.withResolvers<void>();
  const { client, stored } = await serve({ beforeStored: () => kept.promise });
  const ship = (id: string) => {
    const shipper = createEventShipper({ client: () => client, epoch: id.repeat(32), withinMs: 500 });
    scope.defer(() => shipper.close().catch(() => undefined));
    return shipper.record([own()]).then(() => shipper.inHand());
  };
  const left = await Promise.all(['a', 'b', 'c', 'd'].map(ship));
  kept.resolve();
  expect(left).toEqual([1, 1, 1, 1]);
  expect(stored).toHaveLength(1);
});

/** Certificates are made one at a time, when the gate is open. */
async function serveSlowly() {
  const gate = Promise.withResolvers<void>();
  const made: string[] = [];
  const served = await serve({
    more: {
      limits: { atOnce: 1 },
      readCsr: () => ({}) as never,
      issue: async ({ attestation }) => {
        made.push(attestation.caller.node ?? '');
        await gate.promise;
        return { certificates: [], issuerKeyId: '' } as never;
      },
    },
  });
  return { ...served, gate, made };
}

function itemsOf(count: number): SignX509Item[] {
  const caller = { pid: 1n, uid: 1n, gid: 1n, certificate: '' };
  const csr = Buffer.from('request');
  const item = {
    entryId: 'one',
    entryRevision: 1n,
    csr,
    ttlSeconds: 0n,
    selectors: [],
    caller,
    presented: [],
  };
  return Array.from({ length: count }, () => item);
}

async function sign(by: NodeClient, count: number): Promise<readonly (string | undefined)[]> {
  const items = itemsOf(count);
  const { results } = await ask<SignX509Results>((metadata, options, done) =>
    by.signX509({ items }, metadata, options, done),
  );
  return results.map(({ kind }) => kind?.$case);
}

test('a node that asks for much keeps others waiting for no more than its turn', async () => {
  const { client, other, judged, gate, made } = await serveSlowly();
  const many = sign(client, 4);
  await eventually('the first to be worked on', () => made.length === 1);
  const one = sign(other, 1);
  await eventually('the other to be heard', () => judged.includes('web-2'));
  gate.resolve();
  expect((await Promise.all([many, one])).flat()).toEqual(Array.from({ length: 5 }, () => 'signed'));
  expect(made).toEqual(['web-1', 'web-1', 'web-2', 'web-1', 'web-1']);
});

test('for a node that has given up nothing is made any more', async () => {
  const { client, gate, made } = await serveSlowly();
  const gone = new Promise((resolve) => {
    const call = client.signX509({ items: itemsOf(4) }, resolve);
    void eventually('the first to be worked on', () => made.length === 1).then(() => call.cancel());
  });
  expect(await gone).toMatchObject({ code: 1 });
  // What comes after it on the connection is heard after it.
  await report(client, note);
  gate.resolve();
  expect(await sign(client, 1)).toEqual(['signed']);
  expect(made).toHaveLength(2);
});

test('a node holds so many streams open and no more: each costs us a look at every change', async () => {
  const { client, other } = await serve({ more: { limits: { streamsPerNode: 2 } } });
  const batch = writeShipment({ epoch, sequence: 1, events: [] });
  const open = (by: NodeClient): Promise<{ readonly said: string; readonly cancel: () => void }> =>
    new Promise((resolve) => {
      const call = by.shipEvents();
      const cancel = () => call.cancel();
      call.on('data', () => resolve({ said: 'taken', cancel }));
      call.on('error', (error) => resolve({ said: failureOf(error).code, cancel }));
      call.write(batch);
    });
  const first = await open(client);
  const second = await open(client);
  expect([first.said, second.said, (await open(client)).said]).toEqual(['taken', 'taken', 'stream_limit']);
  const updates = watchView(client, { agentVersion: 'test', policyNumber: 0 }, new AbortController().signal);
  await expect(updates.next()).rejects.toMatchObject({ code: 'stream_limit' });
  expect((await open(other)).said).toBe('taken');
  first.cancel();
  await eventually('a place to be free', async () => (await open(client)).said === 'taken');
});

test('a node that was refused meanwhile holds no silent stream open', async () => {
  let isRefused = false;
  const node = attestedNode('web-1', [web], start);
  const check = (peer: TlsPeer) => (isRefused ? { refused: 'evicted' } : { node, peer }) as never;
  const { client } = await serve({ more: { check, limits: { recheckMs: 10 } } });
  const call = client.shipEvents();
  const failed = new Promise<ServiceError>((resolve) => call.on('error', resolve as (e: Error) => void));
  const taken = new Promise((resolve) => call.on('data', resolve));
  call.write(writeShipment({ epoch, sequence: 1, events: [] }));
  await taken;
  isRefused = true;
  expect((await failed).code).toBe(14);
});

const leaf = {
  kind: 'svid' as const,
  spiffeId: 'spiffe://mesh.test/ns/a/sa/one',
  serial: 'a1',
  issuerKeyId: 'ef',
  notAfter: new Date(start.getTime() + 3_600_000),
};
const note: CoverageNote = {
  isConfirmed: true,
  client: { uid: 1, pid: 2, node: 'proxy' },
  name: 'default',
  content: leaf,
  at: start,
};

test('a certificate that would never end is no certificate of ours: its note would stay for ever', async () => {
  const { client, noted } = await serve();
  const content = { ...leaf, notAfter: new Date('9999-01-01T00:00:00Z') };
  await expect(report(client, { ...note, content })).rejects.toMatchObject({ code: 'message_invalid' });
  await report(client, { ...note, at: new Date('9999-01-01T00:00:00Z') });
  expect(noted).toHaveLength(1);
  expect(noted[0]!.at.getTime()).toBeLessThanOrEqual(Date.now());
});

test('an address that begins attestations and says nothing does not take the places of others', async () => {
  const service = createAttestationService({
    clock: systemClock,
    recordRefusal: () => undefined,
    limits: { atOnce: 4, atOncePerAddress: 2 },
  } as unknown as AttestationOptions);
  const { listener } = await listen(service);
  const client = attestationClient(listener.port);
  const begin = async (): Promise<string> => {
    const call = client.attest();
    scope.defer(() => call.cancel());
    const failed = new Promise<string>((resolve) => call.on('error', ({ message }) => resolve(message)));
    return Promise.race([failed, setTimeout(300, 'waits')]);
  };
  expect(await Promise.all([begin(), begin()])).toEqual(['waits', 'waits']);
  expect(await begin()).toContain('too many nodes ask to be attested');
});

test('all addresses of an IPv6 network are one: a single host has them', async () => {
  const service = createAttestationService({
    clock: systemClock,
    recordRefusal: () => undefined,
    limits: { atOncePerAddress: 2 },
  } as unknown as AttestationOptions);
  const connections = createTlsConnections({ total: 8, perAddress: 8 });
  const begin = (remoteAddress: string): { readonly said: string[] } => {
    const socket = Object.assign(new PassThrough(), { remoteAddress, getPeerCertificate: () => ({}) });
    const { connectionId } = connections.name(socket as never);
    const said: string[] = [];
    const call = Object.assign(new PassThrough({ objectMode: true }), {
      getPeer: () => connectionId,
      getPath: () => '',
    });
    call.on('error', (error: unknown) => said.push((error as ServiceError).details));
    scope.defer(() => void call.destroy());
    service.implementation['attest']!(call as never, undefined as never);
    return { said };
  };
  const calls = ['2001:db8::1', '2001:db8::2', '2001:db8::3', '2001:db8:0:1::1'].map(begin);
  await eventually('one to be refused', () => calls.some(({ said }) => said.length > 0));
  expect(calls.map(({ said }) => said)).toEqual([
    [],
    [],
    [expect.stringContaining('too many nodes ask to be attested')],
    [],
  ]);
});

test('attempts that anybody can make do not fill the log: the rest are counted', async () => {
  const recorded: AuditEvent[] = [];
  let now = start;
  const service = createAttestationService({
    clock: { ...systemClock, now: () => now },
    recordRefusal: (event: AuditEvent) => recorded.push(event),
    limits: { refusals: { burst: 2, perSecond: 1 } },
  } as unknown as AttestationOptions);
  const { listener } = await listen(service);
  const client = attestationClient(listener.port);
  const attempt = (): Promise<unknown> =>
    new Promise((resolve) => {
      const call = client.attest();
      call.on('error', resolve);
      call.on('data', resolve);
      call.write({ step: { $case: 'challengeAnswer', challengeAnswer: Buffer.from('x') } });
    });
  for (let count = 0; count < 7; count += 1) await attempt();
  expect(recorded.map(({ type }) => type)).toEqual(['node', 'node']);
  now = new Date(start.getTime() + 1_000);
  await attempt();
  expect(recorded.slice(2)).toMatchObject([
    { type: 'loss', what: 'refusal', count: 5 },
    { type: 'node', action: 'refused', code: 'message_invalid' },
  ]);
});

test.each<[string, number, boolean]>([
  ['confirmed now', 0, false],
  ['confirmed a minute ago', 60, false],
  ['confirmed too long ago', 61, true],
  ['confirmed by a clock that was a little ahead', -60, false],
  ['confirmed by a clock that was far ahead', -61, true],
  ['confirmed at no time', NaN, true],
])('a policy %s', (_, ageSeconds, expected) => {
  const freshAt = new Date(start.getTime() - ageSeconds * 1_000);
  expect(isStale(freshAt, start, { maxStalenessSeconds: 60 })).toBe(expected);
});

/** A decision about a workload of the node. */
function own(change: Partial<DecisionEvent> = {}): DecisionEvent {
  return decision({ destination: leaf.spiffeId, ...change });
}

function attestationClient(port: number): AttestationClient {
  const client = new AttestationClient(
    `127.0.0.1:${port}`,
    credentials.createSsl(Buffer.from(bundlePem(ours.authority.bundle)), null, null, {
      checkServerIdentity: () => undefined,
    }),
  );
  scope.defer(() => client.close());
  return client;
}

function report(client: NodeClient, one: CoverageNote): Promise<unknown> {
  return ask((metadata, options, done) =>
    client.reportCoverage({ notes: [noteToWire(one)], agent: undefined }, metadata, options, done),
  );
}

async function listen(service: GrpcService) {
  const listener = await startTlsGrpcListener({
    at: { host: '127.0.0.1', port: 0 },
    shown: server,
    services: [service],
  });
  scope.defer(() => listener.close(100));
  return { listener };
}

async function serve({
  beforeStored = () => Promise.resolve(),
  more = {},
}: {
  readonly beforeStored?: () => Promise<void>;
  readonly more?: Partial<NodeServiceOptions>;
} = {}) {
  const stored: AuditEvent[] = [];
  const noted: CoverageNote[] = [];
  const judged: string[] = [];
  const spiffeId = SpiffeId.parseWorkload(leaf.spiffeId);
  const entries = new Map([['one', { spiffeId, revision: 1, selectors: [] }]]);
  const connections: string[] = [];
  const service = createNodeService({
    // Whoever came first is web-1, the next web-2.
    check: (peer: TlsPeer) => {
      if (!connections.includes(peer.connectionId)) connections.push(peer.connectionId);
      const node = attestedNode(`web-${connections.indexOf(peer.connectionId) + 1}`, [web], start);
      judged.push(node.name);
      return { node, peer, leaf: { serial: 'ab' } } as never;
    },
    view: { current: () => ({ mesh: { entries } }) as never, onChange: () => () => undefined },
    cover: (notes: readonly CoverageNote[]) => void noted.push(...notes),
    storeShipment: async ({ events }: Shipment) => {
      stored.push(...events);
      await beforeStored();
      return true;
    },
    clock: systemClock,
    ...more,
  } as unknown as NodeServiceOptions);
  const { listener } = await listen(service);
  const connect = (): NodeClient => {
    const client = openNodeChannel(
      {
        server: { host: '127.0.0.1', port: listener.port },
        roots: ours.authority.bundle.x509Authorities,
        trustDomain: ours.trustDomain,
      },
      {
        certificates: web.certificates,
        privateKey: new Uint8Array(web.key.export({ type: 'pkcs8', format: 'der' })),
      },
    );
    scope.defer(() => client.close());
    return client;
  };
  return { client: connect(), other: connect(), stored, noted, judged };
}
