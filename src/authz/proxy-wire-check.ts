import { MeshError } from '../errors.ts';
import { Action, Action_RbacAction } from '../wire/rbac.ts';
import { TypedExtensionConfig } from '../wire/xds_core.ts';
import { Matcher_MatcherList_Predicate } from '../wire/xds_matcher.ts';
import type { Condition, Leaf, ProxyTree, TreeInput } from './proxy-tree.ts';
import { actionType, inputTypes, leafExtension, typePrefix } from './proxy-wire.ts';
import type { Steps } from './steps.ts';

/**
 * Holds an encoded `Matcher` against the tree that it was made from: every branch and every rest is there, with the
 * action and the name that were meant. An action that was left out would allow.
 * @throws MeshError `internal` that says what differs; such bytes must never be sent
 */
export function* checkMatcher(bytes: Uint8Array, tree: ProxyTree): Steps<void> {
  if (tree.kind === 'leaf') {
    const [rest] = demand(readFields(bytes), [3]);
    yield* checkOnMatch(rest, tree);
    return;
  }
  const [node, rest] = demand(readFields(bytes), [tree.kind === 'list' ? 1 : 2, 3]);
  let steps = 0;
  if (tree.kind === 'list') {
    const entries = readFields(node);
    if (entries.length === 0 || entries.length !== tree.entries.length) fail('a list has lost entries');
    for (const [i, [condition, below]] of tree.entries.entries()) {
      if (steps++ % partsInStep === 0) yield;
      const entry = entries[i];
      if (entry?.number !== 1) fail('a list has another field');
      const [predicate, onMatch] = demand(readFields(entry.bytes), [1, 2]);
      checkPredicate(decodeExactly(Matcher_MatcherList_Predicate, predicate), condition);
      yield* checkOnMatch(onMatch, below);
    }
  } else {
    const [input, map] = demand(readFields(node), [1, tree.by === 'exact' ? 2 : 3]);
    checkInput(decodeExactly(TypedExtensionConfig, input), tree.input);
    const entries = readFields(map);
    if (entries.length === 0 || entries.length !== tree.branches.size) fail('a map has lost entries');
    const seen = new Set<string>();
    for (const { number, bytes: entry } of entries) {
      if (steps++ % partsInStep === 0) yield;
      if (number !== 1) fail('a map has another field');
      const [key, onMatch] = demand(readFields(entry), [1, 2]);
      const text = Buffer.from(key).toString('utf8');
      const below = tree.branches.get(text);
      if (below === undefined || seen.has(text)) fail('a map has another key');
      seen.add(text);
      yield* checkOnMatch(onMatch, below);
    }
  }
  yield* checkOnMatch(rest, tree.otherwise);
}

/**
 * Holds an encoded filter against the matcher that belongs into it. A filter without one lets everything pass.
 * @throws MeshError `internal`
 */
export function checkFilter(bytes: Uint8Array, protocol: 'http' | 'tcp', matcher: Uint8Array): void {
  const fields = readFields(bytes);
  const matchers = protocol === 'http' ? demand(fields, [4]) : demand(fields, [3, 6, 7]).slice(1);
  if (!matchers.every((one) => Buffer.from(matcher).equals(one))) fail('a filter has another matcher');
}

function* checkOnMatch(bytes: Uint8Array, tree: ProxyTree): Steps<void> {
  if (tree.kind !== 'leaf') {
    const [matcher] = demand(readFields(bytes), [1]);
    yield* checkMatcher(matcher, tree);
    return;
  }
  const [config] = demand(readFields(bytes), [2]);
  checkLeaf(decodeExactly(TypedExtensionConfig, config), tree);
}

function checkLeaf({ name, typedConfig }: TypedExtensionConfig, leaf: Leaf): void {
  if (name !== leafExtension || typedConfig?.typeUrl !== typePrefix + actionType)
    fail('a leaf has another type');
  const action = decodeExactly(Action, typedConfig.value);
  const meant = leaf.verdict === 'deny' ? Action_RbacAction.DENY : Action_RbacAction.ALLOW;
  const named = leaf.name.startsWith(`${leaf.verdict}:`) && action.name === leaf.name;
  if (!named || action.action !== meant) fail('a leaf has another action');
}

