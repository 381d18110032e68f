import { decisionReasons } from './authz/decision.ts';
import type { Clock } from './clock.ts';
import type { ErrorCode } from './errors.ts';
import type { DecisionLog } from './ext-authz/decision-log.ts';
import type { CheckObserver } from './ext-authz/service.ts';
import { trustAnswers as trustAnswerKinds } from './http/trust-app.ts';
import type { MeshHolder } from './identity/current-mesh.ts';
import type { Keeper } from './identity/keeper.ts';
import { type Counter, createMetrics } from './metrics.ts';
import type { SdsObserver } from './sds/observer.ts';
import type { Store } from './store/store.ts';
import type { KeptAuthority } from './up-authority.ts';
import { workloadCalls, type WorkloadApiObserver } from './workload-api/observer.ts';

/** What the process counts, and where its parts report it. */
export type Instruments = {
  readonly sds: SdsObserver;
  readonly checks: CheckObserver;
  readonly workloadApi: WorkloadApiObserver;
  readonly issuances: Counter;
  /** Of the public door; nothing of it is in the audit log. */
  readonly trust: { readonly answers: Counter; readonly turnedAway: Counter };
  readonly openStreams: () => number;
  readonly text: () => string;
};

export function createInstruments(parts: {
  readonly holder: MeshHolder;
  readonly keeper: Keeper;
  readonly decisions: DecisionLog;
  readonly authority: KeptAuthority;
  readonly store: Store;
  readonly clock: Clock;
  /** Why the clock is not to be trusted; null when it is. */
  readonly doubt: () => string | null;
  readonly onCheckFailure: (error: unknown) => void;
}): Instruments {
  const metrics = createMetrics();
  const issuances = metrics.counter('countersign_issuances', 'Certificates made, by result.', 'result', [
    'ok',
    'failed',
  ]);
  const sds = metrics.counter('countersign_sds_messages', 'SDS responses and their fate.', 'kind', [
    'push',
    'ack',
    'nack',
  ]);
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
  const trustAnswers = metrics.counter(
    'countersign_trust_answers',
    'Answers of the public door.',
    'answer',
    trustAnswerKinds,
  );
  const trustTurnedAway = metrics.counter(
    'countersign_trust_connections_turned_away',
    'Connections to the public door that were closed unread, by the limit that was reached.',
    'limit',
    ['total', 'address', 'rate'],
  );
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
  const { holder, keeper, authority, clock } = parts;
  const now = () => clock.now().getTime();
  metrics.gauge('countersign_sds_streams', 'Open SDS streams.', () => openStreams);
  metrics.gauge(
    'countersign_mesh_revision',
    'Revision of the mesh in force.',
    () => holder.current().mesh.revision,
  );
  metrics.gauge('countersign_entries', 'Registration entries.', () => holder.current().mesh.entries.size);
  metrics.gauge('countersign_policies', 'Policies.', () => holder.current().mesh.policies.size);
  metrics.gauge(
    'countersign_bans',
    'Bans, those that have run out included.',
    () => holder.current().bans.size,
  );
  metrics.gauge(
    'countersign_certificates_kept',
    'Live certificates held for proxies.',
    () => keeper.kept().length,
  );
  metrics.gauge('countersign_next_expiry_seconds', 'Until the first live certificate expires.', () =>
    keeper
      .kept()
      .reduce((least, { notAfter }) => Math.min(least, (notAfter.getTime() - now()) / 1_000), Infinity),
  );
  metrics.gauge(
    'countersign_issuer_expiry_seconds',
    'Until the issuing CA expires.',
    () => (authority.current().notAfter.getTime() - now()) / 1_000,
  );
  metrics.gauge(
    'countersign_decisions_queued',
    'Decisions not yet in the log.',
    () => parts.decisions.depth().queued,
  );
  metrics.gauge(
    'countersign_decisions_lost',
    'Decisions lost and not yet recorded as lost.',
    () => parts.decisions.depth().lost,
  );
  metrics.gauge('countersign_clock_in_doubt', 'Whether the clock of this machine was put: 1 or 0.', () =>
    parts.doubt() === null ? 0 : 1,
  );
  metrics.gauge('countersign_store_ok', 'Whether the store takes writes: 1 or 0.', () =>
    parts.store.health().ok ? 1 : 0,
  );
  return {
    issuances,
    trust: { answers: trustAnswers, turnedAway: trustTurnedAway },
    openStreams: () => openStreams,
    text: metrics.text,
    sds: {
      opened: () => {
        openStreams += 1;
      },
      closed: () => {
        openStreams -= 1;
      },
      pushed: () => sds.add('push'),
      acknowledged: () => sds.add('ack'),
      rejected: () => sds.add('nack'),
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
    checks: {
      decided: ({ reason }, took) => {
        decisions.add(reason);
        seconds.observe(took);
      },
      outage: (cause) => outages.add(cause),
      failed: parts.onCheckFailure,
    },
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
