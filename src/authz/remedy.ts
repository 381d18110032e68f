import type { AuthzRequest } from './decision.ts';
import { Facts } from './facts.ts';
import { isLiftable } from './glass.ts';
import { type CompiledRule, compilePredicate, ruleHolds, type Test } from './match.ts';
import { type Entry, type Policy, type Predicate, sides } from './policy.ts';
import { composePolicy } from './remedy-policy.ts';
import { readValues, tellsSecrets } from './remedy-values.ts';
import type { Applied, Snapshot } from './snapshot.ts';
import { whyUnjudged } from './words.ts';

/** One change of one rule. */
export type RemedyEdit = {
  /**
   * `add`: values to a list. `remove`: values from a `not` list. `drop`: a whole condition, because the call has nothing of
   * that kind, or no value would be left. `exempt`: the caller from a rule that denies, by a condition in its `when`.
   */
  readonly kind: 'add' | 'remove' | 'drop' | 'exempt';
  readonly rule: string;
  readonly field: string;
  /** Null when they come from a header, a token or a filter, where secrets are. Empty for `drop`. */
  readonly values: readonly string[] | null;
  /** Whose text is to change, and where. */
  readonly policy: Policy;
  readonly at: Pick<Predicate, 'place' | 'length'>;
};

/** What would allow a denied call. */
export type Remedy = {
  /** Off these rules the caller must be let, whatever else is done. */
  readonly exemptions: readonly RemedyEdit[];
  /**
   * The fewest changes of one ALLOW rule by which it allows the call, and then others like it. Empty when a rule does
   * already. Null when no rule can be changed so without a guess.
   */
  readonly edits: readonly RemedyEdit[] | null;
  /** A document that allows such calls of this caller and nothing else; null when none is needed, or none can be written. */
  readonly policy: string | null;
};

/**
 * The smallest change of policies that would allow a call which they deny: fewest edits, then fewest dropped conditions,
 * then the first rule. What the call does not tell is never guessed. Null when policies are not why it is denied, when
 * more than 16 rules deny it, one of them only because of what is not known, or when nothing would help. Of more than 256
 * ALLOW rules only those are looked at of which the sources or the operations fit the call.
 */
export function findRemedy(snapshot: Snapshot, request: AuthzRequest, now: Date): Remedy | null {
  if (request.source === null || !request.destination.memberOf(snapshot.trustDomain)) return null;
  const applied = snapshot.appliedTo(request.destination);
  const facts = new Facts(request, snapshot.trustDomain, now);
  // Who is asked by a CUSTOM rule cannot be told by its caller: such rules may not name callers.
  if (!snapshot.providersAnswer && applied.custom.find(facts, undefined) !== undefined) return null;
  const exemptions = exemptFrom(applied, request, facts);
  if (exemptions === null) return null;
  const isAllowed = isGranted(applied, facts) || applied.allow.find(facts, undefined) !== undefined;
  if (isAllowed) return { exemptions, edits: [], policy: null };
  const edits = editNearest(applied, request, facts);
  const policy = composePolicy(request, snapshot, now);
  return edits === null && policy === null ? null : { exemptions, edits, policy };
}

function exemptFrom(applied: Applied, { source }: AuthzRequest, facts: Facts): readonly RemedyEdit[] | null {
  const denying: CompiledRule[] = [];
  const granted = isGranted(applied, facts);
  for (const compiled of applied.denyRules) {
    if ((granted && isLiftable(compiled)) || !ruleHolds(compiled, facts)) continue;
    // What the call does not tell is no reason to let anybody off.
    if (denying.length === maxExemptions || whyUnjudged(compiled, facts) !== undefined) return null;
    denying.push(compiled);
  }
  return denying.map(({ policy, rule }) => ({
    kind: 'exempt',
    rule: rule.name,
    field: 'source.principal notValues',
    values: source === null ? null : [source.text.slice('spiffe://'.length)],
    policy,
    at: { place: rule.place, length: 1 },
  }));
}

function isGranted({ glass }: Applied, facts: Facts): boolean {
  return glass !== null && glass.grants.find(facts, undefined) !== undefined;
}

const maxExemptions = 16;

function editNearest(applied: Applied, request: AuthzRequest, facts: Facts): readonly RemedyEdit[] | null {
  let best: readonly RemedyEdit[] | null = null;
  for (const compiled of candidatesOf(applied, facts)) {
    if (isBeaten(countMisses(compiled, facts), best)) continue;
    const edits = editRule(compiled, request, facts);
    if (edits !== null && isSmaller(edits, best)) best = edits;
  }
  return best;
}

