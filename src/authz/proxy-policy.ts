import { createHash } from 'node:crypto';
import type { SpiffeId } from '../spiffe/id.ts';
import { splitGlass } from './glass.ts';
import { type CompiledRule, compileRule } from './match.ts';
import { type TreeBudget, buildTree } from './proxy-branch.ts';
import type { TreeWorld } from './proxy-condition.ts';
import { asking, callerGuards, denying, portGuards, requestGuards } from './proxy-guard.ts';
import type { TreeItem, TreeRole } from './proxy-items.ts';
import { sizeOf } from './proxy-size.ts';
import { type Leaf, listOf, mapOf, type ProxyTree } from './proxy-tree.ts';
import { encodeMatcher, httpFilter, networkFilter } from './proxy-wire.ts';
import { checkFilter, checkMatcher } from './proxy-wire-check.ts';
import { sides } from './policy.ts';
import type { Applied, Snapshot } from './snapshot.ts';
import type { Steps } from './steps.ts';

export { parseLeafName } from './leaf-name.ts';

/** The policies for one destination as its proxy enforces them. */
export type ProxyPolicy = {
  readonly destination: SpiffeId;
  /** The revision of the snapshot it was made from. */
  readonly revision: number;
  /** An encoded `envoy.extensions.filters.http.rbac.v3.RBAC`. */
  readonly http: Uint8Array;
  /** An encoded `envoy.extensions.filters.network.rbac.v3.RBAC`. */
  readonly tcp: Uint8Array;
  /** Of the content: 32 hex digits of the SHA-256 over both. */
  readonly version: string;
  /** How many leaves of each kind both trees have; those that branches share are counted in each. */
  readonly leaves: Readonly<Record<Leaf['verdict'], number>>;
  /** Why the proxy does not decide by itself, and in how many leaves; the most frequent first. */
  readonly asks: readonly { readonly why: string; readonly leaves: number }[];
};

export type ProxyPolicyInput = {
  readonly snapshot: Snapshot;
  readonly destination: SpiffeId;
  /** Callers about whom every call asks. */
  readonly bannedIds: readonly SpiffeId[];
  /** Why every call must ask, whatever the policies say; null when there is no such reason. */
  readonly asksAll: string | null;
};

/**
 * Compiles the policies for one destination into trees for RBAC filters of Envoy. A tree allows or denies only what
 * `decide` would, and asks about all else: the proxy then goes on to ext_authz. What was made from the same policies is
 * used again.
 * @throws MeshError `internal` when the bytes are not what was meant: then nobody gets them
 */
export function* compileProxyPolicy(input: ProxyPolicyInput): Steps<ProxyPolicy> {
  const { snapshot, destination } = input;
  const http = yield* compileFilter(input, 'http');
  const tcp = yield* compileFilter(input, 'tcp');
  yield;
  const hash = createHash('sha256').update(`${http.bytes.length} `).update(http.bytes).update(tcp.bytes);
  const leaves = { allow: 0, deny: 0, ask: 0 };
  const asks = new Map<string, number>();
  for (const { leaf, count } of [...http.leaves, ...tcp.leaves]) {
    leaves[leaf.verdict] += count;
    if (leaf.verdict !== 'ask') continue;
    const why = leaf.name.slice('ask:'.length);
    asks.set(why, (asks.get(why) ?? 0) + count);
  }
  const filters = { http: httpFilter(http.bytes), tcp: networkFilter(tcp.bytes) };
  checkFilter(filters.http, 'http', http.bytes);
  checkFilter(filters.tcp, 'tcp', tcp.bytes);
  return {
    destination,
    revision: snapshot.revision,
    ...filters,
    version: hash.digest('hex').slice(0, 32),
    leaves,
    asks: [...asks].map(([why, count]) => ({ why, leaves: count })).sort((a, b) => b.leaves - a.leaves),
  };
}

type Filter = {
  readonly tree: ProxyTree;
  readonly bytes: Buffer;
  readonly leaves: readonly { readonly leaf: Leaf; readonly count: number }[];
};

function* compileFilter(input: ProxyPolicyInput, protocol: TreeWorld['protocol']): Steps<Filter> {
  const { snapshot, destination, bannedIds, asksAll } = input;
  if (asksAll !== null) return yield* encodeFilter(asking(plainReason(asksAll)));
  if (snapshot.mode !== 'strict') return yield* encodeFilter(asking('istio_mode'));
  yield* snapshot.ready(destination);
  const filter = yield* policyFilter(snapshot.appliedTo(destination), {
    trustDomain: snapshot.trustDomain,
    protocol,
  });
  if (bannedIds.length === 0) return filter;
  // INVARIANT: before everything else: no rule outweighs a ban, and each denial by one is recorded.
  const banned = new Map(bannedIds.map((id) => [id.text, asking('banned')]));
  return yield* encodeFilter(mapOf('uri', 'exact', banned, filter.tree));
}

