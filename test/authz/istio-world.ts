import fc from 'fast-check';
import type { RawPolicy, RawRule } from './istio-rbac.ts';

/** Callers by the names in their certificates; the last one has none. */
export const callers = [
  ['URI:spiffe://td1/ns/shop/sa/web'],
  ['URI:spiffe://td1/ns/evil/sa/b'],
  ['URI:spiffe://td2/ns/shop/sa/web'],
  ['URI:spiffe://cluster.local/ns/pay/sa/web-2'],
  ['URI:spiffe://x/ns/bar/sa/y/ns/shop/z'],
  ['URI:spiffe://td1/ns/pay/sa/db', 'URI:spiffe://td1/ns/shop/sa/web'],
  ['DNS:shop.example'],
  [],
] as const;

/** A call, but for where it goes. */
export type GeneratedCall = {
  readonly caller: number;
  readonly method: string;
  readonly path: string;
  readonly host: string;
  readonly headers: readonly (readonly [string, string])[];
  readonly sourceIp: string;
  readonly sni: string | null;
};

const some = <T>(...values: readonly T[]) => fc.constantFrom(...values);
const list = (value: fc.Arbitrary<string>) => fc.uniqueArray(value, { minLength: 1, maxLength: 3 });

const principal = some(
  'td1/ns/shop/sa/web',
  'cluster.local/ns/shop/sa/web',
  'td2/ns/shop/sa/web',
  'td1/ns/shop/*',
  '*/sa/web',
  '*1/ns/shop/sa/web',
  '*/ns/pay/sa/web-2',
  'td*',
  '*',
);
const namespace = some('shop', 'pay', 's*', '*a', '*', 'e*l', 'sh.p', 'ns');
const account = some('web', 'shop/web', 'pay/db', 'pay/web-2', 'evil/b');
const trustDomain = some('td1', 'td2', 'td*', '*d1', '*', 'cluster.local', 'x');
const block = some('127.0.0.1', '127.0.0.2/31', '127.0.0.0/8', '10.0.0.0/8', '::1');
const host = some('a.example', 'A.example:*', '*.example', 'a.example:80', 'a*', '*');
const method = some('GET', 'POST', 'P*', '*T', 'get', '*');
const path = some(
  '/a',
  '/a/b',
  '/a/*',
  '/a*',
  '*b',
  '*',
  '/a/{*}',
  '/a/{**}',
  '/{*}/b',
  '/a/{**}/b',
  '/a/{**}/',
  '/{*}/{**}',
  '/admin',
  '/a%2Fb',
  '/x//y',
);
const headerValue = some('v', 'v*', '*w', '*', 'v,w');
const sni = some('a.example', '*.example', '*', 'b*');

/** One or two fields, so that rules match now and then. */
function fields(of: Readonly<Record<string, fc.Arbitrary<string>>>) {
  const both = Object.keys(of).flatMap((field) => [
    field,
    `not${field.charAt(0).toUpperCase()}${field.slice(1)}`,
  ]);
  const valuesOf = (name: string) =>
    of[name] ?? of[name.charAt(3).toLowerCase() + name.slice(4)] ?? fc.constant('');
  return fc
    .uniqueArray(fc.constantFrom(...both), { minLength: 1, maxLength: 2 })
    .chain((names) => fc.record(Object.fromEntries(names.map((name) => [name, list(valuesOf(name))]))));
}

function sourceFields() {
  const identity = fields({
    principals: principal,
    namespaces: namespace,
    trustDomains: trustDomain,
    ipBlocks: block,
  });
  return fc.oneof(
    { weight: 4, arbitrary: identity },
    {
      weight: 1,
      arbitrary: fields({ serviceAccounts: account, ipBlocks: block, trustDomains: trustDomain }),
    },
  );
}

function whens(ports: readonly number[]) {
  const values = (key: string, value: fc.Arbitrary<string>) =>
    fc.oneof(
      list(value).map((all) => ({ key, values: all })),
      list(value).map((all) => ({ key, notValues: all })),
    );
  return fc.oneof(
    values('request.headers[X-H]', headerValue),
    values('source.ip', block),
    values('remote.ip', block),
    values('source.namespace', namespace),
    values('source.principal', principal),
    values('destination.ip', block),
    values('destination.port', some(...ports.map(String), '1')),
    values('connection.sni', sni),
  );
}

function rule(ports: readonly number[]): fc.Arbitrary<RawRule> {
  const operation = fields({
    hosts: host,
    methods: method,
    paths: path,
    ports: some(...ports.map(String), '1'),
  });
  return fc
    .record(
      {
        from: fc.array(sourceFields(), { minLength: 1, maxLength: 2 }),
        to: fc.array(operation, { minLength: 1, maxLength: 2 }),
        when: fc.array(whens(ports), { minLength: 1, maxLength: 2 }),
      },
      { requiredKeys: [] },
    )
    .map(({ from, to, when }) => ({
      ...(from === undefined ? {} : { from: from.map((source) => ({ source })) }),
      ...(to === undefined ? {} : { to: to.map((one) => ({ operation: one })) }),
      ...(when === undefined ? {} : { when }),
    }));
}

/** One to three policies of the namespace shop, with the ports of the listeners among their values. */
export function policies(ports: readonly number[]): fc.Arbitrary<readonly RawPolicy[]> {
  return fc
    .array(
      fc.record({
        action: fc.oneof(
          { weight: 2, arbitrary: fc.constant('ALLOW' as const) },
          { weight: 1, arbitrary: fc.constant('DENY' as const) },
        ),
        rules: fc.array(rule(ports), { maxLength: 3 }),
      }),
      { minLength: 1, maxLength: 3 },
    )
    .map((all) =>
      all.map(({ action, rules }, index) => ({
        apiVersion: 'security.istio.io/v1',
        kind: 'AuthorizationPolicy',
        metadata: { name: `p${index}`, namespace: 'shop' },
        spec: { action, rules: action === 'DENY' && rules.length === 0 ? [{}] : rules },
      })),
    );
}

const piece = some(
  'a',
  'b',
  '..',
  '.',
  '%61',
  '%2e%2e',
  '%2F',
  '%2f',
  '',
  'admin',
  'x',
  'y',
  '%25',
  '..;p=1',
  'a;p',
  '\\',
  '%5c',
  '%00',
  'a=b*',
  '%7E',
);

export const calls: fc.Arbitrary<GeneratedCall> = fc.record({
  caller: fc.nat({ max: callers.length - 1 }),
  method: some('GET', 'POST', 'PUT', 'DELETE'),
  path: fc.oneof(
    { weight: 3, arbitrary: some('/a', '/a/b', '/a/', '/admin', '/a/x/b', '/a//b', '/x//y') },
    {
      weight: 2,
      arbitrary: fc
        .tuple(fc.array(piece, { minLength: 1, maxLength: 4 }), some('', '', '?q=/admin', '#f'))
        .map(([pieces, rest]) => `/${pieces.join('/')}${rest}`),
    },
  ),
  host: some('a.example', 'A.EXAMPLE', 'a.example:80', 'b.example', 'a.example.'),
  headers: fc.array(fc.tuple(some('x-h', 'X-H'), some('v', 'w', 'v,w', 'vw', '')), { maxLength: 2 }),
  sourceIp: some('127.0.0.1', '127.0.0.2', '127.0.0.3'),
  sni: some(null, 'a.example', 'b.test'),
});
