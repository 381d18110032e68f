import { SpiffeId } from '../spiffe/id.ts';
import { untold } from './context.ts';
import { Facts } from './facts.ts';
import { type Predicate, sides } from './policy.ts';
import { conditionsOf, type TreeWorld } from './proxy-condition.ts';
import { narrowToPath, type TreeWay } from './proxy-filing.ts';
import { asking } from './proxy-guard.ts';
import { judgeInOrder, type TreeItem } from './proxy-items.ts';
import {
  chooseFiling,
  type FiledItem,
  type Filing,
  groupByRequest,
  maxWeight,
  shelve,
  weigh,
} from './proxy-shelves.ts';
import { sizeOf } from './proxy-size.ts';
import { all, type Condition, type Leaf, listOf, mapOf, type ProxyTree } from './proxy-tree.ts';
import { residueOf } from './residue.ts';
import type { Steps } from './steps.ts';

/** How many bytes a tree may still take, as encoded; what is beyond asks. */
export type TreeBudget = { bytes: number };

/**
 * Makes the tree for items; `otherwise` is the answer to calls that none of them is about. Where they name many callers or
 * paths, calls are led to the few items that can be about them; what cannot be filed so is tried before.
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
  const { world, otherwise } = plan;
  const filing = weigh(items) <= maxWeight ? undefined : yield* chooseFiling(items, used, world);
  if (filing === undefined) return yield* judgeInOrder(items, world, otherwise);
  const { way, filed, rest } = filing;
  // INVARIANT: what may allow stands behind everything that may deny.
  const deniesBelow = filed.some(({ item }) => item.role !== 'allow');
  const before = rest.filter(({ role }) => role !== 'allow' || !deniesBelow);
  const below = rest.filter(({ role }) => role === 'allow' && deniesBelow);
  const next = new Set(used).add(way);
  const cells = way === 'caller' && !deniesBelow ? yield* buildCells(filing, next, plan) : undefined;
  const tree = cells ?? (yield* buildMap(filing, below, next, plan));
  return yield* judgeInOrder(before, world, tree);
}

function* buildMap(
  { way, byKey }: Pick<Filing, 'way' | 'byKey'>,
  below: readonly TreeItem[],
  used: ReadonlySet<TreeWay>,
  plan: Plan,
): Steps<ProxyTree> {
  const { budget } = plan;
  const branches = new Map<string, ProxyTree>();
  let steps = 0;
  for (const [key, filed] of byKey) {
    if (steps++ % keysInStep === 0) yield;
    // All calls ask that are about none of the branches there are.
    if (budget.bytes < 0) break;
    const own = way === 'path' ? filed.flatMap((item) => narrowToPath(item, key) ?? []) : filed;
    const some = [...own, ...below];
    const left = budget.bytes;
    const tree =
      way === 'caller' ? yield* buildForCaller(key, some, used, plan) : yield* build(some, used, plan);
    // What the branch took of it while it was made is in its size.
    budget.bytes = left - sizeOf(tree) - sizeOfKey(key);
    branches.set(key, tree);
  }
  const isWhole = branches.size === byKey.size;
  const otherwise = isWhole ? yield* build(below, used, plan) : asking('size');
  const [input, by] =
    way === 'path'
      ? (['path', 'prefix'] as const)
      : (['uri', way === 'caller' ? 'exact' : 'prefix'] as const);
  return mapOf(input, by, branches, otherwise);
}

function sizeOfKey(key: string): number {
  return Buffer.byteLength(key) + keyBytes;
}

/**
 * Where thousands of callers are asked the same of their requests, the request is looked at first: then the branch of a
 * caller is a single answer. Undefined when they differ too much for that.
 */
function* buildCells(
  { way, filed, byKey }: Filing,
  used: ReadonlySet<TreeWay>,
  plan: Plan,
): Steps<ProxyTree | undefined> {
  if (byKey.size <= maxWeight) return undefined;
  const alike = yield* groupByRequest(filed, maxGroups);
  const groups = alike?.map(({ first, filed: some }) => {
    const { must, why } = conditionsOf({ from: [], to: first.residue.to, when: [] }, 'ALLOW', plan.world);
    return { must, why, filed: some.map(withoutRequest) };
  });
  if (groups === undefined || groups.some(({ why }) => why !== '')) return undefined;
  const entries: (readonly [Condition, ProxyTree])[] = [];
  // Every choice of groups, those of more groups first, so that a call comes to exactly the groups that it fits.
  const always = groups.filter(({ must }) => must === true);
  for (const chosen of choices(groups)) {
    if (!always.every((group) => chosen.includes(group))) continue;
    const { byKey: cell } = { byKey: yield* shelve(chosen.flatMap((group) => group.filed)) };
    entries.push([
      all(chosen.map(({ must }) => must)),
      yield* buildMap({ way, byKey: cell }, [], used, plan),
    ]);
  }
  return listOf(entries, plan.otherwise);
}

function withoutRequest({ item, keys }: FiledItem): FiledItem {
  return { item: { ...item, residue: { ...item.residue, to: [] } }, keys };
}

function choices<T>(all: readonly T[]): readonly (readonly T[])[] {
  const some = Array.from({ length: 2 ** all.length - 1 }, (_, i) =>
    all.filter((_one, j) => ((i + 1) >> j) & 1),
  );
  return some.sort((a, b) => b.length - a.length);
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
    // What stands before this branch has been settled there.
    const item = { role, residue: residue.to.length === 0 ? { ...left, to: [] } : left };
    open.push(item);
    mark += markOf(item, plan);
  }
  const known = plan.known.get(mark);
  if (known !== undefined) return known;
  const tree = yield* build(open, used, plan);
  plan.known.set(mark, tree);
  return tree;
}

function markOf({ role, residue }: TreeItem, { numbers }: Plan): string {
  let mark = `${role} ${residue.compiled.ordinal}`;
  for (const side of sides) {
    mark += ';';
    for (const entry of residue[side]) {
      mark += '|';
      for (const predicate of entry) {
        const number = numbers.get(predicate) ?? numbers.size;
        numbers.set(predicate, number);
        mark += `${number},`;
      }
    }
  }
  return `${mark}\n`;
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
/** Of each choice of groups there is a branch. */
const maxGroups = 3;
const keysInStep = 8;
const keyBytes = 24;
