import fc from 'fast-check';
import { untold } from '../../src/authz/context.ts';
import type { AuthzRequest } from '../../src/authz/decision.ts';
import type { Policy } from '../../src/authz/policy.ts';
import { SpiffeId } from '../../src/spiffe/id.ts';
import { policyText, readPolicies } from './mesh.ts';

/**
 * What rules may say of one thing, and values of it of which each combination of those words is met by one: so whatever can
 * happen happens among the calls that are made of them.
 */
type Vocabulary = {
  readonly from?: Readonly<Record<string, readonly string[]>>;
  readonly to?: Readonly<Record<string, readonly string[]>>;
  readonly when?: Readonly<Record<string, readonly string[]>>;
  readonly values: readonly Partial<AuthzRequest>[];
};

const id = (text: string) => ({ source: SpiffeId.parse(`spiffe://${text}`) });
const header = (lines: readonly string[] | undefined) => ({
  context: { ...untold, headerLines: () => lines, claims: null },
});
const subsets = (all: readonly string[]): readonly string[][] =>
  all.reduce<string[][]>((found, one) => [...found, ...found.map((some) => [...some, one])], [[]]);

const vocabularies = {
  callers: {
    from: {
      principals: ['example.org/ns/a/sa/x', 'example.org/ns/a/*', '*/x', '*'],
      namespaces: ['a', 'b', 'a*', '*'],
      serviceAccounts: ['a/x', 'b/x'],
      trustDomains: ['example.org', 'other*'],
    },
    values: [
      ...[
        'a/sa/x',
        'a/sa/y',
        'ab/sa/x',
        'ab/sa/y',
        'b/sa/x',
        'b/sa/y',
        'c/sa/x',
        'c/sa/y',
        'a/job/y',
        'a/job/x',
      ].map((tail) => id(`example.org/ns/${tail}`)),
      ...[
        'example.org/job',
        'example.org/x',
        'other.org/ns/a/sa/x',
        'other.org/job',
        'third.org/x',
        'third.org/y',
      ].map(id),
    ],
  },
  methods: {
    to: { methods: ['GET', 'POST', 'P*', '*'] },
    values: ['GET', 'POST', 'PUT', 'X'].map((method) => ({ method })),
  },
  paths: {
    to: { paths: ['/a', '/a/*', '*/b', '/{*}/b', '/a/{**}', '*'] },
    values: ['/a', '/a/', '/a/b', '/a/c', '/x/b', '/x', '/x/y/b', '/a/y/b', '/'].map((path) => ({ path })),
  },
  ports: {
    to: { ports: ['80', '81'] },
    values: [80, 81, 82, 0].map((port) => ({ port })),
  },
  hosts: {
    to: { hosts: ['h', 'h:80', '*.h', '*:80'] },
    values: ['h', 'x.h', 'z'].flatMap((host) => [null, 80, 81].map((hostPort) => ({ host, hostPort }))),
  },
  headers: {
    when: { 'request.headers[x-a]': ['a', 'a*', '*b', '*'] },
    values: [...subsets(['a', 'ab', 'b', 'z', '', 'az']).map(header), header(undefined)],
  },
  addresses: {
    from: { ipBlocks: ['10.0.0.0/8', '10.1.0.0/16', '::/0'], remoteIpBlocks: ['10.1.0.0/16'] },
    values: ['10.0.0.1', '10.1.0.1', '9.0.0.1', '2001:db8::1', undefined].map((ip) => ({
      context: { ...untold, sourceIp: ip, remoteIp: ip, claims: null, headerLines: () => [] },
    })),
  },
} as const satisfies Readonly<Record<string, Vocabulary>>;

/** Worlds small enough that all of their calls can be made. */
export const smallWorlds: readonly (readonly (keyof typeof vocabularies)[])[] = [
  ['callers', 'methods', 'ports'],
  ['paths', 'methods', 'callers'],
  ['headers', 'ports'],
  ['hosts', 'ports', 'methods'],
  ['addresses', 'paths', 'ports'],
];

/** Two identities, one of them with two registrations that differ. */
export const inhabitants = [
  { id: SpiffeId.parse('spiffe://example.org/ns/pay/sa/ledger'), labels: { app: 'l' } },
  { id: SpiffeId.parse('spiffe://example.org/ns/pay/sa/two'), labels: { app: 'l' } },
  { id: SpiffeId.parse('spiffe://example.org/ns/pay/sa/two'), labels: { app: 'm' } },
];

/** All calls of a world, to both of its destinations. */
export function* callsOf(world: readonly (keyof typeof vocabularies)[]): Generator<AuthzRequest> {
  for (const destination of new Map(inhabitants.map((one) => [one.id.text, one.id])).values()) {
    const blank = {
      ...({
        protocol: 'http',
        source: SpiffeId.parse('spiffe://example.org/ns/c/sa/y'),
        destination,
      } as const),
      ...{ method: 'GET', path: '/', host: 'z', hostPort: null, port: 8_080 },
      context: { ...untold, claims: null, headerLines: () => [] },
    };
    for (const call of product(blank, world)) yield call;
    const connection = { ...blank, protocol: 'tcp', method: '', path: '', host: '' } as const;
    const connected = world.filter((name) => name === 'callers' || name === 'ports' || name === 'addresses');
    for (const call of product(connection, connected)) yield call;
  }
}

