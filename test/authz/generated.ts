import fc from 'fast-check';
import type { AuthzRequest } from '../../src/authz/decision.ts';
import type { Policy } from '../../src/authz/policy.ts';
import { SpiffeId } from '../../src/spiffe/id.ts';
import { policyText, readPolicies } from './mesh.ts';

/** Small alphabets, so that generated rules and requests meet. */
const principals = [
  ...['example.org/ns/a/sa/x', 'example.org/ns/ab/sa/y', 'example.org/job', 'other.org/*'],
  ...[
    'example.org/ns/a/sa/*',
    'example.org/ns/a/*',
    'example.org/ns/a*',
    'example.org/ns/*',
    'example.org/n*',
  ],
  ...['*/sa/y', '*/y', '*a/x', '*sa/x', '*'],
];
const namespaces = ['a', 'b', 'a*', '*b', '*'];
const methods = ['GET', 'POST', 'P*', '*'];
const paths = ['/', '/a', '/a/b', '/a*', '/a/*', '/a/b*', '*/b', '*b', '*a/b', '*'];
const hosts = ['h', 'h:80', '*.h', 'h.*', '*:80', 'h:*', '*'];
const ports = ['80', '81'];

const sources = ['a/sa/x', 'a/sa/y', 'b/sa/x', 'ab/sa/y', 'evil/sa/b', 'aa/sa/xx', 'a/sa/x2'].map(
  (tail) => `spiffe://example.org/ns/${tail}`,
);
const destinations = ['pay/sa/ledger', 'pay/sa/two', 'shop/sa/web'].map(
  (tail) => `spiffe://example.org/ns/${tail}`,
);

/** Several IDs, one of them given by two entries whose labels differ. */
export const workloads = [
  { id: SpiffeId.parse('spiffe://example.org/ns/pay/sa/ledger'), labels: { app: 'l', tier: 'x' } },
  { id: SpiffeId.parse('spiffe://example.org/ns/pay/sa/two'), labels: { app: 'l' } },
  { id: SpiffeId.parse('spiffe://example.org/ns/pay/sa/two'), labels: { app: 'm', tier: 'x' } },
];

export const request: fc.Arbitrary<AuthzRequest> = fc
  .record({
    source: fc.option(
      fc.constantFrom(...sources, 'spiffe://example.org/job', 'spiffe://other.org/ns/a/sa/x'),
      {
        freq: 20,
      },
    ),
    destination: fc.constantFrom(
      ...destinations,
      'spiffe://example.org/job',
      'spiffe://other.org/ns/pay/sa/l',
    ),
    http: fc.boolean(),
    method: fc.constantFrom('GET', 'POST', 'PUT', 'P'),
    path: fc.constantFrom('/', '/a', '/a/', '/a/b', '/b', '/ab'),
    host: fc.constantFrom('h', 'x.h', 'h.x', 'z'),
    hostPort: fc.constantFrom(null, 80, 81),
    port: fc.constantFrom(0, 80, 81),
  })
  .map(({ source, destination, http, ...rest }): AuthzRequest => ({
    ...(http ? rest : { method: '', path: '', host: '', hostPort: null, port: rest.port }),
    protocol: http ? 'http' : 'tcp',
    source: source === null ? null : SpiffeId.parse(source),
    destination: SpiffeId.parse(destination),
  }));

const some = (values: readonly string[]) =>
  fc.uniqueArray(fc.constantFrom(...values), { minLength: 1, maxLength: 3 });

/** One field and its values, negated at times. */
function fields(names: Readonly<Record<string, readonly string[]>>) {
  const one = fc
    .constantFrom(...Object.keys(names))
    .chain((name) => fc.tuple(fc.constant(name), fc.nat(4), some(names[name] ?? [])));
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

const from = fc.array(
  fields({ principals, namespaces }).map((source) => ({ source })),
  { minLength: 1, maxLength: 2 },
);
const to = fc.array(
  fields({ methods, paths, hosts, ports }).map((operation) => ({ operation })),
  { minLength: 1, maxLength: 2 },
);
// A rule for everything decides every call, so it must be rare.
const rule = fc.oneof(
  { weight: 20, arbitrary: fc.record({ from, to }) },
  { weight: 10, arbitrary: fc.record({ from }) },
  { weight: 10, arbitrary: fc.record({ to }) },
  { weight: 1, arbitrary: fc.constant({}) },
);

const spec = fc.record({
  action: fc.constantFrom('ALLOW', 'ALLOW', 'DENY'),
  rules: fc.array(rule, { minLength: 1, maxLength: 4 }),
  selector: fc.constantFrom({}, {}, { matchLabels: { app: 'l' } }, { matchLabels: { app: 'l', tier: 'x' } }),
});

const namespace = fc.constantFrom('pay', 'pay', 'shop', 'istio-system');

/** Policies as their authors write them: JSON is YAML. At most `max`, with distinct keys. */
export function policies(max: number): fc.Arbitrary<readonly Policy[]> {
  return fc
    .array(fc.tuple(spec, namespace), { maxLength: max })
    .map((list) =>
      list.flatMap(([body, where], i) => readPolicies(policyText(toFlow(body), `p${i}`, where))),
    );
}

function toFlow(body: Readonly<Record<string, unknown>>): string {
  return Object.entries(body)
    .map(([name, value]) => `${name}: ${JSON.stringify(value)}`)
    .join('\n');
}
