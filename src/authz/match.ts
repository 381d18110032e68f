import { isInCidr } from './cidr.ts';
import type { PolicyAction } from './document.ts';
import { type ClaimWay, type Facts, isSingle, singleFacts, wayTo } from './facts.ts';
import { compileTemplate } from './path-template.ts';
import {
  type Entry,
  type HostMatch,
  type Matches,
  type Policy,
  type Predicate,
  type Rule,
  type Side,
  sides,
  type StringMatch,
  type TextMatch,
  type TimeBound,
} from './policy.ts';

/** Whether a predicate holds for a request; undefined when what it reads is not known of the request. */
export type Test = (facts: Facts) => boolean | undefined;

/** For each entry of a part of a rule, the tests that must all hold. */
export type CompiledEntries = readonly (readonly Test[])[];

/** A rule made ready to run. */
export type CompiledRule = {
  readonly policy: Policy;
  readonly rule: Rule;
  /** The rule's rank in its snapshot: of several rules that match, the lowest is named. */
  readonly ordinal: number;
  /** How many values its predicates list: what it costs to index. */
  readonly atoms: number;
  /** Whether what cannot be judged holds: in every rule but those of ALLOW. */
  readonly isCautious: boolean;
} & Readonly<Record<Side, CompiledEntries>>;

/**
 * Makes one rule ready to run.
 * @param book tests made so far for rules that are tried together
 */
export function compileRule(policy: Policy, rule: Rule, ordinal: number, book?: TestBook): CompiledRule {
  const { action } = policy;
  const compileOne = (one: Predicate): Test => book?.testOf(one, action) ?? compilePredicate(one, action);
  const compile = (entries: readonly Entry[]): CompiledEntries =>
    entries.map(({ predicates }) => predicates.map(compileOne));
  let atoms = 0;
  for (const side of sides) {
    for (const { predicates } of rule[side]) for (const { matches } of predicates) atoms += matches.length;
  }
  const isCautious = policy.action !== 'ALLOW';
  const [from, to, when] = [compile(rule.from), compile(rule.to), compile(rule.when)];
  return { policy, rule, ordinal, atoms, isCautious, from, to, when };
}

/**
 * One test for all predicates that say the same. Thousands of rules that share a caller or a method then lead to the
 * same few places in memory, which are at hand when the next rule is tried.
 */
export class TestBook {
  readonly #tests = new Map<string, Test>();

  testOf(predicate: Predicate, action: PolicyAction): Test {
    const { attribute, names, negated, kind, matches } = predicate;
    // Of long lists no two are alike.
    if (matches.length > maxSharedValues) return compilePredicate(predicate, action);
    // INVARIANT: all that a test is made of.
    const key = JSON.stringify([action === 'ALLOW', attribute, names, negated, kind, matches]);
    const known = this.#tests.get(key) ?? compilePredicate(predicate, action);
    this.#tests.set(key, known);
    return known;
  }
}

const maxSharedValues = 4;

/**
 * Whether a rule counts as matching. What cannot be judged fails for ALLOW and holds for every other action; since
 * negation stands only inside predicates, settling each test so is the same as settling the three-valued result.
 */
export function ruleHolds(compiled: CompiledRule, facts: Facts): boolean {
  const { isCautious } = compiled;
  return (
    anyHolds(compiled.from, facts, isCautious) &&
    anyHolds(compiled.to, facts, isCautious) &&
    anyHolds(compiled.when, facts, isCautious)
  );
}

function anyHolds(entries: CompiledEntries, facts: Facts, unknown: boolean): boolean {
  if (entries.length === 0) return true;
  for (const tests of entries) {
    let holds = true;
    for (const test of tests) {
      if (!(test(facts) ?? unknown)) {
        holds = false;
        break;
      }
    }
    if (holds) return true;
  }
  return false;
}

/**
 * Makes one predicate ready to run. Of a header that comes in several lines an ALLOW rule wants all to fit, and any other
 * rule one. What is known to be missing matches no value; a `not` field it satisfies in every rule but those of ALLOW.
 */
