import type { Box, BoxedRule } from './box.ts';
import type { Cover } from './literal.ts';

/**
 * The boxes of rules, filed by what they name in full: of a thousand rules for a caller each, a rule for one of these callers
 * meets few. Made once for a list.
 */
export type RuleBoxes = {
  readonly rules: readonly BoxedRule[];
  /** Whether a rule of them has more boxes than are looked at. */
  readonly isCut: boolean;
  /** The keys of the rules. */
  readonly keys: ReadonlySet<string>;
  readonly filed: ReadonlyMap<string, ReadonlyMap<string, readonly RuleBox[]>>;
  /** Those of a dimension once each, and those that are filed nowhere. */
  readonly all: ReadonlyMap<string, readonly RuleBox[]>;
  readonly others: readonly RuleBox[];
};

/** A box, and the rule that has it. */
export type RuleBox = { readonly box: Box; readonly rule: BoxedRule };

/** Rules that must not match, but for those that are left out of them. */
export type Outside = { readonly lists: readonly RuleBoxes[]; readonly except: ReadonlySet<BoxedRule> };

/** No rules at all. */
export const nothing: Outside = { lists: [], except: new Set() };

/** All rules of some lists. */
export function outsideOf(...lists: readonly (readonly BoxedRule[])[]): Outside {
  return { lists: lists.filter(({ length }) => length > 0).map(filed), except: none };
}

const none: ReadonlySet<BoxedRule> = new Set();

/** Files the boxes of a list of rules; the same list is filed once. */
export function filed(rules: readonly BoxedRule[]): RuleBoxes {
  const found = known.get(rules);
  if (found !== undefined) return found;
  const made = file(rules);
  known.set(rules, made);
  return made;
}

const known = new WeakMap<readonly BoxedRule[], RuleBoxes>();

function file(rules: readonly BoxedRule[]): RuleBoxes {
  const shelves = new Map(filing.map((dimension) => [dimension, new Map<string, RuleBox[]>()]));
  const all = new Map(filing.map((dimension) => [dimension, [] as RuleBox[]]));
  const others: RuleBox[] = [];
  for (const rule of rules) {
    for (const box of rule.boxes) {
      const one = { box, rule };
      const dimension = filing.find((name) => (namedIn(coverOn(box, name))?.size ?? maxNames) < maxNames);
      if (dimension === undefined) {
        others.push(one);
        continue;
      }
      all.get(dimension)?.push(one);
      const shelf = shelves.get(dimension);
      for (const text of namedIn(coverOn(box, dimension)) ?? []) {
        const same = shelf?.get(text);
        if (same === undefined) shelf?.set(text, [one]);
        else same.push(one);
      }
    }
  }
  return {
    rules,
    isCut: rules.some(({ isCut }) => isCut),
    keys: new Set(rules.map(({ key }) => key)),
    filed: shelves,
    all,
    others,
  };
}

/** The boxes that may have a call in common with one of the others; never one too few. @param isHttp of which calls */
export function* candidatesIn(
  { filed: shelves, all, others }: RuleBoxes,
  inside: readonly Box[],
  isHttp: boolean,
): Generator<RuleBox> {
  yield* others;
  for (const [dimension, shelf] of shelves) {
    // What has no path is in all boxes of paths that do not ask for one in vain.
    const names = dimension === 'request.path' && !isHttp ? undefined : fewest(inside, dimension);
    if (names === undefined || names.size > shelf.size) {
      yield* all.get(dimension) ?? [];
      continue;
    }
    const met = new Set<RuleBox>();
    for (const name of names) for (const one of shelf.get(name) ?? []) met.add(one);
    yield* met;
  }
}

function fewest(boxes: readonly Box[], dimension: string): ReadonlySet<string> | undefined {
  let best: ReadonlySet<string> | undefined;
  for (const box of boxes) {
    const names = namedIn(coverOn(box, dimension));
    if (names !== undefined && (best === undefined || names.size < best.size)) best = names;
  }
  return best;
}

function coverOn({ covers }: Box, dimension: string): Cover | undefined {
  return covers.get(dimension)?.cover;
}

function namedIn(cover: Cover | undefined): ReadonlySet<string> | undefined {
  return cover === undefined || cover.prefixes.length > 0 ? undefined : cover.exact;
}

const filing = ['caller', 'request.path'];
const maxNames = 64;
