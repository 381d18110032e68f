import { connect } from 'node:net';
import { parse, stringify } from 'yaml';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { counterSink } from '../../src/cli/envoy-bootstrap-report.ts';
import { startEchoApp, startHttpApp } from '../harness/apps.ts';
import { type Authority, startAuthority } from '../harness/authority.ts';
import { eventually } from '../harness/eventually.ts';
import { ask, askAdmin } from '../harness/http.ts';
import { entry, policy, type Sidecar, startSidecar } from '../harness/mesh.ts';
import { createScope } from '../harness/scope.ts';
import { freePorts, makeTempDir } from '../harness/temp.ts';

const scope = createScope();
afterAll(() => scope.close());

let authority: Authority;
let web: Sidecar;
let orders: Sidecar;
let [inbound, inboundTcp, toOrders, toTcp] = [0, 0, 0, 0];

beforeAll(async () => {
  const directory = makeTempDir(scope);
  const env = { COUNTERSIGN_ALLOWED_CALLS_WINDOW_SECONDS: '1' };
  authority = await startAuthority(scope, { directory, env });
  [inbound, inboundTcp, toOrders, toTcp] = (await freePorts(4)) as [number, number, number, number];
  const [app, echo] = [await startHttpApp(scope, 'orders'), await startEchoApp(scope)];
  orders = startSidecar(scope, {
    authority,
    directory,
    service: 'shop/orders',
    ways: {
      inbound: `127.0.0.1:${inbound}`,
      app: `127.0.0.1:${app.port}`,
      inboundTcp: [`127.0.0.1:${inboundTcp}=127.0.0.1:${echo.port}`],
    },
    rewrite: withPolicy,
  });
  web = startSidecar(scope, {
    authority,
    directory,
    service: 'shop/web',
    ways: {
      outbound: [`127.0.0.1:${toOrders}=${orders.id}@127.0.0.1:${inbound}`],
      outboundTcp: [`127.0.0.1:${toTcp}=${orders.id}@127.0.0.1:${inboundTcp}`],
    },
  });
  const from = [{ source: { principals: ['mesh.test/ns/shop/sa/web'] } }];
  const to = [{ operation: { paths: ['/orders/*', '/asked'] } }];
  await authority.apply(
    [
      entry(web.id, web.binary),
      entry(orders.id, orders.binary),
      policy('shop', 'orders', { rules: [{ from, to }] }),
    ].join(''),
  );
  await Promise.all([web.live(), orders.live()]);
});

test('what a proxy decides by itself is in the log, told apart from what was decided for it', async () => {
  for (let i = 0; i < 20; i++) expect((await get(`/orders/${i}?token=secret`)).status).toBe(200);
  expect((await get('/asked')).status).toBe(200);
  const denied = await get('/admin?token=secret');
  expect([denied.status, denied.headers['x-countersign-decision']]).toEqual([403, undefined]);
  await eventually('20 allowed calls', async () => (await calls('proxy_verdicts')) === 20);
  expect(await events('proxy_verdicts')).toContainEqual(
    expect.objectContaining({
      ...{ verdict: 'allow', reason: 'allow_rule', rule: 'shop/orders rule[0]', pathPattern: '/orders/*' },
      ...{
        leaf: 'allow:shop/orders[0]',
        source: web.id,
        destination: orders.id,
        method: 'GET',
        port: inbound,
      },
    }),
  );
  const verdicts = await eventually('the denial', async () => {
    const all = await events('proxy_verdict');
    return all.length > 0 ? all : undefined;
  });
  expect(verdicts).toMatchObject([
    { verdict: 'deny', reason: 'no_allow_rule', leaf: 'deny:no_allow_rule', source: web.id, port: inbound },
  ]);
  expect(JSON.stringify(await events('proxy_verdict'))).not.toContain('secret');
  // What the proxy asked about is a decision, and no other is.
  await eventually('the decision', async () => (await calls('allowed_calls')) === 1);
  expect(await events('decision')).toEqual([]);
  // What became of calls is told of all of them, once each.
  await eventually('the outcomes', async () => (await calls('outcomes')) === 22);
});

test('a TCP connection that the proxy denied is in the log, too', async () => {
  expect(await say('hello')).toBe('');
  const verdict = await eventually('the denial', async () =>
    (await events('proxy_verdict')).find(({ protocol }) => protocol === 'tcp'),
  );
  expect(verdict).toMatchObject({ verdict: 'deny', reason: 'no_policy', source: web.id, port: inboundTcp });
});

