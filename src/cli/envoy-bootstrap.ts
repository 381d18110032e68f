import { stringify } from 'yaml';
import type { SpiffeId } from '../spiffe/id.ts';
import { accessLog, inboundHttp, inboundTcp, outboundHttp, tcpProxy } from './envoy-bootstrap-http.ts';
import {
  type EnvoyBootstrapOptions,
  type EnvoyPlan,
  type HostPort,
  planEnvoy,
} from './envoy-bootstrap-options.ts';
import { policyMetadata } from './envoy-bootstrap-policy.ts';
import { reportCluster, reportLog, reports, tellCounters } from './envoy-bootstrap-report.ts';
import {
  adsConfig,
  authzCluster,
  downstreamTls,
  identityCluster,
  type Json,
  typed,
  upstreamTls,
} from './envoy-bootstrap-tls.ts';

/**
 * A complete Envoy 1.40 bootstrap for the sidecar of one workload: certificates over SDS, mTLS with SPIFFE IDs both
 * ways, a policy decision for each inbound request or TCP connection that fails closed, access logs as JSON and to the audit
 * log.
 * @param format YAML with a heading comment, or JSON
 * @throws MeshError `usage` or `config_invalid`, naming the option
 */
export function renderEnvoyBootstrap(
  options: EnvoyBootstrapOptions,
  format: 'yaml' | 'json' = 'yaml',
): string {
  const plan = planEnvoy(options);
  const bootstrap = buildBootstrap(plan);
  if (format === 'json') return `${JSON.stringify(bootstrap, null, 2)}\n`;
  const heading = `# Envoy 1.40 sidecar of ${plan.workload.text}, made by \`countersign envoy bootstrap\`.\n`;
  return heading + stringify(bootstrap, { aliasDuplicateObjects: false, lineWidth: 0 });
}

function buildBootstrap(plan: EnvoyPlan): Json {
  const { workload, inbound, socket } = plan;
  const ads = adsConfig(plan);
  const listeners: Json[] = [];
  const clusters: Json[] = [];
  if (inbound !== null) {
    const tls = downstreamTls(plan, ['h2', 'http/1.1']);
    listeners.push(listener(plan, 'inbound', inbound.listen, tls, [inboundHttp(plan, 'app')]));
    clusters.push(addressCluster('app', inbound.app, {}));
  }
  for (const [index, { listen, app, open }] of plan.inboundTcp.entries()) {
    const name = `inbound_tcp_${index}`;
    const cluster = `app_tcp_${index}`;
    const filters = open ? [tcpProxy(plan, name, cluster)] : inboundTcp(plan, name, cluster);
    listeners.push(listener(plan, name, listen, downstreamTls(plan, []), filters));
    clusters.push(addressCluster(cluster, app, {}));
  }
  for (const [index, { listen, peer, address }] of plan.outbound.entries()) {
    const name = `outbound_${index}`;
    listeners.push(listener(plan, name, listen, undefined, [outboundHttp(plan, name, name)]));
    clusters.push(addressCluster(name, address, outboundExtras(plan, peer)));
  }
  for (const [index, { listen, peer, address }] of plan.outboundTcp.entries()) {
    const name = `outbound_tcp_${index}`;
    listeners.push(listener(plan, name, listen, undefined, [tcpProxy(plan, name, name)]));
    clusters.push(addressCluster(name, address, { transport_socket: upstreamTls(plan, peer, []) }));
  }
  clusters.push(authorityCluster(identityCluster, socket, '1s'));
  // A connection, breakers and statistics of its own: a slow certificate never delays a decision.
  const decides = inbound !== null || plan.inboundTcp.some(({ open }) => !open);
  if (decides) clusters.push(authorityCluster(authzCluster, socket, '0.2s'));
  if (reports(plan)) clusters.push(authorityCluster(reportCluster, socket, '1s'));
  return {
    node: { id: plan.nodeId, cluster: workload.text, ...policyMetadata(plan) },
    ...(plan.admin === null ? {} : { admin: { address: adminAddress(plan.admin) } }),
    ...(ads === undefined ? {} : { dynamic_resources: { ads_config: ads } }),
    static_resources: { listeners, clusters },
    ...tellCounters(plan),
    overload_manager: connectionLimit,
  };
}

function listener(
  plan: EnvoyPlan,
  name: string,
  listen: HostPort,
  tls: Json | undefined,
  filters: readonly Json[],
): Json {
  return {
    name,
    address: socketAddress(listen),
    per_connection_buffer_limit_bytes: 32_768,
    // Who comes in over plain TCP is the workload itself: nobody's audit is about that.
    access_log: [
      accessLog(plan, name, 'connection'),
      ...(tls === undefined ? [] : reportLog(plan, name, 'connection')),
    ],
    filter_chains: [
      {
        ...(tls === undefined ? {} : { transport_socket_connect_timeout: '5s', transport_socket: tls }),
        filters,
      },
    ],
  };
}

function outboundExtras(plan: EnvoyPlan, peer: SpiffeId): Record<string, Json> {
  return {
    transport_socket: upstreamTls(plan, peer, ['h2']),
    typed_extension_protocol_options: http2Options({
      common_http_protocol_options: {
        idle_timeout: '300s',
        max_connection_duration: `${plan.maxConnectionSeconds}s`,
      },
      explicit_http_config: { http2_protocol_options: {} },
    }),
  };
}

/** SDS, ext_authz and access logs: plain HTTP/2 on the authority's Unix socket, whose other end knows us by our process. */
function authorityCluster(name: string, socket: string, connectTimeout: string): Json {
  return {
    name,
    type: 'STATIC',
    connect_timeout: connectTimeout,
    circuit_breakers: { thresholds: [{ max_requests: 4_096, max_pending_requests: 1_024 }] },
    typed_extension_protocol_options: http2Options({
      explicit_http_config: {
        http2_protocol_options: { connection_keepalive: { interval: '30s', timeout: '5s' } },
      },
    }),
    load_assignment: endpoint(name, { pipe: { path: socket } }),
  };
}

function addressCluster(name: string, address: HostPort, extras: Record<string, Json>): Json {
  return {
    name,
    type: 'STATIC',
    connect_timeout: '2s',
    ...extras,
    load_assignment: endpoint(name, socketAddress(address)),
  };
}

function endpoint(cluster: string, address: Json): Json {
  return { cluster_name: cluster, endpoints: [{ lb_endpoints: [{ endpoint: { address } }] }] };
}

function http2Options(config: Record<string, Json>): Json {
  const name = 'extensions.upstreams.http.v3.HttpProtocolOptions';
  return { [`envoy.${name}`]: typed(name, config) };
}

function adminAddress(admin: NonNullable<EnvoyPlan['admin']>): Json {
  return 'path' in admin ? { pipe: { path: admin.path, mode: ownerOnly } } : socketAddress(admin);
}

function socketAddress({ host, port }: HostPort): Json {
  return { socket_address: { address: host, port_value: port } };
}

const ownerOnly = 0o600;

const connectionLimit: Json = {
  resource_monitors: [
    {
      name: 'envoy.resource_monitors.global_downstream_max_connections',
      typed_config: typed(
        'extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig',
        {
          max_active_downstream_connections: 10_000,
        },
      ),
    },
  ],
};
