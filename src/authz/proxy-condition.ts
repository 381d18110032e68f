import type { TrustDomain } from '../spiffe/id.ts';
import type { PolicyAction } from './document.ts';
import type { HostMatch, Predicate, Side, StringMatch, TextMatch } from './policy.ts';
import { sides } from './policy.ts';
import { all, any, type Condition, not, quoteRegex, test, type TreeInput } from './proxy-tree.ts';
import type { OpenEntry } from './residue.ts';

/** For which calls a condition is made. */
export type TreeWorld = { readonly trustDomain: TrustDomain; readonly protocol: 'http' | 'tcp' };

/** What a proxy can tell of a rule: it matches whenever `must` holds, and never when `may` does not. */
export type RuleConditions = {
  readonly must: Condition;
  readonly may: Condition;
  /** What it reads that the proxy cannot tell; empty when `must` and `may` are the same. */
  readonly why: string;
};

/**
 * Turns what is open of a rule into conditions. INVARIANT: of calls whose path, host, method and caller are plain (see
 * proxy-guard.ts); of all others they say nothing.
 */
export function conditionsOf(
  open: Readonly<Record<Side, readonly OpenEntry[]>>,
  action: PolicyAction,
  world: TreeWorld,
): RuleConditions {
  let why = '';
  const [must, may]: [Condition[], Condition[]] = [[], []];
  for (const side of sides) {
    if (open[side].length === 0) continue;
    const [certain, possible]: [Condition[], Condition[]] = [[], []];
    for (const entry of open[side]) {
      const told = entry.map((one) => conditionOf(one, action, world));
      const known = told.filter((one) => one !== undefined);
      const missing = entry[told.indexOf(undefined)];
      if (missing === undefined) certain.push(all(known));
      else if (why === '') why = reasonOf(missing);
      possible.push(all(known));
    }
    must.push(any(certain));
    may.push(any(possible));
  }
  return { must: all(must), may: all(may), why };
}

function reasonOf({ attribute }: Predicate): string {
  return attribute.replace(/[^a-z]/g, '_');
}

/**
 * When a predicate counts as holding in a rule of an action; undefined when the proxy cannot tell. What is not known of a
 * call by its nature fails for ALLOW and holds for every other action, as in `ruleHolds`.
 */
export function conditionOf(
  predicate: Predicate,
  action: PolicyAction,
  { trustDomain, protocol }: TreeWorld,
): Condition | undefined {
  const { attribute, negated } = predicate;
  const isCautious = action !== 'ALLOW';
  // A connection has none of these, whatever its bytes are.
  if (protocol === 'tcp' && attribute.startsWith('request.')) return isCautious;
  const settle = (fits: Condition): Condition => (negated ? not(fits) : fits);
  if (predicate.kind === 'port') {
    return settle(any(predicate.matches.map((port) => test('port', 'exact', String(port)))));
  }
  if (predicate.kind === 'host') {
    const fits = any(predicate.matches.map(hostFits));
    const open = any(predicate.matches.map(hostMayFit));
    // A port that is not named could be any: what cannot be told counts for caution and against ALLOW.
    return isCautious === negated ? settle(fits) : settle(any([fits, open]));
  }
  if (predicate.kind !== 'text') return undefined;
  const among = (fits: (match: TextMatch) => Condition): Condition => any(predicate.matches.map(fits));
  if (attribute === 'request.method') return settle(among((match) => textFits('method', match, '')));
  if (attribute === 'request.path') return settle(among(pathFits));
  if (attribute === 'source.principal') return settle(among((match) => textFits('uri', match, 'spiffe://')));
  if (attribute === 'source.trustDomain') return settle(among(trustDomainFits));
  if (attribute !== 'source.namespace' && attribute !== 'source.serviceAccount') return undefined;
  const own = `spiffe://${trustDomain.name}/ns/`;
  const has = test('uri', 'regex', `${quoteRegex(own)}[^/]+/sa/[^/]+`);
  const nameFits = attribute === 'source.namespace' ? namespaceFits : accountFits;
  const fits = among((match) => nameFits(own, match));
  // Other callers have neither, which is not known of them.
  if (isCautious) return negated ? not(fits) : any([fits, not(has)]);
  return negated ? all([has, not(fits)]) : fits;
}

/** @param before what stands before the compared text, in the input */
function textFits(input: TreeInput, match: TextMatch, before: string): Condition {
  switch (match.kind) {
    case 'present':
      return true;
    case 'exact':
      return test(input, 'exact', before + match.text);
    case 'prefix':
      return test(input, 'prefix', before + match.text);
    case 'suffix':
      // What stands before it is no part of the text that ends so.
      return before === ''
        ? test(input, 'suffix', match.text)
        : test(input, 'regex', `${quoteRegex(before)}.*${quoteRegex(match.text)}`);
    case 'template':
      return false;
    default:
      return match satisfies never;
  }
}

