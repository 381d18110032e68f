import type { Facts } from './facts.ts';
import { type Atom, type Facet, type Filing, filingsOf } from './filing.ts';
import { type CompiledRule, ruleHolds } from './match.ts';
import { type Entry, type Predicate, type Side, sides as allSides } from './policy.ts';
import { PrefixTree } from './prefix-tree.ts';
import { rulesInStep, type Steps } from './steps.ts';

/** A set of rules that can be searched. */
export type RuleFinder = {
  /** The matching rule of the lowest rank, `best` when none is lower. */
  readonly find: (facts: Facts, best: CompiledRule | undefined) => CompiledRule | undefined;
  /** Adds rules that the request leads to, matching or not, until `into` holds `limit`. */
  readonly gather: (facts: Facts, into: CompiledRule[], limit: number) => void;
};

/**
 * An index over rules. Each rule is filed under the values of its most selective predicate, counted over the rules at
 * hand; a crowded place is indexed again by another predicate. So a search costs a few look-ups for each value of the
 * request, whatever the number of rules. Rules with nothing but negations and `*` are tried one by one.
 * INVARIANT: a rule that matches is filed where its request leads. For DENY that includes requests of which the facet is
 * not known.
 */
export function* buildIndex(rules: readonly CompiledRule[]): Steps<RuleFinder> {
  const atoms = countAll(rules);
  return yield* build(rules, new Set(), {
    sides: allSides,
    atoms: atoms + baseBudget + budgetFactor * atoms,
    filings: new Map(),
  });
}

/** An index by one side only, its crowds left as lists: it leads to rules that a request half fits. */
export function* buildSideIndex(rules: readonly CompiledRule[], side: Side): Steps<RuleFinder> {
  return yield* build(rules, new Set(), { sides: [side], atoms: countAll(rules), filings: new Map() });
}

type Plan = {
  readonly sides: readonly Side[];
  /**
   * How many are left. Rules with hundreds of callers and hundreds of paths each would multiply when crowded places are
   * indexed again: what this does not cover stays a list.
   */
  atoms: number;
  /** Worked out once for the whole index. */
  readonly filings: Map<Predicate, readonly Filing[]>;
};

const baseBudget = 200_000;
const budgetFactor = 8;

function* build(rules: readonly CompiledRule[], used: ReadonlySet<string>, plan: Plan): Steps<RuleFinder> {
  if (rules.length <= maxLeaf) return new RuleList(rules);
  plan.atoms -= countAll(rules);
  if (plan.atoms < 0) return new RuleList(rules);
  const counts = new AtomCounts(plan, used);
  for (const [i, rule] of rules.entries()) {
    if (i % rulesInStep === 0) yield;
    counts.add(rule);
  }
  const shelves = new Map<string, Shelf>();
  const rest: CompiledRule[] = [];
  for (const [i, rule] of rules.entries()) {
    if (i % rulesInStep === 0) yield;
    const cover = counts.chooseCover(rule);
    if (cover === undefined) {
      rest.push(rule);
      continue;
    }
    for (const filing of cover) {
      const { facet } = filing;
      const shelf = shelves.get(facet.id) ?? new Shelf(facet);
      shelves.set(facet.id, shelf);
      shelf.add(filing, rule);
    }
  }
  if (shelves.size === 0) return new RuleList(rules);
  for (const [id, shelf] of shelves) {
    const below = new Set(used).add(id);
    yield* shelf.seal((crowd) => build(crowd, below, plan));
  }
  return new RuleNode([...shelves.values()], new RuleList(rest));
}

/** Below this many rules, trying each is cheaper than looking one up. */
const maxLeaf = 8;

class RuleList implements RuleFinder {
  // Most lists are of one, which is found without a further step.
  readonly #first: CompiledRule | undefined;
  readonly #others: readonly CompiledRule[];

  constructor(rules: readonly CompiledRule[]) {
    const sorted = rules.length < 2 ? rules : [...new Set(rules)].sort((a, b) => a.ordinal - b.ordinal);
    this.#first = sorted[0];
    this.#others = sorted.length < 2 ? none : sorted.slice(1);
  }

  find(facts: Facts, best: CompiledRule | undefined): CompiledRule | undefined {
    const first = this.#first;
    if (first === undefined || (best !== undefined && first.ordinal >= best.ordinal)) return best;
    if (ruleHolds(first, facts)) return first;
    for (const rule of this.#others) {
      if (best !== undefined && rule.ordinal >= best.ordinal) return best;
      if (ruleHolds(rule, facts)) return rule;
    }
    return best;
  }

