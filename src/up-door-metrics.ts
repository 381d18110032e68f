import type { AccessLog } from './access-log/access-log.ts';
import type { SourceHealth } from './attest/source-health.ts';
import { type Decision, decisionReasons } from './authz/decision.ts';
import type { Clock } from './clock.ts';
import type { ErrorCode } from './errors.ts';
import type { DecisionLog } from './ext-authz/decision-log.ts';
import type { CheckObserver } from './ext-authz/service.ts';
import type { WorkloadOutlook } from './http/status-report.ts';
import type { MeshHolder } from './identity/current-mesh.ts';
import type { Keeper } from './identity/keeper.ts';
import type { Counter, Metrics } from './metrics.ts';
import { addPolicyMetrics, type PolicyInstruments } from './up-policy-metrics.ts';
import type { SdsObserver } from './xds/observer.ts';
import { workloadCalls, type WorkloadApiObserver } from './workload-api/observer.ts';

/** What is counted of the doors for workloads, at an authority and at an agent alike. */
export type DoorInstruments = {
  readonly sds: SdsObserver;
  readonly checks: CheckObserver;
  readonly workloadApi: WorkloadApiObserver;
  readonly policies: PolicyInstruments;
  readonly issuances: Counter;
  readonly openStreams: () => number;
};

export type DoorMetricsParts = {
  readonly holder: MeshHolder;
  readonly keeper: Keeper;
  readonly decisions: DecisionLog;
  readonly accessLog: Pick<AccessLog, 'depth'>;
  readonly outlooks: () => readonly WorkloadOutlook[];
  readonly sources: () => readonly SourceHealth[];
  readonly clock: Clock;
  readonly onCheckFailure: (error: unknown) => void;
  /** Told of each call that a break-glass grant let pass. */
  readonly onBreakGlass: (decision: Decision) => void;
};

/** Adds what the doors for workloads count, and what they serve. */
export function addDoorMetrics(metrics: Metrics, parts: DoorMetricsParts): DoorInstruments {
  const { holder, keeper, outlooks } = parts;
  addMeshMetrics(metrics, parts);
  metrics.gauge(
    'countersign_certificates_kept',
    'Live certificates held for proxies.',
    () => keeper.kept().length,
  );
  metrics.gauge('countersign_next_expiry_seconds', 'Until the first live certificate expires.', () =>
    keeper
      .kept()
      .reduce(
        (least, { notAfter }) => Math.min(least, (notAfter.getTime() - parts.clock.now().getTime()) / 1_000),
        Infinity,
      ),
  );
  metrics.gauge(
    'countersign_first_dark_seconds',
    'Until the first workload stops working if nothing is renewed from now on.',
    () => outlooks()[0]?.darkInSeconds ?? Infinity,
  );
  metrics.labelled(
    'gauge',
    'countersign_workload_dark_seconds',
    'Until the workload stops working if nothing is renewed from now on.',
    'spiffe_id',
    () => outlooks().map(({ spiffeId, darkInSeconds }) => [spiffeId, darkInSeconds] as const),
  );
  metrics.labelled(
    'counter',
    'countersign_attestation_calls',
    'Questions to the sources of selectors.',
    'source',
    () => parts.sources().map(({ name, calls }) => [name, calls] as const),
  );
  metrics.labelled(
    'counter',
    'countersign_attestation_failures',
    'Questions to the sources of selectors that had no answer.',
    'source',
    () => parts.sources().map(({ name, failures }) => [name, failures] as const),
  );
  const issuances = metrics.counter('countersign_issuances', 'Certificates made, by result.', 'result', [
    'ok',
    'failed',
  ]);
  const policies = addPolicyMetrics(metrics);
  return { ...sdsAndWorkloadApi(metrics), policies, checks: checksOf(metrics, parts), issuances };

  function addMeshMetrics(to: Metrics, { decisions, accessLog }: DoorMetricsParts): void {
    const mesh = () => holder.current().mesh;
    to.gauge('countersign_mesh_revision', 'Revision of the mesh in force.', () => mesh().revision);
    to.gauge('countersign_entries', 'Registration entries.', () => mesh().entries.size);
    to.gauge('countersign_policies', 'Policies.', () => mesh().policies.size);
    to.gauge('countersign_bans', 'Bans, those that have run out included.', () => holder.current().bans.size);
    to.gauge('countersign_decisions_queued', 'Decisions not yet in the log.', () => decisions.depth().queued);
    to.gauge(
      'countersign_decisions_lost',
      'Decisions lost and not yet recorded as lost.',
      () => decisions.depth().lost,
    );
    to.gauge(
      'countersign_access_log_queued',
      'What proxies saw that is not yet in the log.',
      () => accessLog.depth().queued,
    );
    to.gauge(
      'countersign_access_log_lost',
      'What proxies saw that was lost since the start, by full queues alone.',
      () => accessLog.depth().lostInAll,
    );
  }
}

