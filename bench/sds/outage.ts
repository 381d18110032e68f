import { join } from 'node:path';
import { startHttpApp } from '../../test/harness/apps.ts';
import { eventually } from '../../test/harness/eventually.ts';
import { ask } from '../../test/harness/http.ts';
import { startLoad } from '../../test/harness/load.ts';
import { entry, policy, startSidecar } from '../../test/harness/mesh.ts';
import { copyFileSync } from 'node:fs';
import type { Scope } from '../../test/harness/scope.ts';
import { freePorts } from '../../test/harness/temp.ts';
import type { Figure } from '../report.ts';
import { startCrowd } from './crowd.ts';
import { pause, startFleet } from './fleet.ts';

const [callsPerSecond, opensPerSecond] = [100, 20];

/**
 * The server is killed for some minutes under load: two Envoys of the agent speak mTLS, each call is decided through the
 * agent, and other streams are opened all the time. One certificate lives an hour; that of the other Envoy is due for
 * renewal while the server is away, and outlives the outage.
 */
export async function measureOutage(
  scope: Scope,
  main: string,
  client: string,
  minutes: number,
): Promise<readonly Figure[]> {
  const { directory, server, agent } = await startFleet(scope, { main });
  const [inbound, outbound] = (await freePorts(2)) as [number, number];
  const app = await startHttpApp(scope, 'orders');
  // The sidecars are those of the agent.
  const authority = { ...server, workloadSocket: agent.workloadSocket };
  const often = { maxConnectionDuration: '10s' };
  const orders = startSidecar(scope, {
    authority,
    directory,
    service: 'shop/orders',
    ways: { inbound: `127.0.0.1:${inbound}`, app: `127.0.0.1:${app.port}`, ...often },
  });
  const web = startSidecar(scope, {
    authority,
    directory,
    service: 'shop/web',
    ways: { outbound: [`127.0.0.1:${outbound}=${orders.id}@127.0.0.1:${inbound}`], ...often },
  });
  const binary = join(directory, 'crowd');
  copyFileSync(client, binary);
  await server.apply(
    [
      entry(web.id, web.binary, { nodes: ['*'], ttlSeconds: Math.round(minutes * 60 * 1.6) + 30 }),
      entry(orders.id, orders.binary, { nodes: ['*'], ttlSeconds: 3_600 }),
      entry('spiffe://mesh.test/ns/shop/sa/crowd', binary, { nodes: ['*'], ttlSeconds: 3_600 }),
      policy('shop', 'all', { rules: [{}] }),
    ].join(''),
  );
  await Promise.all([web.live(60_000), orders.live(60_000)]);
  await eventually('a call to pass', async () => (await ask({ to: outbound, path: '/' })).status === 200);

  const seconds = minutes * 60 + 20;
  const calls = startLoad(scope, outbound, callsPerSecond, '/load');
  const slots = 8;
  const opens = startCrowd(scope, binary, directory, [
    ...[
      '-addr',
      agent.workloadSocket,
      '-conns',
      '4',
      '-streams',
      `${slots / 4}`,
      '-rate',
      `${opensPerSecond}`,
    ],
    ...['-cycles', `${Math.round((opensPerSecond * seconds) / slots)}`],
  ]);
  await pause(5_000);
  const [before] = await web.certificates();
  await server.kill();
  await pause(minutes * 60_000);
  const [during] = await web.certificates();
  await server.restart();
  // What was due while nobody could sign is made good.
  const renewed = async () => {
    const [now] = await web.certificates();
    return now !== undefined && now.serial !== before?.serial;
  };
  await eventually('the renewal that was due', renewed, { withinMs: 60_000, everyMs: 500 });
  await opens.child.exited;
  await calls.stop();
  const opened = await opens.result();
  const failed = [...calls.failed().values()].reduce((sum, count) => sum + count, 0);
  for (const [why, count] of calls.failed()) console.error(`failed: ${count} x ${why}`);
  if (failed > 0) {
    const seconds = calls.failedAt().map((at) => at.toFixed(1));
    console.error(`failed, in seconds after the first call (the server ends after 5): ${seconds.join(' ')}`);
  }
  for (const failure of opened.failures) console.error(`failed: ${failure}`);
  const name = `server away for ${minutes} min`;
  return [
    {
      name: `${name}: proxy requests that passed, each decided`,
      value: calls.passed(),
      unit: '',
      atMost: null,
    },
    { name: `${name}: proxy requests that failed`, value: failed, unit: '', atMost: 0 },
    { name: `${name}: SDS streams opened`, value: opened.first, unit: '', atMost: null },
    { name: `${name}: SDS streams that failed`, value: opened.errors, unit: '', atMost: 0 },
    {
      name: `${name}: certificates that were due meanwhile, and gone before the renewal`,
      value: during === undefined ? 1 : 0,
      unit: '',
      atMost: 0,
    },
  ];
}
