import { formatPlace } from '../errors.ts';
import type { NearestRule } from './decision.ts';
import type { Facts } from './facts.ts';
import type { CompiledEntries, CompiledRule } from './match.ts';
import { type Entry, type Predicate, sides } from './policy.ts';
import type { Applied } from './snapshot.ts';
import { describeMiss } from './words.ts';

/** A rule that did not match: how many of its predicates hold, and the first that does not. */
export type NearMiss = {
  readonly compiled: CompiledRule;
  readonly matched: number;
  readonly total: number;
  readonly missed: Predicate;
};

/**
 * The ALLOW rule that came closest: the one with most predicates that hold, then with fewest that do not, then of lowest
 * rank. Of each list of entries the best one counts. Among many rules only those that one side of the request leads to
 * are weighed, at most 8, so that a denial costs the same whatever their number.
 */
export function findNearest(applied: Applied, facts: Facts): NearestRule | null {
  const miss = findNearMiss(applied, facts);
  if (miss === null) return null;
  return {
    rule: miss.compiled.rule.name,
    place: placeOf(miss.missed),
    missed: describeMiss(miss.missed, facts),
  };
}

function placeOf(predicate: Predicate): string {
  const known = places.get(predicate);
  if (known !== undefined) return known;
  const place = formatPlace(predicate.place);
  places.set(predicate, place);
  return place;
}

/** Denials repeat: the same words for the same predicate are made once. */
const places = new WeakMap<Predicate, string>();

/** {@link findNearest} in parts. */
export function findNearMiss(applied: Applied, facts: Facts): NearMiss | null {
  let best: NearMiss | null = null;
  const scale: Scale = { matched: 0, total: 0, missed: undefined };
  for (const compiled of gatherCandidates(applied, facts)) {
    weigh(compiled, facts, scale);
    const { matched, total, missed } = scale;
    if (missed === undefined) continue;
    if (best === null || isNearer(matched, total, compiled, best))
      best = { compiled, matched, total, missed };
  }
  return best;
}

function gatherCandidates(applied: Applied, facts: Facts): readonly CompiledRule[] {
  const { allowRules } = applied;
  if (allowRules.length <= maxWeighed) return allowRules;
  const candidates: CompiledRule[] = [];
  let limit = 0;
  for (const finder of applied.near) {
    limit += maxWeighed / applied.near.length;
    finder.gather(facts, candidates, limit);
  }
  return candidates.length > 0 ? candidates : allowRules.slice(0, maxWeighed);
}

const maxWeighed = 8;

/** What a rule weighs; one for all candidates of a call. */
type Scale = { matched: number; total: number; missed: Predicate | undefined };

function weigh(compiled: CompiledRule, facts: Facts, scale: Scale): void {
  scale.matched = 0;
  scale.total = 0;
  scale.missed = undefined;
  for (const side of sides) weighSide(compiled.rule[side], compiled[side], facts, scale);
}

/** Adds the entry that all of holds, or else the best one. */
function weighSide(entries: readonly Entry[], tests: CompiledEntries, facts: Facts, scale: Scale): void {
  let [bestMatched, bestTotal] = [0, 0];
  let bestMissed: Predicate | undefined;
  for (let i = 0; i < tests.length; i++) {
    const entry = tests[i] ?? [];
    let matched = 0;
    let firstMissed = -1;
    for (let j = 0; j < entry.length; j++) {
      if (entry[j]?.(facts) === true) matched += 1;
      else if (firstMissed === -1) firstMissed = j;
    }
    const total = entry.length;
    const missed = firstMissed === -1 ? undefined : entries[i]?.predicates[firstMissed];
    const isBetter = matched > bestMatched || (matched === bestMatched && total < bestTotal);
    if (missed === undefined || bestMissed === undefined || isBetter) {
      [bestMatched, bestTotal, bestMissed] = [matched, total, missed];
    }
    if (missed === undefined) break;
  }
  scale.matched += bestMatched;
  scale.total += bestTotal;
  scale.missed ??= bestMissed;
}

function isNearer(matched: number, total: number, compiled: CompiledRule, than: NearMiss): boolean {
  if (matched !== than.matched) return matched > than.matched;
  if (total !== than.total) return total < than.total;
  return compiled.ordinal < than.compiled.ordinal;
}
