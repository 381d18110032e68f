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
  for (const compiled of gatherCandidates(applied, facts)) {
    const miss = weigh(compiled, facts);
    if (miss !== null && (best === null || isNearer(miss, best))) best = miss;
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

function weigh(compiled: CompiledRule, facts: Facts): NearMiss | null {
  let matched = 0;
  let total = 0;
  let missed: Predicate | undefined;
  for (const side of sides) {
    const weight = weighSide(compiled.rule[side], compiled[side], facts);
    matched += weight.matched;
    total += weight.total;
    missed ??= weight.missed;
  }
  return missed === undefined ? null : { compiled, matched, total, missed };
}

type Weight = { readonly matched: number; readonly total: number; readonly missed: Predicate | undefined };

function weighSide(entries: readonly Entry[], tests: CompiledEntries, facts: Facts): Weight {
  let best: Weight = nothing;
  for (let i = 0; i < tests.length; i++) {
    const entry = tests[i] ?? [];
    let matched = 0;
    let firstMissed = -1;
    for (let j = 0; j < entry.length; j++) {
      if (entry[j]?.(facts) === true) matched += 1;
      else if (firstMissed === -1) firstMissed = j;
    }
    const total = entry.length;
    const missed = entries[i]?.predicates[firstMissed];
    if (missed === undefined) return { matched, total, missed };
    if (best === nothing || matched > best.matched || (matched === best.matched && total < best.total)) {
      best = { matched, total, missed };
    }
  }
  return best;
}

const nothing: Weight = { matched: 0, total: 0, missed: undefined };

function isNearer(a: NearMiss, b: NearMiss): boolean {
  if (a.matched !== b.matched) return a.matched > b.matched;
  if (a.total !== b.total) return a.total < b.total;
  return a.compiled.ordinal < b.compiled.ordinal;
}
