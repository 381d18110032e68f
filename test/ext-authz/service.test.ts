import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { Client, credentials } from '@grpc/grpc-js';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { createUnixAttestor } from '../../src/attest/unix.ts';
import type { DecisionEvent } from '../../src/audit/event.ts';
import type { Decision } from '../../src/authz/decision.ts';
import { parsePolicy } from '../../src/authz/parse.ts';
import { compileSnapshot, Snapshot } from '../../src/authz/snapshot.ts';
import { systemClock } from '../../src/clock.ts';
import { MeshError } from '../../src/errors.ts';
import { readAsEnvoy } from '../../src/ext-authz/response.ts';
import { createExtAuthzService, type ExtAuthzOptions } from '../../src/ext-authz/service.ts';
import { type GrpcListener, startGrpcListener } from '../../src/grpc/listener.ts';
import { indexBans, noBans } from '../../src/identity/ban-list.ts';
import type { Attestation } from '../../src/identity/evidence.ts';
import { SpiffeId, TrustDomain } from '../../src/spiffe/id.ts';
import { CheckResponse } from '../../src/wire/authz.ts';
import { readDocuments } from '../../src/yaml.ts';
import { sendCheckOver } from '../harness/check-client.ts';
import { createScope } from '../harness/scope.ts';
import { makeTempDir } from '../harness/temp.ts';
import { checkBytes, type CheckInput } from './check-input.ts';

const orders = SpiffeId.parse('spiffe://example.org/ns/shop/sa/orders');
const second = SpiffeId.parse('spiffe://example.org/ns/shop/sa/second');
const snapshot = new Snapshot({
  revision: 7,
  trustDomain: TrustDomain.parse('example.org'),
  rootNamespace: 'istio-system',
  policies: policies(`
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: read, namespace: shop}
spec:
  rules:
  - from: [{source: {principals: ["example.org/ns/shop/sa/web"]}}]
    to: [{operation: {methods: [GET], paths: ["/orders/*", "/"]}}]
`),
  workloads: [
    { id: orders, labels: {} },
    { id: second, labels: {} },
  ],
});

const scope = createScope();
afterAll(() => scope.close());
let socket: string;
beforeAll(() => {
  socket = `${makeTempDir(scope)}/w.sock`;
});

type Seen = { decisions: Decision[]; outages: string[]; errors: unknown[]; records: DecisionEvent[] };
let seen: Seen;
let listener: GrpcListener | undefined;
let client: Client;
beforeEach(() => {
  seen = { decisions: [], outages: [], errors: [], records: [] };
});
afterEach(async () => {
  client.close();
  await listener?.close(100);
  listener = undefined;
});

async function serve(
  options: Partial<ExtAuthzOptions> = {},
): Promise<ReturnType<typeof createExtAuthzService>> {
  let decisions = 0;
  const service = createExtAuthzService({
    attest: createUnixAttestor({}),
    entitledIds: () => [orders],
    snapshot: () => snapshot,
    bans: () => noBans,
    record: (event) => seen.records.push(event),
    clock: systemClock,
    newDecisionId: () => `d-${++decisions}`,
    observer: {
      decided: (decision) => seen.decisions.push(decision),
      outage: (cause) => seen.outages.push(cause),
      failed: (error) => seen.errors.push(error),
    },
    ...options,
  });
  const { definition, implementation } = service;
  listener = await startGrpcListener({
    path: socket,
    mode: 0o600,
    services: [{ definition, implementation }],
  });
  client = new Client(`unix:${socket}`, credentials.createInsecure());
  return service;
}

function send(bytes: Buffer): Promise<Buffer> {
  return sendCheckOver(client, bytes);
}

function check(input: CheckInput = {}): Promise<Buffer> {
  return send(checkBytes(input));
}