function* policyFilter(applied: Applied, world: TreeWorld): Steps<Filter> {
  const known = filters.get(applied) ?? new Map<string, Filter>();
  filters.set(applied, known);
  const key = `${world.protocol} ${world.trustDomain.name}`;
  const filter = known.get(key) ?? (yield* encodeFilter(yield* policyTree(applied, world)));
  known.set(key, filter);
  return filter;
}

/** INVARIANT: policies never change, and neither does what was made from them. */
const filters = new WeakMap<Applied, Map<string, Filter>>();

function* encodeFilter(tree: ProxyTree): Steps<Filter> {
  const bytes = yield* encodeMatcher(tree);
  yield* checkMatcher(bytes, tree);
  return { tree, bytes, leaves: yield* countLeaves(tree) };
}

function* policyTree(applied: Applied, world: TreeWorld): Steps<ProxyTree> {
  // What they would have said is recorded with every call.
  if (applied.onTrial !== null) return asking('on_trial');
  const items = itemsOf(applied);
  if (!applied.isGoverned && items.length === 0) return denying('no_policy');
  const budget: TreeBudget = { bytes: maxTreeBytes };
  const otherwise = denying(applied.isGoverned ? 'no_allow_rule' : 'no_policy');
  const built = yield* buildTree(items, world, budget, otherwise);
  // What was tried one after the other has a size too.
  const rules = sizeOf(built) > maxTreeBytes + maxListBytes ? asking('size') : built;
  const guards = [
    ...callerGuards,
    ...(items.some(readsPort) ? portGuards : []),
    ...(world.protocol === 'http' ? requestGuards : []),
  ];
  return listOf(guards, rules);
}

function itemsOf({ policies, allowRules, denyRules, customRules }: Applied): readonly TreeItem[] {
  const { grants, allow, liftable, deny } = splitGlass(allowRules, denyRules);
  const marks = policies
    .filter(({ action, dryRun }) => action === 'AUDIT' && !dryRun)
    .flatMap((policy) => policy.rules.map((rule, i) => compileRule(policy, rule, i)));
  const of = (role: TreeRole, rules: readonly CompiledRule[]): readonly TreeItem[] =>
    rules.map((compiled) => ({ role, residue: { compiled, ...openOf(compiled) } }));
  return [
    ...of('audit', marks),
    ...of('custom', customRules),
    ...of('deny', deny),
    ...of('grant', grants),
    ...of('liftable', liftable),
    ...of('allow', allow),
  ];
}

/** All of a rule is open. */
function openOf({ rule }: CompiledRule): Omit<TreeItem['residue'], 'compiled'> {
  const open = (side: (typeof sides)[number]) => rule[side].map(({ predicates }) => predicates);
  return { from: open('from'), to: open('to'), when: open('when') };
}

function readsPort({ residue }: TreeItem): boolean {
  return sides.some((side) => residue[side].some((entry) => entry.some(({ kind }) => kind === 'port')));
}

function plainReason(text: string): string {
  const plain = text.toLowerCase().replace(/[^a-z0-9]+/g, '_');
  return plain.slice(0, maxReasonLength) || 'everything';
}

function* countLeaves(tree: ProxyTree): Steps<Filter['leaves']> {
  const counts = new Map<string, { readonly leaf: Leaf; count: number }>();
  const open: ProxyTree[] = [tree];
  let steps = 0;
  for (let node = open.pop(); node !== undefined; node = open.pop()) {
    if (steps++ % nodesInStep === 0) yield;
    if (node.kind === 'leaf') {
      const known = counts.get(node.name);
      if (known === undefined) counts.set(node.name, { leaf: node, count: 1 });
      else known.count += 1;
      continue;
    }
    open.push(node.otherwise);
    if (node.kind === 'list') for (const [, below] of node.entries) open.push(below);
    else for (const below of node.branches.values()) open.push(below);
  }
  return [...counts.values()];
}

/** The most a tree of policies may take; what is beyond asks. */
const maxTreeBytes = 4 * 1_048_576;
const maxListBytes = 1_048_576;
const maxReasonLength = 64;
const nodesInStep = 256;
