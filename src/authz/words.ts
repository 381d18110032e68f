import { quote } from '../errors.ts';
import type { Facts } from './facts.ts';
import type { Attribute } from './document.ts';
import type { CompiledEntries, CompiledRule } from './match.ts';
import { type Entry, type Predicate, sides } from './policy.ts';

/**
 * What a predicate wanted and the call had: `methods is GET, the call used POST`. Decisions carry it into the log, where it
 * can never be erased: so it does not tell a path, which may name a person.
 */
export function describeMiss(predicate: Predicate, facts: Facts): string {
  if (predicate.kind === 'time') return describeTime(predicate, facts);
  const isPath = predicate.attribute === 'request.path' && facts.path !== undefined;
  const used = isPath ? describePath(predicate) : describeUsed(predicate, facts);
  return `${describeWanted(predicate)}, ${used}`;
}

function describePath({ negated, values }: Predicate): string {
  if (!negated) return 'the call used another path';
  return values.length > 1 ? 'the call used one of them' : 'the call used it';
}

/** `methods is GET`, `until 2026-01-31T12:00:00Z`, `paths is one of /a, /b`, `notPorts is 80`. At most five values. */
export function describeWanted(predicate: Predicate): string {
  const known = wanted.get(predicate);
  if (known !== undefined) return known;
  const { values } = predicate;
  if (predicate.kind === 'time')
    return `${predicate.field === 'notBefore' ? 'from' : 'until'} ${values.join()}`;
  const shown = values.slice(0, maxShown).map(show).join(', ');
  const more = values.length > maxShown ? ` and ${values.length - maxShown} more` : '';
  const text = `${predicate.field} is ${values.length > 1 ? 'one of ' : ''}${shown}${more}`;
  wanted.set(predicate, text);
  return text;
}

/** Denials repeat: the same words for the same predicate are made once. */
const wanted = new WeakMap<Predicate, string>();
const maxShown = 5;

/** What the call had where a predicate looks. Values of headers, claims and metadata may be secrets, and are not told. */
export function describeUsed(predicate: Predicate, facts: Facts): string {
  const { attribute, names } = predicate;
  if (attribute === 'request.headers') return describeHeader(names[0] ?? '', facts);
  if (predicate.kind === 'time') return describeTime(predicate, facts);
  return describeFact[attribute](facts);
}

function describeTime({ field, values, matches }: Predicate & { readonly kind: 'time' }, { nowMs }: Facts) {
  if (Number.isNaN(nowMs)) return 'the time is not known';
  const [time, atMs] = [values.join(), matches[0]?.atMs ?? 0];
  if (field === 'notBefore') {
    return nowMs < atMs ? `the policy is not in force until ${time}` : `the policy is in force since ${time}`;
  }
  return nowMs < atMs ? `the policy is in force until ${time}` : `the policy expired at ${time}`;
}

function describeHeader(name: string, facts: Facts): string {
  const lines = facts.headerLines(name);
  if (lines === undefined) return `the header ${show(name)} cannot be judged`;
  if (lines.length === 0) return `the call has no header ${show(name)}`;
  return `the call has ${lines.length === 1 ? 'another value' : `${lines.length} values`} of ${show(name)}`;
}

const describeFact: Readonly<Record<Exclude<Attribute, 'request.headers'>, (facts: Facts) => string>> = {
  'source.principal': ({ principal }) =>
    principal === undefined ? 'the caller has no certificate' : `the caller is ${show(principal)}`,
  'source.namespace': ({ namespace }) =>
    namespace === undefined
      ? "the caller's ID names no namespace of this trust domain"
      : `the caller is in ${show(namespace)}`,
  'source.serviceAccount': ({ serviceAccount }) =>
    serviceAccount === undefined
      ? "the caller's ID names no service account of this trust domain"
      : `the caller is ${show(serviceAccount)}`,
  'source.trustDomain': ({ trustDomain }) =>
    trustDomain === undefined ? 'the caller has no certificate' : `the caller is of ${show(trustDomain)}`,
  'source.ip': (facts) => describeAddress(facts, 'source.ip'),
  'remote.ip': (facts) => describeAddress(facts, 'remote.ip'),
  'destination.ip': (facts) => describeAddress(facts, 'destination.ip'),
  'request.auth.principal': (facts) => describeToken(facts),
  'request.auth.audiences': (facts) => describeToken(facts),
  'request.auth.presenter': (facts) => describeToken(facts),
  'request.auth.claims': (facts) => describeToken(facts),
  'request.method': ({ method }) =>
    method === undefined ? 'the call has no method' : `the call used ${show(method)}`,
  'request.path': ({ path }) => (path === undefined ? 'the call has no path' : `the call used ${show(path)}`),
  'destination.port': ({ port }) => (port === undefined ? 'the port is not known' : `the call used ${port}`),
  'request.host': ({ host, hostPort, protocol }) => {
    if (host === undefined) return protocol === 'tcp' ? 'the call has no host' : 'the host is not known';
    return `the call used ${show(host)}${hostPort === null ? ' without a port' : `:${hostPort}`}`;
  },
  'connection.sni': ({ sni }) => {
    if (sni === undefined) return 'what TLS asked for is not known';
    return sni === '' ? 'TLS asked for no name' : `TLS asked for ${show(sni)}`;
  },
  'filter.metadata': () => 'the proxy noted something else, or nothing',
  time: () => 'it was another time',
};

function describeAddress(facts: Facts, attribute: 'source.ip' | 'remote.ip' | 'destination.ip'): string {
  return facts.address(attribute) === undefined ? 'the address is not known' : 'the address is another';
}

function describeToken({ protocol, token }: Facts): string {
  if (protocol === 'tcp') return 'the call has no token';
  if (token === undefined) return 'the proxy tells of no token';
  return token === null ? 'the call has no token of a subject' : 'the token has another value';
}

/** The first thing that could not be judged in the entries by which a DENY rule holds; undefined when all was. */
export function whyUnjudged(compiled: CompiledRule, facts: Facts): string | undefined {
  for (const side of sides) {
    const unjudged = firstUnjudged(compiled.rule[side], compiled[side], facts);
    if (unjudged !== undefined) return unjudged;
  }
  return undefined;
}

function firstUnjudged(entries: readonly Entry[], tests: CompiledEntries, facts: Facts): string | undefined {
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
