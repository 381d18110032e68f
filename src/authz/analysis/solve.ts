import type { Steps } from '../steps.ts';
import { type AtomGround, type Atom, type Atoms, atomsOf } from './atoms.ts';
import { type Box, isAbout, mayShare } from './box.ts';
import { type Draft, factsOf, merge } from './draft.ts';
import { type Kind, kindOf } from './kind.ts';
import type { Literal } from './literal.ts';
import {
  bitsFor,
  bitsOf,
  hasTexts,
  holdsIn,
  isEmpty,
  type Mask,
  meet,
  membersOf,
  miss,
  and,
  type Region,
  sizeOf,
} from './region.ts';
import { candidatesIn, type Outside } from './rule-boxes.ts';
import { type World, worldsOf } from './world.ts';

/** What is looked for: calls that are in all of `inside` and that no rule of `outside` matches. */
export type Problem = { readonly inside: readonly Box[]; readonly outside: Outside };

/**
 * `none`: there is no such call, which is proven. `call`: there is, and this is one, and others that differ. `unknown`: neither was found within
 * the bounds of work.
 */
export type Solution =
  | { readonly found: 'none' }
  | { readonly found: 'call'; readonly calls: readonly [FoundCall, ...FoundCall[]] }
  | { readonly found: 'unknown'; readonly why: string };

/** A call, and where it has less than what is demanded. */
export type FoundCall = { readonly draft: Draft; readonly kinds: readonly Kind[] };

/** What bounds the work of one problem, and how many calls are enough. */
export type SolveGround = AtomGround & { readonly maxNodes: number; readonly maxCalls: number };

/** Finds a call, or proves that there is none. */
export function* solve(ground: SolveGround, problem: Problem): Steps<Solution> {
  const http = yield* nearIn(problem, { protocol: 'http', token: 'present' });
  let unknown: Solution | undefined;
  for (const world of worldsOf([...problem.inside, ...http])) {
    if (world.protocol === 'tcp' && problem.inside.some(({ isHttp }) => isHttp)) continue;
    yield;
    const near = world.protocol === 'http' ? http : yield* nearIn(problem, world);
    const found = yield* solveIn(ground, problem.inside, near, world);
    if (found.found === 'call') return found;
    if (found.found === 'unknown') unknown ??= found;
  }
  return unknown ?? { found: 'none' };
}

/** The boxes in the way that calls of all of `inside` may be in. */
function* nearIn({ inside, outside }: Problem, world: World): Steps<readonly Box[]> {
  const near: Box[] = [];
  let looked = 0;
  for (const list of outside.lists) {
    for (const { box, rule } of candidatesIn(list, inside, world.protocol === 'http')) {
      looked += 1;
      if (looked % boxesInStep === 0) yield;
      if (!outside.except.has(rule) && inside.every((one) => mayShare(one, box, world))) near.push(box);
    }
  }
  return near;
}

function* solveIn(
  ground: SolveGround,
  inside: readonly Box[],
  near: readonly Box[],
  world: World,
): Steps<Solution> {
  const blank: Draft = { ...ground.blank, ...world };
  const settle = settlerOf(blank, ground, world);
  const demanded = new Set<Literal>();
  for (const [i, box] of inside.entries()) {
    if (inside.slice(0, i).some((one) => !mayShare(one, box, world))) return { found: 'none' };
    const left = settle(box);
    if (left === undefined) return { found: 'none' };
    for (const literal of left) demanded.add(literal);
  }
  const barred: (readonly Literal[])[] = [];
  for (const [i, box] of near.entries()) {
    if (i % boxesInStep === boxesInStep - 1) yield;
    // What must hold anyway bars nothing by itself.
    const left = settle(box)?.filter((literal) => !demanded.has(literal));
    if (left === undefined) continue;
    if (left.length === 0) return { found: 'none' };
    barred.push(left);
  }
  const space = yield* spaceOf({ ...ground, blank }, demanded, barred);
  if (space === undefined) return { found: 'none' };
  const masked = barred.map((literals) => literals.map((one) => space.maskOf(one)));
  const search: RegionSearch = { left: ground.maxNodes, wanted: ground.maxCalls, found: [] };
  const outcome = yield* searchIn(space.regions, masked, search);
  const [first, ...more] = search.found.map((left) => ({
    draft: space.draftOf(left),
    kinds: space.kindsOf(left),
  }));
  if (first !== undefined) return { found: 'call', calls: [first, ...more] };
  if (outcome === 'unknown') {
    return { found: 'unknown', why: 'rules overlap in more ways than are looked at' };
  }
  return space.isComplete
    ? { found: 'none' }
    : { found: 'unknown', why: 'a condition has more kinds of values than are looked at' };
}

