import { SpiffeId } from '../spiffe/id.ts';
import { untold } from './context.ts';
import { Facts } from './facts.ts';
import type { Predicate } from './policy.ts';
import { sides } from './policy.ts';
import type { TreeWorld } from './proxy-condition.ts';
import { type FilingKey, keysOf, type TreeWay } from './proxy-filing.ts';
import { asking } from './proxy-guard.ts';
import { isMarking, judgeInOrder, type TreeItem } from './proxy-items.ts';
import { type Leaf, mapOf, type ProxyTree } from './proxy-tree.ts';
import { sizeOf } from './proxy-size.ts';
import { residueOf } from './residue.ts';
import type { Steps } from './steps.ts';

/** What a tree may still become large by, in bytes as encoded; what is beyond asks. */
export type TreeBudget = { bytes: number };

/**
 * Makes the tree for items; `otherwise` is the answer to calls that none of them is about. Where they name many callers or paths, calls are led to the few items that can be about them;
 * what cannot be filed so is tried before.
 */
export function* buildTree(
  items: readonly TreeItem[],
  world: TreeWorld,
  budget: TreeBudget,
  otherwise: Leaf,
): Steps<ProxyTree> {
  const plan = { world, budget, otherwise, known: new Map(), numbers: new Map() };
  return yield* build(items, new Set(), plan);
}

type Plan = {
  readonly world: TreeWorld;
  readonly budget: TreeBudget;
  readonly otherwise: Leaf;
  /** Trees by what they are made of: thousands of callers share a few. */
  readonly known: Map<string, ProxyTree>;
  readonly numbers: Map<Predicate, number>;
};

function* build(items: readonly TreeItem[], used: ReadonlySet<TreeWay>, plan: Plan): Steps<ProxyTree> {
  yield;
  const filing = weigh(items) <= maxWeight ? undefined : yield* chooseFiling(items, used, plan);
  if (filing === undefined) return judgeInOrder(items, plan.world, plan.otherwise);
  const { way, byKey, rest } = filing;
  // INVARIANT: what may allow stands behind everything that may deny.
  const deniesBelow = [...byKey.values()].some((some) => some.some(({ role }) => role !== 'allow'));
  const before = rest.filter(({ role }) => role !== 'allow' || !deniesBelow);
  const below = rest.filter(({ role }) => role === 'allow' && deniesBelow);
  const next = new Set(used).add(way);
  const branches = new Map<string, ProxyTree>();
  let steps = 0;
  let isWhole = true;
  for (const [key, filed] of byKey) {
    if (steps++ % keysInStep === 0) yield;
    if (plan.budget.bytes < 0) {
      isWhole = false;
      break;
    }
    const some = [...filed, ...below];
    const left = plan.budget.bytes;
    const tree =
      way === 'caller' ? yield* buildForCaller(key, some, next, plan) : yield* build(some, next, plan);
    // What the branch took of it while it was made is in its size.
    plan.budget.bytes = left - sizeOf(tree) - key.length;
    branches.set(key, tree);
  }
  const rests = isWhole ? yield* build(below, next, plan) : asking('size');
  const tree = mapOf(way === 'path' ? 'path' : 'uri', way === 'caller' ? 'exact' : 'prefix', branches, rests);
  return judgeInOrder(before, plan.world, tree);
}

/** How many values are compared when items are tried one after the other. */
function weigh(items: readonly TreeItem[]): number {
  let weight = 0;
  for (const { residue } of items) {
    weight += 1;
    for (const side of sides) {
      for (const entry of residue[side]) for (const { matches } of entry) weight += matches.length;
    }
  }
  return weight;
}

/** What of the items is open for one caller. */
function* buildForCaller(
  uri: string,
  items: readonly TreeItem[],
  used: ReadonlySet<TreeWay>,
  plan: Plan,
): Steps<ProxyTree> {
  const facts = factsOf(SpiffeId.parseWorkload(uri), plan.world);
  const open: TreeItem[] = [];
  let mark = '';
  for (const { role, residue } of items) {
    const left = residueOf(residue.compiled, facts, (attribute) => !callerAttributes.has(attribute));
    if (left === undefined) continue;
    open.push({ role, residue: left });
    mark += `${role} ${left.compiled.ordinal}`;
    for (const side of sides) {
      mark += ` ${left[side].map((entry) => entry.map((one) => numberOf(one, plan)).join(',')).join('|')};`;
    }
  }
  const known = plan.known.get(mark);
  if (known !== undefined) return known;
  const tree = yield* build(open, used, plan);
  plan.known.set(mark, tree);
  return tree;
}

