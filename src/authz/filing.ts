import { cidrKeys } from './cidr.ts';
import { type Facts, isSingle, singleFacts } from './facts.ts';
import { claimOf } from './match.ts';
import type { Predicate, TextMatch } from './policy.ts';

/** One thing of a request by which rules are filed: an attribute, or one header, one claim, one half of a token. */
export type Facet = {
  /** No two facets that read different things share one. */
  readonly id: string;
  /** What is looked up: several values, each for itself, or none (known to be missing); undefined when not known. */
  readonly read: (facts: Facts) => string | number | readonly string[] | undefined;
};

/** A value by which rules are filed; `''` is never one. */
export type Atom = { readonly kind: 'exact' | 'prefix' | 'suffix'; readonly text: string | number };

/**
 * A way to file a predicate. INVARIANT: the predicate holds only for requests of which a value of the facet fits one of
 * the atoms, or whose facet is not known.
 */
export type Filing = { readonly facet: Facet; readonly atoms: readonly Atom[] };

/** All ways to file a predicate; none when any value will do, and for what is negated. */
export function filingsOf(predicate: Predicate): readonly Filing[] {
  if (predicate.negated) return [];
  switch (predicate.kind) {
    case 'text':
      return fileTexts(predicate, predicate.matches);
    case 'host':
      return fileTexts(
        predicate,
        predicate.matches.map(({ name }) => name),
      );
    case 'port':
      return file(
        facetOf(predicate),
        predicate.matches.map((text) => ({ kind: 'exact', text })),
      );
    case 'address':
      return file(
        facetOf(predicate),
        predicate.matches.flatMap(cidrKeys).map((text) => ({ kind: 'prefix', text })),
      );
    case 'token':
      return [
        ...fileMatches(
          tokenFacets.subject,
          predicate.matches.map(({ subject }) => subject),
        ),
        ...fileMatches(
          tokenFacets.issuer,
          predicate.matches.map(({ issuer }) => issuer),
        ),
      ];
    case 'metadata':
      return fileMatches(
        facetOf(predicate),
        predicate.matches.map(({ match }) => match),
      );
    case 'time':
      return [];
    default:
      return predicate satisfies never;
  }
}

/** A path that a template matches begins as the template does, and ends as it does: either may be what few others share. */
function fileTexts(predicate: Predicate, matches: readonly TextMatch[]): readonly Filing[] {
  const facet = facetOf(predicate);
  const byStart = fileMatches(facet, matches);
  if (!matches.some(({ kind }) => kind === 'template')) return byStart;
  const byEnd = fileMatches({ id: `${facet.id} end`, read: facet.read }, matches.map(asEnding));
  return [...byStart, ...byEnd];
}

function asEnding(match: TextMatch): TextMatch {
  if (match.kind !== 'template') return match;
  const end = match.text.slice(match.text.lastIndexOf('}') + 1);
  return end === '' ? { kind: 'present' } : { kind: 'suffix', text: end };
}

function fileMatches(facet: Facet, matches: readonly TextMatch[]): readonly Filing[] {
  const atoms: Atom[] = [];
  for (const match of matches) {
    if (match.kind === 'present') return [];
    // What stands before its first operator begins with a slash.
    atoms.push(match.kind === 'template' ? { kind: 'prefix', text: match.prefix } : match);
  }
  return file(facet, atoms);
}

function file(facet: Facet, atoms: readonly Atom[]): readonly Filing[] {
  return [{ facet, atoms }];
}

function facetOf(predicate: Predicate): Facet {
  const { attribute, names } = predicate;
  if (isSingle(attribute)) return { id: attribute, read: singleFacts[attribute] };
  const [first = '', second = ''] = names;
  if (attribute === 'source.ip' || attribute === 'remote.ip' || attribute === 'destination.ip') {
    return { id: attribute, read: (facts) => facts.addressKey(attribute) };
  }
  if (attribute === 'request.headers') {
    return { id: `header ${first}`, read: (facts) => facts.headerLines(first) };
  }
  if (attribute === 'filter.metadata') {
    const id = `metadata ${JSON.stringify(names)}`;
    return { id, read: (facts) => readTexts(facts.metadata(first, second)) };
  }
  const way = claimOf(predicate);
  return { id: `claim ${JSON.stringify(way.names)}`, read: (facts) => facts.claim(way) };
}

const tokenFacets: Readonly<Record<'issuer' | 'subject', Facet>> = {
  issuer: { id: 'token issuer', read: ({ token }) => (token === null ? [] : token?.issuer) },
  subject: { id: 'token subject', read: ({ token }) => (token === null ? [] : token?.subject) },
};

function readTexts(found: unknown): readonly string[] | undefined {
  if (found === undefined) return undefined;
  return (Array.isArray(found) ? found : [found]).filter((one) => typeof one === 'string');
}