  gather(_facts: Facts, into: CompiledRule[], limit: number): void {
    const first = this.#first;
    if (first === undefined || into.length >= limit) return;
    if (!into.includes(first)) into.push(first);
    for (const rule of this.#others) {
      if (into.length >= limit) return;
      if (!into.includes(rule)) into.push(rule);
    }
  }
}

const none: readonly CompiledRule[] = [];

class RuleNode implements RuleFinder {
  readonly #shelves: readonly Shelf[];
  readonly #rest: RuleList;

  constructor(shelves: readonly Shelf[], rest: RuleList) {
    this.#shelves = shelves;
    this.#rest = rest;
  }

  find(facts: Facts, best: CompiledRule | undefined): CompiledRule | undefined {
    let found = best;
    for (const shelf of this.#shelves) found = shelf.find(facts, found);
    return this.#rest.find(facts, found);
  }

  gather(facts: Facts, into: CompiledRule[], limit: number): void {
    for (const shelf of this.#shelves) shelf.gather(facts, into, limit);
    this.#rest.gather(facts, into, limit);
  }
}

/** The rules filed by one facet: by whole value, by beginning, by end, and for requests of which it is not known. */
class Shelf implements RuleFinder {
  readonly #read: Facet['read'];
  readonly #filling = new Map<string | number, CompiledRule[]>();
  readonly #exact = new Map<string | number, RuleFinder>();
  #prefixes: PrefixTree | undefined;
  #suffixes: PrefixTree | undefined;
  #ofUnknown: CompiledRule[] = [];
  #unknown: RuleFinder | undefined;

  constructor(facet: Facet) {
    this.#read = facet.read;
  }

  add({ atoms }: Filing, rule: CompiledRule): void {
    for (const { kind, text } of atoms) {
      if (kind === 'prefix') (this.#prefixes ??= new PrefixTree()).add(String(text), rule);
      else if (kind === 'suffix') (this.#suffixes ??= new PrefixTree('from the end')).add(String(text), rule);
      else {
        const rules = this.#filling.get(text);
        if (rules === undefined) this.#filling.set(text, [rule]);
        else rules.push(rule);
      }
    }
    if (rule.policy.action !== 'ALLOW') this.#ofUnknown.push(rule);
  }

  *seal(build: (rules: readonly CompiledRule[]) => Steps<RuleFinder>): Steps<void> {
    let sealed = 0;
    for (const [key, rules] of this.#filling) {
      if (sealed++ % rulesInStep === 0) yield;
      this.#exact.set(key, yield* build(rules));
    }
    this.#filling.clear();
    if (this.#prefixes !== undefined) yield* this.#prefixes.seal(build);
    if (this.#suffixes !== undefined) yield* this.#suffixes.seal(build);
    // INVARIANT: a list that was built on is never changed: a list of one is kept as it is.
    if (this.#ofUnknown.length > 0) this.#unknown = yield* build(this.#ofUnknown);
    this.#ofUnknown = [];
  }

  find(facts: Facts, best: CompiledRule | undefined): CompiledRule | undefined {
    const key = this.#read(facts);
    if (key === undefined) return this.#unknown === undefined ? best : this.#unknown.find(facts, best);
    if (typeof key !== 'object') return this.#findBy(key, facts, best);
    if (key.length < 2) return key[0] === undefined ? best : this.#findBy(key[0], facts, best);
    let found = best;
    for (const finder of this.#findersOf(key)) found = finder.find(facts, found);
    return found;
  }

  gather(facts: Facts, into: CompiledRule[], limit: number): void {
    const key = this.#read(facts);
    if (key === undefined || into.length >= limit) return;
    if (typeof key !== 'object') this.#gatherBy(key, facts, into, limit);
    else for (const finder of this.#findersOf(key)) finder.gather(facts, into, limit);
  }

  #findBy(key: string | number, facts: Facts, best: CompiledRule | undefined): CompiledRule | undefined {
    const exact = this.#exact.get(key);
    let found = exact === undefined ? best : exact.find(facts, best);
    if (this.#prefixes !== undefined) found = this.#prefixes.find(String(key), facts, found);
    if (this.#suffixes !== undefined) found = this.#suffixes.find(String(key), facts, found);
    return found;
  }

  #gatherBy(key: string | number, facts: Facts, into: CompiledRule[], limit: number): void {
    this.#exact.get(key)?.gather(facts, into, limit);
    this.#prefixes?.gather(String(key), facts, into, limit);
    this.#suffixes?.gather(String(key), facts, into, limit);
  }

  /** Each once: the lines of a header are the caller's, who may repeat them and begin them all in one way. */
  #findersOf(keys: readonly (string | number)[]): Iterable<RuleFinder> {
    // Most calls lead to one at most, for which no set is made.
    let first: RuleFinder | undefined;
    let all: Set<RuleFinder> | undefined;
    const add = (finder: RuleFinder): void => {
      if (first === undefined) first = finder;
      else if (finder !== first) (all ??= new Set([first])).add(finder);
    };
    for (const key of keys) {
      const exact = this.#exact.get(key);
      if (exact !== undefined) add(exact);
      if (this.#prefixes !== undefined) for (const one of this.#prefixes.walk(String(key))) add(one);
      if (this.#suffixes !== undefined) for (const one of this.#suffixes.walk(String(key))) add(one);
    }
    return all ?? (first === undefined ? [] : [first]);
  }
}

function countAll(rules: readonly CompiledRule[]): number {
  let atoms = 0;
  for (const rule of rules) atoms += rule.atoms;
  return atoms;
}

/** How many rules name each value: the fewer, the more a look-up by it excludes. */
class AtomCounts {
  readonly #counts = new Map<string, Readonly<Record<Atom['kind'], Map<string | number, number>>>>();
  readonly #plan: Plan;
  readonly #used: ReadonlySet<string>;

  /** @param used facets by which all these rules are filed already */
  constructor(plan: Plan, used: ReadonlySet<string>) {
    this.#plan = plan;
    this.#used = used;
  }

  add({ rule }: CompiledRule): void {
    for (const side of this.#plan.sides) {
      for (const { predicates } of rule[side]) {
        for (const predicate of predicates)
          for (const filing of this.#filingsOf(predicate)) this.#add(filing);
      }
    }
  }

  /** One filing for each entry of the best side, or undefined when no side can be filed. */
  chooseCover({ rule }: CompiledRule): readonly Filing[] | undefined {
    let best: Cover | undefined;
    for (const side of this.#plan.sides) {
      const cover = this.#coverSide(rule[side]);
      if (cover !== undefined && (best === undefined || cover.crowd < best.crowd)) best = cover;
    }
    return best?.filings;
  }

  #coverSide(entries: readonly Entry[]): Cover | undefined {
    if (entries.length === 0) return undefined;
    const chosen: Filing[] = [];
    let crowd = 0;
    for (const { predicates } of entries) {
      let least: { filing: Filing; crowd: number } | undefined;
      for (const predicate of predicates) {
        for (const filing of this.#filingsOf(predicate)) {
          const rivals = this.#crowdOf(filing);
          if (least === undefined || rivals < least.crowd) least = { filing, crowd: rivals };
        }
      }
      if (least === undefined) return undefined;
      chosen.push(least.filing);
      crowd = Math.max(crowd, least.crowd);
    }
    return { filings: chosen, crowd };
  }

  #filingsOf(predicate: Predicate): readonly Filing[] {
    const { filings } = this.#plan;
    const known = filings.get(predicate) ?? filingsOf(predicate);
    filings.set(predicate, known);
    return this.#used.size === 0 ? known : known.filter(({ facet }) => !this.#used.has(facet.id));
  }

  /** How many rules share the most common value of a filing. */
  #crowdOf({ facet, atoms }: Filing): number {
    const counts = this.#counts.get(facet.id);
    let crowd = 0;
    for (const { kind, text } of atoms) crowd = Math.max(crowd, counts?.[kind].get(text) ?? 0);
    return crowd;
  }

  #add({ facet, atoms }: Filing): void {
    const counts = this.#counts.get(facet.id) ?? { exact: new Map(), prefix: new Map(), suffix: new Map() };
    this.#counts.set(facet.id, counts);
    for (const { kind, text } of atoms) counts[kind].set(text, (counts[kind].get(text) ?? 0) + 1);
  }
}

type Cover = { readonly filings: readonly Filing[]; readonly crowd: number };