function numberOf(predicate: Predicate, { numbers }: Plan): number {
  const known = numbers.get(predicate) ?? numbers.size;
  numbers.set(predicate, known);
  return known;
}

/** Nothing is told of time: every bound is still ahead, and so left open. */
function factsOf(source: SpiffeId, { trustDomain, protocol }: TreeWorld): Facts {
  const nothing = { method: '', host: '', hostPort: null, path: '', port: 0, context: untold };
  return new Facts({ source, destination: source, protocol, ...nothing }, trustDomain, beforeAll);
}

const beforeAll = new Date(-8.64e15);
const callerAttributes: ReadonlySet<string> = new Set([
  'source.principal',
  'source.namespace',
  'source.serviceAccount',
  'source.trustDomain',
]);

type Filing = {
  readonly way: TreeWay;
  readonly byKey: ReadonlyMap<string, readonly TreeItem[]>;
  readonly rest: readonly TreeItem[];
};

/** The way that leaves the fewest items to be tried for every call, if it is worth its branches. */
function* chooseFiling(
  items: readonly TreeItem[],
  used: ReadonlySet<TreeWay>,
  plan: Plan,
): Steps<Filing | undefined> {
  let best: Filing | undefined;
  for (const way of ways) {
    if (used.has(way) || (way === 'path' && plan.world.protocol === 'tcp')) continue;
    yield;
    const filing = fileBy(way, items, plan.world);
    if (filing.byKey.size < minBranches) continue;
    if (best === undefined || weigh(filing.rest) < weigh(best.rest)) best = filing;
    // Nothing is better than one look-up by the whole name.
    if (weigh(best.rest) <= maxWeight) break;
  }
  return best;
}

const ways: readonly TreeWay[] = ['caller', 'namespace', 'path'];

function fileBy(way: TreeWay, items: readonly TreeItem[], world: TreeWorld): Filing {
  const rest: TreeItem[] = [];
  const filed: { readonly item: TreeItem; readonly keys: readonly FilingKey[] }[] = [];
  for (const item of items) {
    // A mark must be made whatever else becomes of the call, and a grant be looked for before what it lifts.
    const keys = isMarking(item.role) ? undefined : keysOf(item, way, world);
    if (keys === undefined) rest.push(item);
    else filed.push({ item, keys });
  }
  const denies = filed.filter(({ item }) => item.role !== 'allow');
  // A few denials are tried for every call, so that what allows every caller need not be repeated for each.
  const few = denies.reduce((sum, { keys }) => sum + keys.length, 0) <= maxWeight;
  if (few) rest.push(...denies.map(({ item }) => item));
  const kept = few ? filed.filter(({ item }) => item.role === 'allow') : filed;
  return { way, rest, byKey: shelve(kept) };
}

function shelve(
  filed: readonly { readonly item: TreeItem; readonly keys: readonly FilingKey[] }[],
): ReadonlyMap<string, readonly TreeItem[]> {
  const shelves = new Map<string, Set<TreeItem>>();
  const beginnings = new Map<string, Set<TreeItem>>();
  const add = (to: Map<string, Set<TreeItem>>, text: string, item: TreeItem): void => {
    const some = to.get(text);
    if (some === undefined) to.set(text, new Set([item]));
    else some.add(item);
  };
  for (const { item, keys } of filed) {
    for (const { text, isPrefix } of keys) {
      add(shelves, text, item);
      if (isPrefix) add(beginnings, text, item);
    }
  }
  // A call is led to the longest key that it begins with, and to no other: what is filed under shorter ones belongs there too.
  const byKey = new Map<string, readonly TreeItem[]>();
  for (const [text, own] of shelves) {
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

/** This many values are compared one after the other without a look-up. */
const maxWeight = 16;
const minBranches = 2;
const keysInStep = 8;
