import { expect, test } from 'vitest';
import { compileProxyPolicy, parseLeafName, type ProxyPolicy } from '../../src/authz/proxy-policy.ts';
import { nameOfReason, nameOfRule } from '../../src/authz/leaf-name.ts';
import { compileSnapshot, type Snapshot, type SnapshotInput } from '../../src/authz/snapshot.ts';
import { finish } from '../../src/authz/steps.ts';
import { SpiffeId } from '../../src/spiffe/id.ts';
import { RBAC as HttpRbac } from '../../src/wire/rbac_filter.ts';
import { RBAC as NetworkRbac } from '../../src/wire/rbac_network_filter.ts';
import { evaluateMatcher } from './envoy-tree.ts';
import { ledger, meshOf, policyText, readPolicies, web } from './mesh.ts';

type Row = {
  readonly uris?: readonly string[];
  readonly method?: string;
  readonly path?: string;
  readonly host?: string;
  readonly port?: number | null;
  readonly tcp?: true;
};

function compile(
  snapshot: Snapshot,
  more: {
    readonly bannedIds?: readonly SpiffeId[];
    readonly asksAll?: string;
    readonly destination?: SpiffeId;
  } = {},
): ProxyPolicy {
  return finish(compileProxyPolicy({ snapshot, destination: ledger, bannedIds: [], asksAll: null, ...more }));
}

/** The name of the leaf that a call comes to. */
function leafOf(made: ProxyPolicy, row: Row = {}): string | undefined {
  const { uris = [web.text], method = 'GET', path = '/a', host = 'ledger.pay', port = 8_080 } = row;
  const matcher = row.tcp ? NetworkRbac.decode(made.tcp).matcher : HttpRbac.decode(made.http).matcher;
  const headers = row.tcp
    ? []
    : ([
        [':method', method],
        [':path', path],
        [':authority', host],
      ] as const);
  return matcher && evaluateMatcher(matcher, { uris, port, headers })?.name;
}

const specs = (...all: readonly string[]) =>
  readPolicies(all.map((spec, i) => policyText(spec, `p${i}`)).join('---\n'));
const snapshotOf = (all: readonly string[], more: Partial<SnapshotInput> = {}) =>
  compileSnapshot({ ...meshOf(specs(...all)), ...more });

const allowWeb = 'rules: [{ from: [{ source: { principals: [example.org/ns/shop/sa/web] } }] }]';
const denyAdmin = 'action: DENY\nrules: [{ to: [{ operation: { paths: [/admin, /admin/*] } }] }]';
const whenHeader = "when: [{ key: 'request.headers[x-a]', values: [a] }]";

