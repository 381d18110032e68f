import { dirname } from 'node:path';
import type { AgentConfig } from './agent-config.ts';
import { agentReadiness, agentStatus, type AgentStatusParts } from './agent-status.ts';
import { MeshError } from './errors.ts';
import type { AgentPorts } from './http/agent-app.ts';
import { listenAgent } from './http/agent-listener.ts';
import { openUnixDoor } from './http/unix-door.ts';
import type { Log } from './log.ts';
import { makeDirectory } from './store/key-files.ts';
import { openMetricsDoor } from './up-metrics-door.ts';
import { randomBytes } from './up-random.ts';

/** What an agent tells of itself, on a Unix socket and, unless it is off, on a loopback address. */
export type AgentDoors = {
  /** `http://host:port`, or null when it is off. */
  readonly metricsUrl: () => string | null;
  readonly close: () => Promise<void>;
};

/**
 * Opens the doors. They are open while the agent waits for its server, too.
 * @throws MeshError those of `bindSocket`, `address_in_use`
 */
export async function openAgentDoors(
  parts: AgentStatusParts & {
    readonly config: AgentConfig;
    readonly log: Log;
    /** Empty while there are none yet. */
    readonly metricsText: () => string;
  },
): Promise<AgentDoors> {
  const { config, log } = parts;
  const ports: AgentPorts = {
    readiness: () => agentReadiness(parts),
    metricsText: parts.metricsText,
    status: () => agentStatus(parts),
    randomBytes,
    reportFailure: (errorId, error) => log.error({ errorId, err: error }, 'request failed'),
  };
  makeDirectory(dirname(config.adminSocket), 0o755);
  const door = await openUnixDoor(config.adminUids);
  if (door.kind !== 'unix') throw new MeshError('internal', 'a socket has no door of its own');
  const unix = await listenAgent(ports, door, config.adminSocket);
  const graceMs = config.shutdownGraceSeconds * 1_000;
  const metrics =
    config.metricsAddress === null
      ? null
      : await openMetricsDoor(ports.readiness, ports.metricsText, config, log).catch(
          async (error: unknown) => {
            await unix.close(0);
            throw error;
          },
        );
  return {
    metricsUrl: () => metrics?.url ?? null,
    close: async () => {
      await Promise.all([unix.close(graceMs), metrics?.close()]);
    },
  };
}
