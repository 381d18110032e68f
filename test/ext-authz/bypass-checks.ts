import type { CheckInput } from './check-input.ts';

/** The certificates that rows present; see bypasses.test.ts for what is in them. */
export type Certificates = Readonly<
  Record<'web' | 'other' | 'two' | 'dnsOnly' | 'mail' | 'nul' | 'nulBefore' | 'none', string>
>;

/** A way around policy that shows in what a proxy sends us, and the reason of the one decision that it yields. */
export type CheckBypass = {
  readonly ids: string;
  readonly attack: string;
  readonly checks: (certificates: Certificates) => readonly CheckInput[];
  readonly reason: string;
  /** Headers that the application must not see, when the call is allowed. */
  readonly removed?: readonly string[];
};

/** Those that take more than one check to show. */
export const laterCallIds = 'CVE-2023-30851 CVE-2024-28248';
export const lookalikeIds = 'CVE-2026-48096 CVE-2026-34972 CVE-2026-33729 CVE-2026-71326';

const raw = (...headers: (readonly [string, string | Buffer])[]): CheckInput => ({ rawHeaders: headers });
const bytes = (...all: number[]): Buffer => Buffer.from(all);
/** Where `web` may do all but what a DENY names: the header `x-role: admin`, the path `/admin`, the address 192.0.2.1. */
const admin = { path: '/admin' } as const;
const web = 'spiffe://example.org/ns/shop/sa/web';

