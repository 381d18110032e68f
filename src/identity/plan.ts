import { createHash } from 'node:crypto';
import { actionOf } from './change-action.ts';
import type { Actor, AuditEvent, CanonicalJson } from '../audit/event.ts';
import { invariantKind } from '../authz/analysis/invariant.ts';
import { parsePolicy } from '../authz/parse.ts';
import type { Policy } from '../authz/policy.ts';
import { finish, type Steps } from '../authz/steps.ts';
import { MeshError, type Place, quote } from '../errors.ts';
import { type AdminGrant, grantEvent, grantKind, readGrantDocument, sameGrant } from './admin-grant.ts';
import { readInSteps, type YamlDocument } from '../yaml.ts';
import { type Ban, banEvent, banKey, type BanTarget } from './ban.ts';
import type { CurrentMesh, MeshSettings } from './current-mesh.ts';
import type { RegistrationEntry } from './entry.ts';
import { entryKind, readEntryDocument } from './entry-document.ts';
import { formatEntry, type LocateField, parseEntry, sameEntry } from './entry-parse.ts';
import type { MeshChange, PolicyDocument } from './mesh.ts';
import { aliasEvent, aliasKind, type NodeAlias, readAliasDocument, sameAlias } from './node-alias.ts';
import { demandAliases, namingAlias } from './node-alias-use.ts';
import type { Permit } from './permit.ts';
import type { PolicyStep } from './policy-edits.ts';
import { describeGrant } from './policy-terms.ts';
import { logText } from './policy-text.ts';
import type { RolloutStep } from './rollout-step.ts';

/** One file of YAML documents, as read by whoever calls. */
export type SourceFile = { readonly file: string; readonly text: string };

export type AppliedChange = {
  readonly kind: 'entry' | 'policy' | 'node-alias' | 'grant';
  readonly key: string;
  readonly action: 'created' | 'updated' | 'unchanged';
};

/** A step from the current revision to the next, worked out but not taken. */
export type MeshPlan = {
  readonly putEntries: readonly RegistrationEntry[];
  readonly deleteEntries: readonly string[];
  readonly putPolicies: readonly { readonly document: PolicyDocument; readonly policy: Policy }[];
  readonly deletePolicies: readonly string[];
  readonly putBans: readonly Ban[];
  readonly deleteBans: readonly BanTarget[];
  readonly putAliases: readonly NodeAlias[];
  readonly deleteAliases: readonly string[];
  readonly putGrants: readonly AdminGrant[];
  readonly deleteGrants: readonly string[];
  readonly changes: readonly AppliedChange[];
  /** Why its policies change; absent for an edit that nobody has said anything of. */
  readonly policyStep?: PolicyStep;
  /** What becomes of the rollout; absent for a plan that is about something else. */
  readonly rolloutStep?: RolloutStep;
  /** What its author should know, once it has been taken; lower case, no full stop. */
  readonly warnings?: readonly string[];
};

/** A plan that does nothing, to build others from. */
export const emptyPlan: MeshPlan = {
  putEntries: [],
  deleteEntries: [],
  putPolicies: [],
  deletePolicies: [],
  putBans: [],
  deleteBans: [],
  putAliases: [],
  deleteAliases: [],
  putGrants: [],
  deleteGrants: [],
  changes: [],
};

const policyKind = 'AuthorizationPolicy';

/**
 * Works out what applying the documents of `files` would change. Reads every document before it answers, so that a
 * mistake in the last one leaves the first one unapplied.
 * @throws MeshError with the place of the mistake: any code of the readers, `document_kind_unknown`,
 * `node_alias_not_found` and `document_field_value` when two documents name the same thing
 */
export function planApply(
  current: CurrentMesh,
  files: readonly SourceFile[],
  settings: MeshSettings,
): MeshPlan {
  return finish(planInSteps(current, files, settings));
}

/**
 * The same in small steps: ten thousand policies take seconds to read.
 * @param permit asked about each document, in their order, whether or not it would change anything
 * @param policiesOnly refuses documents of other kinds
 * @throws MeshError as {@link planApply}; `forbidden`, and `entry_exists` for an id of somebody else's
 */
