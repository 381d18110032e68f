import { credentials } from '@grpc/grpc-js';
import { readFileSync } from 'node:fs';
import { Agent, request } from 'node:https';
import { ExtensionConfigDiscoveryServiceClient } from '../../src/wire/ecds.ts';
import { type Authority, startAuthority } from '../../test/harness/authority.ts';
import { entry, idOf, policy } from '../../test/harness/mesh.ts';
import { createScope, type Scope } from '../../test/harness/scope.ts';
import { fetchKeyPair, type KeyPair } from '../../test/harness/sds-client.ts';
import { freePorts, makeTempDir } from '../../test/harness/temp.ts';
import { followDelta } from '../../test/xds/harness.ts';
import { nodeOf } from '../../test/xds/policy-door.ts';
import { type Figure, percentile } from '../report.ts';
import { haveCurrent, startBenchProxy } from './proxies.ts';

/**
 * How soon a change of policy is in force at 100 proxies of one machine: 10 real Envoys, each with an identity and so a
 * policy of its own, that are called all the time, and 90 clients that speak for a proxy each and share an eleventh policy.
 * An Envoy has it when a call ends otherwise; a client when it holds the bytes.
 */
export async function measurePushes(pushes: number): Promise<readonly Figure[]> {
  const scope = createScope();
  try {
    return await measure(scope, pushes);
  } finally {
    await scope.close();
  }
}

const envoys = 10;
const clients = 90;
const pollEveryMs = 25;
const giveUpMs = 20_000;

/** Told of one proxy: when it was first seen with the policy that allows, or denies, after a moment. */
type Watched = { readonly seen: (isAllowed: boolean, afterMs: number) => number | undefined };

async function measure(scope: Scope, pushes: number): Promise<readonly Figure[]> {
  const directory = makeTempDir(scope);
  const authority = await startAuthority(scope, { directory, env: { COUNTERSIGN_LOG_LEVEL: 'warn' } });
  const ports = await freePorts(envoys);
  const services = ports.map((_, i) => `fleet/p${i}`);
  const proxies = services.map((service, i) =>
    startBenchProxy(scope, authority, directory, { service, port: ports[i] ?? 0, decide: 'in-proxy' }),
  );
  const shared = idOf(authority, 'fleet/clients');
  const texts = [
    entry(idOf(authority, 'shop/web'), process.execPath),
    entry(shared, process.execPath),
    ...proxies.map(({ sidecar }) => entry(sidecar.id, sidecar.binary)),
  ];
  await authority.apply(texts.join('') + fleetPolicy(false));
  await Promise.all(proxies.map(({ sidecar }) => sidecar.live(60_000)));
  const keyPair = await fetchKeyPair(authority.workloadSocket, idOf(authority, 'shop/web'));
  const failures: string[] = [];
  const calls = { made: 0 };
  const watched: Watched[] = proxies.map(({ port }) => pollProxy(scope, port, keyPair, failures, calls));
  for (let i = 0; i < clients; i++) watched.push(followPolicy(scope, authority, shared));
  await haveCurrent(authority, services);
  await new Promise((resolve) => setTimeout(resolve, 500));
  const [fromAccepted, fromSent, applied]: [number[], number[], number[]] = [[], [], []];
  const cpuBefore = cpuMs(authority.child().pid);
  for (let i = 0; i < pushes; i++) {
    const isAllowed = i % 2 === 0;
    const sentMs = performance.now();
    await authority.apply(fleetPolicy(isAllowed));
    const acceptedMs = performance.now();
    applied.push(acceptedMs - sentMs);
    for (const seenMs of await allSeen(watched, isAllowed, sentMs)) {
      fromAccepted.push(Math.max(0, seenMs - acceptedMs));
      fromSent.push(seenMs - sentMs);
    }
  }
  const cpuPerPush = (cpuMs(authority.child().pid) - cpuBefore) / pushes;
  await scope.close();
  const figure = (name: string, value: number, atMost: number | null = null, unit = 'ms'): Figure => ({
    name,
    value,
    unit,
    atMost,
  });
  return [
    figure('apply to its answer: p50', percentile(applied, 0.5)),
    figure('answer to enforced at a proxy: p50', percentile(fromAccepted, 0.5)),
    figure('answer to enforced at a proxy: p99', percentile(fromAccepted, 0.99), 500),
    figure('request to enforced at a proxy: p50', percentile(fromSent, 0.5)),
    figure('request to enforced at a proxy: p99', percentile(fromSent, 0.99)),
    figure('CPU of the authority for one change', cpuPerPush),
    figure('calls during the pushes', calls.made, null, ''),
    figure('of them failed', failures.length, 0, ''),
    ...(failures.length === 0 ? [] : [figure(`such as: ${failures[0] ?? ''}`, 1, null, '')]),
  ];
}

