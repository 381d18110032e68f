import fc from 'fast-check';
import type { RawPolicy } from '../authz/istio-rbac.ts';

/** Callers by the names in their certificates; the first have one plain SPIFFE ID each. */
export const callers = [
  ['URI:spiffe://td1/ns/shop/sa/web'],
  ['URI:spiffe://td1/ns/pay/sa/db'],
  ['URI:spiffe://td1/ns/evil/sa/b'],
  ['URI:spiffe://td1/job'],
  ['URI:spiffe://td2/ns/shop/sa/web'],
  ['URI:spiffe://td1/ns/pay/sa/db', 'URI:spiffe://td1/ns/shop/sa/web'],
  ['URI:spiffe://td1/ns/shop/sa/web', 'URI:spiffe://td1/ns/shop/sa/web'],
  ['URI:spiffe://td1/ns/shop/sa/web,spiffe://td1/ns/pay/sa/db'],
  ['URI:spiffe://td1/ns/shop/sa/web/'],
  ['URI:spiffe://td1/ns/./shop/sa/web'],
  ['URI:https://td1/ns/shop/sa/web'],
  ['DNS:shop.example', 'URI:spiffe://td1/ns/shop/sa/web'],
  ['DNS:shop.example'],
  [],
] as const;

export type TreeCall = {
  readonly set: number;
  /** Null: no certificate at all. */
  readonly caller: number | null;
  readonly method: string;
  readonly path: string;
  readonly hosts: readonly string[];
};

const some = <T>(...values: readonly T[]) => fc.constantFrom(...values);
const list = (...values: readonly string[]) =>
  fc.uniqueArray(some(...values), { minLength: 1, maxLength: 3 });

type ByDesign = {
  readonly policies: readonly RawPolicy[];
  readonly call: Omit<TreeCall, 'set'>;
  readonly istio: 'allow' | 'deny';
  readonly tree: 'allow' | 'deny' | 'ask';
};

const plain = { caller: 0, method: 'GET', path: '/a', hosts: ['a.example'] };
const by = (action: 'ALLOW' | 'DENY', rule: RawPolicy['spec']['rules'][number]) => [made(0, action, [rule])];

/** Where strict mode and Istio differ: see the table in docs/policy.md. */
export const byDesign: readonly ByDesign[] = [
  // Only DENY policies apply, and none matches.
  {
    policies: by('DENY', { to: [{ operation: { paths: ['/b'] } }] }),
    call: plain,
    istio: 'allow',
    tree: 'deny',
  },
  // A caller without a certificate.
  {
    policies: by('ALLOW', { from: [{ source: { notPrincipals: ['td1/x'] } }] }),
    ...{ call: { ...plain, caller: null }, istio: 'allow', tree: 'ask' },
  },
  // A certificate with two names.
  {
    policies: by('ALLOW', { from: [{ source: { principals: ['td1/ns/shop/sa/web'] } }] }),
    ...{ call: { ...plain, caller: 5 }, istio: 'allow', tree: 'deny' },
  },
  // The namespace of a foreign trust domain.
  {
    policies: by('ALLOW', { from: [{ source: { namespaces: ['shop'] } }] }),
    ...{ call: { ...plain, caller: 4 }, istio: 'allow', tree: 'deny' },
  },
  // A host with a port that the rule does not name.
  {
    policies: by('ALLOW', { to: [{ operation: { hosts: ['a.example'] } }] }),
    ...{ call: { ...plain, hosts: ['a.example:80'] }, istio: 'deny', tree: 'allow' },
  },
  // A path that two programs could read differently.
  { policies: by('ALLOW', {}), call: { ...plain, path: '/a;b' }, istio: 'allow', tree: 'ask' },
];