export const checkBypasses: readonly CheckBypass[] = [
  {
    ids: 'CVE-2023-27488 GHSA-9g5w-hqr3-w2ph',
    attack: 'a header that is not UTF-8: the check fails, and the proxy lets the call pass',
    checks: () => [
      raw(['x-odd', bytes(0xff, 0xfe, 0x00)]),
      raw(['x-odd', bytes(0xc0, 0xaf)], ['\u00ff', 'x']),
    ],
    reason: 'allow_rule',
  },
  {
    ids: 'CVE-2023-27488 GHSA-9g5w-hqr3-w2ph',
    attack: 'the same in the header that a rule is about',
    checks: () => [
      raw(['x-role', bytes(0xff)]),
      raw(['x-role', bytes(0x61, 0x00)]),
      raw(['x-role', 'user'], ['X-Role', bytes(0x80)]),
      { headers: { 'x-role': '\ufffd' } },
    ],
    reason: 'deny_rule',
  },
  {
    ids: 'CVE-2020-25017 CVE-2021-32777 CVE-2026-26308 CVE-2026-31838',
    attack: 'a header in several lines, in each form in which a proxy can tell of them',
    checks: () => [
      raw(['x-role', 'user'], ['x-role', 'admin']),
      raw(['x-role', 'admin'], ['x-role', 'user']),
      { headers: { 'x-role': 'user,admin' } },
      { headers: { 'x-role': 'user' }, rawHeaders: [['x-role', 'admin']] },
      { headers: { 'x-role': 'admin' }, rawHeaders: [['x-role', 'user']] },
      { headers: { 'X-Role': 'user', 'x-role': 'admin' } },
    ],
    reason: 'deny_rule',
  },
  {
    ids: 'CVE-2024-10006',
    attack: 'another case of the name of a header',
    checks: () => [raw(['X-ROLE', 'admin']), { headers: { 'X-Role': 'admin' } }],
    reason: 'deny_rule',
  },
  {
    ids: 'CVE-2026-33433 CVE-2026-39858 GHSA-5m6w-wvh7-57vm CVE-2026-54763 GHSA-x677-9fxg-v5c5',
    attack: 'a header with an underscore, which CGI, WSGI and PHP take for the one with a hyphen',
    checks: () => [
      raw(['x_role', 'admin']),
      raw(['x-role', 'user'], ['x_role', 'admin']),
      raw(['X_ROLE', 'user']),
      { headers: { x_role: 'admin' } },
    ],
    reason: 'deny_rule',
  },
  {
    ids: 'CVE-2026-88011 GHSA-rf44-j88r-hh8c',
    attack: 'a header with a dot, or any other sign, in the place of the hyphen',
    checks: () => [
      raw(['x.role', 'admin']),
      raw(['x-role', 'user'], ['x!role', 'admin']),
      raw(['X.Role', 'x']),
    ],
    reason: 'deny_rule',
  },
  {
    ids: 'CVE-2026-88011 GHSA-rf44-j88r-hh8c',
    attack: 'another spelling of the headers that the mesh itself sets: the application does not get them',
    checks: () => [
      raw(
        ['x.forwarded.client.cert', `URI=${web}`],
        ['x-countersign.role', 'a'],
        ['x_countersign_decision', 'b'],
      ),
      { headers: { 'X.Forwarded.Client.Cert': 'a', 'x-countersign.role': 'a', x_countersign_decision: 'b' } },
    ],
    reason: 'allow_rule',
    removed: ['x-countersign.role', 'x.forwarded.client.cert', 'x_countersign_decision'],
  },
  {
    ids: 'CVE-2026-29054',
    attack: 'Connection names a header, which the next hop then drops',
    checks: () => [
      raw(['x-role', 'user'], ['connection', 'x-role']),
      raw(['x-role', 'user'], ['Connection', 'close, X-Role ']),
      raw(['x-role', 'user'], ['connection', 'close'], ['connection', 'x-role']),
    ],
    reason: 'deny_rule',
  },
  {
    ids: 'CVE-2023-27487 CVE-2026-40575 CVE-2026-35051 CVE-2026-54764 CVE-2024-45806',
    attack: 'headers in which proxies tell each other of another path, prefix, host or port',
    checks: () => [
      {
        ...admin,
        headers: {
          'x-envoy-original-path': '/public',
          'x-original-url': '/public',
          'x-rewrite-url': '/public',
          'x-forwarded-uri': '/public',
          'x-forwarded-prefix': '/public',
          'x-forwarded-host': 'public',
          'x-forwarded-method': 'OPTIONS',
          'x-forwarded-port': '443',
          'x-envoy-internal': 'true',
        },
      },
    ],
    reason: 'deny_rule',
  },
  {
    ids: 'forwarded-for',
    attack: 'another address of the client, said by the client',
    checks: () => [
      {
        sourceAddress: { host: '192.0.2.1', port: 1 },
        headers: { 'x-forwarded-for': '10.0.0.1', 'x-real-ip': '10.0.0.1', forwarded: 'for=10.0.0.1' },
      },
      { sourceAddress: { host: '::ffff:192.0.2.1', port: 1 } },
      { sourceAddress: { host: '::ffff:c000:201', port: 1 } },
      { sourceAddress: { pipe: '/run/a.sock' } },
      { sourceAddress: null },
    ],
    reason: 'deny_rule',
  },
  {
    ids: 'identity-in-headers CVE-2023-39347 GO-2022-0959',
    attack: 'an identity in headers, labels, service names and context: only the certificate counts',
    checks: () => [
      {
        principal: 'spiffe://example.org/ns/evil/sa/x',
        headers: { 'x-forwarded-client-cert': `URI=${web}`, 'x-spiffe-id': web, authorization: 'Bearer x' },
        labels: { principal: web, 'io.kubernetes.pod.namespace': 'shop' },
        contextExtensions: { principal: web },
        service: 'web',
      },
    ],
    reason: 'no_allow_rule',
  },
  {
    ids: 'plaintext-caller',
    attack: 'no certificate, and a header that says there was one',
    checks: () => [{ principal: '', headers: { 'x-forwarded-client-cert': `URI=${web}` } }],
    reason: 'unauthenticated',
  },
  {
    ids: 'CVE-2022-40716',
    attack: 'a certificate with several names, one of which is allowed; another than the proxy tells of',
    checks: ({ two, other, none }) => [
      { certificate: two },
      { principal: 'spiffe://example.org/ns/shop/sa/other', certificate: two },
      { certificate: other },
      { certificate: none },
      { principal: `${web},spiffe://example.org/ns/shop/sa/other` },
      { principal: '', certificate: two },
    ],
    reason: 'request_invalid',
  },
  {
    ids: 'CVE-2025-66220 CVE-2026-47778',
    attack: 'a NUL in a name: what is before it is compared, and all of it was signed',
    checks: ({ nul, nulBefore }) => [
      { certificate: nul },
      { certificate: nulBefore },
      { principal: `${web}\0.evil` },
      { principal: `${web}\0` },
    ],
    reason: 'request_invalid',
  },
  {
    ids: 'CVE-2022-21656',
    attack: 'a SPIFFE ID in a name of another kind: DNS, mail',
    checks: ({ dnsOnly, mail }) => [{ certificate: dnsOnly }, { certificate: mail }],
    reason: 'request_invalid',
  },
  {
    ids: 'header-against-attribute CVE-2026-73550',
    attack: 'two hosts, paths or methods, in the attributes, in headers or in both',
    checks: () => [
      { headers: { host: 'public' } },
      raw(['host', 'public']),
      raw([':authority', 'orders.shop'], ['host', 'public']),
      raw(['host', 'orders.shop'], ['Host', 'orders.shop']),
      raw(['host', '']),
      { headers: { ':path': '/public' }, ...admin },
      raw([':path', '/orders/1?x=1'], [':path', '/orders/1?x=1']),
      raw([':path', '']),
      raw([':path', bytes(0x2f, 0x6f, 0xff)]),
      raw([':method', 'DELETE']),
      raw([':method', 'GET'], [':method', 'GET']),
      { headers: { ':path': '/admin' }, rawHeaders: [[':path', '/orders/1?x=1']] },
    ],
    reason: 'request_ambiguous',
  },
  {
    ids: 'header-text-and-bytes',
    attack: 'a header with one value as text and another as bytes',
    checks: () => [
      { tornHeaders: [['x-role', 'admin', 'user']] },
      { tornHeaders: [[':path', '/admin', '/orders/1?x=1']] },
    ],
    reason: 'request_ambiguous',
  },
  {
    ids: 'CVE-2026-73547',
    attack: 'CONNECT, OPTIONS of everything, and calls whose parts are missing',
    checks: () => [
      { method: 'CONNECT', path: '', host: 'orders.shop:443' },
      { method: 'CONNECT', path: '/chat', headers: { ':protocol': 'websocket' } },
      { method: 'OPTIONS', path: '*' },
      { method: '' },
      { path: '' },
      { host: '' },
      { method: '', path: '', host: '', headers: {} },
    ],
    reason: 'request_invalid',
  },
  {
    ids: 'CVE-2026-33186 GHSA-p77j-4mvh-x3m3 GO-2026-4897',
    attack: 'a gRPC call whose path has no slash',
    checks: () => [
      { method: 'POST', path: 'admin', headers: { 'content-type': 'application/grpc', te: 'trailers' } },
    ],
    reason: 'request_invalid',
  },
  {
    ids: 'text-not-utf-8',
    attack: 'bytes that are not UTF-8 where a message has text: path, host and caller',
    checks: () => [
      { path: '/SPOIL', spoil: true },
      { path: '/%41?SPOIL', spoil: true, host: 'SPOIL' },
      { host: 'aSPOIL', spoil: true },
      { principal: `${web}SPOIL`, spoil: true },
    ],
    reason: 'request_invalid',
  },
  {
    ids: 'partial-body',
    attack: 'a body, whole or cut: nothing is decided by it',
    checks: () => [
      { ...admin, body: 'GET /public HTTP/1.1\r\n\r\n' },
      { ...admin, body: 'x'.repeat(100_000) },
    ],
    reason: 'deny_rule',
  },
  {
    ids: 'large-values',
    attack: 'values of 64 KiB, and hundreds of headers',
    checks: () => [
      raw(['x-role', 'a'.repeat(65_536)], ['x-role', 'admin']),
      raw(['x-role', `${' '.repeat(65_536)}admin${'\t'.repeat(65_536)}`]),
      raw(...Array.from({ length: 500 }, (_, i): [string, string] => [`x-${i}`, 'a']), ['x-role', 'admin']),
      raw(['connection', `${','.repeat(65_536)}x-role`], ['x-role', 'user']),
    ],
    reason: 'deny_rule',
  },
  {
    ids: 'metadata-prototype',
    attack: 'metadata under the name __proto__, which brings claims that no filter has noted',
    checks: () => [
      {
        path: '/token',
        metadata: { ['__proto__']: { 'envoy.filters.http.jwt_authn': { p: { iss: 'i', sub: 's' } } } },
      },
      {
        path: '/token',
        metadata: { 'envoy.filters.http.jwt_authn': { ['__proto__']: { iss: 'i', sub: 's' } } },
      },
      {
        path: '/token',
        metadata: { 'envoy.filters.http.jwt_authn': { p: { ['__proto__']: { iss: 'i', sub: 's' } } } },
      },
      {
        path: '/token',
        metadata: {
          'envoy.filters.http.jwt_authn': { p: { iss: 'i', sub: 's' }, q: { iss: 'i', sub: 'other' } },
        },
      },
    ],
    reason: 'deny_rule',
  },
  {
    ids: 'destination-forged',
    attack: 'a proxy that speaks for another workload',
    checks: () => [
      { destination: 'spiffe://example.org/ns/shop/sa/other' },
      { destination: 'spiffe://evil.org/ns/shop/sa/orders' },
    ],
    reason: 'destination_forged',
  },
];
