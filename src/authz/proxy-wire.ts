import { Action, Action_RbacAction } from '../wire/rbac.ts';
import { HttpRequestHeaderMatchInput } from '../wire/matching_inputs.ts';
import { TypedExtensionConfig } from '../wire/xds_core.ts';
import { Matcher_MatcherList_Predicate, type StringMatcher } from '../wire/xds_matcher.ts';
import type { Condition, Leaf, ProxyTree, TextTest, TreeInput } from './proxy-tree.ts';
import type { Steps } from './steps.ts';

/**
 * Encodes a tree as the `Matcher` of an RBAC filter. It is put together from its parts, so that no step is long and what
 * thousands of branches share is encoded once.
 * @see xds.type.matcher.v3.Matcher
 */
export function* encodeMatcher(tree: ProxyTree): Steps<Buffer> {
  const known = new Map<ProxyTree, Buffer>();
  // A leaf is no matcher: it is what a matcher without entries comes to.
  return tree.kind === 'leaf' ? field(3, encodeLeaf(tree)) : yield* encodeNode(tree, known);
}

/** The bytes of an `envoy.extensions.filters.http.rbac.v3.RBAC` with that matcher. */
export function httpFilter(matcher: Buffer): Buffer {
  return field(4, matcher);
}

/**
 * The bytes of an `envoy.extensions.filters.network.rbac.v3.RBAC` with that matcher. It stands there twice: Envoy 1.40
 * tells the filters behind it nothing of `matcher`, and of `shadow_matcher`, which decides nothing, the leaf.
 */
export function networkFilter(matcher: Buffer): Buffer {
  return Buffer.concat([field(3, Buffer.from(networkPrefix)), field(6, matcher), field(7, matcher)]);
}

/** How the statistics of the network filter begin. */
export const networkPrefix = 'countersign_tcp';

/** The type of each input; `header` of those that are headers. */
export const inputTypes: Readonly<Record<TreeInput, { readonly type: string; readonly header: string }>> = {
  uri: { type: 'envoy.extensions.matching.common_inputs.ssl.v3.UriSanInput', header: '' },
  path: { type: 'envoy.type.matcher.v3.HttpRequestHeaderMatchInput', header: ':path' },
  method: { type: 'envoy.type.matcher.v3.HttpRequestHeaderMatchInput', header: ':method' },
  host: { type: 'envoy.type.matcher.v3.HttpRequestHeaderMatchInput', header: ':authority' },
  port: { type: 'envoy.extensions.matching.common_inputs.network.v3.DestinationPortInput', header: '' },
};

/** Name and type of what stands in a leaf; the name is read by nobody. */
export const leafExtension = 'a';
export const actionType = 'envoy.config.rbac.v3.Action';
export const typePrefix = 'type.googleapis.com/';

/** A `Matcher`. INVARIANT: no branch and no rest is left out. */
function* encodeNode(tree: Exclude<ProxyTree, Leaf>, known: Map<ProxyTree, Buffer>): Steps<Buffer> {
  const parts: Buffer[] = [];
  let steps = 0;
  if (tree.kind === 'list') {
    for (const [condition, below] of tree.entries) {
      if (steps++ % partsInStep === 0) yield;
      const predicate = Matcher_MatcherList_Predicate.encode(predicateOf(condition)).finish();
      parts.push(field(1, field(1, predicate), field(2, yield* encodeOnMatch(below, known))));
    }
  } else {
    for (const [key, below] of tree.branches) {
      if (steps++ % partsInStep === 0) yield;
      parts.push(field(1, field(1, Buffer.from(key)), field(2, yield* encodeOnMatch(below, known))));
    }
  }
  yield;
  const rest = field(3, yield* encodeOnMatch(tree.otherwise, known));
  if (tree.kind === 'list') return Buffer.concat([field(1, ...parts), rest]);
  const input = field(1, TypedExtensionConfig.encode(inputOf(tree.input)).finish());
  return Buffer.concat([field(2, input, field(tree.by === 'exact' ? 2 : 3, ...parts)), rest]);
}

/** An `OnMatch`. */
function* encodeOnMatch(tree: ProxyTree, known: Map<ProxyTree, Buffer>): Steps<Buffer> {
  const before = known.get(tree);
  if (before !== undefined) return before;
  const bytes = tree.kind === 'leaf' ? encodeLeaf(tree) : field(1, yield* encodeNode(tree, known));
  known.set(tree, bytes);
  return bytes;
}

/** An `OnMatch` with an action. */
function encodeLeaf({ verdict, name }: Leaf): Buffer {
  const action = verdict === 'deny' ? Action_RbacAction.DENY : Action_RbacAction.ALLOW;
  const value = Buffer.from(Action.encode({ name, action }).finish());
  return field(
    2,
    TypedExtensionConfig.encode({
      name: leafExtension,
      typedConfig: { typeUrl: typePrefix + actionType, value },
    }).finish(),
  );
}

function inputOf(input: TreeInput): TypedExtensionConfig {
  const { type, header } = inputTypes[input];
  const value =
    header === ''
      ? Buffer.alloc(0)
      : Buffer.from(HttpRequestHeaderMatchInput.encode({ headerName: header }).finish());
  return { name: input, typedConfig: { typeUrl: typePrefix + type, value } };
}

function predicateOf(condition: Condition): Matcher_MatcherList_Predicate {
  // INVARIANT: constants were taken out where trees are made.
  if (typeof condition === 'boolean') throw new TypeError('a constant is no predicate');
  switch (condition.kind) {
    case 'test': {
      const value = { matchPattern: patternOf(condition.test), ignoreCase: false };
      const matcher = { $case: 'valueMatch', valueMatch: value } as const;
      const singlePredicate = { input: inputOf(condition.input), matcher };
      return { matchType: { $case: 'singlePredicate', singlePredicate } };
    }
    case 'not':
      return { matchType: { $case: 'notMatcher', notMatcher: predicateOf(condition.of) } };
    case 'all':
      return { matchType: { $case: 'andMatcher', andMatcher: { predicate: condition.of.map(predicateOf) } } };
    case 'any':
      return { matchType: { $case: 'orMatcher', orMatcher: { predicate: condition.of.map(predicateOf) } } };
    default:
      return condition satisfies never;
  }
}

function patternOf({ how, text }: TextTest): StringMatcher['matchPattern'] {
  switch (how) {
    case 'exact':
      return { $case: how, exact: text };
    case 'prefix':
      return { $case: how, prefix: text };
    case 'suffix':
      return { $case: how, suffix: text };
    case 'contains':
      return { $case: how, contains: text };
    case 'regex': {
      const engineType = { $case: 'googleRe2', googleRe2: {} } as const;
      return { $case: 'safeRegex', safeRegex: { engineType, regex: text } };
    }
    default:
      return how satisfies never;
  }
}

/** A field whose value has a length, put together from its parts. */
function field(number: number, ...parts: readonly Uint8Array[]): Buffer {
  let length = 0;
  for (const part of parts) length += part.length;
  const head = [(number << 3) | 2];
  let rest = length;
  for (; rest > 0x7f; rest = Math.floor(rest / 0x80)) head.push((rest % 0x80) | 0x80);
  head.push(rest);
  return Buffer.concat([Uint8Array.from(head), ...parts], head.length + length);
}

const partsInStep = 8;
