import { expect, test } from 'vitest';
import { renderEnvoyBootstrap } from '../../src/cli/envoy-bootstrap.ts';
import { policyServiceFor } from '../../src/xds/policy-capability.ts';
import { readPolicyName } from '../../src/xds/policy-resource.ts';
import { nodeOf } from '../xds/policy-door.ts';

const workload = 'spiffe://example.org/ns/shop/sa/orders';
const base = {
  workload,
  socket: '/run/countersign/workload.sock',
  inbound: '127.0.0.1:15443',
  app: '127.0.0.1:8080',
  inboundTcp: ['127.0.0.1:15444=127.0.0.1:5432'],
  inboundTcpOpen: ['127.0.0.1:15445=127.0.0.1:3306'],
  outbound: ['127.0.0.1:15001=spiffe://example.org/ns/shop/sa/web@127.0.0.1:15543'],
};

type Filter = {
  readonly name: string;
  readonly typed_config?: Readonly<Record<string, unknown>>;
  readonly config_discovery?: Readonly<Record<string, unknown>>;
};
type Made = {
  readonly node: { readonly metadata?: Record<string, unknown> };
  readonly static_resources: {
    readonly listeners: readonly { name: string; filter_chains: { filters: Filter[] }[] }[];
  };
};

function make(more: Partial<typeof base> & { decide?: string; xds?: string }) {
  const made = JSON.parse(renderEnvoyBootstrap({ ...base, ...more }, 'json')) as Made;
  const filters = new Map(
    made.static_resources.listeners.map(({ name, filter_chains: [chain] }) => [name, chain?.filters ?? []]),
  );
  const http = filters.get('inbound')?.[0]?.typed_config?.['http_filters'] as Filter[];
  return { made, http, filters };
}

test.each([
  ['is not asked for', {}],
  ['is left to the agent', { decide: 'agent' }],
])('what the proxy decides by is not there when it %s', (_, more) => {
  const { made, http } = make(more);
  expect(http.map(({ name }) => name)).toEqual(['envoy.filters.http.ext_authz', 'envoy.filters.http.router']);
  expect(JSON.stringify(made)).not.toMatch(/rbac|config_discovery|filter_enabled_metadata/);
  expect(made.node.metadata).toBeUndefined();
});

test('the filter that decides stands before the one that asks, which asks unless it was allowed by name', () => {
  const { http: all, filters } = make({ decide: 'in-proxy' });
  const [headers, ...http] = all;
  expect(headers?.name).toBe('envoy.filters.http.header_mutation');
  const tcp = filters.get('inbound_tcp_0') ?? [];
  expect([http, tcp].map((some) => some.map(({ name }) => name))).toEqual([
    [`countersign.policy/${workload}`, 'envoy.filters.http.ext_authz', 'envoy.filters.http.router'],
    [
      `countersign.tcp-policy/${workload}`,
      'envoy.filters.network.ext_authz',
      'envoy.filters.network.tcp_proxy',
    ],
  ]);
  const rules = [http, tcp].map(([, asks]) => asks?.typed_config?.['filter_enabled_metadata']);
  const unlessAllowed = { value: { string_match: { prefix: 'allow:' } }, invert: true };
  expect(rules).toEqual([
    { filter: 'envoy.filters.http.rbac', path: [{ key: 'enforced_effective_policy_id' }], ...unlessAllowed },
    { filter: 'envoy.filters.network.rbac', path: [{ key: 'shadow_effective_policy_id' }], ...unlessAllowed },
  ]);
  for (const [first] of [http, tcp]) {
    expect(readPolicyName(first?.name ?? '')?.id).toBe(workload);
    // Nothing passes before the first policy without a question, and the port does not wait for it.
    expect(first?.config_discovery).toMatchObject({
      apply_default_config_without_warming: true,
      default_config: {
        matcher: {
          on_no_match: { action: { typed_config: { name: 'ask:no_policy_yet', action: 'ALLOW' } } },
        },
      },
    });
  }
  // Nobody is asked about what is open to all, nor about what the workload itself sends.
  for (const name of ['inbound_tcp_1', 'outbound_0']) {
    expect(JSON.stringify(filters.get(name))).not.toMatch(/filters\.(http|network)\.(rbac|ext_authz)\.v3/);
  }
});

test('the proxy declares what it is given policies for', () => {
  const { made } = make({ decide: 'in-proxy' });
  const declared = made.node.metadata?.['countersign'] as { policy: unknown } | undefined;
  expect(policyServiceFor(nodeOf({ policy: declared?.policy ?? null })).serves).toBe('policy');
});

test.each(['', 'proxy', 'In-Proxy', 'agent '])('%j names nobody who decides', (decide) => {
  expect(() => make({ decide })).toThrow(expect.objectContaining({ code: 'config_invalid' }));
});

test.each([
  ['sds', { api_config_source: { api_type: 'GRPC' } }],
  ['delta-sds', { api_config_source: { api_type: 'DELTA_GRPC' } }],
  ['ads', { ads: {} }],
  ['delta-ads', { ads: {} }],
])('with %s the policy is asked for as certificates are', (xds, source) => {
  const { http } = make({ decide: 'in-proxy', xds });
  expect(http[1]?.config_discovery).toMatchObject({ config_source: source });
});
