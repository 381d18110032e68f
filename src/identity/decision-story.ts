import type { LoggedDecision } from '../audit/logged-decision.ts';
import { denyDecision } from '../authz/decide.ts';
import type { PolicyMode } from '../authz/policy-mode.ts';
import { type Replay, replayCall } from '../authz/replay.ts';
import { canonicalizeHttp, isRejection } from '../authz/request.ts';
import type { Snapshot } from '../authz/snapshot.ts';
import type { Clock } from '../clock.ts';
import { isInForce } from './ban.ts';
import { type Breathe, inBreaths } from './breath.ts';
import type { CurrentMesh, MeshSettings } from './current-mesh.ts';
import { asSent, callOfRecord, type CallOfRecord } from './decision-call.ts';
import {
  lookBack,
  type Past,
  type PolicyArchive,
  type RuleThen,
  ruleOfRecord,
  whereReadable,
} from './decision-past.ts';
import type { NewPolicyRevision } from './mesh.ts';
import type { PolicyRevisionRecord } from './policy-revision.ts';
import type { NamedCertificates } from './revoked.ts';
import { findStandingDenial } from './standing-denial.ts';

/** What is kept of the past. */
export type DecisionArchive = PolicyArchive & {
  /** Policy revisions below a number, the latest first. */
  readonly page: (below: number, limit: number) => Promise<readonly NewPolicyRevision[]>;
  /** Certificates that are valid, by their serials. */
  readonly certificates: (serials: readonly string[], now: Date) => Promise<NamedCertificates>;
};

/** A revision of policies, in short. */
export type RevisionInStory = Pick<
  PolicyRevisionRecord,
  'number' | 'id' | 'time' | 'author' | 'message' | 'restores'
>;

/** What there is to say of a decision in the log. */
export type DecisionStory = {
  /** The policies of that moment. */
  readonly past: {
    /** Null when it is not known, or kept no longer: `why` says it. */
    readonly policyRevision: RevisionInStory | null;
    readonly mode: PolicyMode | null;
    /** Why something of it is missing or in doubt; empty when all is there. */
    readonly why: string;
    readonly rule: RuleThen | null;
  };
  /** What the same call would get now; null when the record does not say who called whom. */
  readonly now: Replay | null;
  readonly change: {
    /** Null when it cannot be told. */
    readonly isSame: boolean | null;
    /** The policy revision since which the verdict is what it is now; null when that cannot be told exactly. */
    readonly by: RevisionInStory | null;
    /** One sentence: lower case, no full stop. */
    readonly why: string;
  };
  /** What of the call is not in the log, in words. */
  readonly notHeld: readonly string[];
};

