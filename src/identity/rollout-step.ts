import type { Actor, AuditEvent } from '../audit/event.ts';
import type { PolicyTextEvent } from '../audit/policy-event.ts';
import type { PolicyRolloutEvent } from '../audit/rollout-event.ts';
import type { PolicyMode } from '../authz/policy-mode.ts';
import type { TrustDomain } from '../spiffe/id.ts';
import { compileCandidate } from './candidate.ts';
import { type CurrentMesh, type MeshSettings, readStoredPolicy } from './current-mesh.ts';
import type { Mesh, NewRollout } from './mesh.ts';
import type { MeshPlan } from './plan.ts';
import { type PolicyRevision, policySetId, type PolicySigner } from './policy-revision.ts';
import { logText } from './policy-text.ts';
import {
  type CandidateChanges,
  liveRollout,
  nextRollout,
  noRollout,
  type Rollout,
  type RolloutCommand,
  signRollout,
  underWay,
} from './rollout.ts';

/** What a plan does to the rollout. */
export type RolloutStep =
  /** The policies of the plan become the candidate, and what is in force stays. */
  | { readonly kind: 'stage'; readonly message: string }
  | {
      readonly kind: 'canary';
      readonly percent: number;
      readonly maxNewDenials?: number | undefined;
      readonly message: string;
    }
  | { readonly kind: 'abort'; readonly message: string; readonly call?: EndingCall | undefined }
  /** The policies of the plan are the candidate of this rollout, which they end. */
  | { readonly kind: 'enforce'; readonly rollout: string };

/** A newly denied call that ended a rollout. */
export type EndingCall = {
  readonly source: string;
  readonly destination: string;
  /** The rule of the candidate that denies it; else the one in force that allows it, and `isAllowed`. */
  readonly rule: string;
  readonly isAllowed: boolean;
  /** Where that rule stands: `file:line:column`, or empty. */
  readonly place: string;
  /** Where it happened; empty for the machine of the server. */
  readonly node: string;
};

/** What of a plan is stored besides entries, policies and bans. */
export type RolloutChange = {
  /** Undefined when there is none to be stored. */
  readonly rollout: NewRollout | undefined;
  readonly events: readonly AuditEvent[];
};

/** Who takes the step. */
export type StepBy = {
  readonly signer: PolicySigner;
  readonly trustDomain: TrustDomain;
  readonly mode: PolicyMode;
  readonly author: Actor;
  readonly time: Date;
};

/**
 * Refuses a change of policies beside a rollout: its candidate was planned on what is in force. A way back ends it, and is
 * never refused.
 * @throws MeshError `policy_rollout_active`
 */
export function demandNoRollout(mesh: Mesh, plan: MeshPlan): void {
  const { policyStep, rolloutStep, putPolicies, deletePolicies } = plan;
  const live = liveRollout(mesh)?.state;
  if (live === undefined) return;
  if (rolloutStep?.kind === 'stage') throw underWay(live, 'there is one at a time');
  if (rolloutStep !== undefined || putPolicies.length + deletePolicies.length === 0) return;
  if (policyStep !== undefined && policyStep.action !== 'edited') return;
  throw underWay(live, 'policies are not changed beside it');
}

/** The plan as far as it changes what is in force: a candidate does not. */
export function withoutCandidate(plan: MeshPlan): MeshPlan {
  return plan.rolloutStep?.kind === 'stage' ? { ...plan, putPolicies: [], deletePolicies: [] } : plan;
}

/**
 * What becomes of the rollout with a plan.
 * @param next where the plan leads; with a candidate, what it would be if it were in force
 * @param revised whether the plan makes a policy revision
 * @throws MeshError those of `nextRollout`
 */
export async function stepRollout(
  { mesh }: CurrentMesh,
  next: CurrentMesh,
  plan: MeshPlan,
  revised: boolean,
  by: StepBy,
): Promise<RolloutChange> {
  const live = liveRollout(mesh);
  const { rolloutStep: step } = plan;
  const revision = mesh.revision + 1;
  if (step === undefined || step.kind === 'enforce') {
    // INVARIANT: it may have been aborted while the step waited for its turn.
    if (step !== undefined && live?.state.id !== step.rollout) throw noRollout();
    if (!revised || live === undefined) return { rollout: undefined, events: [] };
    const isEnforced = step !== undefined;
    const about = { revision, actor: by.author, message: '', cause: isEnforced ? '' : 'policies_changed' };
    const event = rolloutEvent(isEnforced ? 'enforced' : 'ended', { ...live.state, signature: '' }, about);
    return { rollout: undefined, events: [{ ...event, time: by.time }] };
  }
  const { policyRevision } = mesh;
  if (policyRevision === undefined) throw noRollout();
  const call = step.kind === 'abort' ? step.call : undefined;
  const cause = call === undefined ? '' : describeCall(call);
  // What somebody has said at the beginning is said until somebody says more.
  const said = step.kind === 'stage' ? '' : (mesh.rolloutReason?.message ?? '');
  const reason = { author: by.author, message: step.message === '' ? said : step.message, cause };
  const state = nextRollout(mesh.rollout?.state, policyRevision, commandOf(plan, next, by.mode), by.time);
  const rollout = await signRollout(by.signer, by.trustDomain, state, reason);
  const changes = step.kind === 'stage' ? changesOf(plan) : step.kind === 'abort' ? none : live?.changes;
  const event = rolloutEvent(actions[step.kind], rollout, {
    revision,
    actor: by.author,
    message: step.message,
    cause: call === undefined ? '' : 'new_denials',
    call,
  });
  const texts = step.kind === 'stage' ? textsOf(changesOf(plan), by.time, revision) : [];
  const since =
    step.kind === 'stage' || mesh.rolloutReason === undefined
      ? { startedAt: by.time, startedBy: by.author }
      : { startedAt: mesh.rolloutReason.startedAt, startedBy: mesh.rolloutReason.startedBy };
  return {
    rollout: { rollout: { state: rollout, changes: changes ?? none }, reason: { ...reason, ...since } },
    events: [...texts, event],
  };
}