test.each<[string, readonly string[], Row, string]>([
  ['a caller that a rule names', [allowWeb], {}, 'allow:pay/p0[0]'],
  ['another caller', [allowWeb], { uris: ['spiffe://example.org/ns/shop/sa/db'] }, 'deny:no_allow_rule'],
  ['no certificate', [allowWeb], { uris: [] }, 'ask:caller'],
  ['two names', [allowWeb], { uris: [web.text, 'spiffe://example.org/x'] }, 'deny:request_invalid'],
  ['one name twice', [allowWeb], { uris: [web.text, web.text] }, 'deny:request_invalid'],
  ['an empty name beside', [allowWeb], { uris: [web.text, ''] }, 'deny:request_invalid'],
  ['a name that is no SPIFFE ID', [allowWeb], { uris: ['https://example.org/a'] }, 'ask:caller'],
  ['no policy', [], {}, 'deny:no_policy'],
  ['no policy but an AUDIT rule', [`action: AUDIT\nrules: [{ ${whenHeader} }]`], {}, 'ask:audit'],
  ['a DENY rule', [allowWeb, denyAdmin], { path: '/admin/x' }, 'deny:pay/p1[0]'],
  ['beside a DENY rule', [allowWeb, denyAdmin], { path: '/administrator' }, 'allow:pay/p0[0]'],
  ['a query that looks like a path', [allowWeb, denyAdmin], { path: '/?/admin' }, 'allow:pay/p0[0]'],
  ['a query after the path', [allowWeb, denyAdmin], { path: '/admin?x' }, 'deny:pay/p1[0]'],
  ['an encoded letter', [allowWeb, denyAdmin], { path: '/%61dmin' }, 'ask:path'],
  ['a dot segment', [allowWeb, denyAdmin], { path: '/x/../admin' }, 'ask:path'],
  ['a long query', [allowWeb], { path: `/a?${'q'.repeat(1_000)}` }, 'ask:path'],
  ['a fragment', [allowWeb], { path: '/a?b#c' }, 'ask:path'],
  ['a host in capitals', [allowWeb], { host: 'Ledger.pay' }, 'ask:host'],
  ['a host with a dot at its end', [allowWeb], { host: 'ledger.pay.' }, 'ask:host'],
  ['two hosts', [allowWeb], { host: 'ledger.pay,a' }, 'ask:host'],
  ['an unusual method', [allowWeb], { method: 'PURGE' }, 'ask:method'],
  ['CONNECT', [allowWeb], { method: 'CONNECT' }, 'ask:method'],
  ['an ALLOW by header', [`rules: [{ ${whenHeader} }]`], {}, 'ask:request_headers'],
  ['a DENY by header', [allowWeb, `action: DENY\nrules: [{ ${whenHeader} }]`], {}, 'ask:request_headers'],
  [
    'a DENY by header and method',
    [allowWeb, `action: DENY\nrules: [{ ${whenHeader}, to: [{ operation: { methods: [POST] } }] }]`],
    {},
    'allow:pay/p0[0]',
  ],
  ['an ALLOW that expires', [`expiresAt: '2030-01-01T00:00:00Z'\n${allowWeb}`], {}, 'ask:time'],
  ['an ALLOW that has expired', [`expiresAt: '2020-01-01T00:00:00Z'\n${allowWeb}`], {}, 'ask:time'],
  ['an address', ['rules: [{ from: [{ source: { ipBlocks: [10.0.0.0/8] } }] }]'], {}, 'ask:source_ip'],
  ['a server name', ['rules: [{ when: [{ key: connection.sni, values: [a] }] }]'], {}, 'ask:connection_sni'],
  [
    'a token',
    ["rules: [{ from: [{ source: { requestPrincipals: ['*'] } }] }]"],
    {},
    'ask:request_auth_principal',
  ],
  ['CUSTOM', [allowWeb, 'action: CUSTOM\nprovider: { name: x }\nrules: [{}]'], {}, 'ask:custom'],
  ['AUDIT', [allowWeb, 'action: AUDIT\nrules: [{}]'], {}, 'ask:audit'],
  [
    'a break-glass grant',
    [
      'action: DENY\nliftable: true\nrules: [{}]',
      `ticket: T\nexpiresAt: '2030-01-01T00:00:00Z'\nbreakGlass: { reason: r }\n${allowWeb}`,
    ],
    {},
    'ask:break_glass',
  ],
  ['a port', ["rules: [{ to: [{ operation: { ports: ['8080'] } }] }]"], {}, 'allow:pay/p0[0]'],
  ['another port', ["rules: [{ to: [{ operation: { ports: ['8081'] } }] }]"], {}, 'deny:no_allow_rule'],
  ['no port', ["rules: [{ to: [{ operation: { notPorts: ['1'] } }] }]"], { port: null }, 'ask:port'],
  [
    'TCP, an ALLOW by port',
    ["rules: [{ to: [{ operation: { ports: ['8080'] } }] }]"],
    { tcp: true },
    'allow:pay/p0[0]',
  ],
  [
    'TCP, an ALLOW by method',
    ['rules: [{ to: [{ operation: { methods: [GET] } }] }]'],
    { tcp: true },
    'deny:no_allow_rule',
  ],
  ['TCP, a DENY by path', [allowWeb, denyAdmin], { tcp: true }, 'deny:pay/p1[0]'],
])('a leaf for %s', (_, all, row, name) => {
  expect(leafOf(compile(snapshotOf(all)), row)).toBe(name);
});

