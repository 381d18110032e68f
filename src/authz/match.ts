import { isInCidr } from './cidr.ts';
import type { PolicyAction } from './document.ts';
import { type Facts, isSingle, singleFacts } from './facts.ts';
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
} & Readonly<Record<Side, CompiledEntries>>;

/** Makes one rule ready to run. */
export function compileRule(policy: Policy, rule: Rule, ordinal: number): CompiledRule {
  const compile = (entries: readonly Entry[]): CompiledEntries =>
    entries.map(({ predicates }) => predicates.map((one) => compilePredicate(one, policy.action)));
  let atoms = 0;
  for (const side of sides) {
    for (const { predicates } of rule[side]) for (const { matches } of predicates) atoms += matches.length;
  }
  const { from, to, when } = rule;
  return { policy, rule, ordinal, atoms, from: compile(from), to: compile(to), when: compile(when) };
}

/**
 * Whether a rule counts as matching. What cannot be judged fails for ALLOW and holds for every other action; since
 * negation stands only inside predicates, settling each test so is the same as settling the three-valued result.
 */
export function ruleHolds(compiled: CompiledRule, facts: Facts): boolean {
  const unknown = compiled.policy.action !== 'ALLOW';
  return (
    anyHolds(compiled.from, facts, unknown) &&
    anyHolds(compiled.to, facts, unknown) &&
    anyHolds(compiled.when, facts, unknown)
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
      return cautious ? lines.some(fits) : lines.every(fits);
    };
  }
  if (predicate.kind === 'address' && isAddress(attribute)) {
    const blocks = predicate.matches;
    return (facts) => {
      const bytes = facts.address(attribute);
      return bytes === undefined ? undefined : blocks.some((block) => isInCidr(bytes, block)) !== negated;
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
      return subjects.some((one) => one.isIssuer(issuer) && one.isSubject(subject)) !== negated;
    };
  }
  if (predicate.kind === 'metadata') return compileMetadata(predicate, ofMissing);
  if (predicate.kind === 'time') return onTime(predicate.matches);
  const matches = compileTexts(textsOf(predicate));
  const way = claimOf(predicate);
  return (facts) => {
    const texts = facts.claim(way);
    if (texts === undefined) return undefined;
    return texts.length === 0 ? ofMissing : texts.some(matches) !== negated;
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
    const ports = new Set(predicate.matches);
    return ({ port }) => (port === undefined ? undefined : ports.has(port));
  }
  const matches = compileTexts(textsOf(predicate));
  return (facts) => {
    const text = read(facts);
    return text === undefined ? undefined : matches(String(text));
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
export function claimOf({ attribute, names }: Predicate): readonly string[] {
  if (attribute === 'request.auth.audiences') return ['aud'];
  return attribute === 'request.auth.presenter' ? ['azp'] : names;
}

function compileMetadata(
  { matches, names: [filter = '', key = ''], negated }: Predicate & { readonly kind: 'metadata' },
  ofMissing: boolean,
): Test {
  const values = matches.map(({ inList, match }) => ({ inList, fits: compileTexts([match]) }));
  return (facts) => {
    const found = facts.metadata(filter, key);
    if (found === undefined) return undefined;
    const isList = Array.isArray(found);
    const texts = (isList ? found : [found]).filter((one) => typeof one === 'string');
    const comparable = values.filter(({ inList }) => inList === isList);
    // A list is no text, and the other way round: neither is what a `not` of ALLOW speaks of.
    if (texts.length === 0 || comparable.length === 0) return ofMissing;
    const matched = comparable.some(({ fits }) => texts.some(fits));
    return matched !== negated;
  };
}

/** Whether a text matches one of several. */
export function compileTexts(matches: readonly TextMatch[]): (text: string) => boolean {
  if (matches.some(({ kind }) => kind === 'present')) return (text) => text !== '';
  const exact = new Set<string>();
  const prefixes: string[] = [];
  const suffixes: string[] = [];
  const templates: ((text: string) => boolean)[] = [];
  for (const match of matches) {
    if (match.kind === 'exact') exact.add(match.text);
    else if (match.kind === 'prefix') prefixes.push(match.text);
    else if (match.kind === 'suffix') suffixes.push(match.text);
    else if (match.kind === 'template') templates.push(compileTemplate(match.text));
  }
  return (text) => {
    if (exact.has(text)) return true;
    for (const prefix of prefixes) if (text.startsWith(prefix)) return true;
    for (const suffix of suffixes) if (text.endsWith(suffix)) return true;
    for (const fits of templates) if (fits(text)) return true;
    return false;
  };
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