/** Tells what became of a decision: under which policies it fell, and what the same call would get now. */
export function createDecisionStories(parts: {
  readonly archive: DecisionArchive;
  readonly current: () => CurrentMesh;
  readonly settings: Pick<MeshSettings, 'trustDomain' | 'rootNamespace'>;
  readonly clock: Clock;
  readonly breathe: Breathe;
}): (record: LoggedDecision) => Promise<DecisionStory> {
  const { archive, settings, clock, breathe } = parts;

  return async (record) => {
    const current = parts.current();
    const now = clock.now();
    const found = await revisionOf(record, current);
    const guess = callOfRecord(record, null);
    const past = guess && lookBack(archive, current, settings, guess.call.destination, breathe);
    const then = found.revision;
    const mode = then === null || past === undefined ? null : await past.modeOf(then);
    const known = callOfRecord(record, mode);
    const policies =
      then === null || past === undefined ? [] : await whereReadable(() => past.policiesAt(then.number));
    const rule = ruleOfRecord(record, policies ?? [], known, settings);
    const whys = [found.why, policies === undefined ? 'this version cannot read the policies of then' : ''];
    const story = {
      past: {
        policyRevision: then && inShort(then),
        mode,
        why: whys.filter((why) => why !== '').join('; '),
        rule,
      },
      notHeld: known?.notHeld ?? [],
    };
    if (known === undefined || past === undefined) {
      const why = 'the record does not say who called whom';
      return { ...story, now: null, change: { isSame: null, by: null, why } };
    }
    const replay = await replayNow(record, known, mode, current, now);
    const isPolicy = policies !== undefined && found.isSure;
    const change = await findChange({
      record,
      known,
      revision: isPolicy ? then : null,
      mode,
      past,
      current,
      replay,
      now,
    });
    return { ...story, now: replay, change };
  };

  async function revisionOf(
    record: LoggedDecision,
    { mesh }: CurrentMesh,
  ): Promise<{
    readonly revision: PolicyRevisionRecord | null;
    readonly isSure: boolean;
    readonly why: string;
  }> {
    const none = (why: string) => ({ revision: null, isSure: false, why });
    if (record.revision === 0) return none('no policies were there to ask');
    if (record.rollout !== undefined) {
      return none(`the candidate of the rollout ${record.rollout} decided, in place of what was in force`);
    }
    if (record.revision > mesh.revision) {
      return none(
        `this server has not come to mesh revision ${record.revision}: it was restored from a backup, or the record is wrong`,
      );
    }
    const number = await archive.revisionAt(record.revision);
    if (number === null) return none('no policy revisions were kept then');
    const revision = await archive.revision(number);
    if (revision === null) return none(`policy revision ${number} was in force then, and is kept no longer`);
    // Mesh revisions come again after a restore from a backup. Clocks of nodes may differ a little.
    if (revision.time.getTime() > Date.parse(record.time) + clockSkewMs) {
      const why = `policy revision ${number} was made after the call, by these clocks: one of them is wrong, or the server was restored from a backup`;
      return { revision, isSure: false, why };
    }
    return { revision, isSure: true, why: '' };
  }

  async function replayNow(
    record: LoggedDecision,
    known: CallOfRecord,
    mode: PolicyMode | null,
    current: CurrentMesh,
    now: Date,
  ): Promise<Replay> {
    const { snapshot, bans, mesh } = current;
    const { source, destination } = known.call;
    const serial = record.sourceSerial;
    const [certificate] = serial === '' ? [] : (await archive.certificates([serial], now)).certificates;
    const spkiSha256 = certificate?.spkiSha256 ?? '';
    const banned = findStandingDenial(bans, { id: source, serial, spkiSha256 }, destination, now);
    const standing = banned === undefined ? undefined : denyDecision('banned', banned, snapshot.revision);
    if (standing !== undefined) return run(snapshot, known, mode, record, now, standing);
    if (proxyReasons.has(record.reason)) {
      return untellable(snapshot, 'who the proxy is decides it, before any policy');
    }
    const door = deniedAtDoor(record, known, snapshot.mode);
    if (door !== undefined) {
      return door === 'unknown'
        ? untellable(snapshot, 'it was denied before any policy, for what the log does not hold')
        : run(snapshot, known, mode, record, now, denyDecision(door, record.why, snapshot.revision));
    }
    const replay = await run(snapshot, known, mode, record, now);
    const isKeyOpen =
      serial !== '' &&
      spkiSha256 === '' &&
      [...mesh.bans.values()].some((ban) => ban.kind === 'key' && isInForce(ban, now));
    if (!isKeyOpen || replay.verdict !== 'allow') return replay;
    return untellable(
      snapshot,
      "keys are banned, and that of the caller's certificate is not known any more",
    );
  }

  async function run(
    snapshot: Snapshot,
    known: CallOfRecord,
    mode: PolicyMode | null,
    record: LoggedDecision,
    at: Date,
    standing?: Parameters<typeof replayCall>[3],
  ): Promise<Replay> {
    const call = snapshot.mode === 'istio' ? asSent(known, record, mode) : known;
    const replay = await inBreaths(replayCall(snapshot, call, at, standing), breathe);
    // It is only left undone by those who say so.
    if (replay === undefined) throw new Error('the question was left');
    return replay;
  }

  /** The latest revision at which the verdict became what it is. It is told when all before it is as the log says. */
  async function findChange(of: Asked): Promise<DecisionStory['change']> {
    const { record, known, revision: then, mode, past, replay, now } = of;
    if (replay.verdict === 'unknown')
      return { isSame: null, by: null, why: 'what it would get now cannot be told' };
    if (replay.verdict === record.verdict) {
      return {
        isSame: true,
        by: null,
        why: replay.reason === record.reason ? 'the same now' : 'the same verdict now, for another reason',
      };
    }
    const changed = (why: string): DecisionStory['change'] => ({ isSame: false, by: null, why });
    if (replay.reason === 'banned') return changed('a ban denies it now, and no policy');
    if (!policyReasons.has(record.reason)) return changed('no policy decided it then');
    if (then === null || mode === null) return changed('which policies were in force then is not known');
    const judge = (number: number, how: PolicyMode, at: Date): Promise<Replay | undefined> =>
      whereReadable(async () => run(await past.snapshotAt(number, how), known, mode, record, at));
    const before = await judge(then.number, mode, new Date(record.time));
    if (before?.verdict !== record.verdict || (before.reason !== null && before.reason !== record.reason)) {
      return changed(
        'the policies of then and the registrations of now do not give what the log says: more than policies has changed, or something that the log does not hold decided it',
      );
    }
    if ((await judge(then.number, mode, now))?.verdict === replay.verdict) {
      return changed('no edit changed it: a policy of then has begun or ended since (notBefore, expiresAt)');
    }
    return (
      (await walkBack(of, then, judge)) ??
      changed(`the last ${maxLooked} changes of these policies do not show which it was`)
    );
  }

  async function walkBack(
    { past, current, replay, now }: Asked,
    then: PolicyRevisionRecord,
    judge: (number: number, how: PolicyMode, at: Date) => Promise<Replay | undefined>,
  ): Promise<DecisionStory['change'] | undefined> {
    const inForce = current.mesh.policyRevision?.number ?? 0;
    let looked = 0;
    for (let below = inForce + 1; below > then.number + 1;) {
      const revisions = await archive.page(below, pageSize);
      for (const { record: revision, changes } of revisions) {
        below = revision.number;
        if (revision.number <= then.number || revision.parent === null) return undefined;
        // A switch of the mode changes no policy.
        const concerns =
          changes.length === 0 || changes.some(({ namespace }) => past.namespaces.includes(namespace));
        if (!concerns) continue;
        if (looked++ >= maxLooked) return undefined;
        const parent = await archive.revision(revision.parent.number);
        const how = parent === null ? null : await past.modeOf(parent);
        const before = parent === null || how === null ? undefined : await judge(parent.number, how, now);
        if (before === undefined || before.verdict === 'unknown') return undefined;
        if (before.verdict !== replay.verdict) {
          return {
            isSame: false,
            by: inShort(revision),
            why: `policy revision ${revision.number} changed it`,
          };
        }
      }
      if (revisions.length < pageSize) return undefined;
    }
    return undefined;
  }
}

