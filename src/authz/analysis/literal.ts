import type { TrustDomain } from '../../spiffe/id.ts';
import type { PolicyAction } from '../document.ts';
import type { Facts } from '../facts.ts';
import { claimOf, compilePredicate, type Test } from '../match.ts';
import { callerAttributes } from '../differences.ts';
import type { Predicate } from '../policy.ts';
import { type Glob, globOfHost, globOfText, globsOfCaller, type Lead, leadOf } from './glob.ts';

/**
 * A condition on one dimension of calls. `one`: the dimension has one value, and the condition is a set of values.
 * `every` and `some`: it may have several texts (lines of a header, a list in a claim), and all of them, or one, must be of the set.
 */
export type Literal = {
  /** The same for conditions that mean the same. */
  readonly key: string;
  readonly dimension: string;
  readonly quantifier: 'one' | 'every' | 'some';
  readonly holds: (facts: Facts) => boolean;
  readonly predicates: readonly Predicate[];
  /** Whatever satisfies it matches a glob of each of these groups. */
  readonly wanted: readonly (readonly Glob[])[];
  readonly cover: Cover | undefined;
};

/** Beginnings of all texts that satisfy a literal, and texts that are written in full. */
export type Cover = { readonly exact: ReadonlySet<string>; readonly prefixes: readonly string[] };

/** Predicates that must all hold, each read as the action does; on one dimension. */
export type Conjunction = readonly Predicate[];

/** The dimension that a predicate is about: those that are about the same thing share one. */
export function dimensionOf(predicate: Predicate): string {
  const { attribute, names } = predicate;
  if (callerAttributes.has(attribute)) return 'caller';
  if (attribute === 'source.ip' || attribute === 'remote.ip') return 'client';
  if (attribute === 'request.headers') return `header ${names[0] ?? ''}`;
  if (attribute === 'request.auth.principal') return 'token';
  if (attribute.startsWith('request.auth.')) return `claim ${claimOf(predicate).id}`;
  return attribute === 'filter.metadata' ? `note ${JSON.stringify(names)}` : attribute;
}

/** Whether a dimension may have several texts at once. */
export function isManifold(dimension: string): boolean {
  return /^(?:header|claim|note) /.test(dimension);
}

/**
 * Makes a literal of conjunctions on one dimension of which one must hold. INVARIANT: a manifold dimension comes with one
 * predicate: whether one line is of two sets is another question than whether one line is of each.
 */
export function literalOf(
  alternatives: readonly Conjunction[],
  action: PolicyAction,
  { name }: TrustDomain,
): Literal {
  const isCautious = action !== 'ALLOW';
  const predicates = alternatives.flat();
  const [first] = predicates as unknown as readonly [Predicate];
  const dimension = dimensionOf(first);
  const tests = alternatives.map((all) => all.map((one) => compilePredicate(one, action)));
  const groups = alternatives.map((all) => wantedOf(all, isCautious, name));
  const [alone = []] = groups;
  const wanted =
    groups.length === 1
      ? alone
      : groups.some((one) => one.length === 0)
        ? []
        : [groups.flatMap(([one = []]) => one)];
  return {
    key: JSON.stringify([isCautious, alternatives.map((all) => meaningOf({ predicates: all }))]),
    dimension,
    quantifier: isManifold(dimension) ? quantifierOf(first, isCautious) : 'one',
    holds: (facts) => tests.some((all) => all.every((test: Test) => test(facts) ?? isCautious)),
    predicates,
    wanted,
    cover: isManifold(dimension) ? undefined : coverOf(alternatives, isCautious, name),
  };
}

/** The same for predicates that mean the same. */
export function meaningOf({ predicates }: { readonly predicates: Conjunction }): unknown {
  return predicates.map(({ attribute, names, negated, kind, matches }) => [
    attribute,
    names,
    negated,
    kind,
    matches,
  ]);
}

function quantifierOf({ attribute, negated }: Predicate, isCautious: boolean): 'every' | 'some' {
  if (attribute === 'request.headers') return isCautious ? 'some' : 'every';
  return negated ? 'every' : 'some';
}

