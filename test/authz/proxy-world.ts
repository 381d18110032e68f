import fc from 'fast-check';
import { type CallContext, untold } from '../../src/authz/context.ts';
import type { Policy } from '../../src/authz/policy.ts';
import { SpiffeId } from '../../src/spiffe/id.ts';
import { policyText, readPolicies } from './mesh.ts';
import type { ProxiedCall } from './envoy-tree.ts';

const some = <T>(...values: readonly T[]) => fc.constantFrom(...values);

/** Calls as proxies get them, most of them plain and some hostile; ports and hosts are those of generated rules. */
export type WorldCall = ProxiedCall & { readonly context: CallContext };

const ids = ['a/sa/x', 'a/sa/y', 'b/sa/x', 'ab/sa/y', 'evil/sa/b', 'aa/sa/xx', 'a/sa/x2'].map(
  (tail) => `spiffe://example.org/ns/${tail}`,
);
/** Enough to be looked up rather than compared. */
const crowd = ['a', 'b', 'c', 'd'].flatMap((namespace) =>
  Array.from({ length: 8 }, (_, i) => `example.org/ns/${namespace}/sa/s${i}`),
);
const callers: fc.Arbitrary<readonly string[]> = fc.oneof(
  { weight: 12, arbitrary: some(...crowd).map((principal) => [`spiffe://${principal}`]) },
  { weight: 30, arbitrary: some(...ids).map((id) => [id]) },
  {
    weight: 6,
    arbitrary: some('spiffe://example.org/job', 'spiffe://other.org/ns/a/sa/x').map((id) => [id]),
  },
  {
    weight: 4,
    arbitrary: some(
      [],
      [ids[0]!, ids[1]!],
      [ids[0]!, ids[0]!],
      ['spiffe://example.org'],
      ['spiffe://example.org/ns/a/sa/x/'],
      ['spiffe://example.org/ns/a/sa/x/more'],
      ['spiffe://example.org/ns/a//sa/x'],
      ['spiffe://example.org/ns/../ns/a/sa/x'],
      ['spiffe://EXAMPLE.org/ns/a/sa/x'],
      ['https://example.org/ns/a/sa/x'],
      [`spiffe://example.org/${'a'.repeat(2_100)}`],
      ['spiffe://example.org/ns/a/sa/x,spiffe://example.org/ns/a/sa/y'],
      ['spiffe://example.org/ns/a/sa/\u00fc'],
      [''],
    ),
  },
);
const plainPath = some('/', '/a', '/a/', '/a/b', '/a/b/', '/a/b/c', '/b', '/ab', '/a.b', '/...', '/a/..b');
const paths: fc.Arbitrary<string> = fc.oneof(
  { weight: 20, arbitrary: plainPath },
  {
    weight: 6,
    arbitrary: fc.tuple(plainPath, some('?', '?q=1', '?/a/b', '?a?b', '?%2e')).map(([a, b]) => a + b),
  },
  {
    weight: 6,
    arbitrary: some(
      ...[
        '/%61',
        '/a%2fb',
        '/a/../b',
        '/a/./b',
        '/a//b',
        '//a',
        '/..',
        '/a/..',
        '/a;x',
        '/a#b',
        '/a?b#c',
        '',
      ],
      ...[
        'a',
        '*',
        '/a\\b',
        '/a b',
        '/a\u00e9',
        '/a%',
        '/a%zz',
        '/a?b c',
        `/${'a'.repeat(9_000)}`,
        '/a\u0000',
        '/a?\u0001',
      ],
      ...[`/a?${'q'.repeat(2_000)}`, '/a,b', '/a%20b', '/A', 'http://h/a', '/./a', '/a/.'],
    ),
  },
);
const methods = fc.oneof(
  { weight: 20, arbitrary: some('GET', 'POST', 'PUT', 'DELETE') },
  { weight: 2, arbitrary: some('P', 'get', 'CONNECT', 'PURGE', 'X'.repeat(65), 'GE T', '', 'GET,GET') },
);
const hosts = fc.oneof(
  {
    weight: 20,
    arbitrary: some('h', 'x.h', 'h.x', 'z', 'h:80', 'h:81', 'x.h:80', '10.0.0.1', '10.0.0.1:80'),
  },
  {
    weight: 4,
    arbitrary: some(
      ...[
        'H',
        'h.',
        'h.:80',
        'u@h',
        '',
        ':80',
        'h:0',
        'h:080',
        'h:99999',
        '[::1]',
        '[::1]:80',
        'h,x.h',
        'h h',
      ],
      ...[
        '127.1',
        '0x7f000001',
        'x.0x7f',
        'h:',
        'h:80:80',
        `${'a'.repeat(64)}.h`,
        `${'a.'.repeat(130)}h`,
        'h\u00e9',
        '..',
      ],
    ),
  },
);
const lines = some('a', 'b', 'ab', '');
const headers = fc.array(fc.tuple(some('x-a', 'x-b', 'x_a', 'connection'), lines), { maxLength: 2 });