const boxesInStep = 256;

/**
 * What of a box is still open in a world; undefined when no call of the world is in it. What such calls do not have, all
 * of them lack in the same way.
 */
function settlerOf(
  blank: Draft,
  { trustDomain }: AtomGround,
  world: World,
): (box: Box) => readonly Literal[] | undefined {
  const facts = factsOf(blank, trustDomain);
  return ({ literals }) => {
    const open: Literal[] = [];
    for (const literal of literals) {
      if (isAbout(literal, world)) open.push(literal);
      else if (!literal.holds(facts)) return undefined;
    }
    return open;
  };
}

/** A literal's mask, and where its dimension is among the regions. */
type Placed = { readonly at: number; readonly mask: Mask };

type Space = {
  readonly regions: readonly Region[];
  readonly maskOf: (literal: Literal) => Placed;
  readonly isComplete: boolean;
  readonly draftOf: (regions: readonly Region[]) => Draft;
  /** Where less is left than what is demanded leaves. */
  readonly kindsOf: (regions: readonly Region[]) => readonly Kind[];
};

/** Undefined when nothing satisfies what is demanded. */
function* spaceOf(
  ground: SolveGround,
  demanded: ReadonlySet<Literal>,
  barred: readonly (readonly Literal[])[],
): Steps<Space | undefined> {
  const byDimension = new Map<string, Set<Literal>>();
  for (const literal of [...demanded, ...barred.flat()]) {
    const same = byDimension.get(literal.dimension) ?? new Set();
    byDimension.set(literal.dimension, same.add(literal));
  }
  const masks = new Map<Literal, Placed>();
  const regions: Region[] = [];
  const cuts: Atoms[] = [];
  let isComplete = true;
  for (const [dimension, literals] of byDimension) {
    const all = [...literals];
    const held = all.filter((one) => demanded.has(one));
    const atoms = yield* atomsOf(ground, dimension, all, held);
    isComplete &&= atoms.isComplete;
    let region: Region = {
      values: bitsOf(atoms.values, () => true),
      within: bitsOf(atoms.texts, () => true),
      some: [],
    };
    for (const literal of all) {
      yield;
      const mask = yield* maskOf(literal, atoms);
      masks.set(literal, { at: regions.length, mask });
      if (demanded.has(literal)) region = meet(region, mask);
    }
    if (isEmpty(region) && atoms.isComplete) return undefined;
    regions.push(region);
    cuts.push(atoms);
  }
  return {
    regions,
    isComplete,
    maskOf: (literal) => masks.get(literal) as Placed,
    draftOf: (left) => {
      let draft = ground.blank;
      for (const [i, atoms] of cuts.entries()) {
        const region = left[i];
        if (region !== undefined) draft = merge(draft, choose(atoms, region));
      }
      return draft;
    },
    kindsOf: (left) =>
      cuts.flatMap((atoms, i) => {
        const [before, region, dimension] = [regions[i], left[i], [...byDimension.keys()][i]];
        if (before === undefined || region === undefined || dimension === undefined) return [];
        if (sizeOf(region) === sizeOf(before)) return [];
        return kindOf(dimension, membersOf(atoms.values, region.values)) ?? [];
      }),
  };
}

