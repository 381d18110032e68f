import type { TrustDomain } from '../../spiffe/id.ts';
import { isHttpOnly, type PolicyAction } from '../document.ts';
import type { CompiledRule } from '../match.ts';
import { type Entry, type Predicate, type Rule, sides } from '../policy.ts';
import {
  type Conjunction,
  type Cover,
  dimensionOf,
  isManifold,
  type Literal,
  literalOf,
  mayMeet,
  meaningOf,
} from './literal.ts';
import { isIn, type World } from './world.ts';

/** Literals that must all hold: of a dimension with one value there is one. */
export type Box = {
  readonly literals: readonly Literal[];
  readonly key: string;
  readonly readsToken: boolean;
  /** Whether no TCP connection is in it. */
  readonly isHttp: boolean;
  /** Of its literals those with a cover, by their dimensions. */
  readonly covers: ReadonlyMap<string, CoverOf>;
};

type CoverOf = { readonly cover: Cover; readonly first: Predicate };

/** A rule as what it is about: a call matches when it is in one of the boxes. */
export type BoxedRule = {
  readonly compiled: CompiledRule;
  /** The same for rules of the same effect. */
  readonly key: string;
  readonly boxes: readonly Box[];
  /** Whether there were more boxes than are looked at. */
  readonly isCut: boolean;
};

/** Makes boxes of rules, each rule once. */
export type BoxRule = (compiled: CompiledRule) => BoxedRule;

/** @param trustDomain of the mesh: whose namespaces count */
export function createBoxes(trustDomain: TrustDomain): BoxRule {
  const known = new Map<Rule, BoxedRule>();
  let left = maxBoxesInAll;
  const literals = new Map<string, Literal>();
  // Literals that say the same are one object, so that what is worked out for one serves all.
  const share = (literal: Literal): Literal => {
    const same = literals.get(literal.key) ?? literal;
    literals.set(literal.key, same);
    return same;
  };
  return (compiled) => {
    const { rule, policy } = compiled;
    const found = known.get(rule);
    if (found !== undefined) return found;
    const { boxes, isCut } = boxesOf(rule, policy.action, trustDomain, share, Math.min(left, maxBoxes));
    left = Math.max(1, left - boxes.length);
    const strength = [policy.action, policy.terms.liftable, policy.terms.breakGlass !== null];
    // INVARIANT: rules that differ in what was cut differ in their keys.
    const meant = isCut ? sides.map((side) => rule[side].map(meaningOf)) : boxes.map(({ key }) => key);
    const boxed = { compiled, boxes, isCut, key: JSON.stringify([...strength, isCut, meant]) };
    known.set(rule, boxed);
    return boxed;
  };
}

/** The boxes of the parts of a rule. @param limit the most of them */
export function boxesOf(
  rule: Pick<Rule, 'from' | 'to' | 'when'>,
  action: PolicyAction,
  trustDomain: TrustDomain,
  share: (literal: Literal) => Literal = (literal) => literal,
  limit = maxBoxes,
): { readonly boxes: readonly Box[]; readonly isCut: boolean } {
  let products: readonly (readonly Conjunction[])[] = [[]];
  let isCut = false;
  for (const side of sides) {
    const alternatives = alternativesOf(rule[side]);
    if (alternatives.length === 0) continue;
    if (products.length * alternatives.length > limit) {
      isCut = true;
      continue;
    }
    products = products.flatMap((left) => alternatives.map((right) => [...left, right]));
  }
  const boxes = products.map((parts) => boxOf(parts, action, trustDomain, share));
  return { boxes, isCut };
}

/**
 * The entries of a part. Those that are about one thing alone, and the same, are joined: five hundred callers are one box.
 * INVARIANT: what is joined stays apart from the other entries, by an alternative of its own.
 */
function alternativesOf(
  entries: readonly Entry[],
): readonly (Conjunction & { readonly joined?: Conjunction[] })[] {
  const joined = new Map<string, Conjunction[]>();
  const found: (Conjunction & { joined?: Conjunction[] })[] = [];
  for (const { predicates } of entries) {
    const dimensions = new Set(predicates.map(dimensionOf));
    const [only = ''] = dimensions;
    if (dimensions.size > 1 || isManifold(only)) {
      found.push(predicates);
      continue;
    }
    const group = joined.get(only);
    if (group === undefined) {
      const first = [predicates];
      joined.set(only, first);
      found.push(Object.assign([...predicates], { joined: first }));
    } else group.push(predicates);
  }
  return found;
}

const maxBoxes = 256;
/** Of all rules together: each takes some 2 kB. */
const maxBoxesInAll = 100_000;

function boxOf(
  parts: readonly (Conjunction & { readonly joined?: Conjunction[] })[],
  action: PolicyAction,
  trustDomain: TrustDomain,
  share: (literal: Literal) => Literal,
): Box {
  const make = (alternatives: readonly Conjunction[]): Literal =>
    share(literalOf(alternatives, action, trustDomain));
  const literals: Literal[] = [];
  const single = new Map<string, Predicate[]>();
  for (const part of parts) {
    if (part.joined !== undefined && part.joined.length > 1) {
      literals.push(make(part.joined));
      continue;
    }
    for (const predicate of part) {
      const dimension = dimensionOf(predicate);
      if (isManifold(dimension)) literals.push(make([[predicate]]));
      else single.set(dimension, [...(single.get(dimension) ?? []), predicate]);
    }
  }
  for (const conjunction of single.values()) literals.push(make([conjunction]));
  const attributes = literals.flatMap(({ predicates }) => predicates.map(({ attribute }) => attribute));
  const covers = new Map<string, CoverOf>();
  for (const {
    dimension,
    cover,
    predicates: [first],
  } of literals) {
    if (cover !== undefined && first !== undefined) covers.set(dimension, { cover, first });
  }
  return {
    literals,
    key: JSON.stringify(literals.map(({ key }) => key).sort()),
    readsToken: attributes.some((attribute) => attribute.startsWith('request.auth.')),
    isHttp: action === 'ALLOW' && attributes.some(isHttpOnly),
    covers,
  };
}

/** Whether a call of a world may be in both boxes: never wrongly false. */
export function mayShare(a: Box, b: Box, world: World): boolean {
  const [few, many] = a.covers.size <= b.covers.size ? [a, b] : [b, a];
  for (const [dimension, { cover, first }] of few.covers) {
    const other = many.covers.get(dimension);
    if (other !== undefined && isIn(world, first) && !mayMeet(cover, other.cover)) return false;
  }
  return true;
}

/** Whether calls of a world differ in what a literal reads. */
export function isAbout({ predicates: [first] }: Literal, world: World): boolean {
  return first !== undefined && isIn(world, first);
}
