import type { Actor } from '../audit/event.ts';
import type { Steps } from '../authz/steps.ts';
import type { Clock } from '../clock.ts';
import { MeshError, quote } from '../errors.ts';
import { type Ban, type BanInput, banKey, lastsAsLong, parseBan, parseBanTarget, sameBan } from './ban.ts';
import { type AdminGrant, type AdminGrantInput, parseAdminGrant, sameGrant } from './admin-grant.ts';
import { type Breathe, inBreaths } from './breath.ts';
import type { CurrentMesh, MeshHolder, MeshSettings } from './current-mesh.ts';
import type { EntryInput, RegistrationEntry } from './entry.ts';
import { formatEntry, parseEntry, sameEntry } from './entry-parse.ts';
import type { CommitMesh, Mesh } from './mesh.ts';
import { follow, stampPlan } from './mesh-step.ts';
import type { NodeAlias } from './node-alias.ts';
import { demandAliases, entriesOfAlias } from './node-alias-use.ts';
import type { Permit } from './permit.ts';
import {
  type AppliedChange,
  changeOf,
  emptyPlan,
  type MeshPlan,
  planInSteps,
  type SourceFile,
} from './plan.ts';
import { createPolicyEdits, editStep, type PolicyEdits, type PolicyHistory, revise } from './policy-edits.ts';
import { demandTests, reportTests, type TestReport } from './policy-tests.ts';
import { demandShortGrants, type PolicyTermsView, viewTerms, warnOfTerms } from './policy-terms.ts';
import { type PolicySigner, revisionEvent, withoutReason } from './policy-revision.ts';
import { createRolloutEdits, type RolloutEdits } from './rollout-edits.ts';
import { demandNoRollout, settle, stepRollout, withoutCandidate } from './rollout-step.ts';
import { createTurns, type Turns } from './turns.ts';

export type ApplyResult = {
  /** The mesh revision after the change. */
  readonly revision: number;
  readonly changes: readonly AppliedChange[];
  /** What its author should know though it is no mistake; lower case, no full stop. */
  readonly warnings: readonly string[];
};

export type ApplyOptions = {
  readonly dryRun: boolean;
  readonly permit?: Permit;
  /** Why policies change; kept with their revision. */
  readonly message?: string;
  /** Refuses documents of other kinds. */
  readonly policiesOnly?: boolean;
};

/** The one way to change the mesh. Every change is durable, with its audit events, before its promise resolves. */
export type Administration = Edits & {
  readonly current: () => Mesh;
  /** Of a policy in force; undefined when there is none of this key. */
  readonly policyTerms: (key: string) => PolicyTermsView | undefined;
  /** @throws MeshError `entry_exists`, `entry_invalid`, `spiffe_id_*`, `selector_invalid`, `entry_label_conflict` */
  readonly createEntry: (input: EntryInput, actor: Actor, permit?: Permit) => Promise<RegistrationEntry>;
  /** Replaces the given fields. @throws MeshError `entry_not_found` and those of createEntry */
  readonly updateEntry: (
    id: string,
    patch: Partial<Omit<EntryInput, 'id'>>,
    actor: Actor,
    permit?: Permit,
  ) => Promise<RegistrationEntry>;
  /** @returns the entry, and until when a certificate already issued under it stays valid (null: none is) */
  readonly deleteEntry: (
    id: string,
    actor: Actor,
    permit?: Permit,
  ) => Promise<{ readonly entry: RegistrationEntry; readonly certificatesValidUntil: Date | null }>;
  /** Entries, policies, node aliases and grants of many files, all or nothing; idempotent. What the files do not name stays. */
  readonly apply: (files: readonly SourceFile[], actor: Actor, options: ApplyOptions) => Promise<ApplyResult>;
  /**
   * Runs the tests of the policies in these files as if they were applied, and counts what they show of their rules.
   * @throws MeshError as `apply` does
   */
  readonly testPolicies: (files: readonly SourceFile[], permit?: Permit) => Promise<TestReport>;
  /** @throws MeshError `grant_invalid`, `grant_exists`, `spiffe_id_*` */
  readonly createGrant: (input: AdminGrantInput, actor: Actor) => Promise<AdminGrant>;
  /** @throws MeshError `grant_not_found` */
  readonly deleteGrant: (name: string, actor: Actor) => Promise<AdminGrant>;
  /** @throws MeshError `node_alias_not_found`, `node_alias_in_use` while an entry names it */
  readonly deleteAlias: (name: string, actor: Actor) => Promise<NodeAlias>;
  /**
   * Bans; from the moment it resolves nothing is issued to whom it concerns, and their calls are denied. Banned again,
   * the later end counts.
   * @throws MeshError `ban_invalid`, `ban_exists` (a second ban would end earlier), `spiffe_id_*`
   */
  readonly ban: (input: BanInput, actor: Actor) => Promise<DescribedBan>;
  /** Lifts a ban and answers what it was. @throws MeshError `ban_not_found` and those of a target */
  readonly unban: (kind: string, value: string, actor: Actor) => Promise<Ban>;
  /** All bans by their keys, those that have run out included. */
  readonly bans: () => ReadonlyMap<string, Ban>;
  /** What is to be said of these bans, in the same order. */
  readonly describeBans: (bans: readonly Ban[]) => Promise<readonly DescribedBan[]>;
};

