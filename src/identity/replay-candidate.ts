import { type ErrorCode, formatPlace, MeshError, quote } from '../errors.ts';
import { type Breathe, inBreaths } from './breath.ts';
import type { CurrentMesh, MeshSettings } from './current-mesh.ts';
import { follow } from './mesh-step.ts';
import { type AppliedChange, emptyPlan, type MeshPlan, planInSteps, type SourceFile } from './plan.ts';
import { demandWhole, planActivation, type PolicyHistory } from './policy-edits.ts';
import { demandShortGrants } from './policy-terms.ts';
import { demandTests } from './policy-tests.ts';

/** What is to be tried: files as `apply` takes them, policies taken away, or a revision as `policy activate` takes it. */
export type CandidateChoice = {
  readonly files: readonly SourceFile[];
  /** `namespace/name` of policies that would be deleted beforehand. */
  readonly without: readonly string[];
  /** Null: none. Then files and `without` count. */
  readonly revision: number | null;
};

/** A mesh as it would be. Nothing is changed by it. */
export type Candidate = {
  readonly mesh: CurrentMesh;
  readonly changes: readonly (Omit<AppliedChange, 'action'> & {
    readonly action: AppliedChange['action'] | 'deleted';
  })[];
  /** Why it could not be put in force: a test fails, or a grant is too long. Null: it could. */
  readonly refused: {
    readonly code: ErrorCode;
    readonly message: string;
    /** `file:line:column`, or empty. */
    readonly place: string;
  } | null;
  /** Tests that fail and would not stand in the way. */
  readonly warnings: readonly string[];
};

/**
 * Works out what the mesh would be, as `apply`, `policy delete` and `policy activate` do.
 * @throws MeshError as they do, but for tests that fail and grants that are too long; `policy_not_found`,
 *   `policy_revision_not_found`
 */
export async function makeCandidate(
  current: CurrentMesh,
  choice: CandidateChoice,
  parts: {
    readonly settings: MeshSettings;
    readonly history: PolicyHistory;
    readonly breathe: Breathe;
    readonly now: Date;
  },
): Promise<Candidate> {
  const { settings, breathe, now } = parts;
  const { plan, changes, isBack } =
    choice.revision === null
      ? await planFiles(current, choice, parts)
      : await planRevision(current, choice.revision, parts);
  const mesh = follow(current, plan, settings);
  let refused: Candidate['refused'] = null;
  let warnings: readonly string[] = [];
  const test = (warnOnly: boolean) =>
    inBreaths(demandTests(current, mesh, plan, settings, now, warnOnly), breathe);
  try {
    demandShortGrants(plan, settings.policyMode ?? 'strict', now);
    warnings = (await test(isBack)) ?? [];
  } catch (error) {
    if (!(error instanceof MeshError) || !refusals.has(error.code)) throw error;
    const { code, message, place } = error;
    refused = { code, message, place: place === undefined ? '' : formatPlace(place) };
  }
  return { mesh, changes, refused, warnings };
}

type Planned = {
  readonly plan: MeshPlan;
  readonly changes: Candidate['changes'];
  /** A way back is not barred by tests. */
  readonly isBack: boolean;
};

async function planFiles(
  current: CurrentMesh,
  { files, without }: CandidateChoice,
  { settings, breathe }: { readonly settings: MeshSettings; readonly breathe: Breathe },
): Promise<Planned> {
  for (const key of without) {
    if (current.mesh.policies.has(key)) continue;
    throw new MeshError('policy_not_found', `there is no policy ${quote(key)}`, {
      fix: 'see `countersign policy list`',
    });
  }
  const read = (await inBreaths(planInSteps(current, files, settings), breathe)) ?? emptyPlan;
  const named = new Set(read.changes.filter(({ kind }) => kind === 'policy').map(({ key }) => key));
  const deletePolicies = [...new Set(without)].filter((key) => !named.has(key));
  const deleted = deletePolicies.map((key) => ({ kind: 'policy', key, action: 'deleted' }) as const);
  return { plan: { ...read, deletePolicies }, changes: [...read.changes, ...deleted], isBack: false };
}

async function planRevision(
  current: CurrentMesh,
  number: number,
  { history, breathe }: { readonly history: PolicyHistory; readonly breathe: Breathe },
): Promise<Planned> {
  const record = await history.revision(number);
  if (record === null) {
    throw new MeshError('policy_revision_not_found', `there is no policy revision ${number}`, {
      fix: 'countersign policy log shows those that are kept',
    });
  }
  const work = planActivation(current, await history.past(number), number, undefined);
  const { plan, changes } = (await inBreaths(work, breathe)) ?? { plan: emptyPlan, changes: [] };
  demandWhole(current.mesh, plan, number, record.id);
  return { plan, changes: changes.map((one) => ({ kind: 'policy', ...one })), isBack: true };
}

const refusals: ReadonlySet<ErrorCode> = new Set([
  'policy_test_failed',
  'policy_invalid',
  'policy_mode_inexact',
  'document_too_large',
]);
