import type { CandidateCallsEvent } from '../audit/rollout-event.ts';
import { formatPlace, MeshError } from '../errors.ts';
import type { CurrentMesh } from './current-mesh.ts';
import type { EndingCall } from './rollout-step.ts';

/** Calls of one kind that a candidate and what is in force judge differently. */
export type RolloutEdge = {
  readonly change: 'newly_denied' | 'newly_allowed';
  readonly source: string;
  readonly destination: string;
  readonly protocol: string;
  readonly method: string;
  readonly pathPattern: string;
  /** What is in force says, and where its rule stands: `file:line:column`, empty where it is not known. */
  readonly reason: string;
  readonly rule: string;
  readonly rulePlace: string;
  /** What the candidate says. */
  readonly candidateReason: string;
  readonly candidateRule: string;
  readonly candidatePlace: string;
  readonly calls: number;
  /** How many of them the candidate has decided. */
  readonly decided: number;
  readonly first: Date;
  readonly last: Date;
};

/** What has become of calls in one rollout. */
export type RolloutCounts = {
  readonly judged: number;
  readonly newlyDenied: number;
  readonly newlyAllowed: number;
  /** Newly denied calls that the candidate denied. */
  readonly denied: number;
  /** Those that were saved from it. */
  readonly fallenBack: number;
  /** The most frequent first; beyond {@link maxEdges} kinds they are counted above and not told. */
  readonly edges: readonly RolloutEdge[];
};

/** Adds up what doors tell of one rollout. Bounded. */
export type RolloutTally = {
  /** @param current where its rules stand */
  readonly add: (event: CandidateCallsEvent, current: CurrentMesh) => void;
  readonly counts: () => RolloutCounts;
};

export function createRolloutTally(): RolloutTally {
  const sums = { judged: 0, newlyDenied: 0, newlyAllowed: 0, denied: 0, fallenBack: 0 };
  const edges = new Map<string, Counted>();
  return {
    add: (event, current) => {
      const { change, applied, count } = event;
      sums.judged += count;
      if (change === 'same') return;
      if (change === 'newly_allowed') sums.newlyAllowed += count;
      else {
        sums.newlyDenied += count;
        if (applied === 'candidate') sums.denied += count;
        if (applied === 'fallback') sums.fallenBack += count;
      }
      const key = keyOf(event);
      const known = edges.get(key) ?? (edges.size < maxEdges ? edgeOf(event, change, current) : undefined);
      if (known === undefined) return;
      edges.set(key, known);
      known.calls += count;
      if (applied === 'candidate') known.decided += count;
      if (event.from < known.first) known.first = event.from;
      if (event.to > known.last) known.last = event.to;
    },
    counts: () => ({ ...sums, edges: [...edges.values()].sort((a, b) => b.calls - a.calls) }),
  };
}

/**
 * The call that ends a rollout: one that a door saved from the canary, or one that is beyond its budget on all nodes together.
 * Undefined while it may go on.
 */
export function findEnding(
  event: CandidateCallsEvent,
  { denied }: RolloutCounts,
  maxNewDenials: number,
  current: CurrentMesh,
): EndingCall | undefined {
  if (event.change !== 'newly_denied' || event.applied === 'active') return undefined;
  if (event.applied === 'candidate' && denied <= maxNewDenials) return undefined;
  const { source, destination, candidateRule, caller } = event;
  const rule = candidateRule === '' ? event.rule : candidateRule;
  const place = candidateRule === '' ? placeOf(current, rule) : candidatePlaceOf(current, rule);
  return { source, destination, rule, isAllowed: candidateRule === '', place, node: caller.node ?? '' };
}

/**
 * Refuses to put a candidate in force that would deny what is allowed now, naming whom.
 * @throws MeshError `policy_rollout_denials`
 */
export function demandNoDenials({ newlyDenied, edges }: RolloutCounts): void {
  if (newlyDenied === 0) return;
  const denied = edges.filter(({ change }) => change === 'newly_denied');
  const named = denied
    .slice(0, maxNamed)
    .map(
      ({ source, destination, method, candidateRule, candidatePlace, rule, rulePlace }) =>
        `${[source, '->', destination, method].filter((word) => word !== '').join(' ')} (${candidateRule === '' ? `so far allowed by ${at(rule, rulePlace)}` : at(candidateRule, candidatePlace)})`,
    );
  const more = denied.length > named.length ? `, and ${denied.length - named.length} more kinds` : '';
  const those = newlyDenied === 1 ? '1 call was' : `${newlyDenied} calls were`;
  throw new MeshError(
    'policy_rollout_denials',
    `${those} made that the candidate denies and what is in force allows: ${named.join(', ')}${more}`,
    {
      fix: 'correct the candidate: countersign policy abort, then policy shadow; or enforce it with --accept-denials',
    },
  );
}

/** A rule and where it stands. */
export function at(rule: string, place: string): string {
  return place === '' ? rule : `${rule} at ${place}`;
}

type Counted = { -readonly [Name in keyof RolloutEdge]: RolloutEdge[Name] };

function edgeOf(event: CandidateCallsEvent, change: RolloutEdge['change'], current: CurrentMesh): Counted {
  const { source, destination, protocol, method, pathPattern, reason, rule } = event;
  const { candidateReason, candidateRule, from: first, to: last } = event;
  return {
    ...{ change, source, destination, protocol, method, pathPattern, reason, rule },
    rulePlace: placeOf(current, rule),
    ...{ candidateReason, candidateRule },
    candidatePlace: candidatePlaceOf(current, candidateRule),
    ...{ calls: 0, decided: 0, first, last },
  };
}

function keyOf(event: CandidateCallsEvent): string {
  const { change, source, destination, method, pathPattern, rule, candidateRule, candidateReason } = event;
  return [change, source, destination, method, pathPattern, rule, candidateRule, candidateReason].join('\n');
}

function placeOf({ policies }: Pick<CurrentMesh, 'policies'>, rule: string): string {
  const found = policies.get(rule.slice(0, rule.lastIndexOf(' ')))?.rules.find(({ name }) => name === rule);
  return found === undefined ? '' : formatPlace(found.place);
}

function candidatePlaceOf({ candidate }: CurrentMesh, rule: string): string {
  return candidate === null || candidate === undefined ? '' : placeOf(candidate, rule);
}

/** The most kinds of calls that are told apart. */
export const maxEdges = 1_000;
const maxNamed = 3;
