import { copyFileSync } from 'node:fs';
import { join } from 'node:path';
import { eventually } from '../../test/harness/eventually.ts';
import { entry } from '../../test/harness/mesh.ts';
import type { Scope } from '../../test/harness/scope.ts';
import type { Figure } from '../report.ts';
import { startCrowd } from './crowd.ts';
import { otherEntries, settledMemory, startFleet } from './fleet.ts';

const count = 1_000;

/** What a server and an agent hold that rest, with a thousand entries; then with a certificate for each of them. */
export async function measureMemory(scope: Scope, main: string, client: string): Promise<readonly Figure[]> {
  const { directory, server, agent } = await startFleet(scope, { main });
  await server.apply(otherEntries(count));
  const [ofAgent, ofServer] = await Promise.all([
    settledMemory(agent.child().pid),
    settledMemory(server.child().pid),
  ]);
  const binary = join(directory, 'crowd');
  copyFileSync(client, binary);
  const all = Array.from({ length: count }, (_, at) =>
    entry(`spiffe://mesh.test/ns/shop/sa/other-${at}`, binary, { nodes: ['*'] }),
  );
  await server.apply(all.join(''));
  // Its one stream is answered once all the certificates are there.
  const args = ['-addr', agent.workloadSocket, '-names', 'default', '-hold', '60s', '-timeout', '60s', '-q'];
  const crowd = startCrowd(scope, binary, directory, [...args, '-conns', '5', '-streams', '1']);
  const signed = async () => (await server.audit(`type=issuance`)).length >= count;
  await eventually(`${count} certificates`, signed, { withinMs: 90_000, everyMs: 1_000 });
  const [holding, signing] = [
    await settledMemory(agent.child().pid),
    await settledMemory(server.child().pid),
  ];
  crowd.child.kill('SIGINT');
  await crowd.child.exited;
  return [
    { name: 'agent, 1,000 entries, at rest: resident', value: ofAgent.rssMiB, unit: 'MiB', atMost: 120 },
    { name: 'agent, 1,000 entries, at rest: most so far', value: ofAgent.peakMiB, unit: 'MiB', atMost: null },
    { name: 'server, 1,000 entries, at rest: resident', value: ofServer.rssMiB, unit: 'MiB', atMost: 180 },
    {
      name: 'server, 1,000 entries, at rest: most so far',
      value: ofServer.peakMiB,
      unit: 'MiB',
      atMost: null,
    },
    { name: 'agent, with 1,000 certificates: resident', value: holding.rssMiB, unit: 'MiB', atMost: null },
    { name: 'server, 1,000 certificates later: resident', value: signing.rssMiB, unit: 'MiB', atMost: null },
  ];
}
