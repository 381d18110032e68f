import type { Clock } from './clock.ts';
import type { NodesReport } from './http/status-report.ts';
import type { RolloutCounts } from './identity/rollout-tally.ts';
import { trustAnswers as trustAnswerKinds } from './http/trust-app.ts';
import { type Counter, createMetrics } from './metrics.ts';
import type { Store } from './store/store.ts';
import type { WitnessTrouble } from './up-audit-log.ts';
import type { KeptAuthority } from './up-authority.ts';
import { addDoorMetrics, type DoorInstruments, type DoorMetricsParts } from './up-door-metrics.ts';
import { addRolloutMetrics } from './up-rollout-report.ts';
import type { Alarms } from './up-proxy-logs.ts';
import { addProcessMetrics } from './up-process.ts';

/** What the process counts, and where its parts report it. */
export type Instruments = DoorInstruments & {
  /** Of the public door; nothing of it is in the audit log. */
  readonly trust: { readonly answers: Counter; readonly turnedAway: Counter };
  readonly text: () => string;
};

export function createInstruments(
  parts: DoorMetricsParts & {
    readonly authority: KeptAuthority;
    readonly store: Store;
    readonly nodes: () => NodesReport;
    readonly alarms: Pick<Alarms, 'raised'>;
    readonly rollouts: { readonly counts: () => RolloutCounts };
    readonly clock: Clock;
    /** Why the clock is not to be trusted; null when it is. */
    readonly doubt: () => string | null;
    /** Of the log; null when nobody is configured to cosign it. */
    readonly witnesses: () => WitnessTrouble | null;
  },
): Instruments {
  const metrics = createMetrics();
  const doors = addDoorMetrics(metrics, parts);
  addProcessMetrics(metrics);
  addRolloutMetrics(metrics, parts);
  const answers = metrics.counter(
    'countersign_trust_answers',
    'Answers of the public door.',
    'answer',
    trustAnswerKinds,
  );
  const turnedAway = metrics.counter(
    'countersign_trust_connections_turned_away',
    'Connections to the public door that were closed unread, by the limit that was reached.',
    'limit',
    ['total', 'address', 'rate'],
  );
  metrics.gauge(
    'countersign_issuer_expiry_seconds',
    'Until the issuing CA expires.',
    () => (parts.authority.current().notAfter.getTime() - parts.clock.now().getTime()) / 1_000,
  );
  metrics.gauge('countersign_clock_in_doubt', 'Whether the clock of this machine was put: 1 or 0.', () =>
    parts.doubt() === null ? 0 : 1,
  );
  metrics.gauge(
    'countersign_audit_witnessed_entries',
    'Entries of the latest checkpoint of the log that a quorum of witnesses has cosigned.',
    () => parts.witnesses()?.size ?? 0,
  );
  metrics.gauge(
    'countersign_audit_witnesses_disputing',
    'Witnesses that have seen another history of the log.',
    () => parts.witnesses()?.disputing ?? 0,
  );
  metrics.gauge('countersign_store_ok', 'Whether the store takes writes: 1 or 0.', () =>
    parts.store.health().ok ? 1 : 0,
  );
  metrics.gauge(
    'countersign_unknown_certificates',
    'Certificates that were used and that the log has no issuance of, since the start.',
    parts.alarms.raised,
  );
  metrics.gauge(
    'countersign_nodes_attested',
    'Nodes with a certificate that counts.',
    () => parts.nodes().attested,
  );
  metrics.gauge(
    'countersign_nodes_connected',
    'Nodes that watch their view now.',
    () => parts.nodes().connected,
  );
  metrics.gauge(
    'countersign_nodes_behind_seconds',
    'For how long the node that is furthest behind has been without its latest view.',
    () => {
      const { laggard } = parts.nodes();
      if (laggard === null) return 0;
      return (parts.clock.now().getTime() - laggard.behindSince.getTime()) / 1_000;
    },
  );
  return { ...doors, trust: { answers, turnedAway }, text: metrics.text };
}