type Asked = {
  readonly record: LoggedDecision;
  readonly known: CallOfRecord;
  readonly revision: PolicyRevisionRecord | null;
  readonly mode: PolicyMode | null;
  readonly past: Past;
  readonly current: CurrentMesh;
  readonly replay: Replay;
  readonly now: Date;
};

/**
 * Why a call that was refused before any policy would be refused again, by what of it the log holds or does not hold.
 * Undefined: it was not, or replaying it says the same.
 */
function deniedAtDoor(
  { reason, why }: LoggedDecision,
  { call }: CallOfRecord,
  mode: PolicyMode,
): 'request_ambiguous' | 'request_invalid' | 'unknown' | undefined {
  if (reason !== 'request_ambiguous' && reason !== 'request_invalid') return undefined;
  // In Istio mode this is said where a rule reads what nobody told.
  if (why.startsWith('a policy reads ')) return undefined;
  const read = call.protocol === 'http' ? canonicalizeHttp(call) : undefined;
  if (read !== undefined && isRejection(read) && read.why === why) return undefined;
  // Of these the reading of strict mode speaks: as Istio reads the call it may pass.
  const isOfReading = /^the (?:path|query|host|method|port) /.test(why);
  return mode === 'istio' && isOfReading ? 'unknown' : reason;
}

function untellable({ revision, mode }: Snapshot, why: string): Replay {
  const empty = { dependsOn: [], allow: [], unless: [], allowOmitted: 0, unlessOmitted: 0 };
  return { verdict: 'unknown', reason: null, rule: '', why, revision, mode, ...empty, explanation: null };
}

function inShort({ number, id, time, author, message, restores }: PolicyRevisionRecord): RevisionInStory {
  return { number, id, time, author, message, restores };
}

const proxyReasons: ReadonlySet<string> = new Set(['caller_unknown', 'destination_forged']);
const policyReasons: ReadonlySet<string> = new Set([
  'allow_rule',
  'allow_by_default',
  'deny_rule',
  'no_allow_rule',
  'no_policy',
  'custom_unanswered',
  'request_ambiguous',
]);
const clockSkewMs = 300_000;
const pageSize = 100;
const maxLooked = 64;
