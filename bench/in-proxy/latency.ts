import { Agent, request } from 'node:https';
import { type Authority, startAuthority } from '../../test/harness/authority.ts';
import { encodeRbac, type RawPolicy } from '../../test/authz/istio-rbac.ts';
import { entry, idOf } from '../../test/harness/mesh.ts';
import { createScope, type Scope } from '../../test/harness/scope.ts';
import { fetchKeyPair, type KeyPair } from '../../test/harness/sds-client.ts';
import { freePorts, makeTempDir } from '../../test/harness/temp.ts';
import { type Figure, percentile } from '../report.ts';
import { allowCallers, type BenchProxy, haveCurrent, startBenchProxy } from './proxies.ts';

/**
 * One call after the other over one connection with mTLS to real Envoys, which are called in turn: by compiled policies for
 * 1 and for 10,000 callers, by Istio's encoding of the same, and by the agent.
 */
export async function measureLatency(rounds: number, roundMs: number): Promise<readonly Figure[]> {
  const scope = createScope();
  try {
    return await measure(scope, rounds, roundMs);
  } finally {
    await scope.close();
  }
}

const many = 10_000;

async function measure(scope: Scope, rounds: number, roundMs: number): Promise<readonly Figure[]> {
  const directory = makeTempDir(scope);
  const authority = await startAuthority(scope, { directory, env: { COUNTERSIGN_LOG_LEVEL: 'warn' } });
  const sides = await startSides(scope, authority, directory);
  const keyPair = await fetchKeyPair(authority.workloadSocket);
  const found = new Map<string, { p50: number[]; p99: number[] }>();
  const lanes = [...sides].map(([name, proxy]) => ({ name, call: openLane(scope, proxy, keyPair) }));
  for (const { call } of lanes) await call(Math.min(500, roundMs));
  for (let round = 0; round < rounds; round++) {
    for (const { name, call } of lanes) {
      const times = await call(roundMs);
      const of = found.get(name) ?? { p50: [], p99: [] };
      found.set(name, of);
      of.p50.push(percentile(times, 0.5));
      of.p99.push(percentile(times, 0.99));
    }
  }
  const at = (name: string, what: 'p50' | 'p99'): readonly number[] => found.get(name)?.[what] ?? [];
  const ratio = (name: string, to: string, what: 'p50' | 'p99' = 'p50'): number =>
    percentile(
      at(name, what).map((value, i) => value / (at(to, what)[i] ?? Number.NaN)),
      0.5,
    );
  const told = (name: string, value: number, atMost: number | null = null, unit = ''): Figure => ({
    name,
    value,
    unit,
    atMost,
  });
  return [
    ...[...found.keys()].flatMap((name) => [
      told(`${name}: p50`, percentile(at(name, 'p50'), 0.5), null, 'ms'),
      told(`${name}: p99`, percentile(at(name, 'p99'), 0.5), null, 'ms'),
    ]),
    told('p50 for 10,000 callers to p50 for 1', ratio('in proxy, 10,000', 'in proxy, 1'), 1.1),
    told('p99 for 10,000 callers to p99 for 1', ratio('in proxy, 10,000', 'in proxy, 1', 'p99')),
    told("Istio's encoding: p50 for 10,000 to p50 for 1", ratio('Istio, 10,000', 'Istio, 1')),
    told("Istio's encoding to ours, p50 for 10,000", ratio('Istio, 10,000', 'in proxy, 10,000')),
    told('agent to proxy, p50 for 10,000', ratio('agent, 10,000', 'in proxy, 10,000')),
  ];
}

async function startSides(
  scope: Scope,
  authority: Authority,
  directory: string,
): Promise<ReadonlyMap<string, BenchProxy>> {
  const kinds = [
    { name: 'in proxy, 1', service: 'shop/own-one', callers: 1, decide: 'in-proxy' },
    { name: 'in proxy, 10,000', service: 'shop/own-many', callers: many, decide: 'in-proxy' },
    { name: 'agent, 10,000', service: 'shop/asks-many', callers: many, decide: 'agent' },
    { name: 'Istio, 1', service: 'shop/istio-one', callers: 1, decide: 'agent', isIstio: true },
    { name: 'Istio, 10,000', service: 'shop/istio-many', callers: many, decide: 'agent', isIstio: true },
  ];
  const ports = await freePorts(kinds.length);
  const texts: string[] = [entry(idOf(authority, 'shop/web'), process.execPath)];
  const sides = new Map<string, BenchProxy>();
  for (const [i, { name, service, callers, decide, isIstio }] of kinds.entries()) {
    const own = allowCallers(service, callers);
    const rbac = isIstio === true ? { rbac: istioOf(own) } : {};
    const proxy = startBenchProxy(scope, authority, directory, {
      service,
      port: ports[i] ?? 0,
      decide,
      ...rbac,
    });
    const app = { app: service.split('/')[1] ?? '' };
    texts.push(entry(proxy.sidecar.id, proxy.sidecar.binary, {}, app), ...(isIstio === true ? [] : own));
    sides.set(name, proxy);
  }
  for (let at = 0; at < texts.length; at += 40) await authority.apply(texts.slice(at, at + 40).join(''));
  await Promise.all([...sides.values()].map(({ sidecar }) => sidecar.live(60_000)));
  await haveCurrent(authority, ['shop/own-one', 'shop/own-many']);
  return sides;
}

function istioOf(texts: readonly string[]): object {
  // Documents of ours are JSON behind a line that begins them.
  const policies = texts.map((text) => JSON.parse(text.slice(text.indexOf('{'))) as RawPolicy);
  const rules = encodeRbac(
    policies.map((one) => ({ ...one, spec: { ...one.spec, action: 'ALLOW' as const } })),
    'ALLOW',
    ['mesh.test'],
  );
  if (rules === null) throw new Error('no rules');
  return rules;
}

/** A connection that is kept. @returns calls for so long, one after the other; how long each took, in ms */
function openLane(scope: Scope, { port, service }: BenchProxy, { key, cert }: KeyPair) {
  const agent = new Agent({ keepAlive: true, maxSockets: 1, key, cert, rejectUnauthorized: false });
  scope.defer(() => agent.destroy());
  const one = (): Promise<void> =>
    new Promise((resolve, reject) => {
      const sent = request({ host: '127.0.0.1', port, path: '/orders/1', agent }, (response) => {
        response.resume();
        response.on('end', () => {
          if (response.statusCode === 200) resolve();
          else reject(new Error(`${service} answered ${response.statusCode}`));
        });
      });
      sent.on('error', reject);
      sent.end();
    });
  return async (forMs: number): Promise<readonly number[]> => {
    const times: number[] = [];
    const until = performance.now() + forMs;
    for (let before = performance.now(); before < until;) {
      await one();
      const after = performance.now();
      times.push(after - before);
      before = after;
    }
    return times.slice(1);
  };
}