describe('a check in Istio mode', () => {
  const istio = () => snapshot.at(7, 'istio');

  test('is judged as the proxy forwards it, and says so', async () => {
    await serve({ snapshot: istio });
    expect(readAsEnvoy(await check({ path: '/orders/%2e%2e/1?token=secret' }))).toBe('allow');
    expect(seen.records).toMatchObject([
      {
        reason: 'allow_rule',
        path: { personal: '/orders/%2e%2e/1' },
        why: expect.stringContaining('in Istio mode'),
      },
    ]);
    expect(readAsEnvoy(await check({ method: 'POST' }))).toBe('deny');
    expect(seen.decisions.map(({ mode, reason }) => [mode, reason])).toEqual([
      ['istio', 'allow_rule'],
      ['istio', 'no_allow_rule'],
    ]);
  });

  test('is allowed where no policy is, but not to whom is banned', async () => {
    let now = noBans;
    const open = compileSnapshot({
      ...{ revision: 1, mode: 'istio', trustDomain: orders.trustDomain, rootNamespace: 'istio-system' },
      ...{ policies: [], workloads: [{ id: orders, labels: {} }] },
    });
    await serve({ snapshot: () => open, bans: () => now });
    expect(readAsEnvoy(await check())).toBe('allow');
    expect(readAsEnvoy(await check({ principal: '' }))).toBe('allow');
    now = indexBans([
      {
        ...{ kind: 'spiffe-id', value: 'spiffe://example.org/ns/shop/sa/web', reason: 'x', until: null },
        ...{ actor: { kind: 'system' }, createdAt: new Date(0), revision: 1 },
      },
    ]);
    expect(readAsEnvoy(await check())).toBe('deny');
    expect(seen.decisions.map(({ reason }) => reason)).toEqual([
      'allow_by_default',
      'allow_by_default',
      'banned',
    ]);
  });
});

