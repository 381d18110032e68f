import { type Facts, isSingle, type SingleAttribute, singleFacts } from './facts.ts';
import { type CompiledRule, ruleHolds } from './match.ts';
import { type Entry, type Predicate, type Side, sides as allSides, type TextMatch } from './policy.ts';
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
 * hand; a crowded place is indexed again by another predicate. So a search costs a few look-ups, whatever the number of
 * rules, as long as rules name callers, hosts, paths, methods or ports. Rules that name none are tried one by one.
 * INVARIANT: a rule that matches is filed where its request leads. For DENY that includes requests without the attribute.
 */
export function* buildIndex(rules: readonly CompiledRule[]): Steps<RuleFinder> {
  const atoms = countAll(rules);
  return yield* build(rules, allSides, new Set(), { atoms: atoms + baseBudget + budgetFactor * atoms });
}

/** An index by one side only, its crowds left as lists: it leads to rules that a request half fits. */
export function* buildSideIndex(rules: readonly CompiledRule[], side: Side): Steps<RuleFinder> {
  return yield* build(rules, [side], new Set(), { atoms: countAll(rules) });
}

/**
 * Rules with hundreds of callers and hundreds of paths each would multiply when crowded places are indexed again. What
 * the budget does not cover stays a list.
 */
type Budget = { atoms: number };
const baseBudget = 200_000;
const budgetFactor = 8;

function* build(
  rules: readonly CompiledRule[],
  sides: readonly Side[],
  used: ReadonlySet<SingleAttribute>,
  budget: Budget,
): Steps<RuleFinder> {
  if (rules.length <= maxLeaf) return new RuleList(rules);
  budget.atoms -= countAll(rules);
  if (budget.atoms < 0) return new RuleList(rules);
  const counts = new AtomCounts();
  for (const [i, rule] of rules.entries()) {
    if (i % rulesInStep === 0) yield;
    counts.add(rule, used);
  }
  const shelves = new Map<SingleAttribute, Shelf>();
  const rest: CompiledRule[] = [];
  for (const [i, rule] of rules.entries()) {
    if (i % rulesInStep === 0) yield;
    const cover = chooseCover(rule, sides, used, counts);
    if (cover === undefined) {
      rest.push(rule);
      continue;
    }
    for (const predicate of cover) {
      const shelf = shelves.get(predicate.attribute) ?? new Shelf(predicate.attribute);
      shelves.set(predicate.attribute, shelf);
      shelf.add(predicate, rule);
    }
  }
  if (shelves.size === 0) return new RuleList(rules);
  for (const [attribute, shelf] of shelves) {
    const below = new Set(used).add(attribute);
    yield* shelf.seal((crowd) => build(crowd, sides, below, budget));
  }
  return new RuleNode([...shelves.values()], new RuleList(rest));
}

/** Below this many rules, trying each is cheaper than looking one up. */
const maxLeaf = 8;

class RuleList implements RuleFinder {
  readonly #rules: readonly CompiledRule[];

  constructor(rules: readonly CompiledRule[]) {
    // Most lists are of one.
    this.#rules = rules.length < 2 ? rules : [...new Set(rules)].sort((a, b) => a.ordinal - b.ordinal);
  }

  find(facts: Facts, best: CompiledRule | undefined): CompiledRule | undefined {
    for (const rule of this.#rules) {
      if (best !== undefined && rule.ordinal >= best.ordinal) return best;
      if (ruleHolds(rule, facts)) return rule;
    }
    return best;
  }

  gather(_facts: Facts, into: CompiledRule[], limit: number): void {
    for (const rule of this.#rules) {
      if (into.length >= limit) return;
      if (!into.includes(rule)) into.push(rule);
    }
  }
}

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

/** The rules filed by one attribute: by whole value, by beginning, by end, and for requests without the attribute. */
class Shelf implements RuleFinder {
  readonly #read: (facts: Facts) => string | number | undefined;
  readonly #filling = new Map<string | number, CompiledRule[]>();
  readonly #exact = new Map<string | number, RuleFinder>();
  #prefixes: PrefixTree | undefined;
  #suffixes: PrefixTree | undefined;
  #ofAbsent: CompiledRule[] = [];
  #absent: RuleFinder | undefined;

  constructor(attribute: SingleAttribute) {
    this.#read = singleFacts[attribute];
  }