type Edits = PolicyEdits & RolloutEdits;

/** A ban, and until when a certificate issued to the SPIFFE ID it names stays valid (null: none is, or it names none). */
export type DescribedBan = { readonly ban: Ban; readonly certificatesValidUntil: Date | null };

export type AdministrationParts = {
  readonly holder: MeshHolder;
  readonly settings: MeshSettings;
  readonly commit: CommitMesh;
  /** Of revisions of policies, and what is kept of them. */
  readonly signer: PolicySigner;
  readonly history: PolicyHistory;
  /** Until when a certificate issued under an entry is valid; null when none is. */
  readonly latestExpiry: (entryId: string, now: Date) => Promise<Date | null>;
  /** The same for each of these SPIFFE IDs. */
  readonly latestExpiries: (spiffeIds: readonly string[], now: Date) => Promise<readonly (Date | null)[]>;
  readonly clock: Clock;
  /** Lets others run while policies are compiled. Without it that happens at once. */
  readonly breathe?: Breathe;
};

const longestPreparationMs = 10_000;
const longestTestsMs = 30_000;
const tookTooLong = `the tests took longer than ${longestTestsMs / 1_000} s`;
const maxNamedEntries = 5;

/**
 * Edits happen one after the other: each is planned on the state the one before it left. While one is read and compiled,
 * which may take seconds for ten thousand policies, bans do not wait for it: the edit is taken on top of them.
 */