function sdsAndWorkloadApi(metrics: Metrics): Pick<DoorInstruments, 'sds' | 'workloadApi' | 'openStreams'> {
  const messages = metrics.counter('countersign_sds_messages', 'SDS responses and their fate.', 'kind', [
    'push',
    'ack',
    'nack',
  ]);
  const fetches = metrics.counter(
    'countersign_workload_api_answers',
    'Messages and answers of the Workload API, by call.',
    'call',
    workloadCalls,
  );
  const refusedFetches = metrics.counter(
    'countersign_workload_api_failures',
    'Calls of the Workload API that were refused, and streams that ended with an error.',
    'code',
    fetchFailures,
  );
  let fetchStreams = 0;
  metrics.gauge('countersign_workload_api_streams', 'Open streams of the Workload API.', () => fetchStreams);
  let openStreams = 0;
  metrics.gauge('countersign_sds_streams', 'Open SDS streams.', () => openStreams);
  return {
    openStreams: () => openStreams,
    sds: {
      opened: () => {
        openStreams += 1;
      },
      closed: () => {
        openStreams -= 1;
      },
      pushed: () => messages.add('push'),
      acknowledged: () => messages.add('ack'),
      rejected: () => messages.add('nack'),
    },
    workloadApi: {
      opened: () => {
        fetchStreams += 1;
      },
      closed: () => {
        fetchStreams -= 1;
      },
      answered: (call) => fetches.add(call),
      failed: (_, code) => refusedFetches.add(code),
    },
  };
}

function checksOf(metrics: Metrics, { onCheckFailure, onBreakGlass }: DoorMetricsParts): CheckObserver {
  const decisions = metrics.counter(
    'countersign_decisions',
    'Answers to proxies, by reason.',
    'reason',
    decisionReasons,
  );
  const outages = metrics.counter('countersign_check_outages', 'Checks answered with an error.', 'cause', [
    'shutting_down',
    'overloaded',
  ]);
  const seconds = metrics.histogram(
    'countersign_check_seconds',
    'Time from the arrival of a check to its answer.',
    [0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.25],
  );
  return {
    decided: (decision, took) => {
      const { reason } = decision;
      if (decision.breakGlass !== '') onBreakGlass(decision);
      decisions.add(reason);
      seconds.observe(took);
    },
    outage: (cause) => outages.add(cause),
    failed: onCheckFailure,
  };
}

const fetchFailures: readonly ErrorCode[] = [
  'message_invalid',
  'attestation_failed',
  'identity_none',
  'identity_banned',
  'rate_limited',
  'stream_limit',
  'stream_stalled',
  'credentials_pending',
  'shutting_down',
  'jwt_invalid',
  'jwt_expired',
  'jwt_audience_mismatch',
  'jwt_audience_invalid',
  'jwt_key_unknown',
  'store_unavailable',
  'internal',
];