describe('a check over a real socket', () => {
  test('that a break-glass grant lets pass is recorded with why, and what it lifted', async () => {
    const glass = new Snapshot({
      revision: 7,
      trustDomain: TrustDomain.parse('example.org'),
      rootNamespace: 'istio-system',
      policies: policies(`
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: no, namespace: shop}
spec: {action: DENY, liftable: true, rules: [{}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: grant, namespace: shop}
spec: {breakGlass: {reason: ${'ü'.repeat(256)}}, ticket: ${'t'.repeat(256)}, expiresAt: 9999-01-01T00:00:00Z, rules: [{}]}
`),
      workloads: [],
    });
    await serve({ snapshot: () => glass });
    expect(readAsEnvoy(await check())).toBe('allow');
    expect(seen.records).toMatchObject([
      {
        rule: 'shop/grant rule[0]',
        breakGlass: `${'ü'.repeat(256)} (${'t'.repeat(256)}), lifting shop/no rule[0]`,
      },
    ]);
  });

  test('that the policy allows passes, and is recorded once with who asked for whom', async () => {
    await serve();
    const answer = await check({ path: '/orders/1?token=secret' });
    expect(readAsEnvoy(answer)).toBe('allow');
    expect(seen.records).toEqual([
      {
        type: 'decision',
        time: expect.any(Date),
        decisionId: 'd-1',
        verdict: 'allow',
        reason: 'allow_rule',
        rule: 'shop/read rule[0]',
        why: 'allowed by shop/read rule[0]',
        revision: 7,
        source: 'spiffe://example.org/ns/shop/sa/web',
        destination: orders.text,
        protocol: 'http',
        method: 'GET',
        host: 'orders.shop',
        path: { personal: '/orders/1' },
        port: 15_443,
        sourceSerial: '',
        sourceAddress: { personal: '10.0.0.1:40000' },
        caller: { pid: process.pid, uid: process.getuid?.(), gid: process.getgid?.() },
      },
    ]);
    expect(seen.decisions.map(({ reason }) => reason)).toEqual(['allow_rule']);
  });

  test('leaves nothing of its query in memory with its record', async () => {
    setFlagsFromString('--expose-gc');
    const collect = runInNewContext('gc') as () => void;
    await serve();
    const kept = async (count: number): Promise<number> => {
      collect();
      const before = process.memoryUsage().heapUsed;
      for (let i = 0; i < count; i++)
        await check({ path: `/orders/long-enough-to-be-a-slice?${'q'.repeat(50_000)}` });
      collect();
      return (process.memoryUsage().heapUsed - before) / count;
    };
    await kept(20);
    expect(await kept(100)).toBeLessThan(25_000);
  });

  test('without a destination is about the default identity of the proxy', async () => {
    await serve({ entitledIds: () => [orders, second] });
    expect(readAsEnvoy(await check({ destination: '' }))).toBe('allow');
    expect(readAsEnvoy(await check({ destination: second.text }))).toBe('allow');
    expect(seen.records.map(({ destination }) => destination)).toEqual([orders.text, second.text]);
  });

  test.each<[string, CheckInput, string]>([
    ['another method', { method: 'POST' }, 'no_allow_rule'],
    ['a method in lower case', { method: 'get' }, 'no_allow_rule'],
    ['another path', { path: '/admin' }, 'no_allow_rule'],
    ['another case of the path', { path: '/Orders/1' }, 'no_allow_rule'],
    ['another caller', { principal: 'spiffe://example.org/ns/shop/sa/other' }, 'no_allow_rule'],
    ['a caller of another trust domain', { principal: 'spiffe://evil.org/ns/shop/sa/web' }, 'no_allow_rule'],
    ['no caller', { principal: '' }, 'unauthenticated'],
    ['a caller of no SPIFFE ID', { principal: 'web' }, 'request_invalid'],
    ['no path', { path: '' }, 'request_invalid'],
    ['a relative path', { path: 'orders/1' }, 'request_invalid'],
    ['the path *', { path: '*', method: 'OPTIONS' }, 'request_invalid'],
    ['CONNECT', { method: 'CONNECT', path: '', host: 'orders.shop:443' }, 'request_invalid'],
    ['no method', { method: '' }, 'request_invalid'],
    ['no host', { host: '' }, 'request_invalid'],
    ['two slashes', { path: '//orders/1' }, 'request_ambiguous'],
    ['a dot segment', { path: '/orders/../admin' }, 'request_ambiguous'],
    ['an escaped dot segment', { path: '/orders/%2e%2e/admin' }, 'request_ambiguous'],
    ['an escaped slash', { path: '/orders%2f..%2fadmin' }, 'request_ambiguous'],
    ['a path parameter', { path: '/orders/1;a' }, 'request_ambiguous'],
    ['bytes in the path', { path: '/orders/\u00ff' }, 'request_invalid'],
    ['a path of 64 kB', { path: `/orders/${'a'.repeat(65_536)}` }, 'request_invalid'],
    ['a host header of its own', { headers: { host: 'other' } }, 'request_ambiguous'],
    ['a TCP connection to a policy about methods', { http: null }, 'no_allow_rule'],
    ['an identity of another', { destination: second.text }, 'destination_forged'],
    ['an identity in another case', { destination: orders.text.toUpperCase() }, 'destination_forged'],
    [
      'an identity of another trust domain',
      { destination: 'spiffe://evil.org/ns/shop/sa/orders' },
      'destination_forged',
    ],
    ['two identities', { destination: `${orders.text},${second.text}` }, 'destination_forged'],
  ])('with %s is denied', async (_, input, reason) => {
    await serve();
    const answer = await check(input);
    expect(readAsEnvoy(answer)).toBe('deny');
    expect(CheckResponse.decode(answer).status?.code).toBe(7);
    expect(seen.records.map((record) => record.reason)).toEqual([reason]);
    expect(seen.records[0]?.path.personal.length).toBeLessThanOrEqual(2_048);
  });

  test.each([
    ['no bytes', Buffer.alloc(0)],
    ['no message', Buffer.from('GET / HTTP/1.1')],
    ['200 kB of one byte', Buffer.alloc(200_000, 0xff)],
  ])('of %s is denied and recorded', async (_, bytes) => {
    await serve();
    expect(readAsEnvoy(await send(bytes))).toBe('deny');
    expect(seen.records.map(({ reason, destination }) => [reason, destination])).toEqual([
      ['request_invalid', orders.text],
    ]);
  });
});

