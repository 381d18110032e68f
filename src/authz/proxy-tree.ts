/** What a proxy can read of a call: the URI names of the caller's certificate, three headers, the connection's port. */
export const treeInputs = ['uri', 'path', 'method', 'host', 'port'] as const;
export type TreeInput = (typeof treeInputs)[number];

/** A comparison with the whole text of an input. An expression is one of RE2 and matches the whole text. */
export type TextTest = {
  readonly how: 'exact' | 'prefix' | 'suffix' | 'contains' | 'regex';
  readonly text: string;
};

/** Something that holds for a call or does not. An input without a value passes no test. */
export type Condition =
  | boolean
  | { readonly kind: 'test'; readonly input: TreeInput; readonly test: TextTest }
  | { readonly kind: 'all' | 'any'; readonly of: readonly Condition[] }
  | { readonly kind: 'not'; readonly of: Condition };

/** An answer. Its name is what the proxy tells of it. */
export type Leaf = {
  readonly kind: 'leaf';
  readonly verdict: 'allow' | 'deny' | 'ask';
  readonly name: string;
};

/** The tree that belongs to the first condition that holds. */
export type ListNode = {
  readonly kind: 'list';
  /** INVARIANT: at least one, and no condition is a constant. */
  readonly entries: readonly (readonly [Condition, ProxyTree])[];
  readonly otherwise: ProxyTree;
};

/** The tree that is filed under the text of an input, or under the longest beginning of it. */
export type MapNode = {
  readonly kind: 'map';
  readonly input: TreeInput;
  readonly by: 'exact' | 'prefix';
  /** INVARIANT: at least one; no key is empty. */
  readonly branches: ReadonlyMap<string, ProxyTree>;
  readonly otherwise: ProxyTree;
};

/**
 * Answers every call. INVARIANT: total at every node, because a proxy that finds nothing in a branch goes on outside of
 * it, where another answer may stand.
 */
export type ProxyTree = Leaf | ListNode | MapNode;

/** A test of one input. */
export function test(input: TreeInput, how: TextTest['how'], text: string): Condition {
  return { kind: 'test', input, test: { how, text } };
}

/** Whether all hold; none do. */
export function all(of: readonly Condition[]): Condition {
  const left = of.filter((one) => one !== true);
  if (left.includes(false)) return false;
  return left.length > 1 ? { kind: 'all', of: left } : (left[0] ?? true);
}

/** Whether any holds. */
export function any(of: readonly Condition[]): Condition {
  const left = of.filter((one) => one !== false);
  if (left.includes(true)) return true;
  return left.length > 1 ? { kind: 'any', of: left } : (left[0] ?? false);
}

/** Whether it does not hold. */
export function not(of: Condition): Condition {
  if (typeof of === 'boolean') return !of;
  return of.kind === 'not' ? of.of : { kind: 'not', of };
}

/** A list without what can never be reached. */
export function listOf(
  entries: readonly (readonly [Condition, ProxyTree])[],
  otherwise: ProxyTree,
): ProxyTree {
  const left = entries.filter(([condition]) => condition !== false);
  const last = left.findIndex(([condition]) => condition === true);
  const kept = last === -1 ? left : left.slice(0, last);
  const rest = left[last]?.[1] ?? otherwise;
  return kept.length === 0 ? rest : { kind: 'list', entries: kept, otherwise: rest };
}

/** A map, or what stands beside it when it would be empty. */
export function mapOf(
  input: TreeInput,
  by: MapNode['by'],
  branches: ReadonlyMap<string, ProxyTree>,
  otherwise: ProxyTree,
): ProxyTree {
  return branches.size === 0 ? otherwise : { kind: 'map', input, by, branches, otherwise };
}

/** A text as an expression of RE2 that matches nothing else. */
export function quoteRegex(text: string): string {
  return text.replace(/[\\.+*?()|[\]{}^$]/g, '\\$&');
}