test('its counters say how many calls were told of, also of those while nobody listened', async () => {
  const counted = async (): Promise<number> =>
    (await orders.stat(/^http\.inbound\.rbac\.(?:allowed|denied)$/)) +
    (await orders.stat(/tcp.*\.rbac\.denied$/));
  const before = await eventually('all calls to be covered', async () => {
    const { count, missing } = await coverage();
    return count === (await counted()) ? { count, missing } : undefined;
  });
  expect(before).toEqual({ count: 23, missing: 0 });
  await authority.kill();
  for (let i = 0; i < 40; i++) expect((await get('/orders/1')).status).toBe(200);
  await authority.restart();
  await eventually(
    'the calls of meanwhile to be counted',
    async () => (await coverage()).count === 63 && (await coverage()).missing > 0,
    { withinMs: 60_000 },
  );
  // Envoy keeps a buffer of entries for when somebody listens again. One call of all it asked about.
  await eventually('the log to hold what is not missing', async () => {
    const told = (await calls('proxy_verdicts')) + (await events('proxy_verdict')).length;
    return told + 1 + (await coverage()).missing === 63;
  });
  const answer = await askAdmin(authority.adminSocket, 'GET', '/v1/audit/count?by=verdict');
  expect(answer).toMatchObject({
    coverage: { proxies: { counted: 63, missing: (await coverage()).missing } },
  });
  expect(await events('loss')).toContainEqual(
    expect.objectContaining({ what: 'proxy_verdict', cause: 'not_told', service: orders.id }),
  );
});

const get = (path: string) => ask({ to: toOrders, path });
const events = (type: string) => authority.audit(`type=${type}`);
const calls = async (type: string): Promise<number> =>
  (await events(type)).reduce((sum, { count }) => sum + Number(count), 0);
const coverage = async () => {
  const all = await events('proxy_coverage');
  const sum = (name: string): number => all.reduce((of, event) => of + Number(event[name]), 0);
  return { count: sum('count'), missing: sum('missing') };
};

/** What the application behind the TCP listener answers, or nothing when the connection is closed first. */
function say(text: string): Promise<string> {
  return new Promise((resolve) => {
    const socket = connect(toTcp, '127.0.0.1', () => socket.write(text));
    socket.once('data', (data) => {
      resolve(data.toString());
      socket.destroy();
    });
    for (const event of ['close', 'error']) socket.once(event, () => resolve(''));
  });
}

type Json = Record<string, unknown>;
type Filter = Json & { name: string; typed_config: Json };

/** A policy as an agent delivers it, written into the bootstrap. */
function withPolicy(text: string): string {
  const bootstrap = parse(text) as {
    static_resources: { listeners: { name: string; filter_chains: { filters: Filter[] }[] }[] };
  };
  for (const { name, filter_chains: chains } of bootstrap.static_resources.listeners) {
    for (const { filters } of chains) {
      if (name === 'inbound') guardHttp((filters[0]?.typed_config['http_filters'] ?? []) as Filter[]);
      else if (name.startsWith('inbound_tcp')) {
        filters.unshift(
          rbac('network', {
            stat_prefix: 'countersign_tcp',
            matcher: { on_no_match: leaf('deny:no_policy') },
          }),
        );
      }
    }
  }
  return stringify({ ...bootstrap, ...counterSink(), stats_flush_interval: '1s' });
}

function guardHttp(filters: Filter[]): void {
  const input = {
    name: 'path',
    typed_config: {
      '@type': 'type.googleapis.com/envoy.type.matcher.v3.HttpRequestHeaderMatchInput',
      header_name: ':path',
    },
  };
  const map = { '/orders/': leaf('allow:shop/orders[0]'), '/asked': leaf('ask:path') };
  const matcher = {
    matcher_tree: { input, prefix_match_map: { map } },
    on_no_match: leaf('deny:no_allow_rule'),
  };
  const [extAuthz] = filters;
  Object.assign(extAuthz?.typed_config ?? {}, {
    filter_enabled_metadata: {
      filter: 'envoy.filters.http.rbac',
      path: [{ key: 'enforced_effective_policy_id' }],
      value: { string_match: { prefix: 'allow:' } },
      invert: true,
    },
  });
  filters.unshift(rbac('http', { matcher }));
}

function rbac(kind: 'http' | 'network', config: Json): Filter {
  const type = `envoy.extensions.filters.${kind}.rbac.v3.RBAC`;
  return {
    name: `envoy.filters.${kind}.rbac`,
    typed_config: { '@type': `type.googleapis.com/${type}`, ...config },
  };
}

function leaf(name: string): Json {
  const action = name.startsWith('deny:') ? 'DENY' : 'ALLOW';
  const type = 'type.googleapis.com/envoy.config.rbac.v3.Action';
  return { action: { name: 'verdict', typed_config: { '@type': type, name, action } } };
}
