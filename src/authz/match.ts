import type { Facts } from './facts.ts';
import type { HostMatch, Policy, Predicate, Rule, StringMatch } from './policy.ts';

/** Whether a predicate holds for a request; undefined when the request lacks what it reads. */
export type Test = (facts: Facts) => boolean | undefined;

/** A rule made ready to run: for each entry of `from` and `to`, the tests that must all hold. */
export type CompiledRule = {
  readonly policy: Policy;
  readonly rule: Rule;
  /** The rule's rank in its snapshot: of several rules that match, the lowest is named. */
  readonly ordinal: number;
  /** How many values its predicates list: what it costs to index. */
  readonly atoms: number;
  readonly from: readonly (readonly Test[])[];
  readonly to: readonly (readonly Test[])[];
};

/** Makes one rule ready to run. */
export function compileRule(policy: Policy, rule: Rule, ordinal: number): CompiledRule {
  return {
    policy,
    rule,
    ordinal,
    atoms: countAtoms(rule),
    from: rule.from.map(({ predicates }) => predicates.map(compilePredicate)),
    to: rule.to.map(({ predicates }) => predicates.map(compilePredicate)),
  };
}

function countAtoms(rule: Rule): number {
  let atoms = 0;
  for (const side of [rule.from, rule.to]) {
    for (const { predicates } of side) for (const { matches } of predicates) atoms += matches.length;
  }
  return atoms;
}

/**
 * Whether a rule counts as matching. What cannot be judged holds for DENY and fails for ALLOW; since negation stands only
 * inside predicates, settling each test so is the same as settling the three-valued result.
 */
export function ruleHolds(compiled: CompiledRule, facts: Facts): boolean {
  const unknown = compiled.policy.action === 'DENY';
  return anyHolds(compiled.from, facts, unknown) && anyHolds(compiled.to, facts, unknown);
}

function anyHolds(entries: readonly (readonly Test[])[], facts: Facts, unknown: boolean): boolean {
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

/** Makes one predicate ready to run. */
export function compilePredicate(predicate: Predicate): Test {
  const test = compilePositive(predicate);
  if (!predicate.negated) return test;
  return (facts) => {
    const matched = test(facts);
    return matched === undefined ? undefined : !matched;
  };
}

function compilePositive(predicate: Predicate): Test {
  if (predicate.field === 'hosts') return onHost(predicate.matches);
  if (predicate.field === 'ports') {
    const ports = new Set(predicate.matches);
    return ({ port }) => (port === undefined ? undefined : ports.has(port));
  }
  return onText(predicate.matches, readText[predicate.field]);
}

const readText = {
  principals: (facts: Facts) => facts.principal,
  namespaces: (facts: Facts) => facts.namespace,
  methods: (facts: Facts) => facts.method,
  paths: (facts: Facts) => facts.path,
};

function onText(matches: readonly StringMatch[], read: (facts: Facts) => string | undefined): Test {
  const matchesText = compileText(matches);
  return (facts) => {
    const text = read(facts);
    return text === undefined ? undefined : matchesText(text);
  };
}

function compileText(matches: readonly StringMatch[]): (text: string) => boolean {
  if (matches.some(({ kind }) => kind === 'present')) return (text) => text !== '';
  const exact = new Set<string>();
  const prefixes: string[] = [];
  const suffixes: string[] = [];
  for (const match of matches) {
    if (match.kind === 'exact') exact.add(match.text);
    else if (match.kind === 'prefix') prefixes.push(match.text);
    else if (match.kind === 'suffix') suffixes.push(match.text);
  }
  return (text) => {
    if (exact.has(text)) return true;
    for (const prefix of prefixes) if (text.startsWith(prefix)) return true;
    for (const suffix of suffixes) if (text.endsWith(suffix)) return true;
    return false;
  };
}

/** A value with a port cannot be judged when the authority named none: the port then depends on the scheme. */
function onHost(matches: readonly HostMatch[]): Test {
  const anyPort = compileText(matches.filter(({ port }) => port === null).map(({ name }) => name));
  const onePort = matches
    .filter(({ port }) => port !== null)
    .map(({ name, port }) => ({ matchesName: compileText([name]), port }));
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