function* maskOf({ holds, quantifier }: Literal, { values, texts }: Atoms): Steps<Mask> {
  const fits = function* (atoms: readonly Atom[]) {
    const bits = bitsFor(atoms.length);
    for (const [i, { facts }] of atoms.entries()) {
      if (i % atomsInStep === atomsInStep - 1) yield;
      if (holds(facts)) bits[i >> 5] = (bits[i >> 5] ?? 0) | (1 << (i & 31));
    }
    return bits;
  };
  return { quantifier, values: yield* fits(values), texts: yield* fits(texts) };
}

const atomsInStep = 512;

/** A value, or as many texts as it takes. The first value is the most usual one. */
function choose(atoms: Atoms, region: Region) {
  const [value] = membersOf(atoms.values, region.values);
  if (value !== undefined && (value === atoms.values[0] || !hasTexts(region))) return value.patch;
  const wanted = region.some.length === 0 ? [region.within] : region.some;
  const texts = new Set(wanted.flatMap((one) => membersOf(atoms.texts, and(one, region.within)).slice(0, 1)));
  return atoms.ofTexts([...texts]);
}

/** A search under way: how many looks are left, and what was found. */
type RegionSearch = { left: number; readonly wanted: number; readonly found: (readonly Region[])[] };

/**
 * Looks for regions in which each of the barred boxes is missed by one literal at least. Of the boxes that are still in the
 * way the one with the fewest ways out is taken first; the ways out are tried so that no call is looked at twice.
 * @returns `none` when all was looked at, whatever was found
 */
function* searchIn(
  regions: readonly Region[],
  barred: readonly (readonly Placed[])[],
  search: RegionSearch,
): Steps<'enough' | 'none' | 'unknown'> {
  if (regions.some(isEmpty)) return 'none';
  search.left -= 1;
  if (search.left < 0) return 'unknown';
  const open: (readonly Placed[])[] = [];
  let best: readonly Placed[] | undefined;
  for (const [i, literals] of barred.entries()) {
    if (i % boxesInStep === boxesInStep - 1) yield;
    const ways = waysOut(regions, literals);
    if (ways === undefined) continue;
    if (ways.length === 0) return 'none';
    open.push(literals);
    if (best === undefined || ways.length < best.length) best = ways;
  }
  yield;
  if (best === undefined) {
    search.found.push(regions);
    // Whoever has one example does not wait long for others.
    search.left = Math.min(search.left, looksForMore);
    return search.found.length >= search.wanted ? 'enough' : 'none';
  }
  let within = regions;
  let isUnknown = false;
  const rest = open;
  for (const { at, mask } of ordered(best, regions)) {
    const region = within[at];
    if (region === undefined) continue;
    const found = yield* searchIn(replaced(within, at, miss(region, mask)), rest, search);
    if (found === 'enough') return found;
    if (found === 'unknown') isUnknown = true;
    within = replaced(within, at, meet(region, mask));
    if (isEmpty(within[at] as Region)) break;
  }
  return isUnknown ? 'unknown' : 'none';
}

const looksForMore = 16;

/** The literals of a box by which it can be missed; undefined when it is missed already. */
function waysOut(regions: readonly Region[], literals: readonly Placed[]): readonly Placed[] | undefined {
  const ways: Placed[] = [];
  for (const one of literals) {
    const region = regions[one.at];
    if (region === undefined) continue;
    const holds = holdsIn(region, one.mask);
    if (holds === 'none') return undefined;
    if (holds === 'part') ways.push(one);
  }
  return ways;
}

/** That way first which leaves the most. */
function ordered(ways: readonly Placed[], regions: readonly Region[]): readonly Placed[] {
  const left = ({ at, mask }: Placed): number => {
    const region = regions[at];
    return region === undefined ? 0 : sizeOf(miss(region, mask));
  };
  return ways
    .map((way) => ({ way, left: left(way) }))
    .sort((a, b) => b.left - a.left)
    .map(({ way }) => way);
}

function replaced(regions: readonly Region[], at: number, region: Region): readonly Region[] {
  return regions.map((one, i) => (i === at ? region : one));
}
