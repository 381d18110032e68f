import { Socket } from 'node:net';
import { afterAll, describe, expect, test } from 'vitest';
import type { DecisionEvent } from '../../src/audit/event.ts';
import { parsePolicy } from '../../src/authz/parse.ts';
import { compileSnapshot } from '../../src/authz/snapshot.ts';
import { systemClock } from '../../src/clock.ts';
import type { AllowedCall } from '../../src/ext-authz/call-counter.ts';
import { type EnvoyReading, readAsEnvoy } from '../../src/ext-authz/response.ts';
import { createExtAuthzService, type ExtAuthzOptions } from '../../src/ext-authz/service.ts';
import { enrollPeer } from '../../src/grpc/connections.ts';
import { noBans } from '../../src/identity/ban-list.ts';
import type { UnixPeer } from '../../src/identity/evidence.ts';
import { SpiffeId, TrustDomain } from '../../src/spiffe/id.ts';
import { readDocuments } from '../../src/yaml.ts';
import { checkBytes, type CheckInput } from './check-input.ts';

const orders = SpiffeId.parse('spiffe://example.org/ns/shop/sa/orders');
const peer = { connectionId: 'counted', pid: 11, uid: 12, gid: 13 };
const socket = new Socket();
enrollPeer({ kind: 'unix', ...peer, isAlive: () => true } satisfies UnixPeer, socket);
afterAll(() => socket.destroy());

const readOrders = `rules: [{from: [{source: {principals: ["example.org/ns/shop/sa/web"]}}],
  to: [{operation: {methods: [GET], paths: ["/orders/*", "/"]}}]}]`;

describe('where allowed calls are counted', () => {
  test('one that a rule allows is, by the path of the rule, and without a record', async () => {
    const { check, counted, records } = start([readOrders]);
    expect(await check({ path: '/orders/1?token=secret' })).toBe('allow');
    expect(records).toEqual([]);
    expect(counted).toEqual([
      [
        {
          time: expect.any(Date),
          reason: 'allow_rule',
          rule: 'shop/p0 rule[0]',
          revision: 7,
          source: 'spiffe://example.org/ns/shop/sa/web',
          destination: orders.text,
          protocol: 'http',
          method: 'GET',
          pathPattern: '/orders/*',
          port: 15_443,
          sourceSerial: '',
          caller: { pid: 11, uid: 12, gid: 13 },
        },
        'd-1',
      ],
    ]);
  });

  test('one that no rule is about is, in Istio mode, under every path', async () => {
    const { check, counted } = start([], {}, 'istio');
    expect(await check({ path: '/orders/1' })).toBe('allow');
    expect(counted).toMatchObject([[{ reason: 'allow_by_default', rule: '', pathPattern: '*' }, 'd-1']]);
  });

  test.each<[string, readonly string[], CheckInput, EnvoyReading]>([
    ['a denial by a rule', [readOrders, 'action: DENY, rules: [{}]'], {}, 'deny'],
    ['a call that no rule allows', [readOrders], { method: 'PUT' }, 'deny'],
    ['a call that an AUDIT rule marks', [readOrders, 'action: AUDIT, rules: [{}]'], {}, 'allow'],
  ])('%s has a record of its own', async (_, specs, input, verdict) => {
    const { check, counted, records } = start(specs);
    expect(await check({ path: '/orders/1', ...input })).toBe(verdict);
    expect(records).toMatchObject([{ type: 'decision', verdict }]);
    expect(counted).toEqual([]);
  });

  test('one that cannot be counted is denied', async () => {
    const errors: unknown[] = [];
    const { check } = start([readOrders], {
      count: () => {
        throw new Error('full');
      },
      observer: { decided: () => undefined, outage: () => undefined, failed: (error) => errors.push(error) },
    });
    expect(await check({ path: '/orders/1' })).toBe('deny');
    expect(errors).toHaveLength(1);
  });
});

describe('of the checks of one turn', () => {
  test('one whose answer cannot be sent takes no other along', async () => {
    const errors: unknown[] = [];
    const { check, send } = start([readOrders], {
      observer: { decided: () => undefined, outage: () => undefined, failed: (error) => errors.push(error) },
    });
    expect(await check({ path: '/orders/1' })).toBe('allow');
    send({ path: '/orders/1' }, () => {
      throw new Error('gone');
    });
    expect(await check({ path: '/orders/1' })).toBe('allow');
    expect(errors).toEqual([new Error('gone')]);
  });

  test('one whose connection ends in that turn is still that of its process', async () => {
    const { counted, send } = start([readOrders]);
    let connection = peer.connectionId;
    const answered = new Promise<Buffer>((resolve) => {
      send({ path: '/orders/1' }, resolve, () => connection);
    });
    connection = 'unknown';
    expect(readAsEnvoy(await answered)).toBe('allow');
    expect(counted).toMatchObject([[{ caller: { pid: peer.pid } }, 'd-1']]);
  });

  test('each has taken the time since it came', async () => {
    const took: number[] = [];
    const { check } = start([readOrders], {
      observer: {
        decided: (_, seconds) => took.push(seconds),
        outage: () => undefined,
        failed: () => undefined,
      },
    });
    const checked = check({ path: '/orders/1' });
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 20);
    await checked;
    expect(took).toEqual([expect.any(Number)]);
    expect(took[0]).toBeGreaterThan(0.015);
  });
});

function start(
  specs: readonly string[],
  options: Partial<ExtAuthzOptions> = {},
  mode: 'strict' | 'istio' = 'strict',
) {
  const [counted, records]: [[AllowedCall, string][], DecisionEvent[]] = [[], []];
  const documents = specs.map(
    (spec, i) => `
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: p${i}, namespace: shop}
spec: {${spec}}
`,
  );
  const snapshot = compileSnapshot({
    revision: 7,
    trustDomain: TrustDomain.parse('example.org'),
    rootNamespace: 'istio-system',
    policies: documents.flatMap((text, i) => readDocuments({ file: `p${i}.yaml`, text }).map(parsePolicy)),
    workloads: [{ id: orders, labels: {} }],
    mode,
  });
  let decisions = 0;
  const { implementation } = createExtAuthzService({
    attest: async () => ({ selectors: [] }) as never,
    entitledIds: () => [orders],
    snapshot: () => snapshot,
    bans: () => noBans,
    record: (event) => records.push(event),
    count: (...call) => counted.push(call),
    clock: systemClock,
    newDecisionId: () => `d-${++decisions}`,
    observer: { decided: () => undefined, outage: () => undefined, failed: () => undefined },
    ...options,
  });
  const send = (
    input: CheckInput,
    answered: (bytes: Buffer) => void,
    readPeer = () => peer.connectionId,
  ): void => {
    const call = { request: checkBytes(input), getPeer: readPeer };
    implementation.check(call as never, (_, bytes) => answered(bytes ?? Buffer.alloc(0)));
  };
  const check = (input: CheckInput): Promise<EnvoyReading> =>
    new Promise((resolve) => send(input, (bytes) => resolve(readAsEnvoy(bytes))));
  return { check, send, counted, records };
}