test('a policy on trial, Istio mode, and a reason of the caller’s own make everything ask', () => {
  const tried = [...specs(allowWeb), ...readPolicies(policyText(denyAdmin, 'tried', 'pay', true))];
  const rows = [
    [compile(compileSnapshot(meshOf(tried))), 'ask:on_trial'],
    [compile(snapshotOf([allowWeb], { mode: 'istio' })), 'ask:istio_mode'],
    [compile(snapshotOf([allowWeb]), { asksAll: 'a ban by serial' }), 'ask:a_ban_by_serial'],
    [compile(snapshotOf([allowWeb]), { asksAll: '' }), 'ask:everything'],
  ] as const;
  for (const [made, name] of rows) {
    for (const row of [{}, { tcp: true }, { uris: [] }, { path: '/%' }] as const)
      expect(leafOf(made, row)).toBe(name);
    expect(made.leaves).toEqual({ allow: 0, deny: 0, ask: 2 });
    expect(made.asks).toEqual([{ why: name.slice('ask:'.length), leaves: 2 }]);
  }
});

test('calls of a banned caller are asked about whatever a rule says of them', () => {
  const other = SpiffeId.parse('spiffe://other.org/x');
  const made = compile(snapshotOf([allowWeb]), { bannedIds: [web, other] });
  expect(leafOf(made)).toBe('ask:banned');
  expect(leafOf(made, { tcp: true })).toBe('ask:banned');
  expect(leafOf(made, { uris: [other.text] })).toBe('ask:banned');
  expect(leafOf(made, { uris: ['spiffe://example.org/y'] })).toBe('deny:no_allow_rule');
  expect(leafOf(compile(snapshotOf([]), { bannedIds: [web] }))).toBe('ask:banned');
});

test('a destination of another trust domain has no policies', () => {
  const destination = SpiffeId.parse('spiffe://other.org/ns/pay/sa/ledger');
  expect(leafOf(compile(snapshotOf([allowWeb]), { destination }))).toBe('deny:no_policy');
});

test('the version tells the content, not the revision', () => {
  const snapshot = snapshotOf([allowWeb, denyAdmin]);
  const made = compile(snapshot);
  const later = compile(snapshot.at(8));
  expect([made.revision, later.revision]).toEqual([7, 8]);
  expect(made.version).toMatch(/^[0-9a-f]{32}$/);
  expect(later).toEqual({ ...made, revision: 8 });
  expect(compile(snapshotOf([allowWeb, denyAdmin])).version).toBe(made.version);
  const others = [snapshotOf([allowWeb]), snapshotOf([denyAdmin, allowWeb]), snapshotOf([])];
  const versions = others.map((one) => compile(one).version);
  versions.push(compile(snapshot, { bannedIds: [web] }).version, compile(snapshot, { asksAll: 'x' }).version);
  expect(new Set([made.version, ...versions]).size).toBe(6);
});

test('thousands of callers are one look-up, and what is too large asks', () => {
  const principals = (from: number, count: number) =>
    Array.from({ length: count }, (_, i) => `example.org/ns/n${(from + i) % 50}/sa/s${from + i}`);
  const to = 'to: [{ operation: { methods: [GET], paths: [/a, /a/*] } }]';
  const shared = Array.from(
    { length: 4 },
    (_, i) =>
      `rules: [{ from: [{ source: { principals: ${JSON.stringify(principals(i * 500, 500))} } }], ${to} }]`,
  );
  const made = compile(snapshotOf([...shared, denyAdmin]));
  expect(made.leaves.allow).toBe(2_000);
  expect(made.http.length).toBeLessThan(320_000);
  const last = [`spiffe://${principals(1_999, 1)[0] ?? ''}`];
  expect(leafOf(made, { uris: last })).toBe('allow:pay/p3[0]');
  expect(leafOf(made, { uris: last, method: 'POST' })).toBe('deny:no_allow_rule');
  expect(leafOf(made, { uris: last, path: '/admin' })).toBe('deny:pay/p4[0]');

  // A caller with a long rule of its own each.
  const paths = Array.from({ length: 8 }, (_, i) => `/${'x'.repeat(1_000)}${i}`);
  const rules = principals(0, 300).map((name, i) => ({
    from: [{ source: { principals: [name] } }],
    to: [{ operation: { methods: ['GET'], paths, notPaths: [`/${i}`] } }],
  }));
  const policies = [0, 100, 200].flatMap((from) =>
    readPolicies(policyText(`rules: ${JSON.stringify(rules.slice(from, from + 100))}`, `p${from}`)),
  );
  const large = compile(compileSnapshot(meshOf(policies)));
  expect(large.http.length).toBeLessThan(4_400_000);
  expect(large.asks.map(({ why }) => why)).toContain('size');
  expect(leafOf(large, { uris: ['spiffe://example.org/ns/n49/sa/s299'] })).toBe('ask:size');
  expect(leafOf(large, { uris: ['spiffe://example.org/ns/n0/sa/s0'] })).toBe('deny:no_allow_rule');
});