export function createAdministration(parts: AdministrationParts): Administration {
  const { holder, settings, clock, breathe = () => undefined } = parts;
  const inEdit = createTurns(1);
  const inStep = createTurns(1);
  const takeEdit = (plan: MeshPlan, actor: Actor, dryRun = false): Promise<MeshPlan> =>
    take(parts, plan, actor, inStep, dryRun);
  const known = (id: string, permit: Permit | undefined): RegistrationEntry => {
    const entry = holder.current().mesh.entries.get(id);
    if (entry !== undefined && permit?.sees(entry) !== false) return entry;
    throw new MeshError('entry_not_found', `there is no entry ${quote(id)}`, {
      fix: 'see `countersign entry list`',
    });
  };
  const parse = (input: EntryInput): RegistrationEntry => {
    const { mesh } = holder.current();
    const entry = parseEntry(input, settings, mesh.revision + 1);
    demandAliases(mesh, entry.nodes ?? []);
    return entry;
  };
  const describeBans: Administration['describeBans'] = async (bans) => {
    const ids = [...new Set(bans.flatMap(({ kind, value }) => (kind === 'spiffe-id' ? value : [])))];
    const expiries = ids.length === 0 ? [] : await parts.latestExpiries(ids, clock.now());
    const expiryOf = new Map(ids.map((id, index) => [id, expiries[index] ?? null]));
    return bans.map((ban) => ({
      ban,
      certificatesValidUntil: ban.kind === 'spiffe-id' ? (expiryOf.get(ban.value) ?? null) : null,
    }));
  };
  const describeBan = async (ban: Ban): Promise<DescribedBan> => {
    const [described] = await describeBans([ban]);
    return described ?? { ban, certificatesValidUntil: null };
  };
  return {
    current: () => holder.current().mesh,
    policyTerms: (key) => {
      const policy = holder.current().policies.get(key);
      return policy === undefined ? undefined : viewTerms(policy);
    },
    createEntry: (input, actor, permit) =>
      inEdit(async () => {
        const entry = parse(input);
        permit?.demand({ kind: 'entry', before: undefined, after: entry });
        if (holder.current().mesh.entries.has(entry.id)) {
          throw new MeshError('entry_exists', `there is an entry ${quote(entry.id)} already`, {
            fix: 'choose another id, or use `countersign entry update`',
          });
        }
        const { putEntries } = await takeEdit({ ...emptyPlan, putEntries: [entry] }, actor);
        return putEntries[0] ?? entry;
      }),
    updateEntry: (id, patch, actor, permit) =>
      inEdit(async () => {
        const before = known(id, permit);
        const entry = parse({ ...formatEntry(before), ...patch, id });
        permit?.demand({ kind: 'entry', before, after: entry });
        if (sameEntry(before, entry)) return before;
        const { putEntries } = await takeEdit({ ...emptyPlan, putEntries: [entry] }, actor);
        return putEntries[0] ?? entry;
      }),
    deleteEntry: (id, actor, permit) =>
      inEdit(async () => {
        const entry = known(id, permit);
        permit?.demand({ kind: 'entry', before: entry, after: undefined });
        await takeEdit({ ...emptyPlan, deleteEntries: [id] }, actor);
        // Asked afterwards: an issuance that was under way when the entry fell is counted too.
        return { entry, certificatesValidUntil: await parts.latestExpiry(id, clock.now()) };
      }),
    apply: (files, actor, { dryRun, permit, message = '', policiesOnly }) =>
      inEdit(async () => {
        const policyStep = editStep(message);
        const steps = planInSteps(holder.current(), files, settings, permit, policiesOnly);
        const read = (await inBreaths(steps, breathe)) ?? emptyPlan;
        // Bans may have come while it was read.
        const plan = { ...stampPlan(read, holder.current().mesh.revision + 1), policyStep };
        const { putEntries, putPolicies, putAliases, putGrants } = plan;
        const idle = putEntries.length + putPolicies.length + putAliases.length + putGrants.length === 0;
        const taken = idle ? plan : await takeEdit(plan, actor, dryRun);
        const { warnings = [] } = taken;
        return { revision: holder.current().mesh.revision, changes: plan.changes, warnings };
      }),
    testPolicies: (files, permit) =>
      inEdit(async () => {
        const current = holder.current();
        const plan = (await inBreaths(planInSteps(current, files, settings, permit), breathe)) ?? emptyPlan;
        const keys = plan.changes.filter(({ kind }) => kind === 'policy').map(({ key }) => key);
        const report = reportTests(follow(current, plan, settings), keys, settings, clock.now());
        return inTestTime(parts, report);
      }),
    ...createPolicyEdits({
      current: holder.current,
      history: parts.history,
      inEdit,
      takeEdit,
      breathe,
      mode: settings.policyMode ?? 'strict',
    }),
    ...createRolloutEdits({
      current: holder.current,
      settings,
      inEdit,
      takeEdit,
      putNow: (makePlan, actor) =>
        inStep(async () => {
          const plan = makePlan();
          if (plan !== undefined) await put(parts, plan, actor);
          return plan !== undefined;
        }),
      breathe,
    }),
    createGrant: (input, actor) =>
      inEdit(async () => {
        const { mesh } = holder.current();
        const grant = parseAdminGrant(input, settings.trustDomain, mesh.revision + 1);
        const before = mesh.grants?.get(grant.name);
        if (before !== undefined && sameGrant(before, grant)) return before;
        if (before !== undefined) {
          throw new MeshError('grant_exists', `there is another grant ${quote(grant.name)} already`, {
            fix: 'choose another name, or delete that one first',
          });
        }
        const { putGrants } = await takeEdit({ ...emptyPlan, putGrants: [grant] }, actor);
        return putGrants[0] ?? grant;
      }),
    deleteGrant: (name, actor) =>
      inEdit(async () => {
        const grant = holder.current().mesh.grants?.get(name);
        if (grant === undefined) {
          throw new MeshError('grant_not_found', `there is no grant ${quote(name)}`, {
            fix: 'see `countersign admin grant list`',
          });
        }
        await takeEdit({ ...emptyPlan, deleteGrants: [name] }, actor);
        return grant;
      }),
    deleteAlias: (name, actor) =>
      inEdit(async () => {
        const { mesh } = holder.current();
        const alias = mesh.aliases?.get(name);
        if (alias === undefined) {
          throw new MeshError('node_alias_not_found', `there is no node alias ${quote(name)}`, {
            fix: 'see `countersign node alias list`',
          });
        }
        const users = entriesOfAlias(mesh, name);
        if (users.length > 0) {
          const [first, more] = [users.slice(0, maxNamedEntries), users.length - maxNamedEntries];
          const named = `${first.map(quote).join(', ')}${more > 0 ? ` and ${more} more` : ''}`;
          throw new MeshError('node_alias_in_use', `entries name the node alias ${quote(name)}: ${named}`, {
            fix: 'take it out of their nodes, or delete them, first',
          });
        }
        await takeEdit({ ...emptyPlan, deleteAliases: [name] }, actor);
        return alias;
      }),
    ban: (input, actor) =>
      inStep(async () => {
        const { mesh } = holder.current();
        const now = clock.now();
        const ban = parseBan(input, settings.trustDomain, { actor, revision: mesh.revision + 1, now });
        const before = mesh.bans.get(banKey(ban));
        if (before !== undefined && sameBan(before, ban)) return describeBan(before);
        if (before !== undefined && !lastsAsLong(before, ban, now)) {
          const end = before.until === null ? 'it is lifted' : before.until.toISOString();
          throw new MeshError('ban_exists', `${quote(ban.value)} is banned already, until ${end}`, {
            fix: 'name no earlier end, or lift that ban first with `countersign unban`',
          });
        }
        await put(parts, { ...emptyPlan, putBans: [ban] }, actor);
        // Asked afterwards: a certificate that was under way when the ban fell is counted too.
        return describeBan(ban);
      }),
    unban: (kind, value, actor) =>
      inStep(async () => {
        const target = parseBanTarget(kind, value);
        const ban = holder.current().mesh.bans.get(banKey(target));
        if (ban === undefined) {
          throw new MeshError('ban_not_found', `the ${target.kind} ${quote(target.value)} is not banned`, {
            fix: 'see `countersign ban list`',
          });
        }
        await put(parts, { ...emptyPlan, deleteBans: [target] }, actor);
        return ban;
      }),
    bans: () => holder.current().mesh.bans,
    describeBans,
  };
}

