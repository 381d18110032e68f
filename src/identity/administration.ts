import type { Actor } from '../audit/event.ts';
import type { Clock } from '../clock.ts';
import { MeshError, quote } from '../errors.ts';
import { compileMesh, type MeshHolder, type MeshSettings } from './current-mesh.ts';
import type { EntryInput, RegistrationEntry } from './entry.ts';
import { formatEntry, parseEntry, sameEntry } from './entry-parse.ts';
import type { CommitMesh, Mesh } from './mesh.ts';
import {
  type AppliedChange,
  changeOf,
  emptyPlan,
  type MeshPlan,
  planApply,
  type SourceFile,
} from './plan.ts';

export type ApplyResult = {
  /** The mesh revision after the change. */
  readonly revision: number;
  readonly changes: readonly AppliedChange[];
};

/** The one way to change the mesh. Every change is durable, with its audit events, before its promise resolves. */
export type Administration = {
  readonly current: () => Mesh;
  /** @throws MeshError `entry_exists`, `entry_invalid`, `spiffe_id_*`, `selector_invalid`, `entry_label_conflict` */
  readonly createEntry: (input: EntryInput, actor: Actor) => Promise<RegistrationEntry>;
  /** Replaces the given fields. @throws MeshError `entry_not_found` and those of createEntry */
  readonly updateEntry: (
    id: string,
    patch: Partial<Omit<EntryInput, 'id'>>,
    actor: Actor,
  ) => Promise<RegistrationEntry>;
  /** @returns the entry, and until when a certificate already issued under it stays valid (null: none is) */
  readonly deleteEntry: (
    id: string,
    actor: Actor,
  ) => Promise<{ readonly entry: RegistrationEntry; readonly certificatesValidUntil: Date | null }>;
  /** Entries and policies of many files, all or nothing; idempotent. What the files do not name stays. */
  readonly apply: (
    files: readonly SourceFile[],
    actor: Actor,
    options: { readonly dryRun: boolean },
  ) => Promise<ApplyResult>;
  /** @param key `namespace/name`. @throws MeshError `policy_not_found` */
  readonly deletePolicy: (key: string, actor: Actor) => Promise<void>;
};

export type AdministrationParts = {
  readonly holder: MeshHolder;
  readonly settings: MeshSettings;
  readonly commit: CommitMesh;
  /** Until when a certificate issued under an entry is valid; null when none is. */
  readonly latestExpiry: (entryId: string, now: Date) => Promise<Date | null>;
  readonly clock: Clock;
};

// Beyond this a change takes long enough for callers to notice.
const maxEntries = 100_000;
const maxPolicies = 20_000;

/** Changes happen one after the other: each is planned on the state the one before it left. */
export function createAdministration(parts: AdministrationParts): Administration {
  const { holder, settings, clock } = parts;
  let last: Promise<unknown> = Promise.resolve();
  const inTurn = <T>(work: () => Promise<T>): Promise<T> => {
    const mine = last.then(work, work);
    last = mine.catch(() => undefined);
    return mine;
  };
  const known = (id: string): RegistrationEntry => {
    const entry = holder.current().mesh.entries.get(id);
    if (entry !== undefined) return entry;
    throw new MeshError('entry_not_found', `there is no entry ${quote(id)}`, {
      fix: 'see `countersign entry list`',
    });
  };
  const parse = (input: EntryInput): RegistrationEntry =>
    parseEntry(input, settings, holder.current().mesh.revision + 1);
  return {
    current: () => holder.current().mesh,
    createEntry: (input, actor) =>
      inTurn(async () => {
        const entry = parse(input);
        if (holder.current().mesh.entries.has(entry.id)) {
          throw new MeshError('entry_exists', `there is an entry ${quote(entry.id)} already`, {
            fix: 'choose another id, or use `countersign entry update`',
          });
        }
        await take(parts, { ...emptyPlan, putEntries: [entry] }, actor);
        return entry;
      }),
    updateEntry: (id, patch, actor) =>
      inTurn(async () => {
        const before = known(id);
        const entry = parse({ ...formatEntry(before), ...patch, id });
        if (sameEntry(before, entry)) return before;
        await take(parts, { ...emptyPlan, putEntries: [entry] }, actor);
        return entry;
      }),
    deleteEntry: (id, actor) =>
      inTurn(async () => {
        const entry = known(id);
        await take(parts, { ...emptyPlan, deleteEntries: [id] }, actor);
        // Asked afterwards: an issuance that was under way when the entry fell is counted too.
        return { entry, certificatesValidUntil: await parts.latestExpiry(id, clock.now()) };
      }),
    apply: (files, actor, { dryRun }) =>
      inTurn(async () => {
        const plan = planApply(holder.current(), files, settings);
        const idle = plan.putEntries.length + plan.putPolicies.length === 0;
        if (!idle) await take(parts, plan, actor, dryRun);
        return { revision: holder.current().mesh.revision, changes: plan.changes };
      }),
    deletePolicy: (key, actor) =>
      inTurn(async () => {
        if (!holder.current().mesh.policies.has(key)) {
          throw new MeshError('policy_not_found', `there is no policy ${quote(key)}`, {
            fix: 'see `countersign policy list`',
          });
        }
        await take(parts, { ...emptyPlan, deletePolicies: [key] }, actor);
      }),
  };
}

/** Compiles what the plan leads to, stores it, then puts it in force: whatever cannot be compiled is never stored. */
async function take(
  { holder, settings, commit, clock }: AdministrationParts,
  plan: MeshPlan,
  actor: Actor,
  dryRun = false,
): Promise<void> {
  const current = holder.current();
  const change = changeOf(plan, current, actor, clock.now());
  const entries = new Map(current.mesh.entries);
  for (const id of plan.deleteEntries) entries.delete(id);
  for (const entry of plan.putEntries) entries.set(entry.id, entry);
  const documents = new Map(current.mesh.policies);
  const policies = new Map(current.policies);
  for (const key of plan.deletePolicies) {
    documents.delete(key);
    policies.delete(key);
  }
  for (const { document, policy } of plan.putPolicies) {
    documents.set(document.key, document);
    policies.set(document.key, policy);
  }
  if (entries.size > maxEntries) refuseSize(`${maxEntries} entries`);
  if (documents.size > maxPolicies) refuseSize(`${maxPolicies} policies`);
  const mesh = { revision: change.revision, entries, policies: documents };
  const next = compileMesh(mesh, policies, settings, current.snapshot);
  if (dryRun) return;
  await commit(change);
  holder.replace(next);
}

function refuseSize(limit: string): never {
  throw new MeshError('document_too_large', `a mesh holds at most ${limit}`, { fix: 'remove some first' });
}