function checkInput({ name, typedConfig }: TypedExtensionConfig, input: TreeInput): void {
  const { type, header } = inputTypes[input];
  // A message with one text in its first field.
  const value = header === '' ? '' : `\n${String.fromCharCode(header.length)}${header}`;
  const isMeant =
    name === input &&
    typedConfig?.typeUrl === typePrefix + type &&
    typedConfig.value.toString('latin1') === value;
  if (!isMeant) fail('an input has another type');
}

function checkPredicate({ matchType }: Matcher_MatcherList_Predicate, condition: Condition): void {
  if (typeof condition === 'boolean' || matchType === undefined) fail('a predicate is missing');
  if (condition.kind === 'test' && matchType.$case === 'singlePredicate') {
    const { input, matcher } = matchType.singlePredicate;
    if (input === undefined || matcher?.$case !== 'valueMatch') fail('a predicate has lost a part');
    checkInput(input, condition.input);
    const { matchPattern: pattern, ignoreCase } = matcher.valueMatch;
    const { how, text } = condition.test;
    const isMeant =
      pattern?.$case === 'safeRegex'
        ? how === 'regex' && pattern.safeRegex.regex === text && pattern.safeRegex.engineType !== undefined
        : pattern?.$case === how && Object.values(pattern).includes(text);
    if (!isMeant || ignoreCase) fail('a predicate compares with something else');
    return;
  }
  if (condition.kind === 'not' && matchType.$case === 'notMatcher') {
    checkPredicate(matchType.notMatcher, condition.of);
    return;
  }
  const list =
    condition.kind === 'all' && matchType.$case === 'andMatcher'
      ? matchType.andMatcher
      : condition.kind === 'any' && matchType.$case === 'orMatcher'
        ? matchType.orMatcher
        : undefined;
  if (list === undefined || condition.kind === 'test' || condition.kind === 'not')
    fail('a predicate is of another kind');
  if (list.predicate.length !== condition.of.length) fail('a predicate has lost a part');
  for (const [i, one] of condition.of.entries()) {
    const part = list.predicate[i];
    if (part === undefined) fail('a predicate has lost a part');
    checkPredicate(part, one);
  }
}

type Codec<T> = {
  readonly decode: (bytes: Uint8Array) => T;
  readonly encode: (message: T) => { readonly finish: () => Uint8Array };
};

/** A message in which there is nothing that the codec does not know: a decoder passes over that. */
function decodeExactly<T>(codec: Codec<T>, bytes: Uint8Array): T {
  const message = codec.decode(bytes);
  if (!Buffer.from(codec.encode(message).finish()).equals(bytes)) fail('a message has something beside');
  return message;
}

type Field = { readonly number: number; readonly bytes: Uint8Array };

/** The fields of a message of which each has a length. */
function readFields(bytes: Uint8Array): readonly Field[] {
  const fields: Field[] = [];
  let at = 0;
  const varint = (): number => {
    let value = 0;
    for (let factor = 1; factor <= 0x1000_0000; factor *= 0x80) {
      const byte = bytes[at++];
      if (byte === undefined) break;
      value += (byte & 0x7f) * factor;
      if (byte < 0x80) return value;
    }
    return fail('a number has no end');
  };
  while (at < bytes.length) {
    const tag = varint();
    if ((tag & 7) !== 2) fail('a field has another type');
    const length = varint();
    if (at + length > bytes.length) fail('a field has no end');
    fields.push({ number: tag >> 3, bytes: bytes.subarray(at, at + length) });
    at += length;
  }
  return fields;
}

/** The values of exactly these fields, in their order. */
function demand<const Numbers extends readonly number[]>(
  fields: readonly Field[],
  numbers: Numbers,
): { readonly [Index in keyof Numbers]: Uint8Array } {
  const isThat = fields.length === numbers.length && fields.every(({ number }, i) => number === numbers[i]);
  if (!isThat) fail('a message has other fields');
  return fields.map(({ bytes }) => bytes) as unknown as { readonly [Index in keyof Numbers]: Uint8Array };
}

function fail(why: string): never {
  throw new MeshError('internal', `the encoded policy is not the one that was meant: ${why}`);
}

const partsInStep = 8;
