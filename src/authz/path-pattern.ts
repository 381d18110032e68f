import { compileTexts } from './match.ts';
import type { Rule, TextMatch } from './policy.ts';
import type { Snapshot } from './snapshot.ts';

/** Every path: of a rule that names none, or none that fits; and of a call that no rule is about. */
export const anyPath = '*';

/**
 * Tells by which path a rule lets a call pass, in its author's words: the first value of its `paths` that fits. Calls to
 * `/orders/17` and `/orders/18` are one kind of call to a rule of `/orders/*`.
 */
export type PathPatterns = (snapshot: Snapshot, ruleName: string, path: string) => string;

/** Makes the answer to that question, which remembers the rules of the snapshot it was last asked about. */
export function createPathPatterns(): PathPatterns {
  let of: Snapshot | undefined;
  let known = new Map<string, PatternOf>();
  return (snapshot, ruleName, path) => {
    if (snapshot !== of) [of, known] = [snapshot, new Map()];
    let pattern = known.get(ruleName);
    if (pattern === undefined) {
      pattern = patternOf(findRule(snapshot, ruleName));
      known.set(ruleName, pattern);
    }
    return typeof pattern === 'string' ? pattern : pattern(path);
  };
}

/** The same for each path, or to be asked. */
type PatternOf = string | ((path: string) => string);

function findRule(snapshot: Snapshot, ruleName: string): Rule | undefined {
  const policy = snapshot.policy(ruleName.slice(0, ruleName.lastIndexOf(' ')));
  return policy?.rules.find(({ name }) => name === ruleName);
}

function patternOf(rule: Rule | undefined): PatternOf {
  const texts: { readonly text: string; readonly fits: (path: string) => boolean }[] = [];
  // INVARIANT: the rule's own texts are told. A path may be a slice of 64 KiB with its query, which would be kept with it.
  const exact = new Map<string, string>();
  for (const { predicates } of rule?.to ?? []) {
    for (const predicate of predicates) {
      if (predicate.attribute !== 'request.path' || predicate.negated || predicate.kind !== 'text') continue;
      for (const match of predicate.matches) {
        if (match.kind === 'exact') exact.set(match.text, match.text);
        else texts.push({ text: written(match), fits: compileTexts([match]) });
      }
    }
  }
  if (exact.size + texts.length === 0) return anyPath;
  // A rule may list thousands: beyond some, looking for the one would cost more than the decision.
  const tried = texts.slice(0, maxTried);
  return (path) => {
    const same = exact.get(path);
    if (same !== undefined) return same;
    for (const { text, fits } of tried) if (fits(path)) return text;
    return anyPath;
  };
}

function written(match: TextMatch): string {
  switch (match.kind) {
    case 'prefix':
      return `${match.text}*`;
    case 'suffix':
      return `*${match.text}`;
    case 'present':
      return anyPath;
    case 'exact':
    case 'template':
      return match.text;
    default:
      return match satisfies never;
  }
}

const maxTried = 32;
