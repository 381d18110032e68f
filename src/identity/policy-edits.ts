import type { Actor } from '../audit/event.ts';
import type { Policy } from '../authz/policy.ts';
import type { PolicyMode } from '../authz/policy-mode.ts';
import type { Steps } from '../authz/steps.ts';
import { MeshError, quote } from '../errors.ts';
import { type Breathe, inBreaths } from './breath.ts';
import { type CurrentMesh, readStoredPolicy } from './current-mesh.ts';
import type { Mesh, NewPolicyRevision, PolicyDocument } from './mesh.ts';
import type { Permit } from './permit.ts';
import { emptyPlan, type MeshPlan, samePolicy } from './plan.ts';
import {
  changesByNamespace,
  parseRevisionMessage,
  policyNamespace,
  policySetId,
  policySetMode,
  type PolicyRevision,
  type PolicyRevisionRecord,
  type PolicySigner,
  signRevision,
} from './policy-revision.ts';
import type { TrustDomain } from '../spiffe/id.ts';

/** What is kept of earlier revisions. */
export type PolicyHistory = {
  /** Null when there never was one of this number, or it is kept no longer. */
  readonly revision: (number: number) => Promise<PolicyRevisionRecord | null>;
  /** What leads back from the policies in force to those of a revision that is kept. */
  readonly past: (number: number) => Promise<PolicyPast>;
};

/** What was in force under a revision and is not now, or not in that form; and the names of what has come since. */
export type PolicyPast = {
  readonly documents: readonly PolicyDocument[];
  readonly newer: readonly string[];
};

/** A revision to go back to: by its number, or the one before that which is in force. */
export type RevisionChoice = number | 'previous';

export type ActivateOptions = {
  readonly message: string;
  readonly dryRun: boolean;
  /** The number that whoever asks believes to be in force. */
  readonly expectActive?: number | undefined;
  readonly permit?: Permit | undefined;
};

export type ActivateResult = {
  /** What is in force afterwards; with a dry run, what is now. */
  readonly active: PolicyRevision;
  /** The revision whose policies they are. */
  readonly restores: number;
  readonly changes: readonly PolicyChange[];
  /** Tests that fail and do not bar the way back, grants that come back; lower case, no full stop. */
  readonly warnings: readonly string[];
};

/** What becomes of one policy. */
export type PolicyChange = {
  /** `namespace/name`. */
  readonly key: string;
  readonly action: 'created' | 'updated' | 'deleted';
};

/** Edits of policies that are not written in files. They happen one after the other with all other edits. */
export type PolicyEdits = {
  /** @param key `namespace/name`. @throws MeshError `policy_not_found`, `policy_message_invalid` */
  readonly deletePolicy: (key: string, actor: Actor, message?: string) => Promise<void>;
  /**
   * Puts the policies of an earlier revision in force again, under a number of their own.
   * @throws MeshError `policy_revision_not_found`, for `previous` also where the mode was switched; `revision_conflict` when another one is in force than is believed;
   *   `forbidden` naming a namespace that whoever asks may not write; `policy_invalid` when this version cannot read what
   *   was stored; `policy_message_invalid`
   */
  readonly activatePolicies: (
    choice: RevisionChoice,
    actor: Actor,
    options: ActivateOptions,
  ) => Promise<ActivateResult>;
  /**
   * Puts the same policies in force under the number that follows `after`: agents that have enforced so high a number,
   * before this server was restored from a backup, take what it says from then on.
   * @throws MeshError `policy_number_invalid`, `policy_message_invalid`
   */
  readonly renumberPolicies: (after: number, actor: Actor, message: string) => Promise<PolicyRevision>;
  /**
   * Makes the first revision of policies that were there before revisions were kept, and a revision of its own when they
   * are to be read in another mode than that in force; else does nothing.
   */
  readonly adoptPolicies: () => Promise<void>;
};

/** Why policies change, for a plan that is no edit of documents. */
export type PolicyStep = {
  readonly action: 'edited' | 'activated' | 'adopted' | 'renumbered';
  readonly message: string;
  readonly restores: number | null;
  /** The number that it follows, if that is not the one in force. */
  readonly after?: number;
};

