import { expect, test } from 'vitest';
import { all, any, type Leaf, not, type ProxyTree, test as testOf } from '../../src/authz/proxy-tree.ts';
import { encodeMatcher, httpFilter, networkFilter } from '../../src/authz/proxy-wire.ts';
import { checkFilter, checkMatcher } from '../../src/authz/proxy-wire-check.ts';
import { sizeOf } from '../../src/authz/proxy-size.ts';
import { finish } from '../../src/authz/steps.ts';
import { Action } from '../../src/wire/rbac.ts';
import { RBAC as HttpRbac } from '../../src/wire/rbac_filter.ts';
import { RBAC as NetworkRbac } from '../../src/wire/rbac_network_filter.ts';
import { Matcher, type Matcher_OnMatch } from '../../src/wire/xds_matcher.ts';

const leaf = (verdict: Leaf['verdict'], name: string): Leaf => ({
  kind: 'leaf',
  verdict,
  name: `${verdict}:${name}`,
});
const condition = all([
  any([testOf('path', 'exact', '/a'), testOf('path', 'prefix', '/a?')]),
  not(testOf('method', 'suffix', 'T')),
  testOf('host', 'regex', 'a.*'),
  testOf('uri', 'contains', ','),
  testOf('port', 'exact', '80'),
]);
const inner: ProxyTree = {
  kind: 'map',
  input: 'path',
  by: 'prefix',
  branches: new Map([['/a', leaf('allow', 'ns/p[0]')]]),
  otherwise: leaf('deny', 'no_allow_rule'),
};
const tree: ProxyTree = {
  kind: 'list',
  entries: [[condition, leaf('deny', 'ns/d[0]')]],
  otherwise: {
    kind: 'map',
    input: 'uri',
    by: 'exact',
    branches: new Map<string, ProxyTree>([
      ['spiffe://x/a', inner],
      ['spiffe://x/b', leaf('ask', 'time')],
    ]),
    otherwise: leaf('deny', 'no_allow_rule'),
  },
};
const bytes = finish(encodeMatcher(tree));

test('what was encoded is what was meant, and what the generated codec reads', () => {
  finish(checkMatcher(bytes, tree));
  expect(Buffer.from(Matcher.encode(Matcher.decode(bytes)).finish()).equals(bytes)).toBe(true);
  for (const one of [leaf('deny', 'no_policy'), leaf('ask', 'x')]) {
    finish(checkMatcher(finish(encodeMatcher(one)), one));
  }
  // The estimate that bounds a tree is no less than its size, but for what expressions weigh.
  expect(sizeOf(tree) - 1_024).toBeGreaterThan(bytes.length * 0.95);
});

test('no byte can be another one unseen, and none be missing', () => {
  const unseen: string[] = [];
  for (let i = 0; i < bytes.length; i++) {
    for (const bit of [0, 1 + (i % 7)]) {
      const other = Buffer.from(bytes);
      other[i] = (other[i] ?? 0) ^ (1 << bit);
      if (passes(other)) unseen.push(`bit ${bit} of byte ${i}`);
    }
    if (passes(bytes.subarray(0, i))) unseen.push(`all from byte ${i} on`);
  }
  expect(unseen).toEqual([]);
});

/** Every OnMatch of a decoded matcher, so that a row can change one. */
function onMatches(matcher: Matcher): Matcher_OnMatch[] {
  const { matcherType, onNoMatch } = matcher;
  const own =
    matcherType?.$case === 'matcherList'
      ? matcherType.matcherList.matchers.map(({ onMatch }) => onMatch)
      : matcherType?.matcherTree.treeType?.$case === 'exactMatchMap'
        ? Object.values(matcherType.matcherTree.treeType.exactMatchMap.map)
        : matcherType?.matcherTree.treeType?.$case === 'prefixMatchMap'
          ? Object.values(matcherType.matcherTree.treeType.prefixMatchMap.map)
          : [];
  return [...own, onNoMatch]
    .filter((one) => one !== undefined)
    .flatMap((one) => [one, ...(one.onMatch?.$case === 'matcher' ? onMatches(one.onMatch.matcher) : [])]);
}

const changes: readonly (readonly [string, (onMatch: Matcher_OnMatch) => boolean])[] = [
  [
    'without anything',
    (one) => {
      one.onMatch = undefined;
      return true;
    },
  ],
  ['with keep_matching', (one) => (one.keepMatching = true)],
  [
    'whose matcher has lost its rest',
    ({ onMatch }) => {
      if (onMatch?.$case !== 'matcher') return false;
      onMatch.matcher.onNoMatch = undefined;
      return true;
    },
  ],
  [
    'whose matcher has lost its branches',
    ({ onMatch }) => {
      if (onMatch?.$case !== 'matcher') return false;
      onMatch.matcher.matcherType = undefined;
      return true;
    },
  ],
  ...(['another action', 'no action', 'another name', 'no name'] as const).map(
    (what) =>
      [
        `whose leaf has ${what}`,
        ({ onMatch }: Matcher_OnMatch) => {
          if (onMatch?.$case !== 'action' || onMatch.action.typedConfig === undefined) return false;
          const { name, action } = Action.decode(onMatch.action.typedConfig.value);
          // An action that is left out is an ALLOW.
          if (what === 'no action' && action === 0) return false;
          const changed = {
            name: what === 'another name' ? `${name}x` : what === 'no name' ? '' : name,
            action:
              what === 'another action'
                ? ((action + 1) as 0 | 1 | 2)
                : what === 'no action'
                  ? (0 as const)
                  : action,
          };
          onMatch.action.typedConfig.value = Buffer.from(Action.encode(changed).finish());
          return true;
        },
      ] as const,
  ),
];

test.each(changes)('a tree with a branch %s is not sent', (_, change) => {
  const count = onMatches(Matcher.decode(bytes)).length;
  let changed = 0;
  for (let i = 0; i < count; i++) {
    const matcher = Matcher.decode(bytes);
    const one = onMatches(matcher)[i];
    if (one === undefined || !change(one)) continue;
    changed += 1;
    expect(passes(Matcher.encode(matcher).finish())).toBe(false);
  }
  expect(changed).toBeGreaterThan(0);
});

test.each([
  ['http', httpFilter(bytes)],
  ['tcp', networkFilter(bytes)],
] as const)('a filter for %s without its matcher, or with half of it, is not sent', (protocol, filter) => {
  checkFilter(filter, protocol, bytes);
  const [http, tcp] = [HttpRbac.decode(httpFilter(bytes)), NetworkRbac.decode(networkFilter(bytes))];
  expect([http.matcher, tcp.matcher, tcp.shadowMatcher]).toEqual(Array(3).fill(Matcher.decode(bytes)));
  const others = [
    ...[
      Buffer.alloc(0),
      filter.subarray(0, filter.length - 1),
      filter.subarray(filter.length - bytes.length),
    ],
    ...[httpFilter(bytes.subarray(1)), networkFilter(bytes.subarray(1)), Buffer.concat([filter, filter])],
    ...(protocol === 'http' ? [networkFilter(bytes)] : [httpFilter(bytes)]),
    NetworkRbac.encode({ ...tcp, matcher: undefined }).finish(),
    NetworkRbac.encode({ ...tcp, shadowMatcher: undefined }).finish(),
    HttpRbac.encode({ ...http, matcher: undefined, shadowMatcher: http.matcher }).finish(),
  ];
  for (const other of others)
    expect(() => checkFilter(other, protocol, bytes)).toThrow('the one that was meant');
});

function passes(other: Uint8Array): boolean {
  try {
    finish(checkMatcher(other, tree));
    return true;
  } catch {
    return false;
  }
}
