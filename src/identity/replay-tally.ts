import { joinCalls, type RecordedCalls } from '../audit/recorded-call.ts';
import type { CallToRejudge, Rejudged } from '../authz/rejudge.ts';

/** What becomes of calls that are not as before. */
export const replayClasses = ['newly_denied', 'newly_allowed', 'unknown'] as const;
export type ReplayClass = (typeof replayClasses)[number];

/** Calls of one kind that fare alike. */
export type TalliedEdge = {
  readonly class: ReplayClass;
  /** What of them is told; their path as `path`. */
  readonly calls: RecordedCalls;
  /** The value of `paths` that they fit, or their path; `*`: several; null: not held, or none. */
  readonly path: string | null;
  /** By the policies in force; null when the record does not say who called whom. */
  readonly before: Rejudged | null;
  readonly after: Rejudged | null;
  /** One of them; null likewise. */
  readonly example: CallToRejudge | null;
  /** As the records say. */
  readonly recorded: { readonly allowed: number; readonly denied: number };
};

/** How many calls fare how. */
export type ReplayTotals = {
  readonly calls: number;
  readonly newlyDenied: number;
  readonly newlyAllowed: number;
  readonly unchanged: number;
  readonly unknown: number;
};

/** Adds calls up. Its size is bounded, whatever is in the log. */
export type ReplayTally = {
  readonly unchanged: (count: number) => void;
  readonly add: (edge: Omit<TalliedEdge, 'recorded'>) => void;
  readonly totals: () => ReplayTotals;
  /** Of each class in their order, those of most calls first; and how many calls are in no edge, as there were too many. */
  readonly edges: () => { readonly edges: readonly TalliedEdge[]; readonly beyond: number };
};

/** Starts with nothing. */
export function createReplayTally(): ReplayTally {
  const sums = { unchanged: 0, newly_denied: 0, newly_allowed: 0, unknown: 0 };
  const edges = new Map<string, Growing>();
  const pathsOf = new Map<string, Set<string>>();
  let beyond = 0;
  return {
    unchanged: (count) => {
      sums.unchanged += count;
    },
    add: (one) => {
      const { calls, class: kind } = one;
      sums[kind] += calls.count;
      const path = foldPath(one);
      const key = JSON.stringify([kindOf(one), path]);
      const before = edges.get(key);
      if (before === undefined && edges.size >= maxEdges) {
        beyond += calls.count;
        return;
      }
      const edge = before ?? { ...one, path, recorded: { allowed: 0, denied: 0 } };
      edges.set(key, edge);
      edge.recorded[calls.call.verdict === 'allow' ? 'allowed' : 'denied'] += calls.count;
      if (before !== undefined) edge.calls = joinCalls(edge.calls, calls);
    },
    totals: () => ({
      calls: sums.unchanged + sums.newly_denied + sums.newly_allowed + sums.unknown,
      newlyDenied: sums.newly_denied,
      newlyAllowed: sums.newly_allowed,
      unchanged: sums.unchanged,
      unknown: sums.unknown,
    }),
    edges: () => {
      const rank = (edge: TalliedEdge): number => replayClasses.indexOf(edge.class);
      const sorted = [...edges.values()].sort(
        (a, b) => rank(a) - rank(b) || b.calls.count - a.calls.count || a.calls.lastIndex - b.calls.lastIndex,
      );
      return { edges: sorted, beyond };
    },
  };

  /** Callers choose paths: of one kind of call only the first few are told apart. */
  function foldPath(edge: Omit<TalliedEdge, 'recorded'>): string | null {
    const { path } = edge;
    if (path === null) return null;
    const kind = JSON.stringify(kindOf(edge));
    const known = pathsOf.get(kind) ?? new Set<string>();
    if (pathsOf.size < maxEdges) pathsOf.set(kind, known);
    if (known.has(path)) return path;
    if (known.size >= maxPaths) return '*';
    known.add(path);
    return path;
  }
}

type Growing = Omit<TalliedEdge, 'calls' | 'recorded'> & {
  calls: RecordedCalls;
  readonly recorded: { allowed: number; denied: number };
};

function kindOf({ class: kind, calls, before, after }: Omit<TalliedEdge, 'recorded'>): readonly unknown[] {
  const { source, destination, protocol, method, port } = calls.call;
  const judged = [before, after].map((one) => [one?.verdict, one?.reason, one?.rule, one?.dependsOn]);
  return [kind, source, destination, protocol, method, port, judged];
}

const maxEdges = 20_000;
const maxPaths = 8;
