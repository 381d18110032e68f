import { formatPlace } from '../errors.ts';
import type { NearestRule } from './decision.ts';
import type { Facts } from './facts.ts';
import type { CompiledEntries, CompiledRule } from './match.ts';
import type { Predicate, Side } from './policy.ts';
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
  let nearest: CompiledRule | undefined;
  let best = new Weight();
  let weight = new Weight();
  for (const compiled of gatherCandidates(applied, facts)) {
    weigh(compiled, facts, weight);
    if (nearest !== undefined && !isNearer(weight, compiled, best, nearest)) continue;
    nearest = compiled;
    const beaten = best;
    best = weight;
    weight = beaten;
  }
  if (nearest === undefined) return null;
  const missed = nearest.rule[best.missedSide][best.missedEntry]?.predicates[best.missedPredicate];
  return missed === undefined
    ? null
    : { compiled: nearest, matched: best.matched, total: best.total, missed };
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

const none = -1;

/**
 * What a rule weighs, and where it missed first. Only the nearest rule is looked into for the predicate itself: what was
 * parsed lies elsewhere in memory than what is tried.
 */
class Weight {
  matched = 0;
  total = 0;
  missedSide: Side = 'from';
  missedEntry = 0;
  missedPredicate = none;
}

function weigh(compiled: CompiledRule, facts: Facts, weight: Weight): void {
  weight.matched = 0;
  weight.total = 0;
  weight.missedPredicate = none;
  // Written out: sides that are named by a variable are looked up in slow ways.
  weighSide('from', compiled.from, facts, weight);
  weighSide('to', compiled.to, facts, weight);
  weighSide('when', compiled.when, facts, weight);
}

/** Adds the entry that all of holds, or else the best one. */
function weighSide(side: Side, entries: CompiledEntries, facts: Facts, weight: Weight): void {
  let bestMatched = 0;
  let bestTotal = 0;
  let bestEntry = 0;
  let bestMissed = none;
  for (let i = 0; i < entries.length; i++) {
    const tests = entries[i] ?? [];
    const total = tests.length;
    let matched = 0;
    let missed = none;
    for (let j = 0; j < total; j++) {
      if (tests[j]?.(facts) === true) matched += 1;
      else if (missed === none) missed = j;
    }
    const isBetter = matched > bestMatched || (matched === bestMatched && total < bestTotal);
    if (missed === none || bestMissed === none || isBetter) {
      bestMatched = matched;
      bestTotal = total;
      bestEntry = i;
      bestMissed = missed;
    }
    if (missed === none) break;
  }
  weight.matched += bestMatched;
  weight.total += bestTotal;
  if (weight.missedPredicate !== none) return;
  weight.missedSide = side;
  weight.missedEntry = bestEntry;
  weight.missedPredicate = bestMissed;
}

function isNearer(weight: Weight, compiled: CompiledRule, best: Weight, nearest: CompiledRule): boolean {
  if (weight.matched !== best.matched) return weight.matched > best.matched;
  if (weight.total !== best.total) return weight.total < best.total;
  return compiled.ordinal < nearest.ordinal;
}

/** What a denial says of the nearest rule. */
export function describeNearest({ rule, missed }: Pick<NearestRule, 'rule' | 'missed'>): string {
  return `${nearestBegins}${rule}, where ${missed}`;
}

/** The nearest rule in what {@link describeNearest} wrote; null in any other text. */
export function readNearest(why: string): Pick<NearestRule, 'rule' | 'missed'> | null {
  if (!why.startsWith(nearestBegins)) return null;
  const [, rule, missed] =
    /^([a-z0-9.-]+\/[a-z0-9.-]+ rule\[\d+\]), where (.*)/s.exec(why.slice(nearestBegins.length)) ?? [];
  return rule === undefined || missed === undefined ? null : { rule, missed };
}

const nearestBegins = 'no ALLOW rule matched; the nearest is ';
