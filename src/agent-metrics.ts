import type { AgentStatusReport } from './http/status-report.ts';
import { createMetrics } from './metrics.ts';
import { addDoorMetrics, type DoorInstruments, type DoorMetricsParts } from './up-door-metrics.ts';

/** What an agent counts, and where its parts report it. */
export type AgentInstruments = DoorInstruments & { readonly text: () => string };

/** @param parts.status what it tells of itself; asked for when the metrics are */
export function createAgentInstruments(
  parts: DoorMetricsParts & { readonly status: () => AgentStatusReport },
): AgentInstruments {
  const metrics = createMetrics();
  const doors = addDoorMetrics(metrics, parts);
  const { status, clock } = parts;
  metrics.gauge('countersign_agent_connected', 'Whether the server is there now: 1 or 0.', () =>
    status().server.connected ? 1 : 0,
  );
  metrics.gauge('countersign_agent_server_contact_age_seconds', 'Since the server was last there.', () => {
    const at = status().server.lastContactAt?.getTime() ?? NaN;
    return Math.max(0, (clock.now().getTime() - at) / 1_000);
  });
  metrics.gauge(
    'countersign_agent_policy_deny_seconds',
    'Until every call is denied because the server has not confirmed the policy.',
    () => status().policy?.deniesInSeconds ?? NaN,
  );
  metrics.gauge(
    'countersign_agent_node_expiry_seconds',
    'Until the certificate of the node ends, and it has to attest again.',
    () => status().node?.expiresInSeconds ?? NaN,
  );
  metrics.gauge(
    'countersign_agent_view_revision',
    'Revision of the view in force, within its stream.',
    () => status().server.viewRevision,
  );
  metrics.gauge(
    'countersign_agent_events_queued',
    "Decisions, refusals and what proxies saw that are not in the server's log yet.",
    () => status().events.queued,
  );
  metrics.gauge(
    'countersign_agent_events_lost',
    'Decisions, refusals and what proxies saw that were lost since the start.',
    () => status().events.lost,
  );
  return { ...doors, text: metrics.text };
}
