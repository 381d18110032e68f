import { createPathPatterns } from '../authz/path-pattern.ts';
import type { Snapshot } from '../authz/snapshot.ts';

/**
 * What a proxy names as a rule, held against the policies in force: the value of its `paths` that a path fits, `*` when it
 * names none; undefined when there is no such rule.
 */
export type ToldRules = (rule: string, path: string) => string | undefined;

/** Remembers the rules of the latest snapshot. A proxy may be a revision behind: then its leaf alone says what it went by. */
export function createToldRules(snapshot: () => Snapshot): ToldRules {
  const patternOf = createPathPatterns();
  let of: Snapshot | undefined;
  let known = new Map<string, boolean>();
  return (rule, path) => {
    const now = snapshot();
    if (now !== of) [of, known] = [now, new Map()];
    let isOne = known.get(rule);
    if (isOne === undefined) {
      isOne = hasRule(now, rule);
      if (known.size >= maxKnown) known.clear();
      known.set(rule, isOne);
    }
    // What no rule is about is kept by nobody.
    return isOne ? patternOf(now, rule, path) : undefined;
  };
}

function hasRule(snapshot: Snapshot, rule: string): boolean {
  const policy = snapshot.policy(rule.slice(0, Math.max(0, rule.lastIndexOf(' '))));
  return policy?.rules.some(({ name }) => name === rule) ?? false;
}

const maxKnown = 4_096;