/** The fewest predicates of a rule that would have to change. */
function countMisses(compiled: CompiledRule, facts: Facts): number {
  const missesOf = (tests: readonly Test[]): number => tests.filter((test) => test(facts) !== true).length;
  const fewest = sides.map((side) => Math.min(...compiled[side].map(missesOf)));
  return fewest.filter(Number.isFinite).reduce((sum, misses) => sum + misses, 0);
}

/** Whether that many changes can be no better than `best`. They need not be worked out: lists of values may be long. */
function isBeaten(misses: number, best: readonly RemedyEdit[] | null): boolean {
  return best !== null && misses >= best.length && best.every(({ kind }) => kind !== 'drop');
}

function candidatesOf(applied: Applied, facts: Facts): readonly CompiledRule[] {
  const { allowRules } = applied;
  if (allowRules.length <= maxTried) return allowRules;
  const candidates: CompiledRule[] = [];
  for (const [i, finder] of applied.near.entries()) {
    finder.gather(facts, candidates, ((i + 1) * maxTried) / applied.near.length);
  }
  return candidates;
}

const maxTried = 256;

/** The fewest edits by which a rule matches: of each side, those of its best entry. */
function editRule(compiled: CompiledRule, request: AuthzRequest, facts: Facts): readonly RemedyEdit[] | null {
  const { policy, rule } = compiled;
  // A grant is for one emergency, and no place for what is to last.
  if (policy.terms.breakGlass !== null) return null;
  const edits: RemedyEdit[] = [];
  for (const side of sides) {
    let best: readonly RemedyEdit[] | null = rule[side].length === 0 ? [] : null;
    for (const [i, entry] of rule[side].entries()) {
      const held = (compiled[side][i] ?? []).map((test) => test(facts));
      if (isBeaten(held.filter((one) => one !== true).length, best)) continue;
      const found = editEntry(entry, held, policy, rule.name, request, facts);
      if (found !== null && isSmaller(found, best)) best = found;
    }
    if (best === null) return null;
    edits.push(...best);
  }
  return edits;
}

function isSmaller(edits: readonly RemedyEdit[], best: readonly RemedyEdit[] | null): boolean {
  if (best === null) return true;
  const drops = (list: readonly RemedyEdit[]): number => list.filter(({ kind }) => kind === 'drop').length;
  return edits.length === best.length ? drops(edits) < drops(best) : edits.length < best.length;
}

function editEntry(
  { predicates }: Entry,
  outcomes: readonly (boolean | undefined)[],
  policy: Policy,
  rule: string,
  request: AuthzRequest,
  facts: Facts,
): readonly RemedyEdit[] | null {
  const edits: RemedyEdit[] = [];
  for (const [i, predicate] of predicates.entries()) {
    const held = outcomes[i];
    if (held === true) continue;
    // What the call does not tell is no reason to change a policy.
    const change = held === undefined ? null : changeOf(predicate, request, facts);
    if (change === null) return null;
    const { field, place, length } = predicate;
    edits.push({ ...change, rule, field, policy, at: { place, length } });
  }
  // An entry without conditions would match everything: its last one is not for dropping.
  const written = predicates.filter(({ kind }) => kind !== 'time').length;
  const isLast = edits.length > 0 && edits.length === written;
  return isLast && edits.every(({ kind }) => kind === 'drop') ? null : edits;
}

function changeOf(
  predicate: Predicate,
  request: AuthzRequest,
  facts: Facts,
): Pick<RemedyEdit, 'kind' | 'values'> | null {
  // When a policy holds is its author's wish, and no matter of the call.
  if (predicate.kind === 'time') return null;
  const had = readValues(predicate, request, facts);
  if (had === 'missing') return { kind: 'drop', values: [] };
  if (predicate.negated) {
    const kept = predicate.matches.flatMap((_, i) =>
      holds(select(predicate, [i]), 'DENY', facts) ? [] : [i],
    );
    const removed = predicate.values.filter((_, i) => !kept.includes(i));
    // Of a list where values speak of texts, or the other way round, what is left may say nothing.
    const isEnough = kept.length > 0 && holds({ ...select(predicate, kept), negated: true }, 'ALLOW', facts);
    return isEnough ? { kind: 'remove', values: removed } : { kind: 'drop', values: [] };
  }
  if (had === 'unwritable') return null;
  return { kind: 'add', values: tellsSecrets(predicate.attribute) ? null : had };
}

/** Some of the values, as a predicate that one of them is enough for. */
function select(predicate: Predicate, indexes: readonly number[]): Predicate {
  return { ...predicate, negated: false, matches: indexes.map((i) => predicate.matches[i]) } as Predicate;
}

/** For DENY one line of a header that matches is enough, for ALLOW none may. */
function holds(predicate: Predicate, action: 'ALLOW' | 'DENY', facts: Facts): boolean {
  return compilePredicate(predicate, action)(facts) === true;
}
