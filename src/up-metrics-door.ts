import type { Config } from './config.ts';
import { MeshError } from './errors.ts';
import type { AgentPorts } from './http/agent-app.ts';
import { listenMetrics } from './http/agent-listener.ts';
import type { Log } from './log.ts';
import { randomBytes } from './up-random.ts';

/** Health and metrics for whoever is on this machine. */
export type MetricsDoor = {
  /** `http://host:port` with the real port. */
  readonly url: string;
  readonly close: () => Promise<void>;
};

/**
 * Opens it where the configuration says.
 * @throws MeshError `address_in_use`, `config_invalid`, also when the configuration says nothing
 */
export async function openMetricsDoor(
  readiness: AgentPorts['readiness'],
  metricsText: () => string,
  { metricsAddress, shutdownGraceSeconds }: Pick<Config, 'metricsAddress' | 'shutdownGraceSeconds'>,
  log: Log,
): Promise<MetricsDoor> {
  if (metricsAddress === null) throw new MeshError('config_invalid', 'metricsAddress is off');
  const listener = await listenMetrics(
    {
      readiness,
      metricsText,
      randomBytes,
      reportFailure: (errorId, error) => log.error({ errorId, err: error }, 'request failed'),
    },
    metricsAddress,
  );
  return { url: listener.address, close: () => listener.close(shutdownGraceSeconds * 1_000) };
}
