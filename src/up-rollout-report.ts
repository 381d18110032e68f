import type { StatusReport } from './http/status-report.ts';
import type { MeshHolder } from './identity/current-mesh.ts';
import type { Mesh } from './identity/mesh.ts';
import { liveRollout } from './identity/rollout.ts';
import type { RolloutCounts } from './identity/rollout-tally.ts';
import type { Metrics } from './metrics.ts';

/** Of the rollout beside the revision in force. Labels are of closed lists: nothing of callers and policies is in them. */
export function addRolloutMetrics(
  metrics: Metrics,
  { holder, rollouts }: { readonly holder: MeshHolder; readonly rollouts: { counts: () => RolloutCounts } },
): void {
  const live = () => liveRollout(holder.current().mesh)?.state;
  metrics.labelled(
    'gauge',
    'countersign_policy_rollout',
    'Whether a rollout of policies is under way at this stage: 1 or 0.',
    'stage',
    () => (['shadow', 'canary'] as const).map((stage) => [stage, live()?.stage === stage ? 1 : 0]),
  );
  metrics.gauge(
    'countersign_policy_rollout_percent',
    'Of the workloads, those whose calls the candidate of the rollout decides.',
    () => live()?.percent ?? 0,
  );
  metrics.labelled(
    'gauge',
    'countersign_policy_rollout_calls',
    'Calls that the candidate of the last rollout was judged by, by what it would change of them.',
    'change',
    () => {
      const { judged, newlyDenied, newlyAllowed } = rollouts.counts();
      return [
        ['same', judged - newlyDenied - newlyAllowed],
        ['newly_denied', newlyDenied],
        ['newly_allowed', newlyAllowed],
      ];
    },
  );
}

/** The rollout that is under way, for a status; null when there is none. */
export function rolloutStatus(
  mesh: Pick<Mesh, 'rollout' | 'policyRevision'>,
  { judged, newlyDenied, newlyAllowed }: RolloutCounts,
): StatusReport['policyRollout'] {
  const live = liveRollout(mesh)?.state;
  if (live === undefined || live.stage === 'ended') return null;
  const { id, base, stage, percent, time } = live;
  return { id, base, stage, percent, since: time, judged, newlyDenied, newlyAllowed };
}
