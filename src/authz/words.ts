import { quote } from '../errors.ts';
import type { Facts } from './facts.ts';
import type { CompiledRule, Test } from './match.ts';
import { fieldName, type Predicate, type PredicateField } from './policy.ts';

/** What a predicate wanted and the call had: `methods is GET, the call used POST`. */
export function describeMiss(predicate: Predicate, facts: Facts): string {
  return `${describeWanted(predicate)}, ${describeUsed(predicate, facts)}`;
}

/** `methods is GET`, `paths is one of /a, /b`, `notPorts is 80`. At most five values. */
export function describeWanted(predicate: Predicate): string {
  const known = wanted.get(predicate);
  if (known !== undefined) return known;
  const { values } = predicate;
  const shown = values.slice(0, maxShown).map(show).join(', ');
  const more = values.length > maxShown ? ` and ${values.length - maxShown} more` : '';
  const text = `${fieldName(predicate)} is ${values.length > 1 ? 'one of ' : ''}${shown}${more}`;
  wanted.set(predicate, text);
  return text;
}

/** Denials repeat: the same words for the same predicate are made once. */
const wanted = new WeakMap<Predicate, string>();
const maxShown = 5;

/** What the call had where a predicate looks. */
export function describeUsed(predicate: Predicate, facts: Facts): string {
  return describeFact[predicate.field](facts);
}

const describeFact: Readonly<Record<PredicateField, (facts: Facts) => string>> = {
  principals: ({ principal }) =>
    principal === undefined ? 'the caller has no certificate' : `the caller is ${show(principal)}`,
  namespaces: ({ namespace }) =>
    namespace === undefined
      ? "the caller's ID names no namespace of this trust domain"
      : `the caller is in ${show(namespace)}`,
  methods: ({ method }) =>
    method === undefined ? 'the call has no method' : `the call used ${show(method)}`,
  paths: ({ path }) => (path === undefined ? 'the call has no path' : `the call used ${show(path)}`),
  ports: ({ port }) => (port === undefined ? 'the port is not known' : `the call used ${port}`),
  hosts: ({ host, hostPort }) => {
    if (host === undefined) return 'the call has no host';
    return `the call used ${show(host)}${hostPort === null ? ' without a port' : `:${hostPort}`}`;
  },
};

/** The first thing that could not be judged in the entries by which a DENY rule holds; undefined when all was. */
export function whyUnjudged({ rule, from, to }: CompiledRule, facts: Facts): string | undefined {
  return firstUnjudged(rule.from, from, facts) ?? firstUnjudged(rule.to, to, facts);
}

function firstUnjudged(
  entries: readonly { readonly predicates: readonly Predicate[] }[],
  tests: readonly (readonly Test[])[],
  facts: Facts,
): string | undefined {
  let unjudged: string | undefined;
  for (const [i, entry] of tests.entries()) {
    const outcomes = entry.map((test) => test(facts));
    if (outcomes.includes(false)) continue;
    const at = outcomes.indexOf(undefined);
    if (at === -1) return undefined;
    const predicate = entries[i]?.predicates[at];
    if (predicate !== undefined) unjudged ??= describeMiss(predicate, facts);
  }
  return unjudged;
}

/** Text of a policy or a call, safe to print; at most 200 characters. */
export function show(text: string): string {
  return /^[!-~]{1,200}$/.test(text) ? text : quote(text);
}