/**
 * Compiles what the plan leads to, to the last index that calls under way will ask for, then stores it and puts it in
 * force: whatever cannot be compiled is never stored.
 * @returns the plan as it was taken
 */
async function take(
  parts: AdministrationParts,
  plan: MeshPlan,
  actor: Actor,
  inStep: Turns,
  dryRun: boolean,
): Promise<MeshPlan> {
  const { holder, settings, clock, breathe = () => undefined } = parts;
  demandShortGrants(plan, settings.policyMode ?? 'strict', clock.now());
  const planned = holder.current();
  demandNoRollout(planned.mesh, plan);
  const next = follow(planned, plan, settings);
  const { snapshot } = next;
  // A way back is not barred by a test that has been forgotten.
  const warnOnly = plan.policyStep?.action === 'activated';
  const tests = demandTests(planned, next, plan, settings, clock.now(), warnOnly);
  const told = await inTestTime(parts, tests, warnOnly ? [`${tookTooLong}, and were left`] : undefined);
  const warnings = [...warnOfTerms(plan, clock.now()), ...told];
  if (dryRun) return { ...plan, warnings };
  const deadline = clock.now().getTime() + longestPreparationMs;
  const inTime = () => clock.now().getTime() < deadline;
  // What is not ready by then is compiled when it is first asked for.
  if (snapshot !== planned.snapshot) await inBreaths(snapshot.prepare(planned.snapshot), breathe, inTime);
  return inStep(async () => {
    const current = holder.current();
    if (current === planned) {
      await put(parts, plan, actor, next);
      return { ...plan, warnings };
    }
    // Bans have come meanwhile, or the end of a rollout, and nothing else: edits take turns.
    const restamped = stampPlan(plan, current.mesh.revision + 1);
    await put(parts, restamped, actor, follow(current, restamped, settings, snapshot));
    return { ...restamped, warnings };
  });
}

/**
 * Fails closed: what was not tested to its end has not passed.
 * @param instead the answer then, where tests bar nothing
 */
async function inTestTime<T>(
  { clock, breathe = () => undefined }: AdministrationParts,
  work: Steps<T>,
  instead?: T,
): Promise<T> {
  const deadline = clock.now().getTime() + longestTestsMs;
  const done = await inBreaths(wrapped(work), breathe, () => clock.now().getTime() < deadline);
  if (done !== undefined) return done.value;
  if (instead !== undefined) return instead;
  throw new MeshError('policy_test_failed', tookTooLong, {
    fix: 'remove tests of policies, or name the workload they call with to',
  });
}

function* wrapped<T>(work: Steps<T>): Steps<{ readonly value: T }> {
  return { value: yield* work };
}

/** Stores a plan, then puts what it leads to in force. */
async function put(
  { holder, settings, commit, clock, signer }: AdministrationParts,
  plan: MeshPlan,
  actor: Actor,
  next: CurrentMesh = follow(holder.current(), plan, settings),
): Promise<void> {
  const [current, time] = [holder.current(), clock.now()];
  const own = withoutCandidate(plan);
  const change = changeOf(own, current, actor, time);
  const { trustDomain, policyMode: mode = 'strict' } = settings;
  const by = { signer, trustDomain, mode, author: actor, time };
  const revised = await revise(current.mesh, next.mesh, own, by);
  const { rollout, events: steps } = await stepRollout(current, next, plan, revised !== undefined, by);
  const made = revised && revisionEvent(revised.action, revised.record, change.revision);
  await commit({
    ...change,
    ...(revised && { policyRevision: { record: revised.record, changes: revised.changes } }),
    ...(rollout && { rollout }),
    events: [...change.events, ...(made === undefined ? [] : [made]), ...steps],
  });
  const policyRevision = revised && withoutReason(revised.record);
  holder.replace(settle(current, next, plan, settings, { policyRevision, rollout }));
}
