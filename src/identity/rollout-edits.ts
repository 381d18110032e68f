import type { Actor } from '../audit/event.ts';
import type { Policy } from '../authz/policy.ts';
import { MeshError } from '../errors.ts';
import { type Breathe, inBreaths } from './breath.ts';
import { type CurrentMesh, type MeshSettings, readStoredPolicy } from './current-mesh.ts';
import { stampPlan } from './mesh-step.ts';
import type { PolicyDocument } from './mesh.ts';
import type { Permit } from './permit.ts';
import { emptyPlan, type MeshPlan, planInSteps, type SourceFile } from './plan.ts';
import { editStep, type PolicyChange } from './policy-edits.ts';
import { parseRevisionMessage, policyNamespace, type PolicyRevision } from './policy-revision.ts';
import {
  type CandidateChanges,
  liveRollout,
  noRollout,
  type Rollout,
  type StagedRollout,
} from './rollout.ts';
import { demandNoRollout, type EndingCall } from './rollout-step.ts';

export type StageOptions = {
  readonly message: string;
  readonly dryRun: boolean;
  /** Whether the candidate lacks the policies that the files do not name. */
  readonly prune: boolean;
  readonly permit?: Permit | undefined;
};

export type StageResult = {
  /** Null with a dry run. */
  readonly rollout: Rollout | null;
  readonly changes: readonly PolicyChange[];
  /** What its author should know though it is no mistake; lower case, no full stop. */
  readonly warnings: readonly string[];
};

type StepOptions = { readonly message: string; readonly permit?: Permit | undefined };

/** The way of a candidate into force. Each step is durable, with its events, before its promise resolves. */
export type RolloutEdits = {
  /**
   * Puts a candidate beside the revision in force, planned as `apply` would: read, permitted, tested. It decides nothing yet.
   * @throws MeshError `policy_rollout_active` naming the one that is under way, `policy_rollout_invalid` for what is in force
   *   already, `policy_revision_not_found` while nothing is, and those of `apply`
   */
  readonly stageRollout: (
    files: readonly SourceFile[],
    actor: Actor,
    options: StageOptions,
  ) => Promise<StageResult>;
  /**
   * Lets the candidate decide for a share of the workloads.
   * @throws MeshError `policy_rollout_none`, `policy_rollout_invalid`, `forbidden`, `policy_message_invalid`
   */
  readonly moveCanary: (
    percent: number,
    actor: Actor,
    options: StepOptions & { readonly maxNewDenials?: number | undefined },
  ) => Promise<Rollout>;
  /**
   * Puts the candidate in force, as a revision like any other.
   * @param id of the rollout that whoever asks has looked at
   * @throws MeshError `policy_rollout_none` when it is over, `policy_test_failed`, `forbidden`, `policy_message_invalid`
   */
  readonly enforceRollout: (
    id: string,
    actor: Actor,
    options: StepOptions,
  ) => Promise<{ readonly active: PolicyRevision; readonly warnings: readonly string[] }>;
  /**
   * Ends the rollout; what is in force stays, everywhere. It waits for no edit.
   * @throws MeshError `policy_rollout_none`, `forbidden` for those who may write none of its policies
   */
  readonly abortRollout: (actor: Actor, options: StepOptions) => Promise<Rollout>;
  /** The same by the system, for a call. Does nothing when that rollout is over. */
  readonly endRollout: (id: string, call: EndingCall) => Promise<boolean>;
};

