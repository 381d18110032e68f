import { performance } from 'node:perf_hooks';
import { entry } from '../../test/harness/mesh.ts';
import type { Scope } from '../../test/harness/scope.ts';
import { credentials } from '@grpc/grpc-js';
import { SecretDiscoveryServiceClient } from '../../src/wire/sds.ts';
import { type Figure, percentile } from '../report.ts';
import { type Fleet, otherEntries, pause, startFleet } from './fleet.ts';

/**
 * From the call that creates an entry to the certificate on a stream that has been open before, through server and
 * agent. Each entry is deleted again, so that the caller has none when the next is made. Every certificate is new.
 */
export async function measureArrival(scope: Scope, main: string, rounds: number): Promise<readonly Figure[]> {
  const fleet = await startFleet(scope, { main });
  await fleet.server.apply(otherEntries(1_000));
  const times: number[] = [];
  for (let i = -20; i < rounds; i++) {
    const ms = await oneRound(fleet, i);
    // The first few warm both processes up.
    if (i >= 0) times.push(ms);
  }
  const name = `entry to certificate, ${rounds} entries one after the other, 1,000 others`;
  return [
    { name: `${name}, p50`, value: percentile(times, 0.5), unit: 'ms', atMost: null },
    { name: `${name}, p99`, value: percentile(times, 0.99), unit: 'ms', atMost: 250 },
    { name: `${name}, longest`, value: Math.max(...times), unit: 'ms', atMost: null },
  ];
}

async function oneRound({ agent, server }: Fleet, round: number): Promise<number> {
  const id = `spiffe://mesh.test/ns/shop/sa/late${round + 20}`;
  const client = new SecretDiscoveryServiceClient(
    `unix:${agent.workloadSocket}`,
    credentials.createInsecure(),
    { 'grpc.default_authority': 'countersign', 'grpc.use_local_subchannel_pool': 1 },
  );
  const stream = client.streamSecrets();
  try {
    const arrived = new Promise<number>((resolve, reject) => {
      stream.on('data', () => resolve(performance.now()));
      stream.on('error', reject);
    });
    stream.write({
      versionInfo: '',
      node: undefined,
      resourceNames: [id],
      typeUrl: 'type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret',
      responseNonce: '',
      errorDetail: undefined,
    });
    await pause(50 + Math.random() * 30);
    const began = performance.now();
    await server.apply(entry(id, process.execPath, { nodes: ['*'] }));
    return (await arrived) - began;
  } finally {
    stream.on('error', () => undefined);
    stream.cancel();
    client.close();
    await server.deleteEntry(entryId(id));
  }
}

/** As the harness names the document of an entry. */
function entryId(id: string): string {
  return id.split('/').slice(3).join('-');
}