export const worldCall: fc.Arbitrary<WorldCall> = fc
  .record({
    uris: callers,
    method: methods,
    path: paths,
    host: hosts,
    more: headers,
    port: fc.oneof(
      { weight: 10, arbitrary: some<number | null>(80, 81) },
      { weight: 1, arbitrary: some(null) },
    ),
    sourceIp: some('10.1.2.3', '10.9.9.9', '2001:db8::1'),
    sni: some('', 'h', 'x.h'),
  })
  .map(({ uris, method, path, host, more, port, sourceIp, sni }) => ({
    uris,
    port,
    headers: [
      [':method', method] as const,
      [':path', path] as const,
      ...(host === '' ? [] : [[':authority', host] as const]),
      ...more,
    ],
    context: {
      ...untold,
      ...{ sourceIp, remoteIp: sourceIp, destinationIp: '10.0.0.9', sni },
      headerLines: (name: string) => more.filter(([each]) => each === name).map(([, line]) => line),
    },
  }));

const list = (...values: readonly string[]) =>
  fc.uniqueArray(some(...values), { minLength: 1, maxLength: 3 });
const principals = [
  ...['example.org/ns/a/sa/x', 'example.org/ns/ab/sa/y', 'example.org/job', 'example.org/ns/evil/sa/b'],
  ...['example.org/ns/a/*', 'other.org/*', '*/sa/y'],
];
const source = fc.oneof(
  fc.record({ principals: list(...principals) }),
  fc.record({ namespaces: list('a', 'b', 'ab', 'a*') }),
  fc.record({ serviceAccounts: list('a/x', 'b/x') }),
  fc.record({ notPrincipals: list(...principals) }),
  fc.record({ notNamespaces: list('a', 'b', 'evil') }),
  fc.record({ trustDomains: list('example.org', 'other.org') }),
);
const operation = fc.oneof(
  {
    weight: 3,
    arbitrary: fc.record({ methods: list('GET', 'POST', 'PUT'), paths: list('/a', '/a/*', '/b', '/a/b') }),
  },
  fc.record({ methods: list('GET', 'POST') }),
  fc.record({ paths: list('/a', '/a/*', '/{*}/b', '*b', '/a/b*', '/ab') }),
  fc.record({ notPaths: list('/a', '/b', '/a/*') }),
  fc.record({ ports: list('80', '81') }),
  fc.record({ hosts: list('h', 'h:80', '*.h', 'h.*', 'h:*'), notMethods: list('DELETE') }),
  fc.record({ notHosts: list('h:80', 'x.h') }),
);
const rule = fc.record(
  { from: entries('source', source), to: entries('operation', operation) },
  { requiredKeys: ['from'] },
);
const headerRule = fc.record({
  when: fc.constant([{ key: 'request.headers[x-a]', values: ['a'] }]),
  to: entries('operation', operation),
});

/** Policies as most meshes have them: callers, methods, paths, hosts and ports; now and then a header. */
export const ordinaryPolicies = policiesOf(
  fc.oneof({ weight: 20, arbitrary: rule }, { weight: 1, arbitrary: headerRule }),
  6,
);

const crowdSource = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({ principals: fc.uniqueArray(some(...crowd), { minLength: 2, maxLength: 20 }) }),
  },
  {
    weight: 1,
    arbitrary: fc.record({ notPrincipals: fc.uniqueArray(some(...crowd), { minLength: 2, maxLength: 9 }) }),
  },
  { weight: 2, arbitrary: source },
);
const crowdRule = fc.oneof(
  {
    weight: 3,
    arbitrary: fc.record({ from: entries('source', crowdSource), to: entries('operation', operation) }),
  },
  // Rules that ask the same of a request, which is looked at first.
  {
    weight: 4,
    arbitrary: fc.record({
      from: entries('source', crowdSource),
      to: some([{ operation: { paths: ['/a', '/a/*'] } }], [{ operation: { methods: ['GET'] } }]),
    }),
  },
  { weight: 1, arbitrary: fc.record({ to: entries('operation', operation) }) },
  {
    weight: 2,
    arbitrary: fc.record({
      from: entries('source', crowdSource),
      to: entries(
        'operation',
        fc.record({ paths: fc.uniqueArray(manyPaths(), { minLength: 4, maxLength: 12 }) }),
      ),
    }),
  },
);

/** Policies that name so many callers and paths that a tree leads to them by what they name. */
export const crowdedPolicies = policiesOf(crowdRule, 8);

function manyPaths(): fc.Arbitrary<string> {
  const end = some('', '/', '/*', '*', '/b', '/b/*', '/{*}', '/{**}');
  return fc.tuple(some('/a', '/b', '/a/b', '/ab', '/c'), end).map(([start, rest]) => start + rest);
}

function entries(name: string, arbitrary: fc.Arbitrary<object>): fc.Arbitrary<readonly object[]> {
  return fc.array(
    arbitrary.map((one) => ({ [name]: one })),
    { minLength: 1, maxLength: 2 },
  );
}

function policiesOf(rules: fc.Arbitrary<object>, max: number): fc.Arbitrary<readonly Policy[]> {
  const one = fc.record({
    action: some('ALLOW', 'ALLOW', 'ALLOW', 'DENY'),
    rules: fc.array(rules, { minLength: 1, maxLength: 4 }),
  });
  return fc
    .array(one, { minLength: 1, maxLength: max })
    .map((all) =>
      all.flatMap(({ action, rules: made }, i) =>
        readPolicies(policyText(`action: ${action}\nrules: ${JSON.stringify(made)}`, `p${i}`)),
      ),
    );
}

/** The one plain ID of a caller, or null. */
export function idOf({ uris }: ProxiedCall): SpiffeId | null {
  const [uri] = uris;
  if (uris.length !== 1 || uri === undefined) return null;
  try {
    return SpiffeId.parseWorkload(uri);
  } catch {
    return null;
  }
}
