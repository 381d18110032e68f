import { type Clock, systemClock } from './clock.ts';
import type { Config } from './config.ts';
import { MeshError } from './errors.ts';
import type { Log } from './log.ts';
import { type Running, startUp } from './up.ts';

/** Where the node API listens when nothing says otherwise. */
export const defaultNodeAddress = { host: '127.0.0.1', port: 7_444 };

/**
 * Starts the authority for a fleet: CA, registry, policy, log and the node API. It serves no workload itself; agents do.
 * @throws MeshError as {@link startUp}, and `config_invalid`
 */
export async function startServer(config: Config, log: Log, clock: Clock = systemClock): Promise<Running> {
  if (config.sdsAddress !== null) {
    throw new MeshError('config_invalid', 'sdsAddress is for countersign up and countersign agent', {
      fix: 'set it on the agents: the server serves no workload',
    });
  }
  const nodeAddress = config.nodeAddress ?? defaultNodeAddress;
  return startUp({ ...config, nodeAddress }, log, clock, { serves: 'nodes' });
}
