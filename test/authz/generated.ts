import fc from 'fast-check';
import { type CallContext, untold } from '../../src/authz/context.ts';
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
const paths = [
  ...['/', '/a', '/a/b', '/a*', '/a/*', '/a/b*', '*/b', '*b', '*a/b', '*'],
  ...['/{*}', '/a/{*}', '/{**}', '/a/{**}', '/{*}/b', '/{*}/{**}'],
];
const hosts = ['h', 'h:80', '*.h', 'h.*', '*:80', 'h:*', '*'];
const ports = ['80', '81'];
const addresses = ['10.0.0.0/8', '10.1.0.0/16', '10.1.2.3', '::/0', '::ffff:10.0.0.0/104', '2001:db8::/32'];
const texts = ['a', 'b', 'a*', '*b', '*'];

/** By the name of the field in a source or operation, or the key of `when`. */
const sourceFields = {
  principals,
  namespaces,
  serviceAccounts: ['a/x', 'x', 'b/x'],
  trustDomains: ['example.org', 'other.org', 'ex*', '*.org', '*'],
  ipBlocks: addresses,
  remoteIpBlocks: addresses,
  requestPrincipals: ['i/s', 'i/*', '*', '*/s', '*s', 'i*'],
};
const operationFields = { methods, paths, hosts, ports };
const whenKeys = {
  'request.headers[x-a]': texts,
  'request.headers[x-b]': texts,
  'request.auth.audiences': texts,
  'request.auth.presenter': texts,
  'request.auth.claims[groups]': texts,
  'request.auth.claims[n][scope]': texts,
  'request.auth.claims[scope]': texts,
  'request.auth.principal': sourceFields.requestPrincipals,
  'source.ip': addresses,
  'remote.ip': addresses,
  'destination.ip': addresses,
  'source.namespace': namespaces,
  'source.principal': principals,
  'source.serviceAccount': sourceFields.serviceAccounts,
  'source.trustDomain': sourceFields.trustDomains,
  'destination.port': ports,
  'connection.sni': ['h', 'X.H.', 'h.*', '*.h', '*'],
  'experimental.envoy.filters.http.f[k]': ['a', '[a]', 'a*', '[*]'],
};

const sources = ['a/sa/x', 'a/sa/y', 'b/sa/x', 'ab/sa/y', 'evil/sa/b', 'aa/sa/xx', 'a/sa/x2'].map(
  (tail) => `spiffe://example.org/ns/${tail}`,
);
const destinations = ['pay/sa/ledger', 'pay/sa/two', 'pay/sa/gate', 'shop/sa/web'].map(
  (tail) => `spiffe://example.org/ns/${tail}`,
);

/** Several IDs, one of them given by two entries whose labels differ. */
export const workloads = [
  { id: SpiffeId.parse('spiffe://example.org/ns/pay/sa/ledger'), labels: { app: 'l', tier: 'x' } },
  { id: SpiffeId.parse('spiffe://example.org/ns/pay/sa/two'), labels: { app: 'l' } },
  { id: SpiffeId.parse('spiffe://example.org/ns/pay/sa/two'), labels: { app: 'm', tier: 'x' } },
  {
    id: SpiffeId.parse('spiffe://example.org/ns/pay/sa/gate'),
    labels: { 'gateway.networking.k8s.io/gateway-name': 'g' },
  },
];

const lines = fc.array(fc.constantFrom('a', 'b', ' ab ', '', '\u00e9'), { maxLength: 2 });
const claim = fc.constantFrom<unknown>('a', 'b', 'a b', ['a', 'b'], ['ab', 1], [], 1, null, undefined);
const address = fc.constantFrom('10.1.2.3', '10.9.9.9', '::ffff:10.1.2.3', '2001:db8::1', 'x', undefined);

