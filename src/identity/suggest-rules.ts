import type { RecordedCalls } from '../audit/recorded-call.ts';
import { Facts } from '../authz/facts.ts';
import { compilePredicate } from '../authz/match.ts';
import { coverOf, parsePathPattern } from '../authz/path-cover.ts';
import type { Entry, Predicate, Rule } from '../authz/policy.ts';
import { type CallToRejudge, openOf, requestOf } from '../authz/rejudge.ts';
import { isWritable } from '../authz/remedy-values.ts';
import { readable } from '../authz/replay.ts';
import { isRejection } from '../authz/request.ts';
import type { TrustDomain } from '../spiffe/id.ts';

/** A field of a source or an operation, or a key of `when`, with its values, as its author wrote them. */
export type Kept = readonly [field: string, values: readonly string[]];

/** What was seen of a call, and what the rule demands besides. */
export type SeenOperation = {
  /** Null: a connection. */
  readonly method: string | null;
  /** 0: not told. */
  readonly port: number;
  /** A value of `paths`; null: whatever the rule lets pass. */
  readonly path: string | null;
  /** Whether the rule names no paths: then many may be told as all of them. */
  readonly isAnyPath: boolean;
  readonly kept: readonly Kept[];
};

/** A rule as far as recorded calls of one kind need it. */
export type NarrowedCall = {
  /** The caller, as `principals` names it. */
  readonly caller: string;
  /** What the rule demands of callers besides: any of these lists. */
  readonly from: readonly (readonly Kept[])[];
  readonly to: readonly SeenOperation[];
  readonly when: readonly Kept[];
  readonly calls: number;
  readonly lastMs: number;
};

/**
 * Narrows a rule to calls that it allows: to their caller, method, port and paths, as far as they are known. What else it demands it
 * goes on to demand, so that what comes out allows nothing that the rule does not.
 * @param ofRule the value of `paths` by which the rule lets a path pass, `*` for none: as calls are counted
 * @returns why not, when no such rule can be written
 */
export function narrowRule(
  {
    rule,
    trustDomain,
    ofRule,
    now,
  }: {
    readonly rule: Rule;
    readonly trustDomain: TrustDomain;
    readonly ofRule: (path: string) => string;
    readonly now: Date;
  },
  known: CallToRejudge,
  { call, count, lastMs }: RecordedCalls,
): NarrowedCall | string {
  const request = requestOf(known);
  if (isRejection(request) || request.source === null) return 'their records do not say how they were made';
  const { method, port, protocol, source } = request;
  if (protocol === 'http' && !isWritable(method)) return 'no value of a policy stands for their method';
  const facts = new Facts(readable(request, known.unknown), trustDomain, now);
  const isOpen = openOf(known, facts);
  const fate = (predicate: Predicate): 'holds' | 'open' | 'fails' => {
    if (predicate.kind === 'time') return 'holds';
    if (isOpen(predicate.attribute, predicate)) return 'open';
    return compilePredicate(predicate, 'ALLOW')(facts) === true ? 'holds' : 'fails';
  };
  const seenPath = pathOf(known, call.path, request.path, ofRule);
  const operationOf = (predicates: readonly Predicate[]): SeenOperation => {
    const ofPaths = predicates.filter(({ attribute, negated }) => attribute === 'request.path' && !negated);
    const isWithin = ofPaths.every((one) => one.kind === 'text' && isAll(seenPath, one.matches));
    // INVARIANT: whoever is not known to stay within the paths of the rule is held to them.
    const path = ofPaths.length === 0 || isWithin ? seenPath : null;
    const kept = predicates
      .filter(
        (one) =>
          fate(one) === 'open' ||
          // A record may hold the host, and what is suggested names none by itself.
          one.attribute === 'request.host' ||
          (one.attribute === 'request.path' && (one.negated || path === null)),
      )
      .map(keep);
    return { method: protocol === 'http' ? method : null, port, path, isAnyPath: ofPaths.length === 0, kept };
  };
  const to = entriesOf(rule.to, fate).map(operationOf);
  const from = entriesOf(rule.from, fate).map((predicates) =>
    predicates.filter((one) => fate(one) === 'open').map(keep),
  );
  if (to.length === 0 || from.length === 0) return 'the rule that allows them cannot be narrowed';
  const when = rule.when.flatMap(({ predicates }) =>
    predicates.filter((one) => fate(one) === 'open').map(keep),
  );
  return {
    caller: source.principal,
    from: fewest(from),
    to: fewest(to, ({ kept }) => kept),
    when,
    calls: count,
    lastMs,
  };
}

/** The entries that the calls can have matched; an empty part holds of all calls. */
function entriesOf(
  entries: readonly Entry[],
  fate: (predicate: Predicate) => string,
): readonly (readonly Predicate[])[] {
  if (entries.length === 0) return [[]];
  return entries
    .map(({ predicates }) => predicates)
    .filter((predicates) => predicates.every((one) => fate(one) !== 'fails'));
}

/** One that demands nothing more is enough. */
function fewest<T>(
  all: readonly T[],
  keptOf: (one: T) => readonly Kept[] = (one) => one as readonly Kept[],
): readonly T[] {
  const free = all.find((one) => keptOf(one).length === 0);
  return free === undefined ? all : [free];
}

function pathOf(
  { paths, unknown, call }: CallToRejudge,
  held: string | null,
  canonical: string,
  ofRule: (path: string) => string,
): string | null {
  if (call.protocol === 'tcp' || unknown.has('request.path')) return null;
  if (paths !== null) return paths.kind === 'present' ? null : writtenPattern(paths);
  if (held === null) return null;
  const wide = ofRule(canonical);
  if (wide !== '*') return wide;
  return isWritable(canonical) ? canonical : null;
}

function writtenPattern(pattern: NonNullable<CallToRejudge['paths']>): string {
  if (pattern.kind === 'present') return '*';
  if (pattern.kind === 'prefix') return `${pattern.text}*`;
  return pattern.kind === 'suffix' ? `*${pattern.text}` : pattern.text;
}

function isAll(path: string | null, values: Parameters<typeof coverOf>[1]): boolean {
  const pattern = path === null ? undefined : parsePathPattern(path);
  return pattern !== undefined && coverOf(pattern, values) === 'all';
}

function keep({ field, values }: Predicate): Kept {
  return [field, values];
}