export function createPolicyEdits(parts: {
  readonly current: () => CurrentMesh;
  readonly history: PolicyHistory;
  readonly inEdit: <T>(work: () => Promise<T>) => Promise<T>;
  readonly takeEdit: (plan: MeshPlan, actor: Actor, dryRun?: boolean) => Promise<MeshPlan>;
  readonly breathe: Breathe;
  readonly mode: PolicyMode;
}): PolicyEdits {
  const { current, history, inEdit, takeEdit, breathe, mode } = parts;
  const active = (): PolicyRevision => {
    const { policyRevision } = current().mesh;
    if (policyRevision !== undefined) return policyRevision;
    throw new MeshError('policy_revision_not_found', 'there is no revision of policies yet', {
      fix: 'apply a policy first',
    });
  };
  const kept = async (number: number): Promise<PolicyRevisionRecord> => {
    const record = await history.revision(number);
    if (record !== null) return record;
    throw new MeshError('policy_revision_not_found', `there is no policy revision ${number}`, {
      fix: 'countersign policy log shows those that are kept',
    });
  };

  /**
   * INVARIANT: whoever goes back twice comes to what was before, and not to where they came from. What they undo is the last
   * revision or nothing: a switch of the mode is not theirs to undo, nor to pass over unasked.
   */
  const previous = async (): Promise<number> => {
    let at = await kept(active().number);
    while (at.restores !== null) {
      if (switchesMode(at)) throw modeInTheWay(at);
      at = await kept(at.restores);
    }
    if (at.parent !== null) return at.parent.number;
    const { number } = active();
    const same = number === at.number ? '' : `, which ${number} has put back in force`;
    throw new MeshError('policy_revision_not_found', `no policy revision is before ${at.number}${same}`, {
      fix: 'name the revision to activate; countersign policy log shows those that are kept',
    });
  };

  return {
    deletePolicy: (key, actor, message = '') =>
      inEdit(async () => {
        const step = editStep(message);
        if (!current().mesh.policies.has(key)) {
          throw new MeshError('policy_not_found', `there is no policy ${quote(key)}`, {
            fix: 'see `countersign policy list`',
          });
        }
        await takeEdit({ ...emptyPlan, deletePolicies: [key], policyStep: step }, actor);
      }),
    activatePolicies: (choice, actor, { message: text, dryRun, expectActive, permit }) =>
      inEdit(async () => {
        const message = parseRevisionMessage(text);
        const now = active();
        if (expectActive !== undefined && expectActive !== now.number) {
          throw new MeshError(
            'revision_conflict',
            `policy revision ${now.number} is in force, and not ${expectActive}`,
            { fix: 'look at countersign policy log, and decide again' },
          );
        }
        const restores = choice === 'previous' ? await previous() : choice;
        const { id } = await kept(restores);
        const work = planActivation(current(), await history.past(restores), restores, permit);
        const { plan, changes } = (await inBreaths(work, breathe)) ?? nothing;
        demandWhole(current().mesh, plan, restores, id);
        if (changes.length === 0) return { active: active(), restores, changes, warnings: [] };
        const policyStep = { action: 'activated', message, restores } as const;
        const { warnings = [] } = await takeEdit({ ...plan, policyStep }, actor, dryRun);
        return { active: active(), restores, changes, warnings };
      }),
    renumberPolicies: (after, actor, text) =>
      inEdit(async () => {
        const message = parseRevisionMessage(text);
        const number = current().mesh.policyRevision?.number ?? 0;
        if (!Number.isSafeInteger(after) || after < number || after > number + maxLeap) {
          throw new MeshError(
            'policy_number_invalid',
            `a policy revision cannot be moved from ${number} to after ${quote(`${after}`)}`,
            { fix: `name the highest number that an agent has enforced, ${number} to ${number + maxLeap}` },
          );
        }
        const restores = number === 0 ? null : number;
        const policyStep = { action: 'renumbered', message, restores, after } as const;
        await takeEdit({ ...emptyPlan, policyStep }, actor);
        return active();
      }),
    adoptPolicies: () =>
      inEdit(async () => {
        const { policies, policyRevision } = current().mesh;
        const isRead =
          policyRevision === undefined
            ? mode === 'strict'
            : policySetMode(policies, policyRevision.id) === mode;
        if (isRead && (policyRevision !== undefined || policies.size === 0)) return;
        const message = isRead ? 'policies from before revisions were kept' : `policy mode ${mode}`;
        // The way back leads past it: what it holds was there before.
        const policyStep = { action: 'adopted', message, restores: policyRevision?.number ?? null } as const;
        await takeEdit({ ...emptyPlan, policyStep }, { kind: 'system' });
      }),
  };
}

/** Such a revision has the policies of the one before it, under another name: how they are read is part of it. */
function switchesMode({ restores, parent, id }: PolicyRevisionRecord): boolean {
  return parent !== null && restores === parent.number && id !== parent.id;
}