export function compilePredicate(predicate: Predicate, action: PolicyAction): Test {
  const { attribute, names, negated } = predicate;
  const cautious = action !== 'ALLOW';
  const ofMissing = negated && cautious;
  if (attribute === 'connection.sni') return onServerName(predicate, ofMissing);
  if (isSingle(attribute)) return negate(compileSingle(predicate, singleFacts[attribute]), negated);
  if (attribute === 'request.headers') {
    const matches = compileTexts(textsOf(predicate));
    const isAnything = textsOf(predicate).some(({ kind }) => kind === 'present');
    // Some hold an empty header for one that is there, others do not: `*` cannot be told of it.
    const fits = (line: string): boolean =>
      line === '' && isAnything ? cautious : matches(line) !== negated;
    const [name = ''] = names;
    return (facts) => {
      const lines = facts.headerLines(name);
      if (lines === undefined) return undefined;
      if (lines.length === 0) return ofMissing;
      // For caution one line is enough, for ALLOW one that does not fit is too much.
      for (const line of lines) if (fits(line) === cautious) return cautious;
      return !cautious;
    };
  }
  if (predicate.kind === 'address' && isAddress(attribute)) {
    const blocks = predicate.matches;
    return (facts) => {
      const bytes = facts.address(attribute);
      if (bytes === undefined) return undefined;
      for (const block of blocks) if (isInCidr(bytes, block)) return !negated;
      return negated;
    };
  }
  if (predicate.kind === 'token') {
    const subjects = predicate.matches.map(({ issuer, subject }) => ({
      isIssuer: compileTexts([issuer]),
      isSubject: compileTexts([subject]),
    }));
    return ({ token }) => {
      if (token === undefined) return undefined;
      if (token === null) return ofMissing;
      const { issuer, subject } = token;
      for (const one of subjects) if (one.isSubject(subject) && one.isIssuer(issuer)) return !negated;
      return negated;
    };
  }
  if (predicate.kind === 'metadata') return compileMetadata(predicate, ofMissing);
  if (predicate.kind === 'time') return onTime(predicate.matches);
  const matches = compileTexts(textsOf(predicate));
  const way = claimOf(predicate);
  return (facts) => {
    const texts = facts.claim(way);
    if (texts === undefined) return undefined;
    if (texts.length === 0) return ofMissing;
    for (const text of texts) if (matches(text)) return !negated;
    return negated;
  };
}

function negate(test: Test, negated: boolean): Test {
  if (!negated) return test;
  return (facts) => {
    const matched = test(facts);
    return matched === undefined ? undefined : !matched;
  };
}

function compileSingle(predicate: Predicate, read: (facts: Facts) => string | number | undefined): Test {
  if (predicate.kind === 'host') return onHost(predicate.matches);
  if (predicate.kind === 'port') {
    const [only, ...more] = predicate.matches;
    if (more.length === 0) return ({ port }) => (port === undefined ? undefined : port === only);
    const ports = new Set(predicate.matches);
    return ({ port }) => (port === undefined ? undefined : ports.has(port));
  }
  const texts = textsOf(predicate);
  const [only] = texts;
  if (texts.length === 1 && only?.kind === 'exact') return isText(only.text, read);
  const matches = compileTexts(texts);
  return (facts) => {
    const text = read(facts);
    return text === undefined ? undefined : matches(String(text));
  };
}

function isText(only: string, read: (facts: Facts) => string | number | undefined): Test {
  return (facts) => {
    const text = read(facts);
    return text === undefined ? undefined : text === only;
  };
}

/** TLS may name nothing, and says so. */
function onServerName(predicate: Predicate, ofMissing: boolean): Test {
  const matches = compileTexts(textsOf(predicate));
  return ({ sni }) => {
    if (sni === undefined) return undefined;
    return sni === '' ? ofMissing : matches(sni) !== predicate.negated;
  };
}

/** Without a time that can be told nothing is known. */
function onTime(bounds: readonly TimeBound[]): Test {
  return ({ nowMs }) =>
    Number.isNaN(nowMs)
      ? undefined
      : bounds.every(({ bound, atMs }) => (bound === 'notBefore' ? nowMs >= atMs : nowMs < atMs));
}

/** INVARIANT: only attributes whose values are texts come here. */
function textsOf(predicate: Matches): readonly TextMatch[] {
  return predicate.kind === 'text' ? predicate.matches : [];
}