const context: fc.Arbitrary<CallContext> = fc.oneof(
  { weight: 1, arbitrary: fc.constant(untold) },
  {
    weight: 5,
    arbitrary: fc
      .record({
        headers: fc.option(fc.record({ 'x-a': lines, 'x-b': lines }), { nil: undefined, freq: 8 }),
        sourceIp: address,
        remoteIp: address,
        destinationIp: address,
        sni: fc.constantFrom('', 'h', 'x.h', 'x.h.', 'H.x', 'h x', undefined),
        claims: fc.option(
          fc.record({
            iss: fc.constantFrom<unknown>('i', 'ix', '', 1),
            sub: fc.constantFrom<unknown>('s', 'xs', ''),
            aud: claim,
            azp: claim,
            groups: claim,
            scope: claim,
            n: fc.record({ scope: claim }),
          }),
          { nil: null, freq: 6 },
        ),
        note: claim,
      })
      .map(({ headers, claims, note, ...rest }) => ({
        ...rest,
        headerLines:
          headers === undefined
            ? undefined
            : (name: string) => new Map<string, string[]>(Object.entries(headers)).get(name) ?? [],
        claims: claims === null ? null : new Map(Object.entries(claims)),
        metadata: new Map([['envoy.filters.http.f', new Map([['k', note]])]]),
      })),
  },
);

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
    context,
  })
  .map(({ source, destination, http, ...rest }): AuthzRequest => ({
    ...(http
      ? rest
      : { method: '', path: '', host: '', hostPort: null, port: rest.port, context: rest.context }),
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
  fields(sourceFields)
    .filter(isSource)
    .map((source) => ({ source })),
  { minLength: 1, maxLength: 2 },
);
const to = fc.array(
  fields(operationFields).map((operation) => ({ operation })),
  { minLength: 1, maxLength: 2 },
);
const condition = fc
  .constantFrom(...Object.entries(whenKeys))
  .chain(([key, values]) =>
    fc.oneof(
      fc.record({ key: fc.constant(key), values: some(values) }),
      fc.record({ key: fc.constant(key), notValues: some(values) }),
      fc.record({ key: fc.constant(key), values: some(values), notValues: some(values) }),
    ),
  );
const when = fc.array(condition, { minLength: 1, maxLength: 2 });
// A rule for everything decides every call, so it must be rare.
const rule = fc.oneof(
  { weight: 20, arbitrary: fc.record({ from, to }) },
  { weight: 10, arbitrary: fc.record({ from, when }) },
  { weight: 10, arbitrary: fc.record({ to, when }) },
  { weight: 10, arbitrary: fc.record({ when }) },
  { weight: 10, arbitrary: fc.record({ from }) },
  { weight: 10, arbitrary: fc.record({ to }) },
  { weight: 1, arbitrary: fc.constant({}) },
);

const attached = fc.constantFrom<Record<string, unknown>>(
  ...[{}, {}, { selector: { matchLabels: { app: 'l' } } }],
  { selector: { matchLabels: { app: 'l', tier: 'x' } } },
  { targetRefs: [{ group: 'gateway.networking.k8s.io', kind: 'Gateway', name: 'g' }] },
);
/** Around the noon that calls are judged at. */
const terms = fc.constantFrom<Record<string, string>>(
  ...Array.from({ length: 16 }, () => ({})),
  ...[{ expiresAt: '2026-11-21T12:00:00Z' }, { expiresAt: '2026-11-21T12:00:00.001Z' }],
  ...[{ notBefore: '2026-11-21T13:00:00+01:00' }, { notBefore: '2026-11-21T12:00:00.001Z' }],
  { notBefore: '2026-11-20T00:00:00Z', expiresAt: '2026-11-22T00:00:00Z' },
);
const grant = { ticket: 't', breakGlass: { reason: 'r' } };
const glass = {
  ALLOW: fc.constantFrom<Record<string, unknown>>(
    ...Array.from({ length: 10 }, () => ({})),
    { ...grant, expiresAt: '2026-11-22T00:00:00Z' },
    { ...grant, expiresAt: '2026-11-21T12:00:00Z' },
  ),
  DENY: fc.constantFrom<Record<string, unknown>>({}, {}, { liftable: true }),
} as const;
const rules = fc.array(rule, { minLength: 1, maxLength: 4 });
/** Rules of the kind that CUSTOM may have, which knows no callers. */
const customRules = fc.array(fc.record({ to }), { minLength: 1, maxLength: 2 });
const spec = fc
  .record({
    action: fc.constantFrom('ALLOW', 'ALLOW', 'ALLOW', 'DENY', 'DENY', 'AUDIT', 'CUSTOM'),
    rules,
    customRules,
    attached,
    terms,
    granted: glass.ALLOW,
    lifted: glass.DENY,
    dryRun: fc.nat(6),
  })
  .map(({ action, attached: where, terms: when, granted, lifted, dryRun, ...made }) => ({
    dryRun: dryRun === 0 && (action === 'ALLOW' || action === 'DENY'),
    body: {
      action,
      ...where,
      ...(dryRun !== 0 && action === 'ALLOW' && 'ticket' in granted ? granted : when),
      ...(dryRun !== 0 && action === 'DENY' ? lifted : {}),
      ...(action === 'CUSTOM'
        ? { provider: { name: 'asked' }, rules: made.customRules }
        : { rules: made.rules }),
    },
  }));

const namespace = fc.constantFrom('pay', 'pay', 'shop', 'istio-system');

/** Policies as their authors write them: JSON is YAML. At most `max`, with distinct keys. */
export function policies(max: number): fc.Arbitrary<readonly Policy[]> {
  return fc
    .array(fc.tuple(spec, namespace), { maxLength: max })
    .map((list) =>
      list.flatMap(([{ body, dryRun }, where], i) =>
        readPolicies(policyText(toFlow(body), `p${i}`, where, dryRun)),
      ),
    );
}

/** The things of a call that a rule may name, by which an index may file it. */
export const namable: readonly string[] = [
  ...Object.keys(sourceFields),
  ...Object.keys(operationFields),
  ...Object.keys(whenKeys),
];

/** Policies of one action for one destination, more than an index leaves as a list, each of whose rules names one thing only. */
export function policiesNaming(thing: string): fc.Arbitrary<readonly Policy[]> {
  const all: Readonly<Record<string, readonly string[]>> = {
    ...sourceFields,
    ...operationFields,
    ...whenKeys,
  };
  // A rule for anything would hide the others.
  const values = (all[thing] ?? []).filter((value) => value !== '*' && value !== '[*]');
  const rule = some(values).map((chosen) => {
    if (thing in sourceFields) return { from: [{ source: { [thing]: chosen } }] };
    if (thing in operationFields) return { to: [{ operation: { [thing]: chosen } }] };
    return { when: [{ key: thing, values: chosen }] };
  });
  return fc
    .tuple(fc.constantFrom('ALLOW', 'DENY'), fc.array(rule, { minLength: 10, maxLength: 24 }))
    .map(([action, rules]) =>
      rules.flatMap((one, i) => readPolicies(policyText(toFlow({ action, rules: [one] }), `p${i}`))),
    );
}

/** Service accounts do not stand beside the names that they are made of. */
function isSource(source: Readonly<Record<string, unknown>>): boolean {
  const has = (field: string): boolean =>
    Object.keys(source).some((name) => name.toLowerCase().endsWith(field));
  return !has('serviceaccounts') || !(has('principals') || has('namespaces'));
}

function toFlow(body: Readonly<Record<string, unknown>>): string {
  return Object.entries(body)
    .map(([name, value]) => `${name}: ${JSON.stringify(value)}`)
    .join('\n');
}
