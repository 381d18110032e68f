import { foreignHeaderPatterns } from '../ext-authz/foreign-header.ts';
import type { EnvoyPlan } from './envoy-bootstrap-options.ts';
import { apiConfig, type Json, typed } from './envoy-bootstrap-tls.ts';

/**
 * The filter that decides what the policy delivered to it decides, before the agent is asked. Until the first delivery,
 * and again when nothing has been heard of it for too long, it asks about every call.
 */
export function policyFilter(plan: EnvoyPlan, filter: 'http' | 'tcp'): readonly Json[] {
  if (plan.decide !== 'in-proxy') return [];
  const kind = filter === 'http' ? 'http' : 'network';
  const name = `extensions.filters.${kind}.rbac.v3.RBAC`;
  const stem = filter === 'http' ? 'countersign.policy' : 'countersign.tcp-policy';
  return [
    {
      // The name of the filter is that of the resource.
      name: `${stem}/${plan.workload.text}`,
      config_discovery: {
        type_urls: [`type.googleapis.com/envoy.${name}`],
        default_config: typed(name, {
          ...(filter === 'http' ? {} : { stat_prefix: tcpStatPrefix }),
          matcher: { on_no_match: { action: askAlways } },
        }),
        // The port opens without waiting for a policy: the agent decides as it does without this filter.
        apply_default_config_without_warming: true,
        config_source: {
          resource_api_version: 'V3',
          ...(plan.xds.isAggregated ? { ads: {} } : { api_config_source: apiConfig(plan.xds) }),
        },
      },
    },
  ];
}

/**
 * Takes from callers the headers that only the mesh may set. The agent has them removed where it is asked; what the proxy
 * allows by itself does not come to it.
 */
export function foreignHeaders({ decide }: EnvoyPlan): readonly Json[] {
  if (decide !== 'in-proxy') return [];
  return [
    {
      name: 'envoy.filters.http.header_mutation',
      typed_config: typed('extensions.filters.http.header_mutation.v3.HeaderMutation', {
        mutations: {
          request_mutations: foreignHeaderPatterns.map((regex) => ({
            remove_on_match: { key_matcher: { safe_regex: { regex } } },
          })),
        },
      }),
    },
  ];
}

/** What keeps the agent from being asked about a call: the filter before it has allowed it, by name. */
export function askUnlessAllowed({ decide }: EnvoyPlan, filter: 'http' | 'tcp'): Record<string, Json> {
  if (decide !== 'in-proxy') return {};
  return {
    filter_enabled_metadata: {
      filter: verdicts[filter].namespace,
      path: [{ key: verdicts[filter].key }],
      value: { string_match: { prefix: 'allow:' } },
      // INVARIANT: whatever the filter did not allow by name is asked about: also when it says nothing, or is not there.
      invert: true,
    },
  };
}

/** What a proxy declares of itself to be given policies; read in src/xds/policy-capability.ts. */
export function policyMetadata({ decide }: EnvoyPlan): Record<string, Json> {
  return decide === 'in-proxy' ? { metadata: { countersign: { policy: ['ask-v1', 'matcher-v1'] } } } : {};
}

/** Where the filter leaves what it decided, and by what rule. */
export const verdictField = '%DYNAMIC_METADATA(envoy.filters.http.rbac:enforced_effective_policy_id)%';

const verdicts = {
  http: { namespace: 'envoy.filters.http.rbac', key: 'enforced_effective_policy_id' },
  // The filter of connections tells what it decided for its shadow policy only, which is the same as the one in force.
  tcp: { namespace: 'envoy.filters.network.rbac', key: 'shadow_effective_policy_id' },
} as const;
const tcpStatPrefix = 'countersign_tcp';
const askAlways: Json = {
  name: 'ask',
  typed_config: {
    '@type': 'type.googleapis.com/envoy.config.rbac.v3.Action',
    name: 'ask:no_policy_yet',
    action: 'ALLOW',
  },
};