test('what did not change is not compiled again, and what did in many steps', () => {
  const principals = Array.from({ length: 400 }, (_, i) => `example.org/ns/shop/sa/s${i}`);
  const mesh = meshOf(
    specs(`rules: [{ from: [{ source: { principals: ${JSON.stringify(principals)} } }] }]`),
  );
  const snapshot = compileSnapshot(mesh);
  const stepsOf = (of: Snapshot): number => {
    const steps = compileProxyPolicy({ snapshot: of, destination: ledger, bannedIds: [], asksAll: null });
    let count = 1;
    while (steps.next().done !== true) count += 1;
    return count;
  };
  expect(stepsOf(snapshot)).toBeGreaterThan(100);
  const elsewhere = readPolicies(policyText('rules: [{}]', 'other', 'shop'));
  const next = compileSnapshot({ ...mesh, policies: [...mesh.policies, ...elsewhere], previous: snapshot });
  expect([stepsOf(snapshot.at(8)), stepsOf(next)].every((count) => count < 10)).toBe(true);
});

test('hundreds of rules that a proxy would have to try one by one ask', () => {
  const rules = (from: number, count: number): string =>
    `rules: [${Array.from({ length: count }, (_, i) => `{ from: [{ source: { principals: ['*/sa/s${from + i}'] } }] }`).join(', ')}]`;
  expect(leafOf(compile(snapshotOf([rules(0, 300)])))).toBe('deny:no_allow_rule');
  expect(leafOf(compile(snapshotOf([rules(0, 300), rules(300, 300)])))).toBe('ask:size');
});

test.each([
  ['allow:pay/ledger[0]', 'allow', 'pay/ledger rule[0]', 'allow_rule'],
  ['deny:pay/no-admin[12]', 'deny', 'pay/no-admin rule[12]', 'deny_rule'],
  ['deny:pay/a%20b%3a%c3%bc[1]', 'deny', 'pay/a b:ü rule[1]', 'deny_rule'],
  ['deny:no_policy', 'deny', '', 'no_policy'],
  ['ask:request_headers', 'ask', '', 'request_headers'],
])('the name %s is read', (name, verdict, rule, reason) => {
  expect(parseLeafName(name)).toEqual({ verdict, rule, reason, revision: 0 });
  const again = rule === '' ? nameOfReason(verdict as 'ask', reason) : nameOfRule(verdict as 'deny', rule);
  expect(again).toBe(name);
});

test.each([
  ...[
    '',
    'allow',
    'allow:',
    'allow:no_policy',
    'none',
    'ask:pay/x[0]',
    'ALLOW:pay/x[0]',
    'deny:No',
    'deny: x',
  ],
  ...['deny:a b/c[0]', 'allow:pay/x[0] ', 'allow:pay/x[-1]', 'allow:pay/%zz[0]', 'deny:x:y', 'deny:pay/x'],
  `allow:pay/${'x'.repeat(300)}[0]`,
])('the name %j is of no leaf', (name) => {
  expect(parseLeafName(name)).toBeUndefined();
});

test('a name is bounded, has no blanks, and is another one for another rule', () => {
  const names = ['é'.repeat(4_000), `${'é'.repeat(3_999)}f`].map((name) =>
    nameOfRule('allow', `ns/${name} rule[3]`),
  );
  expect(new Set(names).size).toBe(2);
  for (const name of names) {
    expect(name.length).toBeLessThanOrEqual(256);
    expect(name).toMatch(/^\S+$/);
    expect(parseLeafName(name)).toBeDefined();
  }
});