  add(predicate: Filable, rule: CompiledRule): void {
    for (const { kind, text } of atomsOf(predicate)) {
      if (kind === 'prefix') (this.#prefixes ??= new PrefixTree()).add(String(text), rule);
      else if (kind === 'suffix') (this.#suffixes ??= new PrefixTree()).add(reverse(String(text)), rule);
      else {
        const rules = this.#filling.get(text) ?? [];
        this.#filling.set(text, rules);
        rules.push(rule);
      }
    }
    if (rule.policy.action !== 'ALLOW') this.#ofAbsent.push(rule);
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
    if (this.#ofAbsent.length > 0) this.#absent = yield* build(this.#ofAbsent);
    this.#ofAbsent = [];
  }

  find(facts: Facts, best: CompiledRule | undefined): CompiledRule | undefined {
    const key = this.#read(facts);
    if (key === undefined) return this.#absent === undefined ? best : this.#absent.find(facts, best);
    const exact = this.#exact.get(key);
    let found = exact === undefined ? best : exact.find(facts, best);
    if (this.#prefixes !== undefined) found = this.#prefixes.find(String(key), facts, found);
    if (this.#suffixes !== undefined) found = this.#suffixes.find(reverse(String(key)), facts, found);
    return found;
  }

  gather(facts: Facts, into: CompiledRule[], limit: number): void {
    const key = this.#read(facts);
    if (key === undefined) return;
    this.#exact.get(key)?.gather(facts, into, limit);
    for (const finder of this.#prefixes?.walk(String(key)) ?? []) finder.gather(facts, into, limit);
    if (this.#suffixes === undefined) return;
    for (const finder of this.#suffixes.walk(reverse(String(key)))) finder.gather(facts, into, limit);
  }
}

type Atom = { readonly kind: 'exact' | 'prefix' | 'suffix'; readonly text: string | number };

function countAll(rules: readonly CompiledRule[]): number {
  let atoms = 0;
  for (const rule of rules) atoms += rule.atoms;
  return atoms;
}

/** How many rules name each value: the fewer, the more a look-up by it excludes. */
class AtomCounts {
  readonly #counts = new Map<SingleAttribute, Readonly<Record<Atom['kind'], Map<string | number, number>>>>();

  add({ rule }: CompiledRule, used: ReadonlySet<SingleAttribute>): void {
    for (const side of allSides) {
      for (const { predicates } of rule[side]) {
        for (const predicate of predicates) if (canFile(predicate, used)) this.#add(predicate);
      }
    }
  }

  /** How many rules share the most common value of a predicate. */
  crowdOf(predicate: Filable): number {
    const counts = this.#counts.get(predicate.attribute);
    let crowd = 0;
    for (const { kind, text } of atomsOf(predicate)) crowd = Math.max(crowd, counts?.[kind].get(text) ?? 0);
    return crowd;
  }

  #add(predicate: Filable): void {
    const counts = this.#counts.get(predicate.attribute) ?? {
      exact: new Map(),
      prefix: new Map(),
      suffix: new Map(),
    };
    this.#counts.set(predicate.attribute, counts);
    for (const { kind, text } of atomsOf(predicate))
      counts[kind].set(text, (counts[kind].get(text) ?? 0) + 1);
  }
}

/** One predicate for each entry of the best side, or undefined when no side can be filed. */
function chooseCover(
  { rule }: CompiledRule,
  sides: readonly Side[],
  used: ReadonlySet<SingleAttribute>,
  counts: AtomCounts,
): readonly Filable[] | undefined {
  let best: { predicates: readonly Filable[]; crowd: number } | undefined;
  for (const side of sides) {
    const cover = coverSide(rule[side], used, counts);
    if (cover !== undefined && (best === undefined || cover.crowd < best.crowd)) best = cover;
  }
  return best?.predicates;
}

function coverSide(
  entries: readonly Entry[],
  used: ReadonlySet<SingleAttribute>,
  counts: AtomCounts,
): { predicates: readonly Filable[]; crowd: number } | undefined {
  if (entries.length === 0) return undefined;
  const chosen: Filable[] = [];
  let crowd = 0;
  for (const { predicates } of entries) {
    let least: { predicate: Filable; crowd: number } | undefined;
    for (const predicate of predicates) {
      if (!canFile(predicate, used)) continue;
      const rivals = counts.crowdOf(predicate);
      if (least === undefined || rivals < least.crowd) least = { predicate, crowd: rivals };
    }
    if (least === undefined) return undefined;
    chosen.push(least.predicate);
    crowd = Math.max(crowd, least.crowd);
  }
  return { predicates: chosen, crowd };
}

/** A predicate that a request can only meet with one of certain values. */
type Filable = Predicate & { readonly attribute: SingleAttribute };

function canFile(predicate: Predicate, used: ReadonlySet<SingleAttribute>): predicate is Filable {
  const { attribute, negated } = predicate;
  return !negated && isSingle(attribute) && !used.has(attribute) && atomsOf(predicate).length > 0;
}

/** The values a request must have one of for the predicate to hold; none when any value will do. */
function atomsOf(predicate: Predicate): readonly Atom[] {
  if (predicate.kind === 'port') return predicate.matches.map((text) => ({ kind: 'exact', text }));
  if (predicate.kind !== 'text' && predicate.kind !== 'host') return [];
  const matches: readonly TextMatch[] =
    predicate.kind === 'host' ? predicate.matches.map(({ name }) => name) : predicate.matches;
  return matches.some(({ kind }) => kind === 'present') ? [] : matches.flatMap(atomOf);
}

/** What a template matches begins as it does. */
function atomOf(match: TextMatch): readonly Atom[] {
  if (match.kind === 'present') return [];
  return match.kind === 'template' ? [{ kind: 'prefix', text: match.prefix }] : [match];
}

function reverse(text: string): string {
  let out = '';
  for (let i = text.length - 1; i >= 0; i--) out += text.charAt(i);
  return out;
}