/** The globs of a predicate; none where it is not about text. */
export function globsOf(predicate: Predicate, own: string): readonly Glob[] {
  const known = knownGlobs.get(predicate);
  if (known?.own === own) return known.globs;
  const globs = readGlobs(predicate, own);
  knownGlobs.set(predicate, { own, globs });
  return globs;
}

const knownGlobs = new WeakMap<Predicate, { readonly own: string; readonly globs: readonly Glob[] }>();

function readGlobs(predicate: Predicate, own: string): readonly Glob[] {
  if (dimensionOf(predicate) === 'caller') return globsOfCaller(predicate, own);
  if (predicate.kind === 'host') return predicate.matches.map(globOfHost);
  if (predicate.kind === 'metadata') return predicate.matches.map(({ match }) => globOfText(match));
  return predicate.kind === 'text' ? predicate.matches.map(globOfText) : [];
}

/** Predicates of which each must be met by a text that it names. */
function wantedOf(all: Conjunction, isCautious: boolean, own: string): readonly (readonly Glob[])[] {
  return all.flatMap((one) => {
    const globs = isNaming(one, isCautious) ? globsNaming(one, own) : [];
    return globs.length === 0 ? [] : [globs];
  });
}

/**
 * Whether a predicate holds only for what it names: one that is cautious holds also for what it cannot judge, which of a
 * caller's ID, a method, a path and a host is nothing.
 */
function isNaming({ attribute, negated }: Predicate, isCautious: boolean): boolean {
  return !negated && (!isCautious || alwaysTold.has(attribute));
}

const alwaysTold: ReadonlySet<string> = new Set([
  ...['source.principal', 'source.trustDomain', 'request.method', 'request.path', 'request.host'],
]);

/** Without the glob of those who have a namespace at all. */
function globsNaming(one: Predicate, own: string): readonly Glob[] {
  const globs = globsOf(one, own);
  const hasMore = one.attribute === 'source.namespace' || one.attribute === 'source.serviceAccount';
  return hasMore ? globs.slice(0, -1) : globs;
}

function coverOf(alternatives: readonly Conjunction[], isCautious: boolean, own: string): Cover | undefined {
  const exact = new Set<string>();
  const prefixes: string[] = [];
  for (const all of alternatives) {
    const group = bestOf(all, isCautious, own);
    if (group === undefined) return undefined;
    for (const { text, isWhole } of group) {
      if (isWhole) exact.add(text);
      else prefixes.push(text);
    }
  }
  return { exact, prefixes };
}

/** Of predicates that must all hold, the one that leaves the fewest beginnings. */
function bestOf(all: Conjunction, isCautious: boolean, own: string): readonly Lead[] | undefined {
  let best: readonly Lead[] | undefined;
  for (const one of all) {
    const leads = isNaming(one, isCautious) ? leadsOf(one, own) : undefined;
    if (leads === undefined) continue;
    if (best === undefined || leads.every(({ isWhole }) => isWhole)) best = leads;
  }
  return best;
}

function leadsOf(one: Predicate, own: string): readonly Lead[] | undefined {
  if (one.kind === 'port') return one.matches.map((port) => ({ text: `${port}`, isWhole: true }));
  const leads = globsNaming(one, own).map(leadOf);
  return leads.length === 0 || leads.some(({ text, isWhole }) => text === '' && !isWhole) ? undefined : leads;
}

/** Whether something may satisfy both: never wrongly false. */
export function mayMeet(a: Cover | undefined, b: Cover | undefined): boolean {
  if (a === undefined || b === undefined) return true;
  const [few, many] = a.exact.size <= b.exact.size ? [a, b] : [b, a];
  for (const text of few.exact) if (many.exact.has(text)) return true;
  return beginsAny(a.exact, b.prefixes) || beginsAny(b.exact, a.prefixes) || overlap(a.prefixes, b.prefixes);
}

function beginsAny(texts: Iterable<string>, prefixes: readonly string[]): boolean {
  if (prefixes.length === 0) return false;
  for (const text of texts) for (const prefix of prefixes) if (text.startsWith(prefix)) return true;
  return false;
}

function overlap(some: readonly string[], others: readonly string[]): boolean {
  return some.some((a) => others.some((b) => a.startsWith(b) || b.startsWith(a)));
}