function modeInTheWay({ number, restores }: PolicyRevisionRecord): MeshError {
  return new MeshError(
    'policy_revision_not_found',
    `policy revision ${number} switched the mode, and no way back leads past it`,
    {
      fix: `set policyMode in the configuration and start the server again, or name the policies to go back to: ${restores} has the same`,
    },
  );
}

/** An edit of documents. @throws MeshError `policy_message_invalid` */
export function editStep(message: string): PolicyStep {
  return { action: 'edited', message: parseRevisionMessage(message), restores: null };
}

/** The revision that a plan makes; undefined for one that leaves policies as they are. */
export async function revise(
  before: Mesh,
  after: Pick<Mesh, 'policies'>,
  plan: MeshPlan,
  by: {
    readonly signer: PolicySigner;
    readonly trustDomain: TrustDomain;
    readonly mode: PolicyMode;
    readonly author: Actor;
    readonly time: Date;
  },
): Promise<(NewPolicyRevision & { readonly action: PolicyStep['action'] }) | undefined> {
  const step = plan.policyStep ?? editStep('');
  const put = plan.putPolicies.map(({ document }) => document);
  if (put.length + plan.deletePolicies.length === 0 && step.action === 'edited') return undefined;
  const parent = before.policyRevision ?? null;
  const record = await signRevision(
    by.signer,
    by.trustDomain,
    {
      number: (step.after ?? parent?.number ?? 0) + 1,
      id: policySetId(after.policies, by.mode),
      parent,
      time: by.time,
    },
    { author: by.author, message: step.message, restores: step.restores },
  );
  const changes =
    step.action === 'adopted' && parent === null
      ? changesByNamespace(new Map(), [...before.policies.values()], [])
      : changesByNamespace(before.policies, put, plan.deletePolicies);
  return { record, changes, action: step.action };
}

/** Reads what is to come back, as if it were written now: what this version refuses is not put in force. */
export function* planActivation(
  { mesh }: CurrentMesh,
  past: PolicyPast,
  number: number,
  permit: Permit | undefined,
): Steps<{ readonly plan: MeshPlan; readonly changes: readonly PolicyChange[] }> {
  const revision = mesh.revision + 1;
  const back = new Set(past.documents.map(({ key }) => key));
  const deletePolicies = past.newer.filter((key) => !back.has(key) && mesh.policies.has(key));
  const different = past.documents.filter((document) => {
    const now = mesh.policies.get(document.key);
    return now === undefined || !samePolicy(now, document);
  });
  const keys = [...different.map(({ key }) => key), ...deletePolicies];
  demandAll(keys.sort(), number, permit);
  const putPolicies: { document: PolicyDocument; policy: Policy }[] = [];
  for (const document of different) {
    yield;
    putPolicies.push({ document: { ...document, revision }, policy: readStoredPolicy(document) });
  }
  const changes = keys.map((key): PolicyChange => ({
    key,
    action: !back.has(key) ? 'deleted' : mesh.policies.has(key) ? 'updated' : 'created',
  }));
  return { plan: { ...emptyPlan, putPolicies, deletePolicies }, changes };
}

/** INVARIANT: what comes back is what was signed: a revision that was dropped or damaged meanwhile is not put in force in part. */
export function demandWhole({ policies }: Mesh, plan: MeshPlan, number: number, id: string): void {
  const after = new Map(policies);
  for (const key of plan.deletePolicies) after.delete(key);
  for (const { document } of plan.putPolicies) after.set(document.key, document);
  if (policySetMode(after, id) !== undefined) return;
  throw new MeshError(
    'store_corrupt',
    `the stored policies of revision ${number} are not those that it names`,
    {
      fix: 'countersign policy log shows those that are kept; or restore the data directory from a backup',
    },
  );
}

/** Of another namespace its name is told, and no more of what is in it. */
function demandAll(keys: readonly string[], number: number, permit: Permit | undefined): void {
  for (const key of keys) {
    const namespace = policyNamespace(key);
    try {
      permit?.demand({ kind: 'policy', namespace, name: key.slice(namespace.length + 1) });
    } catch (cause) {
      if (!(cause instanceof MeshError) || cause.code !== 'forbidden') throw cause;
      throw new MeshError(
        'forbidden',
        `policy revision ${number} has other policies in the namespace ${quote(namespace)}, which needs the permission policies:write there`,
        {
          fix: 'apply the policies of your own namespace as they were, or ask somebody who may write them all',
        },
      );
    }
  }
}

const nothing = { plan: emptyPlan, changes: [] };
// A number that was typed wrong must not use up all there are.
const maxLeap = 1_000_000;
