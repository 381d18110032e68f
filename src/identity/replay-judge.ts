import type { RecordedCalls } from '../audit/recorded-call.ts';
import type { Attribute } from '../authz/document.ts';
import { createPathPatterns } from '../authz/path-pattern.ts';
import { createRejudge, type Rejudge, type Rejudged } from '../authz/rejudge.ts';
import type { Steps } from '../authz/steps.ts';
import type { SpiffeId } from '../spiffe/id.ts';
import type { CurrentMesh } from './current-mesh.ts';
import { callToRejudge, createReadId } from './replay-call.ts';
import { showsOf, type Then } from './replay-evidence.ts';
import type { ReplayClass, TalliedEdge } from './replay-tally.ts';
import { findStandingDenial } from './standing-denial.ts';

/** What becomes of recorded calls: `same`, or what differs. */
export type Judged = 'same' | Omit<TalliedEdge, 'recorded'>;

/** Judges recorded calls by the policies in force and by others. */
export type ReplayJudge = {
  /**
   * Whether other rules decide calls to a destination than those in force: to all others nothing changes, whatever is not
   * known of the calls.
   */
  readonly isAffected: (destination: string) => boolean;
  readonly judge: (calls: RecordedCalls, then: Then) => Steps<Judged>;
  /** Whether rules that decide calls to one of these destinations read an attribute. */
  readonly reads: (destinations: readonly string[]) => Steps<ReadonlySet<Attribute>>;
  readonly after: Rejudge;
};

/** Makes one for a moment. */
export function createReplayJudge(current: CurrentMesh, candidate: CurrentMesh, now: Date): ReplayJudge {
  const before = createRejudge(current.snapshot, now);
  const after = createRejudge(candidate.snapshot, now);
  const { mode } = candidate.snapshot;
  const readId = createReadId();
  const affected = new Map<string, boolean>();
  const reregistered = findReregistered(current, candidate);
  const changed = findChanged(current, candidate);
  const isChanged = changed.size > 0 || reregistered.size > 0;
  const patterns = [createPathPatterns(), createPathPatterns()] as const;

  return { isAffected, judge, reads, after };

  function isAffected(destination: string): boolean {
    const known = affected.get(destination);
    if (known !== undefined) return known;
    const id = readId(destination);
    // Of one that is no identity nobody knows which policies are about it.
    const found = id === undefined ? isChanged : reregistered.has(destination) || isOfOtherPolicies(id);
    if (affected.size >= maxRemembered) affected.clear();
    affected.set(destination, found);
    return found;
  }

  function isOfOtherPolicies(destination: SpiffeId): boolean {
    const [old, next] = [current, candidate].map(({ snapshot }) => snapshot.istio.policiesFor(destination));
    if (old === undefined || next === undefined || old.length !== next.length) return true;
    return old.some(({ key }, i) => key !== next[i]?.key || changed.has(key));
  }

  function* judge(calls: RecordedCalls, then: Then): Steps<Judged> {
    const { call } = calls;
    if (!isAffected(call.destination)) return 'same';
    const decidedBeforePolicy = doorReasons.has(call.reason);
    // Who the proxy is, or how it sends a call, is nothing that policies change.
    if (decidedBeforePolicy && mode === 'strict') return 'same';
    const example = decidedBeforePolicy ? undefined : callToRejudge(call, readId, then.mode, mode);
    if (example === undefined) {
      const path = call.pathPattern ?? call.path;
      return { class: 'unknown', calls, path, before: null, after: null, example: null };
    }
    const { source, destination } = example.call;
    if (findStandingDenial(current.bans, { id: source }, destination, now) !== undefined) return 'same';
    const old = yield* before.judge(example, showsOf(calls, then, current));
    const next = yield* after.judge(example, showsOf(calls, then, candidate));
    const found = compare(old, next, call.verdict, changed);
    if (found === 'same') return 'same';
    return { class: found, calls, path: pathOf(calls, old, next), before: old, after: next, example };
  }

  /** Calls of one rule to many paths are one kind of call. */
  function pathOf({ call }: RecordedCalls, old: Rejudged, next: Rejudged): string | null {
    if (call.pathPattern !== null || call.path === null) return call.pathPattern;
    const [ofOld, ofNext] = patterns;
    const found =
      next.rule === ''
        ? old.rule === ''
          ? '*'
          : ofOld(current.snapshot, old.rule, call.path)
        : ofNext(candidate.snapshot, next.rule, call.path);
    return found === '*' ? call.path : found;
  }

  function* reads(destinations: readonly string[]): Steps<ReadonlySet<Attribute>> {
    const found = new Set<Attribute>();
    for (const text of destinations) {
      const destination = readId(text);
      if (destination === undefined) continue;
      for (const rejudge of [before, after]) {
        for (const attribute of yield* rejudge.reads(destination)) found.add(attribute);
      }
    }
    return found;
  }
}

/** What is in force counts as before; where that cannot be told, what the record says. */
function compare(
  old: Rejudged,
  next: Rejudged,
  recorded: 'allow' | 'deny',
  changed: ReadonlySet<string>,
): 'same' | ReplayClass {
  if (next.verdict === 'unknown') return isSameRest(old, next, changed) ? 'same' : 'unknown';
  const before = old.verdict === 'unknown' ? recorded : old.verdict;
  if (before === next.verdict) return 'same';
  return next.verdict === 'deny' ? 'newly_denied' : 'newly_allowed';
}

/** Whether both depend on the same rules: then they fare alike, whatever is not known. */
function isSameRest(old: Rejudged, next: Rejudged, changed: ReadonlySet<string>): boolean {
  if (old.verdict !== 'unknown' || old.rest.length === 0 || old.rest.length !== next.rest.length)
    return false;
  return old.rest.every(({ rule: { name }, isOpen }, i) => {
    const other = next.rest[i];
    const isSame = other !== undefined && name === other.rule.name && isOpen === other.isOpen;
    return isSame && !changed.has(name.slice(0, name.lastIndexOf(' ')));
  });
}

/** The policies whose text is another, or that one of the two lacks. Where a text stands is nothing to calls. */
function findChanged(current: CurrentMesh, candidate: CurrentMesh): ReadonlySet<string> {
  const [old, next] = [current.mesh.policies, candidate.mesh.policies];
  if (old === next) return new Set();
  const keys = [...new Set([...old.keys(), ...next.keys()])];
  return new Set(keys.filter((key) => old.get(key)?.sha256 !== next.get(key)?.sha256));
}

/** Workloads that are registered in another way: other labels may bind them to other policies. */
function findReregistered(current: CurrentMesh, candidate: CurrentMesh): ReadonlySet<string> {
  const found = new Set<string>();
  const [old, next] = [current.mesh.entries, candidate.mesh.entries];
  if (old === next) return found;
  for (const [id, entry] of next) {
    const was = old.get(id);
    if (was === entry) continue;
    found.add(entry.spiffeId.text);
    if (was !== undefined) found.add(was.spiffeId.text);
  }
  return found;
}

const doorReasons: ReadonlySet<string> = new Set([
  'caller_unknown',
  'destination_forged',
  'engine_failed',
  'request_ambiguous',
  'request_invalid',
]);
const maxRemembered = 65_536;