function* product(
  call: AuthzRequest,
  [first, ...more]: readonly (keyof typeof vocabularies)[],
): Generator<AuthzRequest> {
  if (first === undefined) {
    yield call;
    return;
  }
  for (const value of vocabularies[first].values) {
    yield* product({ ...call, ...value }, more);
  }
}

const some = (values: readonly string[]) =>
  fc.uniqueArray(fc.constantFrom(...values), { minLength: 1, maxLength: 2 });

function entry(fields: Readonly<Record<string, readonly string[]>>) {
  const one = fc
    .constantFrom(...Object.keys(fields))
    .chain((name) => fc.tuple(fc.constant(name), fc.nat(2), some(fields[name] ?? [])));
  return fc
    .uniqueArray(one, { minLength: 1, maxLength: 3, selector: ([name]) => name })
    .map((list) =>
      Object.fromEntries(
        list.map(([name, negate, values]) => [
          negate === 0 ? `not${name.charAt(0).toUpperCase()}${name.slice(1)}` : name,
          values,
        ]),
      ),
    );
}

/** Policies of a world, of all actions but AUDIT. */
export function policiesOf(
  world: readonly (keyof typeof vocabularies)[],
  max: number,
): fc.Arbitrary<readonly Policy[]> {
  const words = world.map((name): Vocabulary => vocabularies[name]);
  const gather = (part: 'from' | 'to' | 'when') =>
    Object.assign({}, ...words.map((one) => one[part] ?? {})) as Record<string, readonly string[]>;
  const [from, to, when] = [gather('from'), gather('to'), gather('when')];
  const parts = {
    ...(Object.keys(from).length === 0
      ? {}
      : {
          from: fc.array(
            entry(from)
              .filter(isSource)
              .map((source) => ({ source })),
            { minLength: 1, maxLength: 2 },
          ),
        }),
    ...(Object.keys(to).length === 0
      ? {}
      : {
          to: fc.array(
            entry(to).map((operation) => ({ operation })),
            { minLength: 1, maxLength: 2 },
          ),
        }),
    ...(Object.keys(when).length === 0
      ? {}
      : {
          when: fc.array(
            fc
              .constantFrom(...Object.keys(when))
              .chain((key) =>
                fc.oneof(
                  fc.record({ key: fc.constant(key), values: some(when[key] ?? []) }),
                  fc.record({ key: fc.constant(key), notValues: some(when[key] ?? []) }),
                ),
              ),
            { minLength: 1, maxLength: 2 },
          ),
        }),
  };
  const rule = fc.record<Record<string, unknown>>(parts, { requiredKeys: [] });
  const toOnly = fc.record(
    'to' in parts
      ? { to: (parts as { to: fc.Arbitrary<unknown> }).to }
      : ({} as { to: fc.Arbitrary<unknown> }),
    {
      requiredKeys: [],
    },
  );
  const body = fc
    .record({
      action: fc.constantFrom('ALLOW', 'ALLOW', 'ALLOW', 'DENY', 'DENY', 'CUSTOM', 'GRANT', 'LIFTABLE'),
      rules: fc.array(rule, { minLength: 1, maxLength: 3 }),
      custom: fc.array(toOnly, { minLength: 1, maxLength: 1 }),
      selector: fc.constantFrom({}, {}, { selector: { matchLabels: { app: 'l' } } }),
    })
    .map(({ action, rules, custom, selector }) => {
      const grant = { ticket: 't', breakGlass: { reason: 'r' }, expiresAt: '2026-11-21T20:00:00Z' };
      if (action === 'CUSTOM') return { action, provider: { name: 'p' }, rules: custom, ...selector };
      if (action === 'GRANT') return { ...grant, rules, ...selector };
      return action === 'LIFTABLE'
        ? { action: 'DENY', liftable: true, rules, ...selector }
        : { action, rules, ...selector };
    });
  return fc.array(body, { minLength: 1, maxLength: max }).map((bodies) =>
    bodies.flatMap((one, i) =>
      readPolicies(
        policyText(
          Object.entries(one)
            .map(([name, value]) => `${name}: ${JSON.stringify(value)}`)
            .join('\n'),
          `p${i}`,
        ),
      ),
    ),
  );
}

function isSource(source: Readonly<Record<string, unknown>>): boolean {
  const has = (field: string): boolean =>
    Object.keys(source).some((name) => name.toLowerCase().endsWith(field));
  return !has('serviceaccounts') || !(has('principals') || has('namespaces'));
}