describe('a proxy', () => {
  test('without an identity is denied', async () => {
    await serve({ entitledIds: () => [] });
    expect(readAsEnvoy(await check())).toBe('deny');
    expect(seen.records).toMatchObject([{ reason: 'caller_unknown', destination: orders.text }]);
  });

  test('that cannot be attested is denied, and attested again at its next call', async () => {
    let attempts = 0;
    const real = createUnixAttestor({});
    await serve({
      attest: async (peer) => {
        attempts += 1;
        if (attempts === 1) throw new MeshError('attestation_failed', 'the process is gone');
        return real(peer);
      },
    });
    expect(readAsEnvoy(await check())).toBe('deny');
    expect(readAsEnvoy(await check())).toBe('allow');
    expect(seen.records.map(({ reason }) => reason)).toEqual(['caller_unknown', 'allow_rule']);
    expect(seen.errors).toMatchObject([{ code: 'attestation_failed' }]);
  });

  test('is attested once for many calls of a connection, and judged anew each time', async () => {
    let attempts = 0;
    let ids = [orders];
    const real = createUnixAttestor({});
    await serve({
      attest: (peer) => {
        attempts += 1;
        return real(peer);
      },
      entitledIds: () => ids,
    });
    await Promise.all(Array.from({ length: 20 }, () => check()));
    ids = [];
    expect(readAsEnvoy(await check())).toBe('deny');
    expect(attempts).toBe(1);
    expect(seen.records).toHaveLength(21);
  });
});

describe('a failure of ours never lets a call pass', () => {
  const broken = () => {
    throw new Error('broken');
  };
  const cases: [string, Partial<ExtAuthzOptions>][] = [
    ['the registry', { entitledIds: broken }],
    ['the snapshot', { snapshot: broken }],
    ['the bans', { bans: broken }],
    ['the decision id', { newDecisionId: broken }],
    ['the record', { record: broken }],
    ['the clock of the record', { clock: { ...systemClock, now: broken } }],
    ['the text of a denial', { denyBody: broken, entitledIds: () => [] }],
    [
      'an attestor that yields nothing',
      { attest: async () => undefined as unknown as Attestation, entitledIds: broken },
    ],
  ];
  test.each(cases)('%s', async (_, options) => {
    await serve(options);
    const answer = await check();
    expect(readAsEnvoy(answer)).toBe('deny');
    expect(seen.decisions).toHaveLength(1);
    expect(seen.decisions[0]?.verdict).toBe('deny');
  });
});

describe('an outage is not a denial', () => {
  test('when the service is closed', async () => {
    const service = await serve();
    service.close();
    expect(readAsEnvoy(await check())).toBe('error');
    expect(seen.outages).toEqual(['shutting_down']);
    expect(seen.records).toEqual([]);
  });

  test('when too many checks wait', async () => {
    let release: (attestation: Attestation) => void = () => {};
    const held = new Promise<Attestation>((resolve) => {
      release = resolve;
    });
    await serve({ attest: () => held, maxWaiting: 2 });
    const waiting = [check(), check()];
    await expect.poll(async () => readAsEnvoy(await check()), { timeout: 20_000 }).toBe('error');
    release({ selectors: [], caller: { pid: 1, uid: 1, gid: 1 } });
    const answers = await Promise.all(waiting);
    expect(answers.filter((answer) => readAsEnvoy(answer) === 'allow').length).toBeGreaterThan(0);
    expect(seen.outages).toContain('overloaded');
  });
});

function policies(text: string): ReturnType<typeof parsePolicy>[] {
  return readDocuments({ file: 'policy.yaml', text: text.trimStart() }).map(parsePolicy);
}