export function createRolloutEdits(parts: {
  readonly current: () => CurrentMesh;
  readonly settings: MeshSettings;
  readonly inEdit: <T>(work: () => Promise<T>) => Promise<T>;
  readonly takeEdit: (plan: MeshPlan, actor: Actor, dryRun?: boolean) => Promise<MeshPlan>;
  /** In its turn, but before edits that are still being read. */
  readonly putNow: (makePlan: () => MeshPlan | undefined, actor: Actor) => Promise<boolean>;
  readonly breathe: Breathe;
}): RolloutEdits {
  const { current, settings, inEdit, takeEdit, putNow, breathe } = parts;
  const live = (): StagedRollout => {
    const found = liveRollout(current().mesh);
    if (found === undefined) throw noRollout();
    return found;
  };
  const state = (): Rollout => {
    const { rollout } = current().mesh;
    if (rollout === undefined) throw new MeshError('internal', 'a rollout was not stored');
    return rollout.state;
  };

  return {
    stageRollout: (files, actor, { message: text, dryRun, prune, permit }) =>
      inEdit(async () => {
        const rolloutStep = { kind: 'stage', message: parseRevisionMessage(text) } as const;
        const { mesh } = current();
        demandNoRollout(mesh, { ...emptyPlan, rolloutStep });
        if (mesh.policyRevision === undefined) {
          throw new MeshError('policy_revision_not_found', 'there is no revision of policies yet', {
            fix: 'apply a policy first: with none in force there is nothing to compare with',
          });
        }
        const steps = planInSteps(current(), files, settings, permit, true);
        const read = (await inBreaths(steps, breathe)) ?? emptyPlan;
        const deletePolicies = prune ? unnamed(current(), read, permit) : [];
        const plan = stampPlan({ ...read, deletePolicies }, current().mesh.revision + 1);
        demandChange(plan, current());
        const { warnings = [] } = await takeEdit({ ...plan, rolloutStep }, actor, dryRun);
        return { rollout: dryRun ? null : state(), changes: changesOf(plan), warnings };
      }),
    moveCanary: (percent, actor, { message, maxNewDenials, permit }) =>
      inEdit(async () => {
        demandAll(live().changes, permit);
        const rolloutStep = {
          kind: 'canary',
          percent,
          maxNewDenials,
          message: parseRevisionMessage(message),
        } as const;
        await takeEdit({ ...emptyPlan, rolloutStep }, actor);
        return state();
      }),
    enforceRollout: (id, actor, { message, permit }) =>
      inEdit(async () => {
        const staged = live();
        if (staged.state.id !== id) throw noRollout();
        demandAll(staged.changes, permit);
        const policyStep = editStep(message === '' ? (current().mesh.rolloutReason?.message ?? '') : message);
        const plan: MeshPlan = {
          ...emptyPlan,
          ...candidateOf(current(), staged),
          policyStep,
          rolloutStep: { kind: 'enforce', rollout: id },
        };
        const { warnings = [] } = await takeEdit(stampPlan(plan, current().mesh.revision + 1), actor);
        const { policyRevision } = current().mesh;
        if (policyRevision === undefined) throw new MeshError('internal', 'a candidate was not put in force');
        return { active: policyRevision, warnings };
      }),
    abortRollout: async (actor, { message: text, permit }) => {
      const message = parseRevisionMessage(text);
      await putNow(() => {
        demandAny(live().changes, permit);
        return { ...emptyPlan, rolloutStep: { kind: 'abort', message } };
      }, actor);
      return state();
    },
    endRollout: (id, call) =>
      putNow(
        () => {
          if (liveRollout(current().mesh)?.state.id !== id) return undefined;
          return { ...emptyPlan, rolloutStep: { kind: 'abort', message: '', call } };
        },
        { kind: 'system' },
      ),
  };
}

/** The policies that are in force and not named. */
function unnamed(
  { mesh }: CurrentMesh,
  { changes }: MeshPlan,
  permit: Permit | undefined,
): readonly string[] {
  const named = new Set(changes.map(({ key }) => key));
  const deleted = [...mesh.policies.keys()].filter((key) => !named.has(key)).sort();
  demandAll({ put: [], deleted }, permit);
  return deleted;
}

/** A line that moved in its file is no candidate. */
function demandChange({ putPolicies, deletePolicies, changes }: MeshPlan, { mesh }: CurrentMesh): void {
  const isOther = ({ document }: { readonly document: PolicyDocument }) =>
    mesh.policies.get(document.key)?.sha256 !== document.sha256;
  if (deletePolicies.length > 0 || putPolicies.some(isOther)) return;
  throw new MeshError(
    'policy_rollout_invalid',
    changes.length === 0 ? 'the files have no policy' : 'the candidate is what is in force already',
    { fix: 'change a policy, or use --prune to leave out those that the files do not name' },
  );
}

/** What the candidate changes, as if it were written now. */
function candidateOf(
  { mesh, candidate }: CurrentMesh,
  { changes }: StagedRollout,
): Pick<MeshPlan, 'putPolicies' | 'deletePolicies'> {
  const policyOf = (document: PolicyDocument): Policy =>
    candidate?.policies.get(document.key) ?? readStoredPolicy(document);
  return {
    putPolicies: changes.put.map((document) => ({ document, policy: policyOf(document) })),
    deletePolicies: changes.deleted.filter((key) => mesh.policies.has(key)),
  };
}

function changesOf({ changes, deletePolicies }: MeshPlan): readonly PolicyChange[] {
  return [
    ...changes.flatMap(({ key, action }) => (action === 'unchanged' ? [] : [{ key, action }])),
    ...deletePolicies.map((key) => ({ key, action: 'deleted' as const })),
  ];
}

function demandAll({ put, deleted }: CandidateChanges, permit: Permit | undefined): void {
  for (const key of [...put.map((document) => document.key), ...deleted]) demandKey(key, permit);
}

/** INVARIANT: to go back to what is in force takes less than to go on: whoever may write any of it may say stop. */
function demandAny({ put, deleted }: CandidateChanges, permit: Permit | undefined): void {
  let refusal: unknown;
  for (const key of [...put.map((document) => document.key), ...deleted]) {
    try {
      return demandKey(key, permit);
    } catch (error) {
      if (!(error instanceof MeshError) || error.code !== 'forbidden') throw error;
      refusal ??= error;
    }
  }
  if (refusal !== undefined) throw refusal;
}

function demandKey(key: string, permit: Permit | undefined): void {
  const namespace = policyNamespace(key);
  permit?.demand({ kind: 'policy', namespace, name: key.slice(namespace.length + 1) });
}