function isAddress(attribute: string): attribute is 'source.ip' | 'remote.ip' | 'destination.ip' {
  return attribute === 'source.ip' || attribute === 'remote.ip' || attribute === 'destination.ip';
}

/** The way to the claim that a predicate reads. */
export function claimOf({ attribute, names }: Predicate): ClaimWay {
  if (attribute === 'request.auth.audiences') return toAudiences;
  return attribute === 'request.auth.presenter' ? toPresenter : wayTo(names);
}

const toAudiences = wayTo(['aud']);
const toPresenter = wayTo(['azp']);

function compileMetadata(
  { matches, names: [filter = '', key = ''], negated }: Predicate & { readonly kind: 'metadata' },
  ofMissing: boolean,
): Test {
  const compileThose = (wanted: boolean): ((text: string) => boolean) | undefined => {
    const those = matches.filter(({ inList }) => inList === wanted).map(({ match }) => match);
    return those.length === 0 ? undefined : compileTexts(those);
  };
  const [fitsInList, fitsText] = [compileThose(true), compileThose(false)];
  return (facts) => {
    const found = facts.metadata(filter, key);
    if (found === undefined) return undefined;
    // A list is no text, and the other way round: neither is what a `not` of ALLOW speaks of.
    if (!Array.isArray(found)) {
      return typeof found === 'string' && fitsText !== undefined ? fitsText(found) !== negated : ofMissing;
    }
    const texts = found.filter((one) => typeof one === 'string');
    return texts.length === 0 || fitsInList === undefined ? ofMissing : texts.some(fitsInList) !== negated;
  };
}

/** Whether a text matches one of several. */
export function compileTexts(matches: readonly TextMatch[]): (text: string) => boolean {
  if (matches.some(({ kind }) => kind === 'present')) return (text) => text !== '';
  const textsOfKind = (wanted: TextMatch['kind']): readonly string[] =>
    matches.flatMap((match) => (match.kind === wanted && match.kind !== 'present' ? [match.text] : []));
  const [exact, prefixes] = [textsOfKind('exact'), textsOfKind('prefix')];
  const [suffixes, templates] = [textsOfKind('suffix'), textsOfKind('template').map(compileTemplate)];
  // The few values that most predicates have are kept without a list: each list is one more place in memory.
  const [first, second] = exact;
  const all = exact.length > 2 ? new Set(exact) : undefined;
  const [prefix] = prefixes;
  const isLonger = prefixes.length > 1 || suffixes.length > 0 || templates.length > 0;
  const others = isLonger ? { prefixes, suffixes, templates } : undefined;
  return (text) =>
    text === first ||
    text === second ||
    (prefix !== undefined && text.startsWith(prefix)) ||
    (all !== undefined && all.has(text)) ||
    (others !== undefined && isAmong(others, text));
}

type Others = {
  readonly prefixes: readonly string[];
  readonly suffixes: readonly string[];
  readonly templates: readonly ((text: string) => boolean)[];
};

function isAmong({ prefixes, suffixes, templates }: Others, text: string): boolean {
  for (const prefix of prefixes) if (text.startsWith(prefix)) return true;
  for (const suffix of suffixes) if (text.endsWith(suffix)) return true;
  for (const fits of templates) if (fits(text)) return true;
  return false;
}

/** A value with a port cannot be judged when the authority named none: the port then depends on the scheme. */
function onHost(matches: readonly HostMatch[]): Test {
  const named = (wanted: readonly HostMatch[]): readonly StringMatch[] => wanted.map(({ name }) => name);
  const anyPort = compileTexts(named(matches.filter(({ port }) => port === null)));
  const onePort = matches
    .filter(({ port }) => port !== null)
    .map(({ name, port }) => ({ matchesName: compileTexts([name]), port }));
  return ({ host, hostPort }) => {
    if (host === undefined) return undefined;
    if (anyPort(host)) return true;
    for (const { matchesName, port } of onePort) {
      if ((hostPort === null || hostPort === port) && matchesName(host)) {
        return hostPort === null ? undefined : true;
      }
    }
    return false;
  };
}
