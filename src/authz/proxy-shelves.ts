import type { TreeWorld } from './proxy-condition.ts';
import { type FilingKey, keysOf, type TreeWay } from './proxy-filing.ts';
import { isMarking, type TreeItem } from './proxy-items.ts';
import { type Side, sides } from './policy.ts';
import type { Steps } from './steps.ts';

/** Items and the texts that each is filed under. */
export type FiledItem = { readonly item: TreeItem; readonly keys: readonly FilingKey[] };

/** Items as they are filed in one way; `rest` is what cannot be filed so. */
export type Filing = {
  readonly way: TreeWay;
  readonly filed: readonly FiledItem[];
  readonly byKey: ReadonlyMap<string, readonly TreeItem[]>;
  readonly rest: readonly TreeItem[];
};

/** This many values are compared one after the other without a look-up. */
export const maxWeight = 16;

/** How many values are compared when items are tried one after the other. */
export function weigh(items: readonly TreeItem[]): number {
  let weight = 0;
  for (const { residue } of items) {
    weight += 1;
    for (const side of sides) {
      for (const entry of residue[side]) for (const { matches } of entry) weight += matches.length;
    }
  }
  return weight;
}

/** The way that leaves the fewest items to be tried for every call; undefined when none is worth its branches. */
export function* chooseFiling(
  items: readonly TreeItem[],
  used: ReadonlySet<TreeWay>,
  world: TreeWorld,
): Steps<Filing | undefined> {
  let best: Filing | undefined;
  for (const way of ways) {
    if (used.has(way) || (way === 'path' && (world.protocol === 'tcp' || weigh(items) <= maxPathWeight))) {
      continue;
    }
    const filing = yield* fileBy(way, items, world);
    if (filing.byKey.size < minBranches) continue;
    if (best === undefined || weigh(filing.rest) < weigh(best.rest)) best = filing;
    // Nothing is better than one look-up by the whole name.
    if (weigh(best.rest) <= maxWeight) break;
  }
  return best;
}

const ways: readonly TreeWay[] = ['caller', 'namespace', 'path'];
const minBranches = 2;
/** For paths many more: their branches repeat much of each other, in the branch of each caller again. */
const maxPathWeight = 64;

function* fileBy(way: TreeWay, items: readonly TreeItem[], world: TreeWorld): Steps<Filing> {
  const rest: TreeItem[] = [];
  const filed: FiledItem[] = [];
  for (const item of items) {
    yield;
    // A mark must be made whatever else becomes of the call, and a grant be looked for before what it lifts.
    const keys = isMarking(item.role) ? undefined : keysOf(item, way, world);
    if (keys === undefined) rest.push(item);
    else filed.push({ item, keys });
  }
  const denies = filed.filter(({ item }) => item.role !== 'allow');
  // A few denials are tried for every call, so that what allows every caller need not be repeated for each.
  const isFew = denies.reduce((sum, { keys }) => sum + keys.length, 0) <= maxWeight;
  if (isFew) rest.push(...denies.map(({ item }) => item));
  const kept = isFew ? filed.filter(({ item }) => item.role === 'allow') : filed;
  return { way, rest, filed: kept, byKey: yield* shelve(kept) };
}

/**
 * Which items a call is led to by each text. It is led to the longest text that it begins with, and to no other: what is
 * filed under shorter ones belongs there too.
 */
export function* shelve(filed: readonly FiledItem[]): Steps<ReadonlyMap<string, readonly TreeItem[]>> {
  const shelves = new Map<string, Set<TreeItem>>();
  const beginnings = new Map<string, Set<TreeItem>>();
  const add = (to: Map<string, Set<TreeItem>>, text: string, item: TreeItem): void => {
    const some = to.get(text);
    if (some === undefined) to.set(text, new Set([item]));
    else some.add(item);
  };
  for (const { item, keys } of filed) {
    yield;
    for (const { text, isPrefix } of keys) {
      add(shelves, text, item);
      if (isPrefix) add(beginnings, text, item);
    }
  }
  const byKey = new Map<string, readonly TreeItem[]>();
  let steps = 0;
  for (const [text, own] of shelves) {
    if (steps++ % keysInStep === 0) yield;
    const some = new Set(own);
    if (beginnings.size > 0) {
      for (let length = 1; length < text.length; length++) {
        for (const item of beginnings.get(text.slice(0, length)) ?? []) some.add(item);
      }
    }
    byKey.set(text, [...some]);
  }
  return byKey;
}

const keysInStep = 64;

/** Items that ask the same of a request, whoever makes it. */
export type Group = { readonly first: TreeItem; readonly filed: readonly FiledItem[] };

/** Filed items by what their `to` says; undefined when they say more than `limit` different things. */
export function* groupByRequest(
  filed: readonly FiledItem[],
  limit: number,
): Steps<readonly Group[] | undefined> {
  const groups = new Map<string, { readonly first: TreeItem; readonly filed: FiledItem[] }>();
  for (const one of filed) {
    yield;
    const mark = markOf(one.item, 'to');
    const known = groups.get(mark);
    if (known !== undefined) known.filed.push(one);
    else if (groups.size === limit) return undefined;
    else groups.set(mark, { first: one.item, filed: [one] });
  }
  return [...groups.values()];
}

/** The same for items of which a side says the same. */
function markOf({ residue }: TreeItem, side: Side): string {
  return JSON.stringify(
    residue[side].map((entry) =>
      entry.map(({ attribute, names, negated, kind, matches }) => [attribute, names, negated, kind, matches]),
    ),
  );
}
