import type { CompiledRule } from './match.ts';
import { type Predicate, sides } from './policy.ts';
import type { AppliedRules } from './snapshot.ts';
import { rulesInStep, type Steps } from './steps.ts';

/** What a predicate names: none for one that is about something else, or that names nothing as a whole. */
export type ReadNames = (predicate: Predicate) => readonly string[];

/**
 * All that the rules of a destination name, in whatever rule and whether or not behind a `not`: whoever wants to know which
 * of it is allowed has to ask of each. What rules allow by a pattern is not named.
 */
export function* namedIn(
  { allowRules, denyRules, customRules }: AppliedRules,
  read: ReadNames,
): Steps<ReadonlySet<string>> {
  const named = new Set<string>();
  for (const rules of [allowRules, denyRules, customRules]) yield* collect(rules, read, named);
  return named;
}

function* collect(rules: readonly CompiledRule[], read: ReadNames, named: Set<string>): Steps<void> {
  for (const [i, { rule }] of rules.entries()) {
    if (i % rulesInStep === 0) yield;
    for (const side of sides) {
      for (const { predicates } of rule[side]) {
        for (const predicate of predicates) for (const name of read(predicate)) named.add(name);
      }
    }
  }
}

/** The methods that are named. */
export function methodsOf(predicate: Predicate): readonly string[] {
  return predicate.attribute === 'request.method' ? exactTexts(predicate) : [];
}

/** The paths that are named, canonical. */
export function pathsOf(predicate: Predicate): readonly string[] {
  return predicate.attribute === 'request.path' ? exactTexts(predicate) : [];
}

/** The subjects that are named of the tokens of one issuer. */
export function tokenSubjectsOf(issuer: string): ReadNames {
  return (predicate) => {
    if (predicate.kind === 'token') {
      return predicate.matches.flatMap(({ issuer: by, subject }) =>
        by.kind === 'exact' && by.text === issuer && subject.kind === 'exact' ? [subject.text] : [],
      );
    }
    const { attribute, names } = predicate;
    const isSubject = attribute === 'request.auth.claims' && names.length === 1 && names[0] === 'sub';
    return isSubject ? exactTexts(predicate) : [];
  };
}

function exactTexts(predicate: Predicate): readonly string[] {
  if (predicate.kind !== 'text') return [];
  return predicate.matches.flatMap((match) => (match.kind === 'exact' ? [match.text] : []));
}