/**
 * The mesh that was stored, compiled.
 * @param next where the plan leads, as in {@link stepRollout}
 */
export function settle(
  current: CurrentMesh,
  next: CurrentMesh,
  plan: MeshPlan,
  settings: MeshSettings,
  stored: { readonly policyRevision: PolicyRevision | undefined; readonly rollout: NewRollout | undefined },
): CurrentMesh {
  const { policyRevision, rollout } = stored;
  const { rollout: _rollout, rolloutReason: _reason, ...bare } = next.mesh;
  const before = policyRevision === undefined ? next.mesh : bare;
  const isStaged = plan.rolloutStep?.kind === 'stage';
  const mesh: Mesh = {
    ...before,
    ...(isStaged ? { policies: current.mesh.policies } : {}),
    ...(policyRevision === undefined ? {} : { policyRevision }),
    ...(rollout === undefined ? {} : { rollout: rollout.rollout, rolloutReason: rollout.reason }),
  };
  if (!isStaged) {
    return { ...next, mesh, candidate: compileCandidate(mesh, next, settings, readStoredPolicy, next) };
  }
  const { policies } = current;
  const snapshot = current.snapshot.at(mesh.revision);
  // What has been compiled and tested is what is tried.
  const candidate = { policies: next.policies, snapshot: next.snapshot };
  return { ...next, mesh, policies, snapshot, candidate };
}

function commandOf({ rolloutStep: step }: MeshPlan, next: CurrentMesh, mode: PolicyMode): RolloutCommand {
  if (step?.kind === 'stage') return { kind: 'stage', candidate: policySetId(next.mesh.policies, mode) };
  if (step?.kind !== 'canary') return { kind: 'end' };
  const { percent, maxNewDenials } = step;
  return { kind: 'canary', percent, maxNewDenials };
}

function changesOf({ putPolicies, deletePolicies }: MeshPlan): CandidateChanges {
  return { put: putPolicies.map(({ document }) => document), deleted: deletePolicies.toSorted() };
}

/** The texts of a candidate, so that what it decides can be told from the log alone. One it lacks has none. */
function textsOf({ put, deleted }: CandidateChanges, time: Date, revision: number): PolicyTextEvent[] {
  const one = { type: 'policy_text', part: 1, parts: 1 } as const;
  return [
    ...put.flatMap(({ key, source, sha256 }) => {
      const about = { time, policy: key, revision, sha256 };
      const { document, parts } = logText(source, about);
      return parts.length > 0 ? parts : [{ ...one, ...about, text: document }];
    }),
    ...deleted.map((policy) => ({ ...one, time, policy, revision, sha256: '', text: '' })),
  ];
}

function rolloutEvent(
  action: PolicyRolloutEvent['action'],
  { id: rollout, base, step, percent, maxNewDenials, candidate, time, signature }: Rollout,
  {
    call,
    ...about
  }: Pick<PolicyRolloutEvent, 'revision' | 'actor' | 'message' | 'cause'> & {
    readonly call?: EndingCall | undefined;
  },
): PolicyRolloutEvent {
  const { source = '', destination = '', rule = '' } = call ?? {};
  const state = { rollout, base, step, percent, maxNewDenials, candidate, signature };
  return { type: 'policy_rollout', time, action, ...state, ...about, source, destination, rule };
}

function describeCall({ source, destination, rule, isAllowed, place, node }: EndingCall): string {
  const where = node === '' ? '' : ` on ${node}`;
  const named = place === '' ? rule : `${rule} at ${place}`;
  const why = isAllowed
    ? `no rule allows it; so far ${rule === '' ? 'no rule was needed' : named} does`
    : named;
  return `${source} -> ${destination}${where} would be denied: ${why}`;
}

const actions = { stage: 'staged', canary: 'canary', abort: 'aborted' } as const;
const none: CandidateChanges = { put: [], deleted: [] };