/** Sources and operations that mean the same to Istio and in strict mode. */
const source = fc.oneof(
  fc.record({
    principals: list('td1/ns/shop/sa/web', 'td1/ns/pay/sa/db', 'td1/job', 'td2/ns/shop/sa/web', 'td1/*'),
  }),
  fc.record({ notPrincipals: list('td1/ns/shop/sa/web', 'td1/ns/pay/sa/db', 'td2/*') }),
  fc.record({ namespaces: list('shop', 'pay') }),
  fc.record({ notNamespaces: list('evil', 'pay') }),
  fc.record({ serviceAccounts: list('shop/web', 'pay/db', 'web') }),
  fc.record({ trustDomains: list('td1', 'td2') }),
);
const path = list('/a', '/a/*', '/a*', '/b', '*b', '/a/{*}', '/{**}/b', '/a/{**}', '/x.y', '*');
const operation = (ports: readonly string[]) =>
  fc.oneof(
    { weight: 3, arbitrary: fc.record({ methods: list('GET', 'POST', 'P*'), paths: path }) },
    fc.record({ paths: path, notPaths: path }),
    fc.record({ notMethods: list('GET', 'DELETE'), hosts: list('a.example', '*.example', 'a*', '*') }),
    fc.record({ hosts: list('a.example', 'b.example'), paths: path }),
    fc.record({ notHosts: list('a.example', 'b*') }),
    fc.record({ ports: list(...ports, '1') }),
    fc.record({ notPorts: list(...ports, '1'), methods: list('GET', 'PUT') }),
  );

/** One to four policies, the first of which allows something. */
export function treePolicies(ports: readonly string[]): fc.Arbitrary<readonly RawPolicy[]> {
  const from = fc.array(
    source.map((one) => ({ source: one })),
    { minLength: 1, maxLength: 2 },
  );
  const to = fc.array(
    operation(ports).map((one) => ({ operation: one })),
    { minLength: 1, maxLength: 2 },
  );
  const rule = fc.oneof(
    { weight: 3, arbitrary: fc.record({ from, to }) },
    { weight: 2, arbitrary: fc.record({ from }) },
    { weight: 1, arbitrary: fc.record({ to }) },
  );
  return fc
    .tuple(
      fc.array(rule, { minLength: 1, maxLength: 6 }),
      fc.array(
        fc.tuple(some('ALLOW' as const, 'DENY' as const), fc.array(rule, { minLength: 1, maxLength: 3 })),
        {
          maxLength: 3,
        },
      ),
    )
    .map(([first, more]) => [
      made(0, 'ALLOW', first),
      ...more.map(([action, rules], index) => made(index + 1, action, rules)),
    ]);
}

const plainPath = some(
  '/a',
  '/a/',
  '/a/b',
  '/b',
  '/x/y/b',
  '/ab',
  '/x.y',
  '/',
  '/a?q=/b',
  '/b?',
  '/a/b?x=%2e;#',
);
const oddPath = some(
  ...[
    '/%61',
    '/a/../b',
    '/a/%2e%2e/b',
    '/a//b',
    '/a;x',
    '/a;x/b',
    '/a/..;/b',
    '/a%3Bx',
    '/a%20b',
    '/a%',
    '/A',
  ],
  ...[
    '/a%252fb',
    '/a\\b',
    '/...',
    '/a/b%00',
    `/${'a'.repeat(1_200)}`,
    `/a?${'q'.repeat(1_200)}`,
    '/a/%E4',
    '/a%7e',
  ],
);

function made(index: number, action: 'ALLOW' | 'DENY', rules: RawPolicy['spec']['rules']): RawPolicy {
  return {
    apiVersion: 'security.istio.io/v1',
    kind: 'AuthorizationPolicy',
    metadata: { name: `p${index}`, namespace: 'shop' },
    spec: { action, rules },
  };
}

/** Calls, most of them plain. */
export function treeCalls(sets: number): fc.Arbitrary<TreeCall> {
  return fc.record({
    set: fc.nat({ max: sets - 1 }),
    caller: fc.oneof(
      { weight: 9, arbitrary: fc.nat({ max: 2 }) },
      { weight: 3, arbitrary: fc.nat({ max: 4 }) },
      { weight: 3, arbitrary: fc.nat({ max: callers.length - 1 }) },
      { weight: 1, arbitrary: fc.constant(null) },
    ),
    method: fc.oneof(
      { weight: 25, arbitrary: some('GET', 'POST', 'PUT', 'DELETE') },
      { weight: 1, arbitrary: some('PURGE', 'TRACE', 'M-SEARCH') },
    ),
    path: fc.oneof({ weight: 6, arbitrary: plainPath }, { weight: 1, arbitrary: oddPath }),
    hosts: fc.oneof(
      { weight: 20, arbitrary: some(['a.example'], ['b.example'], ['x.a.example']) },
      {
        weight: 2,
        arbitrary: some(
          ...[['A.example'], ['a.example.'], ['a.example:80'], ['a.example:080'], ['127.1'], ['[::1]']],
          ['a.example', 'b.example'],
        ),
      },
    ),
  });
}