export function* planInSteps(
  current: CurrentMesh,
  files: readonly SourceFile[],
  settings: MeshSettings,
  permit?: Permit,
  policiesOnly = false,
): Steps<MeshPlan> {
  const revision = current.mesh.revision + 1;
  const seen = new Map<string, Place>();
  const putEntries: RegistrationEntry[] = [];
  const putPolicies: { document: PolicyDocument; policy: Policy }[] = [];
  const putAliases: NodeAlias[] = [];
  const putGrants: AdminGrant[] = [];
  const uses: { readonly nodes: readonly string[]; readonly locate: LocateField }[] = [];
  const changes: AppliedChange[] = [];
  const documents: YamlDocument[] = [];
  for (const file of files) documents.push(...(yield* readInSteps(file)));
  for (const document of documents) {
    yield;
    if (policiesOnly && document.kind !== policyKind) refuseKind(document, policyKind);
    if (document.kind === entryKind) {
      const { input, locate } = readEntryDocument(document);
      const entry = parseEntry(input, settings, revision, locate);
      uses.push({ nodes: input.nodes ?? [], locate });
      refuseSecond(seen, `entry ${entry.id}`, locate('id') ?? document.root.place);
      const before = current.mesh.entries.get(entry.id);
      permit?.demand({ kind: 'entry', before: undefined, after: entry }, document.root.place);
      if (before !== undefined && permit?.sees(before) === false) refuseTaken(entry.id, document.root.place);
      permit?.demand({ kind: 'entry', before, after: entry }, document.root.place);
      const action = before === undefined ? 'created' : sameEntry(before, entry) ? 'unchanged' : 'updated';
      changes.push({ kind: 'entry', key: entry.id, action });
      if (action !== 'unchanged') putEntries.push(entry);
    } else if (document.kind === policyKind) {
      const policy = parsePolicy(document);
      const { namespace, name } = policy;
      permit?.demand({ kind: 'policy', namespace, name }, document.root.place);
      const stored = storePolicy(policy, document, revision);
      refuseSecond(seen, `policy ${stored.key}`, document.root.place);
      const before = current.mesh.policies.get(stored.key);
      const action = before === undefined ? 'created' : samePolicy(before, stored) ? 'unchanged' : 'updated';
      changes.push({ kind: 'policy', key: stored.key, action });
      if (action !== 'unchanged') putPolicies.push({ document: stored, policy });
    } else if (document.kind === aliasKind) {
      const alias = readAliasDocument(document, revision);
      const entries = namingAlias(current.mesh, alias.name);
      permit?.demand({ kind: 'node-alias', name: alias.name, entries }, document.root.place);
      refuseSecond(seen, `node alias ${alias.name}`, document.root.place);
      const before = current.mesh.aliases?.get(alias.name);
      const action = before === undefined ? 'created' : sameAlias(before, alias) ? 'unchanged' : 'updated';
      changes.push({ kind: 'node-alias', key: alias.name, action });
      if (action !== 'unchanged') putAliases.push(alias);
    } else if (document.kind === grantKind) {
      const grant = readGrantDocument(document, settings.trustDomain, revision);
      permit?.demand({ kind: 'grant', name: grant.name }, document.root.place);
      refuseSecond(seen, `grant ${grant.name}`, document.root.place);
      const before = current.mesh.grants?.get(grant.name);
      const action = before === undefined ? 'created' : sameGrant(before, grant) ? 'unchanged' : 'updated';
      changes.push({ kind: 'grant', key: grant.name, action });
      if (action !== 'unchanged') putGrants.push(grant);
    } else {
      refuseKind(document, `${entryKind}, ${policyKind}, ${aliasKind} or ${grantKind}`);
    }
  }
  // Last: an alias may stand behind the entries that name it.
  for (const { nodes, locate } of uses) demandAliases(current.mesh, nodes, putAliases, locate);
  return { ...emptyPlan, putEntries, putPolicies, putAliases, putGrants, changes };
}