function trustDomainFits(match: TextMatch): Condition {
  // What has a slash goes beyond the name.
  if (match.kind !== 'present' && match.text.includes('/')) return false;
  switch (match.kind) {
    case 'present':
      return true;
    case 'exact':
      return test('uri', 'prefix', `spiffe://${match.text}/`);
    case 'prefix':
      return test('uri', 'prefix', `spiffe://${match.text}`);
    case 'suffix':
      return test('uri', 'regex', `spiffe://[^/]*${quoteRegex(match.text)}/.*`);
    case 'template':
      return false;
    default:
      return match satisfies never;
  }
}

/** The comparison of the segments between `own` and `/sa/`, which is one. */
function namespaceFits(own: string, match: TextMatch): Condition {
  if (match.kind === 'template' || (match.kind !== 'present' && match.text.includes('/'))) return false;
  return test('uri', 'regex', `${quoteRegex(own)}${segmentPattern(match)}/sa/[^/]+`);
}

/** `namespace/account`, compared as one text with one slash in it. */
function accountFits(own: string, match: TextMatch): Condition {
  if (match.kind === 'template') return false;
  const parts = match.kind === 'present' ? [] : match.text.split('/');
  if (parts.length > 2) return false;
  const [first = '', second] = parts;
  const uri = (namespace: string, account: string): Condition =>
    test('uri', 'regex', `${quoteRegex(own)}${namespace}/sa/${account}`);
  const anything = segmentPattern({ kind: 'present' });
  switch (match.kind) {
    case 'present':
      return uri(anything, anything);
    case 'exact':
      return second === undefined ? false : test('uri', 'exact', `${own}${first}/sa/${second}`);
    case 'prefix':
      return second === undefined
        ? uri(segmentPattern({ kind: 'prefix', text: first }), anything)
        : uri(quoteRegex(first), second === '' ? anything : segmentPattern({ kind: 'prefix', text: second }));
    case 'suffix':
      return second === undefined
        ? uri(anything, segmentPattern({ kind: 'suffix', text: first }))
        : uri(first === '' ? anything : segmentPattern({ kind: 'suffix', text: first }), quoteRegex(second));
    default:
      return match satisfies never;
  }
}

/** INVARIANT: the text has no slash, and is not empty. */
function segmentPattern(match: StringMatch): string {
  switch (match.kind) {
    case 'present':
      return '[^/]+';
    case 'exact':
      return quoteRegex(match.text);
    case 'prefix':
      return `${quoteRegex(match.text)}[^/]*`;
    case 'suffix':
      return `[^/]*${quoteRegex(match.text)}`;
    default:
      return match satisfies never;
  }
}

/** The input has the query too, which no rule reads. */
function pathFits(match: TextMatch): Condition {
  if (match.kind === 'present') return true;
  // Nothing that is compared has these: a value with one fits nothing.
  if (/[?#]/.test(match.text)) return false;
  const { text } = match;
  switch (match.kind) {
    case 'exact':
      return any([test('path', 'exact', text), test('path', 'prefix', `${text}?`)]);
    case 'prefix':
      return test('path', 'prefix', text);
    case 'suffix':
      return test('path', 'regex', `[^?]*${quoteRegex(text)}(?:\\?.*)?`);
    case 'template':
      return test('path', 'regex', `${templatePattern(text)}(?:\\?.*)?`);
    default:
      return match satisfies never;
  }
}

/** As `compileTemplate` reads it, of a plain path. */
function templatePattern(text: string): string {
  const character = "A-Za-z0-9\\-._~!$&'()+,:@=*";
  return text
    .split('/')
    .map((segment) => {
      if (segment === '{*}') return `[${character}]+`;
      return segment === '{**}' ? `[${character}/]*` : quoteRegex(segment);
    })
    .join('/');
}

/** Whether it is that host, and that port if one was written. */
function hostFits({ name, port }: HostMatch): Condition {
  if (port !== null) {
    const end = `:${port}`;
    if (name.kind === 'present') return test('host', 'suffix', end);
    if (name.kind === 'exact') return test('host', 'exact', name.text + end);
    if (name.kind === 'suffix') return test('host', 'suffix', name.text + end);
    return all([test('host', 'prefix', name.text), test('host', 'suffix', end)]);
  }
  switch (name.kind) {
    case 'present':
      return true;
    case 'exact':
      return any([test('host', 'exact', name.text), test('host', 'prefix', `${name.text}:`)]);
    case 'prefix':
      return test('host', 'prefix', name.text);
    case 'suffix':
      return test('host', 'regex', `[^:]*${quoteRegex(name.text)}(?::.*)?`);
    default:
      return name satisfies never;
  }
}

/** Whether it is that host, a port was written and the call names none. */
function hostMayFit({ name, port }: HostMatch): Condition {
  if (port === null) return false;
  switch (name.kind) {
    case 'present':
      return test('host', 'regex', '[^:]*');
    case 'exact':
      return test('host', 'exact', name.text);
    case 'prefix':
      return test('host', 'regex', `${quoteRegex(name.text)}[^:]*`);
    case 'suffix':
      return test('host', 'regex', `[^:]*${quoteRegex(name.text)}`);
    default:
      return name satisfies never;
  }
}