async function allSeen(
  watched: readonly Watched[],
  isAllowed: boolean,
  sentMs: number,
): Promise<readonly number[]> {
  const until = performance.now() + giveUpMs;
  for (;;) {
    const seen = watched.flatMap((one) => one.seen(isAllowed, sentMs) ?? []);
    if (seen.length === watched.length) return seen;
    if (performance.now() > until) throw new Error(`${seen.length} of ${watched.length} have it`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

/** The CPU time of a process so far, in ms. */
function cpuMs(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
  // After the name, which may hold anything: user and system time are the 12th and 13th, in hundredths of a second.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return (Number(fields[11]) + Number(fields[12])) * 10;
}

/** What may be called all the time, and what may be called at times only. */
function fleetPolicy(isAllowed: boolean): string {
  const paths = isAllowed ? ['/always', '/at-times'] : ['/always'];
  return policy('fleet', 'all', {
    rules: [
      {
        from: [{ source: { principals: ['mesh.test/ns/shop/sa/web'] } }],
        to: [{ operation: { methods: ['GET'], paths } }],
      },
    ],
  });
}

/** Calls an Envoy again and again over one connection. What is always allowed must never fail. */
function pollProxy(
  scope: Scope,
  port: number,
  { key, cert }: KeyPair,
  failures: string[],
  calls: { made: number },
): Watched {
  const agent = new Agent({ keepAlive: true, maxSockets: 1, key, cert, rejectUnauthorized: false });
  const stop = new AbortController();
  const first: { isAllowed: boolean; atMs: number }[] = [];
  const run = async (): Promise<void> => {
    while (!stop.signal.aborted) {
      const startedMs = performance.now();
      const status = await callOnce(port, '/at-times', agent).catch((error: Error) => error.message);
      const always = await callOnce(port, '/always', agent).catch((error: Error) => error.message);
      calls.made += 2;
      if (stop.signal.aborted) return;
      if (always !== 200) failures.push(`/always: ${always}`);
      if (status !== 200 && status !== 403) failures.push(`/at-times: ${status}`);
      const isAllowed = status === 200;
      if (first.at(-1)?.isAllowed !== isAllowed) first.push({ isAllowed, atMs: performance.now() });
      const leftMs = pollEveryMs - (performance.now() - startedMs);
      await new Promise((resolve) => setTimeout(resolve, Math.max(0, leftMs)));
    }
  };
  const running = run();
  scope.defer(async () => {
    stop.abort();
    await running;
    agent.destroy();
  });
  return {
    seen: (isAllowed, afterMs) =>
      first.find((one) => one.isAllowed === isAllowed && one.atMs > afterMs)?.atMs,
  };
}

function callOnce(port: number, path: string, agent: Agent): Promise<number> {
  return new Promise((resolve, reject) => {
    const sent = request({ host: '127.0.0.1', port, path, agent }, (response) => {
      response.resume();
      response.on('end', () => resolve(response.statusCode ?? 0));
      response.on('error', reject);
    });
    sent.on('error', reject);
    sent.end();
  });
}

/** Speaks for a proxy, over a connection of its own, and says yes to what it is sent. */
function followPolicy(scope: Scope, authority: Authority, id: string): Watched {
  const client = new ExtensionConfigDiscoveryServiceClient(
    `unix:${authority.workloadSocket}`,
    credentials.createInsecure(),
    { 'grpc.use_local_subchannel_pool': 1 },
  );
  const stream = followDelta(client.deltaExtensionConfigs());
  const arrived: { isAllowed: boolean; atMs: number }[] = [];
  stream.call.on('data', ({ nonce, resources: [resource] }) => {
    const atMs = performance.now();
    stream.send({ typeUrl, responseNonce: nonce });
    const bytes = resource?.resource?.value;
    // A beat is no news.
    if (bytes !== undefined) arrived.push({ isAllowed: bytes.includes('/at-times'), atMs });
  });
  stream.send({ typeUrl, node: nodeOf(), resourceNamesSubscribe: [`countersign.policy/${id}`] });
  scope.defer(() => {
    stream.call.cancel();
    client.close();
  });
  return {
    seen: (isAllowed, afterMs) =>
      arrived.find((one) => one.isAllowed === isAllowed && one.atMs > afterMs)?.atMs,
  };
}

const typeUrl = 'type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig';