/** The change to store for a plan, with the event of each part. */
export function changeOf(plan: MeshPlan, current: CurrentMesh, actor: Actor, time: Date): MeshChange {
  const { mesh } = current;
  const revision = mesh.revision + 1;
  const entryEvent = (id: string, after: RegistrationEntry | undefined): AuditEvent => {
    const before = mesh.entries.get(id);
    return {
      type: 'entry_change',
      time,
      action: actionOf(before, after),
      entryId: id,
      spiffeId: (after ?? before)?.spiffeId.text ?? '',
      revision,
      actor,
      before: entryJson(before),
      after: entryJson(after),
    };
  };
  const policyEvents = (
    key: string,
    after: PolicyDocument | undefined,
    policy?: Policy,
  ): readonly AuditEvent[] => {
    const before = mesh.policies.get(key);
    const afterSha256 = after?.sha256 ?? '';
    const { parts, ...text } = logText(after?.source ?? '', {
      time,
      policy: key,
      revision,
      sha256: afterSha256,
    });
    const change: AuditEvent = {
      type: 'policy_change',
      time,
      action: actionOf(before, after),
      policy: key,
      revision,
      actor,
      beforeSha256: before?.sha256 ?? '',
      afterSha256,
      ...text,
      ...(policy === undefined || policy.terms.breakGlass === null
        ? {}
        : { breakGlass: describeGrant(policy) }),
    };
    return [...parts, change];
  };
  return {
    expectRevision: mesh.revision,
    revision,
    putEntries: plan.putEntries,
    deleteEntries: plan.deleteEntries,
    putPolicies: plan.putPolicies.map(({ document }) => document),
    deletePolicies: plan.deletePolicies,
    putBans: plan.putBans,
    deleteBans: plan.deleteBans,
    putAliases: plan.putAliases,
    deleteAliases: plan.deleteAliases,
    putGrants: plan.putGrants,
    deleteGrants: plan.deleteGrants,
    events: [
      ...plan.putEntries.map((entry) => entryEvent(entry.id, entry)),
      ...plan.deleteEntries.map((id) => entryEvent(id, undefined)),
      ...plan.putPolicies.flatMap(({ document, policy }) => policyEvents(document.key, document, policy)),
      ...plan.deletePolicies.flatMap((key) => policyEvents(key, undefined)),
      ...plan.putBans.map((ban) => banEvent('created', ban, { time, revision, actor })),
      ...plan.deleteBans
        .flatMap((target) => mesh.bans.get(banKey(target)) ?? [])
        .map((ban) => banEvent('lifted', ban, { time, revision, actor })),
      ...plan.putAliases.map((alias) =>
        aliasEvent(mesh.aliases?.get(alias.name), alias, { time, revision, actor }),
      ),
      ...plan.deleteAliases.map((name) =>
        aliasEvent(mesh.aliases?.get(name), undefined, { time, revision, actor }),
      ),
      ...plan.putGrants.map((grant) =>
        grantEvent(mesh.grants?.get(grant.name), grant, { time, revision, actor }),
      ),
      ...plan.deleteGrants.map((name) =>
        grantEvent(mesh.grants?.get(name), undefined, { time, revision, actor }),
      ),
    ],
  };
}

function storePolicy(policy: Policy, document: YamlDocument, revision: number): PolicyDocument {
  return {
    key: `${policy.namespace}/${policy.name}`,
    source: document.text,
    file: document.file,
    line: document.line,
    sha256: createHash('sha256').update(document.text).digest('hex'),
    revision,
  };
}

function refuseKind({ root, kind }: YamlDocument, known: string): never {
  throw root
    .mapping(root.entries().map(({ key }) => key))
    .required('kind')
    .error('document_kind_unknown', `${quote(kind)} is not known here`, fixOf(kind, known));
}

function fixOf(kind: string, known: string): string {
  if (kind === invariantKind) return 'give invariants to countersign policy prove';
  const isApplied = kind === entryKind || kind === aliasKind || kind === grantKind;
  return isApplied ? 'only policies belong here: give the rest to countersign apply' : `use ${known}`;
}

/** The same text at the same place: where it stands matters, because reasons point there. */
export function samePolicy(a: SourceOfPolicy, b: SourceOfPolicy): boolean {
  return a.sha256 === b.sha256 && a.file === b.file && a.line === b.line;
}

type SourceOfPolicy = Pick<PolicyDocument, 'sha256' | 'file' | 'line'>;

function refuseSecond(seen: Map<string, Place>, name: string, place: Place): void {
  const first = seen.get(name);
  if (first !== undefined) {
    throw new MeshError('document_field_value', `${name} was already named at ${first.file}:${first.line}`, {
      place,
      fix: 'keep one of the two documents',
    });
  }
  seen.set(name, place);
}

/** An id is taken or it is not; by whom is nobody's business who may not see the entry. */
function refuseTaken(id: string, place: Place): never {
  throw new MeshError('entry_exists', `there is an entry ${quote(id)} already`, {
    place,
    fix: 'choose another id',
  });
}

function entryJson(entry: RegistrationEntry | undefined): CanonicalJson {
  return entry === undefined ? null : { ...formatEntry(entry) };
}
